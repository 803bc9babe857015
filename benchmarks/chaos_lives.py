"""The lives of a process that benchmarks/chaos.py breaks: what its output leads to, how many
descriptors it may open, how it ends, and which processes outlive it.
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .learning import ROOT

# What standard output and error of a life lead to.
OUTPUTS = ('file', 'broken pipe', 'full disk', 'closed')
# How a life ends: SIGKILL to its process group, SIGKILL to the main process alone, SIGHUP.
ENDINGS = ('kill group', 'kill main', 'hang up')
DESCRIPTORS = 128  # allowed in every process; the run itself holds about 50
GOODBYE = 120.0  # seconds for a run to save and end after SIGHUP
DEATH = 30.0  # seconds for workers and their children to follow a killed run


VARIABLE = 'CHAOS_LIFE'  # its value tells the processes of one life from all others


def start(command: list[str], output: str, log: Path, token: str) -> subprocess.Popen:
    """Start a run in a session of its own, with few descriptors.

    Args:
        command: the program and its arguments.
        output: one of OUTPUTS.
        log: the file for output 'file'; it is written anew.
        token: the value of VARIABLE, for it and all processes that it starts.
    """
    with _stream(output, log) as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, VARIABLE: token},
            preexec_fn=_limits(output == 'closed'),
        )


def end(process: subprocess.Popen, ending: str) -> str:
    """End a life; returns what is wrong with how it ended, '' for nothing."""
    if process.poll() is not None:
        return f'the run ended by itself with {process.returncode}'
    if ending == 'hang up':
        process.send_signal(signal.SIGHUP)
        try:
            status = process.wait(GOODBYE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f'the run did not end within {GOODBYE:.0f} s of SIGHUP'
        # before main() listens, SIGHUP ends Python as it ends any program
        return '' if status in (0, -signal.SIGHUP) else f'SIGHUP ended the run with {status}'
    if ending == 'kill group':
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    return ''


def left(token: str) -> list[int]:
    """Processes of a life that are still there after as long as they may take to end; they are
    killed.
    """
    deadline = time.monotonic() + DEATH
    while (found := list(_holders(token))) and time.monotonic() < deadline:
        time.sleep(0.2)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def child() -> subprocess.Popen:
    """A process such as simulators start: in a session of its own, deaf to SIGHUP and SIGTERM,
    busy for a day.
    """
    deaf = (
        'import signal, time; [signal.signal(s, signal.SIG_IGN) for s in (1, 15)];'
        ' time.sleep(86400)'
    )
    return subprocess.Popen(
        [sys.executable, '-S', '-c', deaf],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _holders(token: str) -> Iterator[int]:
    for folder in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):
            mark = f'{VARIABLE}={token}'.encode()
            if mark in (folder / 'environ').read_bytes().split(b'\0') and _lives(folder):
                yield int(folder.name)


def _lives(folder: Path) -> bool:
    return (folder / 'stat').read_text().rpartition(')')[2].split()[0] != 'Z'


@contextmanager
def _stream(output: str, log: Path) -> Iterator[int]:
    """A descriptor for the output of a life."""
    if output == 'broken pipe':
        reader, writer = os.pipe()
        os.close(reader)
    elif output == 'full disk':
        writer = os.open('/dev/full', os.O_WRONLY)
    else:
        writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        yield writer
    finally:
        os.close(writer)


def _limits(closed: bool) -> Callable[[], None]:
    """What a life does before its program begins."""

    def apply():
        # under nohup it would be ignored, and runs heed that: every hang up would be no end
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        if closed:
            os.closerange(0, 3)

    return apply
