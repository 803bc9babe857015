"""Which sequences come next: a mixture of uniform, recent and newest, vectorised over the batch.

A selector sees the first and last row of every stream and picks windows of `length` rows that lie
within one. It reads no rows and keeps no state: what has been handed out as newest stands in the
streams, so it is saved and restored with them.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError
from .streams import Streams


class Selection(NamedTuple):
    """Windows: stream `slots` (batch,) and number of the first row `rows` (batch,); `fresh` says,
    slot by slot, up to where rows will have been handed out as newest once this selection is used.
    """

    slots: np.ndarray
    rows: np.ndarray
    fresh: dict[int, int]


@dataclass(frozen=True)
class Mixture:
    """Shares of the batch, in expectation.

    Attributes:
      uniform: share drawn from all windows with equal probability.
      recent: share drawn from the windows within the last `recent_rows` rows with equal
          probability.
      newest: share that hands out what was just added: window after window, without overlap, each
        once, oldest first. With none left, uniform takes its place.
      recent_rows: over all workers; each of those that added lately has an equal part. Rows of a
        replay that nobody adds to are not recent; uniform takes the place then.
    """

    uniform: float
    recent: float
    newest: float
    recent_rows: int

    def __post_init__(self):
        """Raises ConfigError where the shares are negative or do not sum to 1, or recent_rows is
        below 1.
        """
        shares = (self.uniform, self.recent, self.newest)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ConfigError(
                'replay.uniform, replay.recent and replay.newest must be >= 0 and sum to 1; got'
                f' {shares}, sum {sum(shares):g}.'
            )
        if self.recent_rows < 1:
            raise ConfigError(f'replay.recent_rows must be at least 1, got {self.recent_rows}.')

    def choose(
        self,
        streams: Streams,
        batch: int,
        length: int,
        rng: np.random.Generator,
        *,
        seen: int,
        newest: bool = True,
        tasks: np.ndarray | None = None,
        among: np.ndarray | None = None,
    ) -> Selection | None:
        """Pick `batch` windows of `length` rows; None where no stream has that many.

        Args:
          streams: where to pick from.
          rng: decides everything; the result is a function of its state, the streams and the other
              arguments.
          seen: rows that the replay was given so far, over all workers; tells which workers added
              lately.
          newest: False leaves the newest share to uniform.
          tasks: (streams,), whose task each stream is; every task that has windows gets as many of
            them, give or take one. None for one task.
          among: bool (streams,), those that may be picked from; None for all.
        """
        counts = np.maximum(streams.ends - streams.begins - length + 1, 0)
        allowed = np.ones(len(counts), bool) if among is None else among
        counts = counts * allowed
        if not counts.any():
            return None
        kind = rng.random(batch)
        if tasks is None:
            tasks, drawn = np.zeros(len(counts), int), np.zeros(batch, int)
        else:
            known = rng.permutation(np.unique(tasks[counts > 0]))
            drawn = rng.permutation(np.resize(known, batch))
        slots, rows, fresh = np.zeros(batch, int), np.zeros(batch, int), {}
        recent, newly = kind < self.recent, kind < self.recent + self.newest
        late = self._recent(streams, length, seen) if self.recent else None
        for task in np.unique(drawn):
            own, places = allowed & (tasks == task), np.flatnonzero(drawn == task)
            slots[places], rows[places] = pick(counts * own, streams.begins, len(places), rng)
            if late is not None and (late[1] * own).any():
                places = np.flatnonzero((drawn == task) & recent)
                slots[places], rows[places] = pick(late[1] * own, late[0], len(places), rng)
            if self.newest and newest:
                places = np.flatnonzero((drawn == task) & newly & ~recent)
                fresh |= _take_newest(streams, places, slots, rows, length, own)
        return Selection(slots, rows, fresh)

    def _recent(self, streams: Streams, length: int, seen: int) -> tuple[np.ndarray, np.ndarray]:
        """First row and number of the recent windows of each stream."""
        begins, counts = streams.ends.copy(), np.zeros_like(streams.ends)
        live = [
            stream.slot for stream in streams.workers if seen - stream.touched < self.recent_rows
        ]
        if live:
            part = max(self.recent_rows // len(live), length)
            begins[live] = np.maximum(streams.begins[live], streams.ends[live] - part)
            counts[live] = np.maximum(streams.ends[live] - begins[live] - length + 1, 0)
        return begins, counts


def pick(
    counts: np.ndarray, begins: np.ndarray, num: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Slots, numbers within `counts` and `begins`, and first rows of `num` windows, each of the
    sum(counts) windows being equally likely.
    """
    upto = np.cumsum(counts)
    chosen = rng.integers(0, upto[-1], num)
    slots = np.searchsorted(upto, chosen, side='right')
    return slots, begins[slots] + chosen - (upto[slots] - counts[slots])


def _take_newest(
    streams: Streams,
    chosen: np.ndarray,
    slots: np.ndarray,
    rows: np.ndarray,
    length: int,
    own: np.ndarray,
) -> dict[int, int]:
    """Put the windows that wait the longest into the chosen places of slots and rows, as far as
    there are any; bool (streams,) `own` says of which streams.
    """
    waiting = {
        stream.slot: max(stream.fresh, int(streams.begins[stream.slot]))
        for stream in streams.workers
        if own[stream.slot]
    }
    fresh = {}
    for place in chosen:
        # Workers add in turn, so the one with the most rows waiting has the oldest; ties go to the
        # lowest slot.
        slot = max(
            waiting, key=lambda slot: (streams.ends[slot] - waiting[slot], -slot), default=None
        )
        if slot is None or streams.ends[slot] - waiting[slot] < length:
            break
        slots[place], rows[place] = slot, waiting[slot]
        fresh[slot] = waiting[slot] = waiting[slot] + length
    return fresh
