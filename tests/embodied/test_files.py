"""Files that appear whole or not at all, and the one place that makes them."""

import os
from pathlib import Path

import pytest

from embodied.files import whole

ROOT = Path(__file__).parents[2]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen, sync = [], os.fsync
    there = lambda: sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.setattr(os, 'fsync', lambda handle: (seen.append(there()), sync(handle)))
    with whole(tmp_path / 'name') as file:
        file.write(b'all of it')
    assert seen == [['.name.tmp'], ['name']], 'the file first, then the folder that names it'
    assert (tmp_path / 'name').read_bytes() == b'all of it'


@pytest.mark.parametrize('broken', ['fsync', 'replace'])
def test_a_file_that_cannot_be_finished_leaves_what_was_there(tmp_path, monkeypatch, broken):
    (tmp_path / 'name').write_bytes(b'before')

    def fail(*_):
        raise OSError('no')

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match='no'), whole(tmp_path / 'name') as file:
        file.write(b'half')
    assert [path.name for path in tmp_path.iterdir()] == ['name']
    assert (tmp_path / 'name').read_bytes() == b'before'


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    (tmp_path / 'name').write_bytes(b'before')
    with pytest.raises(ValueError), whole(tmp_path / 'name') as file:
        file.write(b'half')
        raise ValueError
    assert [path.name for path in tmp_path.iterdir()] == ['name']
    assert (tmp_path / 'name').read_bytes() == b'before'


def test_nobody_else_syncs_files_by_hand():
    """A save is a folder, whose files get their names by that of the folder."""
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.glob('embodied/**/*.py')
        if 'os.fsync' in path.read_text()
    }
    assert found <= {'embodied/files.py', 'embodied/save.py'}
