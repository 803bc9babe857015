"""One writer per folder: another process is refused by name, this one shares, and the end of a
process gives it back.
"""

import os
import subprocess
import sys

import pytest

from embodied.errors import FolderInUse
from embodied.lock import FolderLock, SharedLock

HOLD = """
import sys
from pathlib import Path
from embodied import lock
held = getattr(lock, sys.argv[1])(Path(sys.argv[2]))
print('held', flush=True)
sys.stdin.read()
"""


def holder(kind, folder):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, kind, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'held\n'
    return process


@pytest.mark.parametrize('kind', ['FolderLock', 'SharedLock'])
def test_another_process_is_refused_by_its_number_until_it_is_killed(tmp_path, kind):
    process = holder(kind, tmp_path)
    for make in (FolderLock, SharedLock):
        with pytest.raises(
            FolderInUse, match=f'{tmp_path} is in use by another run .process {process.pid}'
        ):
            make(tmp_path)
    process.kill()
    process.communicate()
    SharedLock(tmp_path).close()


def test_the_last_holder_in_a_process_gives_a_shared_lock_back(tmp_path):
    first, second = SharedLock(tmp_path), SharedLock(tmp_path)
    first.close()
    done = subprocess.run(
        [sys.executable, '-c', HOLD, 'SharedLock', str(tmp_path)],
        capture_output=True,
        text=True,
        input='',
    )
    assert 'FolderInUse' in done.stderr
    second.close()
    process = holder('SharedLock', tmp_path)
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize(
    'make', [os.mkdir, os.mkfifo, lambda path: os.symlink('/nowhere/else', path)]
)
def test_what_is_no_lock_file_is_set_aside_with_a_word(tmp_path, make):
    make(tmp_path / 'lock')
    told = []
    FolderLock(tmp_path, told.append).close()
    assert (tmp_path / 'lock').is_file() and 'lock.aside now' in told[0]
