"""What envs print: the first lines are told as events, all of them go to a file of bounded size. A
simulator that writes a line at every step floods no terminal and tears no line that lives.
"""

import contextlib
import logging
import logging.handlers
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

FILE = 'printed.log'
TOLD = 20  # lines that are told one by one, of all envs of a driver
LONGEST = 1000  # characters of a line; what is longer is cut into several
LIMIT = 1.0  # seconds that the last words of processes that have ended may take
FILE_BYTES = 2_000_000  # after which the file begins anew, beside the one before


class Printed:
    """Lines that the envs of one driver print, from any thread; told by the one that steps them."""

    def __init__(self, on_event: Callable[[str], None], folder: Path | None):
        """Args: who is told; where the file is written, None for nowhere."""
        self._on_event, self._lines, self._count = on_event, deque(maxlen=TOLD), 0
        self._path = None if folder is None else folder / FILE
        self._file, self._lock, self._hinted = None, threading.Lock(), False
        self._ears = []

    def add(self, who: str, line: str) -> None:
        """An env has printed a line."""
        line = line.rstrip()
        if not line:
            return
        with self._lock:
            self._count += 1
            if self._count <= TOLD:
                self._lines.append(f'{who} prints: {line}')
            self._write(f'{who}: {line}')

    def tell(self) -> None:
        """Tell what there is to be told."""
        while self._lines:
            self._on_event(self._lines.popleft())
        if self._count > TOLD and not self._hinted:
            self._hinted = True
            where = 'shown nowhere' if self._path is None else f'in {self._path}'
            self._on_event(f'envs print more than {TOLD} lines; the others are {where}')

    def close(self) -> None:
        """Tell the rest, once the envs have ended, and close the file. May be called more than
        once.
        """
        for ear in self._ears:
            self.hear(ear)
        self.tell()
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = self._path = None

    def reader(self, who: str, descriptor: int) -> threading.Thread:
        """A thread that takes lines from a pipe until nobody is left who writes to it."""

        def read():
            with open(descriptor, errors='replace') as pipe:
                for line in iter(lambda: pipe.readline(LONGEST), ''):
                    self.add(who, line)

        thread = threading.Thread(target=read, name='env-output', daemon=True)
        thread.start()
        self._ears = [*(ear for ear in self._ears if ear.is_alive()), thread]
        return thread

    def hear(self, reader: threading.Thread | None) -> None:
        """Tell what a worker and its processes have printed, which have ended."""
        if reader is not None:
            reader.join(LIMIT)
        self.tell()

    @contextlib.contextmanager
    def taken(self, who: str) -> Iterator[None]:
        """A context in which what this thread prints is of an env."""
        streams = [Lines(lambda line: self.add(who, line), s) for s in (sys.stdout, sys.stderr)]
        try:
            with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
                yield
        finally:
            for stream in streams:
                stream.end()

    def _write(self, line: str) -> None:
        if self._path is None:
            return
        if self._file is None:
            self._file = logging.handlers.RotatingFileHandler(
                self._path, maxBytes=FILE_BYTES, backupCount=1, encoding='utf8', delay=True
            )
            self._file.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
            self._file.handleError = lambda record: None  # a disk that is full ends no run
        record = logging.LogRecord('env', logging.INFO, '', 0, line, None, None)
        self._file.emit(record)


class Lines:
    """A text stream that hands over whole lines of the thread that made it; what other threads
    write, and what an env shows that is being debugged, goes to the stream in whose place it is.
    """

    def __init__(self, put: Callable[[str], None], stream: TextIO):
        self._put, self._stream, self._rest = put, stream, ''
        self._owner = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Take text; a line without an end waits for it."""
        if self._passes or sys.gettrace() is not None:
            return self._stream.write(text)
        *lines, self._rest = (self._rest + text).replace('\r', '\n').split('\n')
        while len(self._rest) > LONGEST:
            lines.append(self._rest[:LONGEST])
            self._rest = self._rest[LONGEST:]
        for line in lines:
            self._put(line)
        return len(text)

    @property
    def _passes(self) -> bool:
        return threading.get_ident() != self._owner

    def writelines(self, lines: list[str]) -> None:
        """write() for each."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Of the stream; what is no whole line yet is kept."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Of the stream, for others than its thread: lines draw over nothing."""
        return self._passes and self._stream.isatty()

    def end(self) -> None:
        """Hand over what is left, as a line."""
        rest, self._rest = self._rest, ''
        if rest:
            self._put(rest)
