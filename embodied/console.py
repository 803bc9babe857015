"""Standard output and error of a run that outlives its terminal.

A pipe whose reader is gone, a full disk, a terminal that hung up or was paused with Ctrl-S: none of
them may end a run or hold it up. What cannot be shown is dropped; events.log has what matters.
"""

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

PATIENCE = 1000  # ms that a reader who does not read is waited for, once
# characters at a time: a pipe that is ready takes 4,096 bytes at once
PIECE = 1000
GONE = (errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ECONNRESET)


class SteadyStream:
    """A text stream that never raises and never blocks for long; all else is the stream's own."""

    def __init__(self, stream: TextIO | None, patience: int | None = PATIENCE):
        """Args: the stream, or None where the process was started without one; ms that a reader who
        does not read is waited for, None for ever."""
        self._stream = stream._stream if isinstance(stream, SteadyStream) else stream
        self._patience = self._wait = patience

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Show text, as far as that is possible now. Returns the length of all of it."""
        with self._tolerant():
            for begin in range(0, len(text), PIECE):
                if not self._ready():
                    break
                self._put(text[begin : begin + PIECE])
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """write() for each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is kept back, so that nothing is left to fail at the end of the process."""

    def isatty(self) -> bool:
        """Whether it is a terminal, and still there."""
        with self._tolerant():
            return self._stream is not None and self._stream.isatty()
        return False

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a file name that is no text, or a terminal of a small alphabet
            encoding = self._stream.encoding or 'ascii'
            self._stream.write(text.encode(encoding, 'backslashreplace').decode(encoding))
        self._stream.flush()

    def _ready(self) -> bool:
        """Whether the reader takes more; after one that did not, nobody is waited for any more."""
        if self._stream is None:
            return False
        descriptor = _descriptor(self._stream)
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        ready = bool(poll.poll(self._wait))
        self._wait = self._patience if ready else 0
        return ready

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in GONE:
                _discard(self._stream)
        except ValueError:  # somebody has closed it
            pass


@contextlib.contextmanager
def steady(patience: int | None = PATIENCE) -> Iterator[None]:
    """A context in which standard output and error cannot end the process.

    Args:
      patience: ms that a reader who does not read is waited for; None is right where every line
        matters and nothing else waits.
    """
    occupy()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (SteadyStream(stream, patience) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            _settle(stream)


def keep_steady() -> None:
    """Make standard output and error of this process steady for good."""
    occupy()
    sys.stdout, sys.stderr = SteadyStream(sys.stdout), SteadyStream(sys.stderr)


def occupy() -> None:
    """See to it that descriptors 0 to 2 are open. In a process started without them the next files
    get these numbers, and whatever a library prints is written into those."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                if (opened := os.open(os.devnull, os.O_RDWR)) != number:
                    os.dup2(opened, number)
                    os.close(opened)


def shout(text: str) -> None:
    """Write to standard error from a signal handler: at once or not at all."""
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with contextlib.suppress(OSError):
        if poll.poll(0):
            os.write(2, text.encode())


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody may be looking at a stream, on a terminal that can draw over a line."""
    return os.environ.get('TERM') != 'dumb' and SteadyStream(stream).isatty()


def _settle(stream: TextIO | None) -> None:
    """What waits in a stream that cannot take it would fail the process at its very end."""
    if stream is None or isinstance(stream, SteadyStream):
        return
    try:
        stream.flush()
    except OSError:
        _discard(stream)
    except ValueError:
        pass


def _discard(stream: TextIO | None) -> None:
    """Lead a stream that nobody reads to /dev/null, so that child processes do not trip over it."""
    descriptor = None if stream is None else _descriptor(stream)
    if descriptor is None:
        return
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        stream.flush()


def _descriptor(stream: TextIO) -> int | None:
    """The file descriptor behind a stream, None where there is none: a stream of a test, say."""
    try:
        return stream.fileno()
    except (AttributeError, io.UnsupportedOperation, ValueError):
        return None
