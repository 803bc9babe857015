"""The thread that brings full chunks to disk. A chunk that cannot be written stays in memory and
is tried again.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import ReplayWriteError
from .chunk import Chunk

RETRY = 5.0  # seconds between attempts while writing fails


class Writer:
    """Writes chunks in the order they are submitted.

    All methods must be called with `lock` held; it is released while a file is written and while a
    method waits. The thread is a daemon: whoever ends without close() loses what waits, as in a
    crash.

    Attributes:
      failures: attempts that failed so far.
      error: the last failure, None once writing works again.
    """

    def __init__(
        self,
        directory: Path,
        lock: threading.Condition,
        landed: Callable[[Chunk], None],
        on_event: Callable[[str], None],
    ):
        """`landed(chunk)` is called, with the lock held, when the file of a chunk is on disk."""
        self._directory, self._lock, self._landed, self._on_event = (
            directory,
            lock,
            landed,
            on_event,
        )
        self._waiting: dict[Chunk, None] = {}
        self._thread, self._closed, self._retry_at = None, False, 0.0
        self.failures, self.error = 0, None

    @property
    def waiting(self) -> int:
        """Chunks that are not on disk yet."""
        return len(self._waiting)

    def submit(self, chunk: Chunk) -> None:
        """Have a closed chunk written."""
        self._waiting[chunk] = None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name='replay-writer', daemon=True)
            self._thread.start()
        self._lock.notify_all()

    def cancel(self, chunk: Chunk) -> None:
        """Forget a chunk; if its file is just being written, landed() is called all the same."""
        self._waiting.pop(chunk, None)

    def wait_for_room(self) -> bool:
        """Wait until one more chunk has landed; False at once where none is coming, because none
        waits or writing fails.
        """
        before = len(self._waiting)
        self._lock.wait_for(lambda: self.error or len(self._waiting) < before or not before)
        return bool(before and not self.error)

    def flush(self) -> None:
        """Wait until all chunks are on disk; where writing failed, that is tried again at once.

        Raises:
          ReplayWriteError: an attempt failed; the chunks stay in memory and are tried again later.
        """
        failures, self._retry_at = self.failures, 0.0
        self._lock.notify_all()
        self._lock.wait_for(lambda: not self._waiting or self.failures > failures)
        if self._waiting:
            raise ReplayWriteError(
                f'{self._directory}: {len(self._waiting)} chunks of the replay cannot be written:'
                f' {self.error}. Their rows are kept in memory; writing is tried again.'
            ) from self.error

    def close(self) -> None:
        """End the thread without writing what still waits; call flush() before."""
        self._closed = True
        self._lock.notify_all()
        self._lock.wait_for(lambda: self._thread is None)

    def _run(self) -> None:
        while True:
            with self._lock:
                chunk = self._next()
                if chunk is None:
                    self._thread = None
                    self._lock.notify_all()
                    return
            try:
                path, error = chunk.write(self._directory), None
            except (OSError, MemoryError) as caught:
                path, error = None, caught
            with self._lock:
                if error is None:
                    chunk.path, self.error = path, None
                    self._waiting.pop(chunk, None)
                    self._landed(chunk)
                else:
                    self._fail(chunk, error)
                self._lock.notify_all()

    def _next(self) -> Chunk | None:
        """The chunk to write now, waiting for one; None when closed."""
        while not self._closed:
            pause = self._retry_at - time.monotonic()
            if self._waiting and pause <= 0:
                return next(iter(self._waiting))
            self._lock.wait(pause if self._waiting else None)
        return None

    def _fail(self, chunk: Chunk, error: Exception) -> None:
        self.failures += 1
        self._retry_at = time.monotonic() + RETRY
        first, self.error = self.error is None, error
        if first:
            self._on_event(
                f'{self._directory}: chunk {chunk.name} cannot be written: {error}. Its rows are'
                f' kept in memory; writing is tried again every {RETRY:g} s.'
            )
