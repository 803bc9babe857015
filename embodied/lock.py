"""One writer per folder: a lock that the system gives back when its process ends, however it
ends.
"""

import fcntl
import os
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .errors import FolderInUse
from .files import claim

FILENAME = 'lock'


class FolderLock:
    """Held from its making until close() or the end of the process, kill -9 included. File systems
    without locks are left unlocked.

    Args:
      folder: made if it does not exist; holds a file 'lock' from then on.
      on_event: receives a text where something else had that name.

    Raises:
      FolderInUse: another process holds the lock; names the folder and, where it is known, the
          process.
    """

    def __init__(self, folder: Path, on_event: Callable[[str], None] = print):
        folder.mkdir(parents=True, exist_ok=True)
        claim(folder / FILENAME, on_event)
        self._file = open(folder / FILENAME, 'a+')
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read(20).strip() or 'unknown'
            self._file.close()
            raise FolderInUse(
                f'{folder} is in use by another run (process {owner}), and two would overwrite each'
                ' other; end that one or choose another folder'
            ) from None
        except OSError:
            pass
        self._file.truncate(0)
        self._file.write(f'{os.getpid()}\n')
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class SharedLock:
    """A FolderLock of the whole process: whoever in it writes to the folder has a part in it, and
    the last one to close gives it back.

    close() may run as a finaliser, at any line of any thread, also while that very thread takes
    part in another lock. So it never waits: what it cannot do at once, whoever has the turn does.

    Args, Raises: as FolderLock.
    """

    _held: dict[tuple[int, str], tuple[FolderLock, int]] = {}  # (process, folder) -> lock, holders
    _leaving: deque[tuple[int, str]] = deque()  # parts given back and still counted
    _turn = threading.Lock()

    def __init__(self, folder: Path, on_event: Callable[[str], None] = print):
        try:
            with self._turn:
                self._key = os.getpid(), os.path.realpath(folder)  # a fork has its own
                lock, holders = self._held.get(self._key) or (FolderLock(folder, on_event), 0)
                self._held[self._key] = lock, holders + 1
        finally:
            self._settle()

    def close(self) -> None:
        """Give this part back; to be called once."""
        self._leaving.append(self._key)
        self._settle()

    @classmethod
    def _settle(cls) -> None:
        """Count the parts that were given back, unless somebody has the turn, who will."""
        while cls._leaving and cls._turn.acquire(blocking=False):
            try:
                while cls._leaving:
                    cls._leave(cls._leaving.popleft())
            finally:
                cls._turn.release()

    @classmethod
    def _leave(cls, key: tuple[int, str]) -> None:
        lock, holders = cls._held.pop(key)
        if holders > 1:
            cls._held[key] = lock, holders - 1
        else:
            lock.close()
