"""events.log: everything that a person should have read, also where nobody watched the terminal."""

import contextlib
import os
from collections import deque
from datetime import datetime
from pathlib import Path

from ..files import claim

MAX_WAITING = 1000  # lines that wait for a disk


class EventLog:
    """A file of one text per line, each with its time.

    The descriptor is held: a run that has run out of descriptors can still say so. Lines that
    cannot be written wait, and are written before the next one.
    """

    def __init__(self, path: Path):
        """Args: the file; what stands there and is no file is set aside, and said in the log."""
        self._path, self._waiting, self._descriptor = path, deque(maxlen=MAX_WAITING), None
        claim(path, self.add)
        self.add('')

    def add(self, text: str) -> None:
        """Write a text down, as soon as that is possible; an empty one only what waits."""
        if text:
            time = datetime.now().isoformat(timespec='seconds')
            self._waiting.append(f'{time} {text}\n'.encode(errors='backslashreplace'))
        with contextlib.suppress(OSError):
            self._open()
            while self._waiting:
                line = self._waiting[0]
                written = os.write(self._descriptor, line)
                if written == len(line):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = line[written:]

    def close(self) -> None:
        """Give the descriptor back. May be called more than once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        """Open the file, again where somebody has deleted it."""
        if self._descriptor is not None:
            if os.fstat(self._descriptor).st_nlink:
                return
            self.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        self._descriptor = os.open(self._path, flags, 0o666)
