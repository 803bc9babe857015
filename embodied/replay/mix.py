"""Which episodes of a folder are learned from, which are only measured on, and which are worth
imitating (Dreamer 4, Section 3.3).

Everything is decided once, from the flags and rewards of a folder that does not change; draws then
pick windows within spans of rows. A chunk that turns out to be damaged later takes the rows before
it out of the spans.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from ..errors import ChunkError, ChunkUnreadable, ConfigError
from . import npz
from .selectors import pick
from .shelf import Unusable
from .streams import Stream, Streams

KINDS = ('return', 'success', 'task', 'demos')
BLOCK = 2  # sequences that a block of held-out episodes has room for, at least


@dataclass(frozen=True)
class Relevance:
    """What makes an episode relevant: `replay.relevance`.

    Attributes:
      kind: one of KINDS.
      quantile: of returns, for 'return'. column: bool of a row, for 'success'. tasks: values of
        task_id, for 'task'.
    """

    kind: str
    quantile: float = 0.0
    column: str = ''
    tasks: tuple[int, ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """From words such as return:0.7, success, success:reached, task:0,2, demos.

        Raises:
          ConfigError: they are none of these.
        """
        kind, _, rest = text.partition(':')
        try:
            match kind:
                case 'return' if 0 <= float(rest) < 1:
                    return cls(kind, quantile=float(rest))
                case 'success':
                    return cls(kind, column=rest or 'success')
                case 'task' if rest:
                    return cls(kind, tasks=tuple(int(part) for part in rest.split(',')))
                case 'demos' if not rest:
                    return cls(kind)
        except ValueError:
            pass
        raise ConfigError(
            'replay.relevance must be return:QUANTILE (below 1), success or success:COLUMN,'
            f' task:NUMBER or task:NUMBER,NUMBER, or demos; got {text!r}.'
        )

    @property
    def key(self) -> str:
        """The column that is asked, '' for none."""
        return {'return': 'reward', 'success': self.column, 'task': 'task_id'}.get(self.kind, '')

    def of(self, values: list[np.ndarray]) -> np.ndarray:
        """bool (episodes,): which are relevant, given the column `key` of each."""
        if self.kind == 'return':
            returns = np.array([value.sum(dtype=np.float64) for value in values])
            bar = np.quantile(returns, self.quantile)
            # where most earn the least, whoever earns more is better than they
            return returns > bar if bar == returns.min() < returns.max() else returns >= bar
        if self.kind == 'success':
            return np.array([bool(value.any()) for value in values])
        return np.array([int(value.flat[0]) in self.tasks for value in values])


class Episode(NamedTuple):
    """Rows `begin` to `end` of a stream, and what relevance is judged by."""

    slot: int
    begin: int
    end: int
    value: np.ndarray


@dataclass(frozen=True)
class Spans:
    """Runs of rows that windows may lie in: slots, first rows, and the rows behind the last,
    int64 (n,) each, in the order of slots and rows.
    """

    slots: np.ndarray
    begins: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, parts: list[tuple[int, int, int]]) -> Self:
        """Of (slot, begin, end), where neighbours become one."""
        joined: list[list[int]] = []
        for slot, begin, end in sorted(parts):
            if joined and joined[-1][0] == slot and joined[-1][2] == begin:
                joined[-1][2] = end
            else:
                joined.append([slot, begin, end])
        return cls(*np.array(joined, np.int64).reshape(-1, 3).T)

    def windows(
        self, streams: Streams, length: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """First window of each span and how many there are, as far as its rows are still held;
        only of some streams, if bool (streams,) `among` says which.
        """
        begins = np.maximum(self.begins, streams.begins[self.slots])
        ends = np.minimum(self.ends, streams.ends[self.slots])
        counts = np.maximum(ends - begins - length + 1, 0)
        return begins, counts if among is None else counts * among[self.slots]

    def rows(self, among: np.ndarray) -> int:
        """How many rows lie in spans of the streams that bool (streams,) says."""
        return int(((self.ends - self.begins) * among[self.slots]).sum())

    def hold(self, slots: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """bool, of the shape of both: whether a row lies in a span."""
        key = lambda slots, rows: (slots << 32) + rows
        place = np.searchsorted(key(self.slots, self.begins), key(slots, rows), side='right') - 1
        found = place >= 0
        place = np.maximum(place, 0)
        if not len(self.slots):
            return found
        return found & (self.slots[place] == slots) & (rows < self.ends[place])


class Split:
    """Spans of a folder.

    Attributes:
      learned: rows that training draws. measured: rows that it does not; without spans where none
        are held out. relevant: episodes among the learned rows.
    """

    def __init__(
        self, episodes: list[Episode], held_out: float, relevance: Relevance | None, length: int
    ):
        """Decide.

        Args:
          episodes: of all streams. held_out: share of them.
          relevance: what makes one relevant; None where that is not asked for.
          length: rows of the longest sequence: short episodes are held out in blocks of neighbours
            that have room for it.

        Raises:
          ConfigError: nothing is left to learn from, to measure on, or to imitate.
        """
        aside = held(episodes, held_out, BLOCK * length)
        spans = lambda chosen: Spans.of([(e.slot, e.begin, e.end) for e in chosen])
        kept = [e for e, out in zip(episodes, aside) if not out]
        self.learned = spans(kept)
        self.measured = spans([e for e, out in zip(episodes, aside) if out])
        self.counts = {'learned': len(kept), 'held out': int(aside.sum())}
        for what, part in {'learn from': self.learned, 'measure on': self.measured}.items():
            if (what == 'learn from' or held_out) and not (part.ends - part.begins >= length).any():
                raise ConfigError(
                    f'replay.held_out {held_out:g} of {len(episodes):,} episodes leaves no sequence'
                    f' of {length:,} rows to {what}; take another share, or more data'
                )
        self.relevant = Spans.of([])
        if relevance is not None:
            chosen = relevance.of([e.value for e in kept])
            picked = [e for e, good in zip(kept, chosen) if good]
            # not joined: a window is to begin within one of them
            rows = sorted((e.slot, e.begin, e.end) for e in picked)
            self.relevant = Spans(*np.array(rows, np.int64).reshape(-1, 3).T)
            self.counts['relevant'] = len(picked)
            if not picked:
                raise ConfigError(
                    f'replay.relevance: none of {len(kept):,} episodes is relevant by'
                    f' {relevance.kind}'
                )

    def words(self) -> str:
        """How many episodes there are of each kind."""
        return ', '.join(f'{count:,} {what}' for what, count in self.counts.items())

    def draw(
        self,
        spans: Spans,
        streams: Streams,
        batch: int,
        length: int,
        rng: np.random.Generator,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Slots and first rows of windows within some spans, each equally likely; None where there
        is none so long. Args: among: as for Spans.windows.
        """
        begins, counts = spans.windows(streams, length, among)
        if not counts.any():
            return None
        places, rows = pick(counts, begins, batch, rng)
        return spans.slots[places], rows

    def draw_relevant(
        self,
        streams: Streams,
        batch: int,
        length: int,
        rng: np.random.Generator,
        among: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """As draw, of windows among the learned rows that begin in a relevant episode or, where
        too few rows follow, end with the span that it lies in.
        """
        outer = np.searchsorted(
            (self.learned.slots << 32) + self.learned.begins,
            (self.relevant.slots << 32) + self.relevant.begins,
            side='right',
        )
        begins, counts = (x[outer - 1] for x in self.learned.windows(streams, length, among))
        last = begins + counts - 1
        low = np.minimum(np.maximum(self.relevant.begins, begins), last)
        high = np.minimum(self.relevant.ends - 1, last)
        counts = np.where(counts > 0, np.maximum(high - low, 0) + 1, 0)
        if not counts.any():
            return None
        places, rows = pick(counts, low, batch, rng)
        return self.relevant.slots[places], rows


def held(episodes: list[Episode], share: float, rows: int) -> np.ndarray:
    """bool (episodes,): which are held out.

    Neighbours of a stream form blocks of at least so many rows, the last of a stream taking what
    is left; a block is held out as soon as the share of rows falls behind, so every part of the
    data gives its share.
    """
    out = np.zeros(len(episodes), bool)
    if not share:
        return out
    seen = taken = 0
    for block in blocks(episodes, rows):
        size = sum(episodes[i].end - episodes[i].begin for i in block)
        seen += size
        if taken + size / 2 <= share * seen:
            out[block] = True
            taken += size
    if not out.any():  # few long episodes: the last one
        out[list(blocks(episodes, rows))[-1]] = True
    return out


def blocks(episodes: list[Episode], rows: int) -> Iterator[list[int]]:
    """Numbers of neighbouring episodes with at least so many rows together."""
    block: list[int] = []
    for index, episode in enumerate(episodes):
        other = block and episodes[block[-1]].slot != episode.slot
        if block and (other or size(episodes, block) >= rows):
            yield block
            block = []
        block.append(index)
    if block:
        yield block


def size(episodes: list[Episode], block: list[int]) -> int:
    """Rows of some neighbours."""
    return episodes[block[-1]].end - episodes[block[0]].begin


def episodes_of(streams: Streams, columns: Mapping, key: str) -> Iterator[Episode]:
    """All episodes of streams whose chunks are on disk, one stream after the other.

    Args:
      columns: name -> (dtype, shape) of a row. key: of what relevance is judged by, '' for nothing.

    Raises:
      ConfigError: rows have no such column. Unusable: a file is damaged or cannot be read.
    """
    if key and key not in columns:
        raise ConfigError(
            f'replay.relevance asks for the column {key!r}, but rows have {", ".join(columns)}'
        )
    for stream in streams:
        if not stream.chunks:
            continue
        begin, end = int(streams.begins[stream.slot]), int(streams.ends[stream.slot])
        first, last = (read(stream, name, columns) for name in ('is_first', 'is_last'))
        value = read(stream, key, columns) if key else np.zeros(end - begin, bool)
        starts = np.flatnonzero(first | np.concatenate([[True], last[:-1]]))
        for start, stop in zip(starts, [*starts[1:], end - begin]):
            here = int(begin + start), int(begin + stop)
            yield Episode(stream.slot, *here, value[start:stop])


def read(stream: Stream, key: str, columns: Mapping) -> np.ndarray:
    """(rows, *shape): one column of all rows of a stream."""
    dtype, shape = columns[key]
    parts = []
    for chunk in stream.chunks:
        expected = {key: (dtype, (chunk.length, *shape))}
        try:
            parts.append(npz.read(chunk.path, expected, verify=True)[key])
        except (ChunkError, ChunkUnreadable) as error:
            raise Unusable(chunk, error) from error
    return np.nan_to_num(np.concatenate(parts))  # what is not known is worth nothing
