"""The shelf of a replay: its chunks, in memory and on disk, within the budgets of both.

Nothing is drawn here and nothing is locked: whoever calls a method holds the lock that the
writing thread takes turns with.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import ChunkError, ChunkUnreadable, OutOfResources
from ..files import descriptor_share
from . import npz
from .chunk import Chunk, file_bytes, new_uuid, timestamp
from .folder import Folder
from .schema import Schema
from .streams import Stream, Streams
from .writer import Writer

GB = 10**9
CHUNK_BYTES = 1 << 30  # a full chunk has fewer rows where they would take more than this
CHUNKS_IN_BUDGET = 8  # and where a budget would hold fewer chunks than this


class Unusable(Exception):
    """A chunk turned out to be damaged or unreadable in the middle of a draw."""

    def __init__(self, chunk: Chunk, error: ChunkError | ChunkUnreadable):
        super().__init__(str(error))
        self.chunk, self.damaged = chunk, isinstance(error, ChunkError)


class Shelf:
    """Chunks that form streams.

    Attributes:
      streams: the index over all chunks.
      schema: what a row is; set before the first row.
      memory, disk: bytes that the chunks take now.
      memory_budget, disk_budget: bytes that they may take.
      seen: rows that have been added, also those that are gone.
      rows_evicted: rows given up for a budget.
      broken: chunks set aside as damaged: read whole, and wrong.
      unreadable: chunks left out, and left where they are, because the system does not let them be
        read.
      writer: brings closed chunks to disk; None without a folder.
    """

    def __init__(
        self,
        max_gb: float,
        disk_gb: float,
        chunk_rows: int,
        folder: Folder | None,
        lock: threading.Condition,
        on_event: Callable[[str], None],
    ):
        """An empty shelf; see ReplayConfig for the numbers."""
        self.memory_budget, self.disk_budget = max_gb * GB, disk_gb * GB
        self._chunk_rows, self._folder, self._on_event = chunk_rows, folder, on_event
        self.writer = folder and Writer(folder.path, lock, self._landed, on_event)
        self.seen = self.rows_evicted = self.broken = self.unreadable = 0
        self.schema: Schema | None = None
        self.clear()

    def __len__(self) -> int:
        """Chunks."""
        return len(self._order)

    def clear(self) -> None:
        """An index without rows."""
        self.streams = Streams()
        self._order: dict[Chunk, None] = {}  # all chunks, in the order they were opened
        self._resident: dict[Chunk, None] = {}  # in memory and on disk, least recently used first
        self._mapped: dict[Chunk, None] = {}  # those of them that hold a descriptor, likewise
        self._held: dict[Chunk, int] = {}  # bytes of columns, as counted in memory
        self.memory = self.disk = 0
        self._last_time = ''

    def chunks(self) -> list[Chunk]:
        """All of them, in the order they were opened."""
        return list(self._order)

    @property
    def unsaved(self) -> bool:
        """Whether there are rows that are not on disk."""
        return any(chunk.path is None for chunk in self._order)

    @property
    def capacity(self) -> int:
        """Rows that fit on disk or, without a folder, in memory."""
        if self._folder is None:
            return int(self.memory_budget // self.schema.nbytes)
        rows = self.chunk_rows()
        return int(self.disk_budget // file_bytes(self.schema, rows)) * rows

    def chunk_rows(self) -> int:
        """Rows of a full chunk: as configured, unless so many would not go well with the
        budgets.
        """
        budget = min(self.memory_budget, self.disk_budget if self._folder else np.inf)
        fitting = int(min(CHUNK_BYTES, budget / CHUNKS_IN_BUDGET) // max(1, self.schema.nbytes))
        return max(1, min(self._chunk_rows, fitting))

    # Rows in

    def append(self, stream: Stream, values: list) -> None:
        """Add one row, as Schema.check() returned it, to a stream; makes room for it."""
        chunk = stream.open_chunk or self._open_chunk(stream)
        if chunk.append(self.schema, values):
            self._account(chunk)
        self.streams.extend(stream)
        if chunk.full:
            self._rotate(chunk)
        self.seen += 1
        stream.touched = self.seen

    def keep_budget(self) -> None:
        """Bring memory below its budget: forget what is on disk, else wait for the disk, else (no
        folder, or the disk fails) give up the oldest rows, else close chunks early."""
        if self.memory <= self.memory_budget:
            return
        self._drop_residents()
        while self.memory > self.memory_budget:
            if self.writer and self.writer.wait_for_room():
                self._drop_residents()
            elif oldest := next((c for c in self._order if c.succ and c in self._held), None):
                self._evict(oldest)
            elif not self._rotate_largest():
                return

    def rotate_all(self) -> None:
        """Close the chunks that are being filled, and hand them to the writer."""
        for stream in self.streams.workers:
            if stream.open_chunk is not None:
                self._rotate(stream.open_chunk)

    def _open_chunk(self, stream: Stream) -> Chunk:
        self._last_time = timestamp(self._last_time)
        chunk = Chunk(self._last_time, stream.next_uuid or new_uuid(), self.chunk_rows())
        self.streams.link(stream, chunk)
        self._order[chunk] = None
        return chunk

    def _rotate(self, chunk: Chunk) -> None:
        """Close a chunk and hand it to the writer; make room on disk for it."""
        chunk.close(new_uuid())
        chunk.stream.next_uuid = chunk.succ
        self._account(chunk)
        if self._folder:
            self.disk += chunk.file_bytes
            self.writer.submit(chunk)
            self.keep_disk_budget()

    def _rotate_largest(self) -> bool:
        """Close the largest chunk that is being filled; False where that would not help."""
        chunks = [s.open_chunk for s in self.streams.workers if s.open_chunk is not None]
        largest = max(chunks, key=lambda chunk: chunk.nbytes, default=None)
        if largest is None or (len(chunks) == 1 and largest.length == 1):
            return False
        self._rotate(largest)
        return True

    def keep_disk_budget(self) -> None:
        """Bring the disk below its budget: delete what was set aside, then give up rows, both from
        the oldest on."""
        while (
            self.disk + self._folder.aside_bytes > self.disk_budget
            and self._folder.delete_oldest_aside()
        ):
            pass
        while self.disk > self.disk_budget and len(self._order) > 1:
            self._evict(next(chunk for chunk in self._order if chunk.succ is not None))

    def _landed(self, chunk: Chunk) -> None:
        """The writer has brought a chunk to disk; if it was evicted meanwhile, the file goes
        too.
        """
        if chunk in self._order:
            self._resident[chunk] = None
        else:
            self._folder.unlink(chunk)

    def take(self, chunks: Iterable[Chunk]) -> None:
        """Take chunks of the folder, which stand in streams already, into the books."""
        for chunk in sorted(chunks, key=lambda chunk: chunk.name):
            self._order[chunk] = None
            self.disk += chunk.file_bytes
            self._last_time = max(self._last_time, chunk.time)

    # Budgets

    def _account(self, chunk: Chunk) -> None:
        """Note how much memory a chunk takes now."""
        self.memory += chunk.nbytes - self._held.get(chunk, 0)
        self._held[chunk] = chunk.nbytes
        if not chunk.nbytes:
            del self._held[chunk]

    def _drop_residents(self, keep: int = 0) -> None:
        """Forget the columns of chunks that are on disk, least recently drawn first, until the
        budget holds."""
        while self.memory > self.memory_budget and len(self._resident) > keep:
            self._drop(next(iter(self._resident)))

    def _drop_mapped(self) -> None:
        """Forget mapped chunks, least recently drawn first, until others have descriptors too."""
        while len(self._mapped) > descriptor_share():
            self._drop(next(iter(self._mapped)))

    def _drop(self, chunk: Chunk) -> None:
        del self._resident[chunk]
        self._mapped.pop(chunk, None)
        chunk.drop()
        self._account(chunk)

    def _evict(self, chunk: Chunk) -> None:
        """Give up the rows of a chunk, in memory and on disk."""
        self.streams.remove(chunk)
        self.rows_evicted += chunk.length
        self._forget(chunk)
        if chunk.path is not None:
            self._folder.unlink(chunk)
        elif self.writer:
            self.writer.cancel(chunk)

    def _forget(self, chunk: Chunk) -> None:
        """Take a chunk out of everything that counts chunks."""
        del self._order[chunk]
        self._resident.pop(chunk, None)
        self._mapped.pop(chunk, None)
        self.memory -= self._held.pop(chunk, 0)
        self.disk -= chunk.file_bytes if self._folder else 0

    # Rows out

    def read(self, stream: Stream, row: int, out: Mapping[str, np.ndarray]) -> None:
        """Copy rows as they are stored, from number `row` on, as many as `out` has room for.

        Raises:
          Unusable: a chunk is damaged or unreadable; set_aside() takes it out.
          OutOfResources: it cannot be read now; nothing has changed.
        """
        length, done = len(next(iter(out.values()))), 0
        for chunk, start, stop in stream.pieces(row, length):
            columns, upto = self._columns(chunk), done + stop - start
            for key, array in out.items():
                array[done:upto] = columns[key][start:stop]
            done = upto

    def value(self, stream: Stream, row: int, key: str) -> Any:
        """One value of one row; raises like read()."""
        chunk, start, _ = next(stream.pieces(row, 1))
        return self._columns(chunk)[key][start]

    def set_aside(self, unusable: Unusable) -> None:
        """Take a chunk out of the streams. Its file is moved only if it was read and is wrong."""
        chunk = unusable.chunk
        self.streams.remove(chunk)
        self._forget(chunk)
        if unusable.damaged:
            self.broken += 1
            self._folder.set_aside([chunk], 'broken', str(unusable))
        else:
            self.unreadable += 1
            self._on_event(f'{unusable} Left where it is; its {chunk.length} rows are not used.')

    def _columns(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """The columns of a chunk, brought in from its file if need be; it becomes the last one to
        be forgotten."""
        if chunk.columns is None:
            self._bring_in(chunk)
        else:
            for order in (self._resident, self._mapped):
                if chunk in order:
                    del order[chunk]
                    order[chunk] = None
        return chunk.columns

    def _bring_in(self, chunk: Chunk) -> None:
        limit = int(min(npz.LIMIT, self.memory_budget))
        try:
            try:
                chunk.load(self.schema, limit)
            except OutOfResources:  # whoever holds the rest: give back what is ours, ask once more
                while self._resident:
                    self._drop(next(iter(self._resident)))
                chunk.load(self.schema, limit)
        except (ChunkError, ChunkUnreadable) as error:
            raise Unusable(chunk, error) from error
        self._account(chunk)
        self._resident[chunk] = None
        if chunk.mapped:
            self._mapped[chunk] = None
            self._drop_mapped()
        self._drop_residents(keep=1)
