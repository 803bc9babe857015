"""Ends the processes that envs have started (simulators, servers) when the run that made the envs
is gone, however it went: kill -9 leaves a run no last word, so another process watches it.

Such processes are known by a mark in their environment, which children inherit, also those that
left their process group or whose parents have ended. One that clears its environment, or that
runs where /proc is not, is found only if it stayed in the process group of its worker.

This file is also the program of the watching process, so it imports nothing but the standard
library:  python reaper.py MARK PARENT < PIPE
"""

import argparse
import contextlib
import os
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping

VARIABLE = 'EMBODIED_RUN'
ROUNDS, PAUSE = 200, 0.05  # processes are looked for so often, and so many seconds lie between
QUIET = 3  # looks without a find after which nobody is left

_lock = threading.Lock()
_marks: dict[int, str] = {}  # process id -> mark; a fork of this process has one of its own
_count = 0


def mark() -> str:
    """A mark for the processes of one env worker; from the first call on, this process is
    watched.
    """
    global _count
    with _lock:
        if os.getpid() not in _marks:
            _marks[os.getpid()] = secrets.token_hex(16)
            _watch(_marks[os.getpid()])
        _count += 1
        return f'{_marks[os.getpid()]}.{_count};'


def marked(name: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variable that gives a process a mark, beside those it has: runs may be nested."""
    return {VARIABLE: environ.get(VARIABLE, '') + name}


@contextlib.contextmanager
def marking(name: str) -> Iterator[None]:
    """A context in which processes that this one starts have a mark."""
    before = os.environ.get(VARIABLE)
    os.environ.update(marked(name, os.environ))
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def end(*names: str) -> int:
    """Kill the processes that have one of the marks; returns how many there were."""
    found = 0
    for pid in _others() if names else ():
        try:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                content = file.read()
        except OSError:  # it has just ended, or is none of ours
            continue
        if any(name.encode() in content for name in names):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                found += 1
    return found


def _others() -> list[int]:
    try:
        return [
            int(name) for name in os.listdir('/proc') if name.isdigit() and int(name) != os.getpid()
        ]
    except OSError:
        return []


def _watch(name: str) -> None:
    """Start the watching process. Its end of a pipe tells it when this process has ended."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # it is only for the worst
        theirs, ours = os.pipe()
        stack.callback(os.close, ours)
        actions = [(os.POSIX_SPAWN_DUP2, theirs, 0)]
        actions += [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        try:
            command = [sys.executable, '-I', '-S', __file__, name, str(os.getpid())]
            os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
        finally:
            os.close(theirs)
        stack.pop_all()  # ours stays open until this process ends


def _main(name: str, parent: int) -> None:
    """Wait for the end of `parent`, then end what has the mark."""
    os.setsid()
    os.chdir('/')
    os.closerange(3, 1024)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ended = select.poll()
    ended.register(0, 0)  # the hang-up that poll always reports
    with contextlib.suppress(AttributeError, OSError):  # also where a fork still holds the pipe
        ended.register(os.pidfd_open(parent), select.POLLIN)
    ended.poll()
    quiet = 0
    for _ in range(ROUNDS):
        quiet = 0 if end(name) else quiet + 1
        if quiet == QUIET:
            return
        time.sleep(PAUSE)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('mark', help='of the processes to end')
    parser.add_argument('parent', type=int, help='process whose end is waited for')
    args = parser.parse_args()
    _main(args.mark, args.parent)
