"""Streams: chains of chunks, each the uninterrupted rows of one worker, and the index over all of
them.

Rows of a stream are numbered from 0 in the order they were added; numbers never change, so that the
first row still held has number `begin` and the next one to come `end`. Everything here is
bookkeeping; no rows are read.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np

from .chunk import Chunk, ChunkName


class Stream:
    """The chunks of one stream, oldest first.

    Attributes:
      slot: position in Streams; never reused.
      place: number of the folder that its chunks are in, where several are read as one.
      worker: the worker that adds to it; None where no worker does any more.
      chunks, firsts: its chunks, and the number of the first row of each.
      next_uuid: id that the next chunk must take, because the last one names it as successor; ''
          before there is one.
      fresh: first row that the newest-first selector has not handed out.
      touched: how many rows the replay had seen, over all workers, when this stream last got one.
      task: number of the task that its first row is of; None while nobody has looked.
    """

    __slots__ = (
        *('slot', 'place', 'worker', 'chunks', 'firsts', 'next_uuid', 'fresh', 'touched', 'task'),
    )

    def __init__(self, slot: int, worker: int | None, place: int = 0):
        self.slot, self.worker, self.place = slot, worker, place
        self.chunks: list[Chunk] = []
        self.firsts: list[int] = []
        self.next_uuid, self.fresh, self.touched = '', 0, 0
        self.task: int | None = None

    @property
    def open_chunk(self) -> Chunk | None:
        """The chunk that rows are appended to, if there is one."""
        return self.chunks[-1] if self.chunks and self.chunks[-1].succ is None else None

    def pieces(self, row: int, length: int) -> Iterator[tuple[Chunk, int, int]]:
        """(chunk, first row within it, one past the last row) for rows `row` to `row + length`,
        all of which must be held.
        """
        index = bisect_right(self.firsts, row) - 1
        while length:
            chunk = self.chunks[index]
            start = row - self.firsts[index]
            stop = min(start + length, chunk.length)
            yield chunk, start, stop
            row, length, index = row + stop - start, length - (stop - start), index + 1


class Streams:
    """All streams of a replay, in the order they came to be; iterates over them."""

    def __init__(self):
        self._streams: list[Stream] = []
        self._bounds = np.zeros((2, 16), np.int64)
        self._workers: dict[int, Stream] = {}
        self.rows = 0

    def __iter__(self) -> Iterator[Stream]:
        return iter(self._streams)

    def __getitem__(self, slot: int) -> Stream:
        return self._streams[slot]

    def __len__(self) -> int:
        """Streams that hold rows."""
        return int((self.ends > self.begins).sum())

    @property
    def begins(self) -> np.ndarray:
        """First row held of every stream, (streams,) int64."""
        return self._bounds[0, : len(self._streams)]

    @property
    def ends(self) -> np.ndarray:
        """One past the last row of every stream, (streams,) int64."""
        return self._bounds[1, : len(self._streams)]

    @property
    def places(self) -> np.ndarray:
        """Number of the folder of every stream, (streams,) int64."""
        return np.array([stream.place for stream in self._streams], np.int64)

    @property
    def longest(self) -> int:
        """Rows of the longest stream."""
        return int((self.ends - self.begins).max(initial=0))

    def sequences(self, length: int) -> int:
        """How many sequences of `length` rows lie within a stream."""
        return int(np.maximum(self.ends - self.begins - length + 1, 0).sum())

    @property
    def workers(self) -> Iterable[Stream]:
        """The streams that a worker adds to."""
        return self._workers.values()

    def of(self, worker: int) -> Stream:
        """The stream of a worker, a new one if it has none."""
        return self._workers.get(worker) or self.new(worker)

    def new(self, worker: int | None = None, begin: int = 0, place: int = 0) -> Stream:
        """An empty stream, whose first row will have the number `begin`."""
        stream = Stream(len(self._streams), None, place)
        if stream.slot == self._bounds.shape[1]:
            self._bounds = np.concatenate([self._bounds, np.zeros_like(self._bounds)], 1)
        self._streams.append(stream)
        self._bounds[:, stream.slot] = begin
        stream.fresh = begin
        if worker is not None:
            self.assign(stream, worker)
        return stream

    def assign(self, stream: Stream, worker: int) -> None:
        """Let `worker` add to `stream` from now on."""
        assert worker not in self._workers, worker
        stream.worker = worker
        self._workers[worker] = stream

    def link(self, stream: Stream, chunk: Chunk) -> None:
        """Put a chunk, with the rows it has, at the end of a stream."""
        stream.chunks.append(chunk)
        stream.firsts.append(int(self._bounds[1, stream.slot]))
        chunk.stream = stream
        self.extend(stream, chunk.length)
        if chunk.succ is not None:
            stream.next_uuid = chunk.succ

    def extend(self, stream: Stream, rows: int = 1) -> None:
        """Count rows that were appended to the last chunk of a stream."""
        self._bounds[1, stream.slot] += rows
        self.rows += rows

    def drop_first(self, stream: Stream) -> Chunk:
        """Take the oldest chunk out of a stream."""
        chunk = stream.chunks.pop(0)
        stream.firsts.pop(0)
        chunk.stream = None
        self._bounds[0, stream.slot] += chunk.length
        self.rows -= chunk.length
        return chunk

    def remove(self, chunk: Chunk) -> None:
        """Take out a chunk from anywhere. What came before it becomes a stream of its own; what
        comes after, and the worker, stay with the old one.
        """
        stream = chunk.stream
        index = stream.chunks.index(chunk)
        if index:
            before = self.new(begin=stream.firsts[0], place=stream.place)
            rows, before.fresh = self.rows, stream.firsts[index]
            for earlier in stream.chunks[:index]:
                self.link(before, earlier)
            self.rows = rows
            self._bounds[0, stream.slot] = stream.firsts[index]
            del stream.chunks[:index], stream.firsts[:index]
        self.drop_first(stream)
        stream.fresh = max(stream.fresh, int(self._bounds[0, stream.slot]))


def chains(names: Iterable[ChunkName]) -> list[list[ChunkName]]:
    """Chunk names in the order of their links, one list per unbroken chain; oldest chain first.

    Names may come from anywhere: where two name the same successor the older one gets it, and a
    ring is cut before its oldest.
    """
    ordered = sorted(names)
    by_uuid = {name.uuid: name for name in ordered}
    followers = {}
    for name in ordered:
        if name.succ in by_uuid and name.succ != name.uuid:
            followers.setdefault(name.succ, name)
    result, seen = [], set()
    heads = [name for name in ordered if name.uuid not in followers]
    for head in heads + ordered:  # the second part finds rings, which have no head
        chain, name = [], head
        while name is not None and name.uuid not in seen:
            seen.add(name.uuid)
            chain.append(name)
            after = by_uuid.get(name.succ)
            name = after if after is not None and followers.get(after.uuid) is name else None
        if chain:
            result.append(chain)
    return sorted(result)
