"""One writer per folder: another process is refused by name, this one shares, and the end of a
process gives it back.
"""

import os
import subprocess
import sys
import threading

import pytest

from embodied import lock as locks
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


def test_a_part_given_back_while_another_is_taken_does_not_wait_for_itself(
    tmp_path, monkeypatch, wait_until
):
    """As when garbage collection ends a replay in the middle of opening the next one."""
    old, done = SharedLock(tmp_path / 'old'), threading.Event()
    claim = locks.claim
    monkeypatch.setattr(locks, 'claim', lambda *args: (old.close(), claim(*args)))

    def take():
        SharedLock(tmp_path / 'new')
        done.set()

    threading.Thread(target=take, daemon=True).start()
    wait_until(done.is_set)
    process = holder('SharedLock', tmp_path / 'old')
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
