"""The draws of a replay, one after the other: sequences of its own rows and of demonstrations.

Where the order of draws stands is no state but a number, so a reader that knows it goes on as if it
had never stopped.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import OutOfResources, ReplayEmptyError, ReplayError
from .demos import Demos
from .sampler import DEMOS, INDEX_BIT, ORDER, ROW_ID, Sampler
from .shelf import Shelf


@dataclass(frozen=True)
class Prepared:
    """A draw that was made and not handed out.

    Attributes:
      state: all that decided it; it is worth nothing once that is another.
      rows, fresh: of the draw.
    """

    state: tuple
    rows: dict[str, np.ndarray]
    fresh: dict[int, int]


class Draws:
    """Draws by their number.

    Attributes:
      made: number of draws so far; with the seed it decides what the next one picks.
    """

    def __init__(
        self,
        shelf: Shelf,
        sampler: Sampler,
        demos: Demos | None,
        lock: threading.Condition,
    ):
        """Args: the rows, and who draws them; demonstrations; the lock of both."""
        self._shelf, self._sampler, self._demos, self._lock = shelf, sampler, demos, lock
        self.made = 0

    def clear(self) -> None:
        """The shelf is another one now: its rows have new ids. Call with the lock held."""
        self._sampler.clear()

    def next(
        self, batch: int, length: int, without: tuple[str, ...], prepared: Prepared | None
    ) -> dict[str, np.ndarray]:
        """The next draw; see Replay.sample()."""
        with self._lock:
            if prepared is None or prepared.state != self._state(batch, length, without):
                prepared = self._prepared(batch, length, without)
            self.made += 1
            for slot, row in prepared.fresh.items():
                self._shelf.streams[slot].fresh = row
            return prepared.rows

    def prepare(self, batch: int, length: int, without: tuple[str, ...]) -> Prepared | None:
        """See Replay.prepare()."""
        with self._lock:
            try:
                return self._prepared(batch, length, without)
            except (ReplayError, OutOfResources):
                return None

    def peek(
        self, batch: int, length: int, without: tuple[str, ...], number: int
    ) -> dict[str, np.ndarray]:
        """The draw of a number, which takes no part in the sequence of draws."""
        with self._lock:
            return self._draw(batch, length, without, number)[0]

    def rows(self, ids: np.ndarray, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """See Replay.rows(). Call with the lock held."""
        out = {
            key: np.empty((len(ids), *shape), dtype)
            for key, dtype, shape in self._shelf.schema.specs
            if key in keys
        }
        borders = np.flatnonzero(np.diff(ids) != 1) + 1
        for begin, end in zip([0, *borders], [*borders, len(ids)]):
            if begin < end:
                of_demos = self._demos and ids[begin] >> INDEX_BIT == self._demos.sampler.index
                sampler = self._demos.sampler if of_demos else self._sampler
                sampler.read(int(ids[begin]), {key: array[begin:end] for key, array in out.items()})
        return out

    def _state(self, *kind) -> tuple:
        """All that decides what the next draw of a kind will be."""
        shelf = self._shelf
        lost = shelf.rows_evicted, shelf.broken, shelf.unreadable
        return kind, self.made, shelf.streams, shelf.seen, lost  # a cleared shelf has new streams

    def _prepared(self, *kind) -> Prepared:
        rows, fresh = self._draw(*kind)
        # after the draw, which may find a chunk broken
        return Prepared(self._state(*kind), rows, fresh)

    def _draw(
        self, batch: int, length: int, without: tuple[str, ...], draw: int | None = None
    ) -> tuple[dict[str, np.ndarray], dict[int, int]]:
        """Rows of one draw, and what newest-first would have handed out with them: stream slot
        -> first row that is still fresh.
        """
        if self._shelf.schema is None:
            raise ReplayEmptyError(
                f'There is no sequence of {length} rows yet: the replay has not seen a row.'
            )
        demos, number = self._demos, self.made if draw is None else draw
        chance = self._sampler.generator(number, DEMOS)
        theirs = demos.count(batch, chance) if demos else 0
        own = batch - theirs
        out = {
            key: np.empty((batch, length, *shape), dtype)
            for key, dtype, shape in self._shelf.schema.specs
            if key not in without
        }
        out[ROW_ID] = np.empty((batch, length), np.int64)
        fresh = self._sampler.draw(
            {key: array[:own] for key, array in out.items()}, number, draw is None
        )
        added = demos.labels.added if demos else ()
        out |= {flag: np.zeros((batch, length), bool) for flag in added if flag not in without}
        if theirs:
            # numbers of their own, though one of them decided how many sequences there are
            chance = self._sampler.generator(number, DEMOS)
            demos.fill({key: array[own:] for key, array in out.items()}, chance)
            # a place in the batch tells nothing of where a sequence is from
            order = self._sampler.generator(number, ORDER).permutation(batch)
            out = {key: array[order] for key, array in out.items()}
        return out, fresh
