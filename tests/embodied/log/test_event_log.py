"""events.log: what was said is there, whatever happened to the disk, the folder and the names in
it.
"""

import os

import pytest

from embodied.files import printable
from embodied.log.event_log import EventLog


def lines(path):
    return [line.partition(' ')[2] for line in path.read_text().splitlines()]


def test_every_text_is_a_line_with_its_time(tmp_path):
    log = EventLog(tmp_path / 'events.log')
    log.add('one')
    log.close()
    again = EventLog(tmp_path / 'events.log')
    again.add('a name: \udcff')
    assert lines(tmp_path / 'events.log') == ['one', 'a name: \\udcff']


def test_lines_wait_for_a_disk_and_none_is_lost(tmp_path, monkeypatch):
    log, working = EventLog(tmp_path / 'events.log'), os.write
    log.add('first')

    def full(descriptor, data):
        if len(data) > 5:
            return working(descriptor, data[:5])
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'write', full)
    log.add('second')
    log.add('third')
    monkeypatch.undo()
    log.add('fourth')
    assert lines(tmp_path / 'events.log') == ['first', 'second', 'third', 'fourth']


def test_it_needs_no_further_descriptor(tmp_path, monkeypatch):
    log = EventLog(tmp_path / 'events.log')

    def refuse(*_, **__):
        raise OSError(24, 'Too many open files')

    monkeypatch.setattr(os, 'open', refuse)
    log.add('descriptors have run out')
    assert lines(tmp_path / 'events.log') == ['descriptors have run out']


def test_a_deleted_file_is_made_again(tmp_path):
    log = EventLog(tmp_path / 'run' / 'events.log')
    log.add('one')
    (tmp_path / 'run' / 'events.log').unlink()
    (tmp_path / 'run').rmdir()
    log.add('two')
    assert lines(tmp_path / 'run' / 'events.log') == ['two']


@pytest.mark.parametrize(
    'make, what',
    [
        (os.mkfifo, 'a pipe'),
        (os.mkdir, 'a folder'),
        (lambda path: os.symlink('/nowhere/x', path), 'a link that cannot be followed'),
        (lambda path: os.symlink(path, path), 'a link that cannot be followed'),
    ],
)
def test_what_is_no_file_is_set_aside_with_a_word(tmp_path, make, what):
    make(tmp_path / 'events.log')
    EventLog(tmp_path / 'events.log').add('goes on')
    first, second = lines(tmp_path / 'events.log')
    assert f'was {what}' in first and 'events.log.aside now' in first and second == 'goes on'
    assert os.path.lexists(tmp_path / 'events.log.aside')


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / 'real').touch()
    (tmp_path / 'events.log').symlink_to('real')
    EventLog(tmp_path / 'events.log').add('here')
    assert lines(tmp_path / 'real') == ['here']


def test_a_printable_name_neither_breaks_lines_nor_drives_a_terminal():
    assert printable('a\n\x1b[2J\udcffé.npz') == 'a\\n\\x1b[2J\\udcffé.npz'
