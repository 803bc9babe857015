"""Standard output and error that cannot end a process: gone, full, paused, closed, never there."""

import io
import os
import subprocess
import sys

import pytest

from embodied.console import SteadyStream, is_terminal, steady

PROGRAM = """
import os, subprocess, sys
from embodied.console import steady
with steady():
    for number in range(3):
        print('x' * 200_000, flush=True)
        print('y' * 200_000, file=sys.stderr)
    if 'child' in sys.argv:
        subprocess.run([sys.executable, '-c', 'print(1)'], check=True)
    sys.stdout.write('last')
os.write(int(sys.argv[1]), b'went on')
"""


def outcome(stdout, stderr, *flags):
    """(exit status, whether the program came to its end) with such an output."""
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, str(write), *flags],
        stdout=stdout,
        stderr=stderr,
        pass_fds=[write],
    )
    os.close(write)
    with open(read) as file:
        text = file.read()
    return process.wait(600), text == 'went on'


def test_a_reader_that_has_gone_ends_nothing_and_no_child_process_either():
    read, write = os.pipe()
    os.close(read)
    assert outcome(write, write, 'child') == (0, True)
    os.close(write)


def test_a_full_disk_behind_the_output_ends_nothing():
    with open('/dev/full', 'w') as full:
        assert outcome(full, full) == (0, True)


def test_a_reader_that_does_not_read_is_not_waited_for():
    read, write = os.pipe()
    assert outcome(write, write) == (0, True)
    os.close(write)
    with open(read) as file:
        assert 'x' * 4000 in file.read()
    # a pseudo terminal holds some kilobytes, then it is as if Ctrl-S were pressed
    tty, terminal = os.openpty()
    assert outcome(terminal, terminal) == (0, True)
    os.close(tty)
    os.close(terminal)


def test_a_terminal_that_hung_up_ends_nothing_and_is_none_any_more(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    master, terminal = os.openpty()
    with open(terminal, 'w') as stream:
        assert is_terminal(stream)
        monkeypatch.setenv('TERM', 'dumb')  # as of an editor: it would show the codes
        assert not is_terminal(stream)
        os.close(master)
        assert outcome(stream, stream) == (0, True)
        steadied = SteadyStream(stream)
        steadied.write('x')
        assert not steadied.isatty()


def test_without_standard_descriptors_no_file_takes_their_place(tmp_path):
    program = (
        'import os, sys\nfrom embodied.console import steady\nwith steady():\n    print("a");'
        ' print("b", file=sys.stderr); assert not sys.stdout.isatty()\nfile = open(sys.argv[1],'
        ' "w")\nos.system("echo from a child")\nfile.write(str(file.fileno() > 2)); file.close()'
    )
    closed = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ['sh', '-c', closed, '-', sys.executable, '-c', program, str(tmp_path / 'x')], timeout=600
    )
    assert done.returncode == 0 and (tmp_path / 'x').read_text() == 'True'


def test_what_a_stream_has_no_letters_for_is_shown_in_ascii():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding='ascii')
    SteadyStream(stream).write('caf\xe9 \udcff!')
    assert raw.getvalue() == b'caf\\xe9 \\udcff!'


@pytest.mark.parametrize('stream', [None, 'closed'])
def test_no_stream_and_a_closed_one_take_everything(stream, monkeypatch):
    if stream == 'closed':
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, 'stdout', stream)
    with steady():
        print('to nobody', flush=True)
        sys.stdout.writelines(['a', 'b'])
        assert not sys.stdout.isatty() and not is_terminal(stream)
    assert sys.stdout is stream


def test_where_nothing_else_waits_a_slow_reader_gets_every_line():
    program = (
        'from embodied.console import steady\nwith steady(patience=None): print("x" * 300_000)'
    )
    process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    assert len(process.communicate(timeout=600)[0]) == 300_001 and process.returncode == 0
