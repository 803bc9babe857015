"""The draws of a replay, one after the other: sequences of its own rows, of demonstrations and of
video.

Where the order of draws stands is no state but a number, so a reader that knows it goes on as if it
had never stopped. That is why the share of demonstrations is decided here and not by who is fed:
one number draws the whole batch, whether it was prepared ahead, is resumed, or finds its images on
the device by the ids of its rows.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..base import MIX
from ..errors import OutOfResources, ReplayEmptyError, ReplayError
from .config import ReplayConfig
from .demos import Demos
from .mix import Relevance
from .sampler import COUNT, DEMOS, INDEX_BIT, ORDER, ROW_ID, VIDEO, Sampler
from .shelf import Shelf

STREAMS = {'demos': DEMOS, 'video': VIDEO}  # random numbers of each further folder


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
        further: Sequence[Demos],
        config: ReplayConfig,
        lock: threading.Condition,
    ):
        """Args: the rows, and who draws them; demonstrations and video; the shares; the lock of
        all.
        """
        self._shelf, self._sampler, self._further, self._lock = shelf, sampler, further, lock
        self._share = config.relevant
        has_demos = any(folder.key == 'demos' for folder in further)
        self._of_demos = has_demos and Relevance.read(config.relevance).kind == 'demos'
        self.made = 0

    def clear(self) -> None:
        """The shelf is another one now: its rows have new ids. Call with the lock held."""
        self._sampler.clear()

    def next(
        self,
        batch: int,
        length: int,
        without: tuple[str, ...],
        relevant: bool,
        prepared: Prepared | None,
    ) -> dict[str, np.ndarray]:
        """The next draw; see Replay.sample()."""
        kind = batch, length, without, relevant
        with self._lock:
            if prepared is None or prepared.state != self._state(*kind):
                prepared = self._prepared(*kind)
            self.made += 1
            for slot, row in prepared.fresh.items():
                self._shelf.streams[slot].fresh = row
            return prepared.rows

    def prepare(
        self, batch: int, length: int, without: tuple[str, ...], relevant: bool
    ) -> Prepared | None:
        """See Replay.prepare()."""
        with self._lock:
            try:
                return self._prepared(batch, length, without, relevant)
            except (ReplayError, OutOfResources):
                return None

    def peek(
        self, batch: int, length: int, without: tuple[str, ...], number: int
    ) -> dict[str, np.ndarray]:
        """The draw of a number, which takes no part in the sequence of draws."""
        with self._lock:
            return self._draw(batch, length, without, False, number)[0]

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
                index = ids[begin] >> INDEX_BIT
                others = [x.sampler for x in self._further if x.sampler.index == index]
                sampler = others[0] if others else self._sampler
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
        self,
        batch: int,
        length: int,
        without: tuple[str, ...],
        relevant: bool,
        draw: int | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[int, int]]:
        """Rows of one draw, and what newest-first would have handed out with them: stream slot
        -> first row that is still fresh.
        """
        if self._shelf.schema is None:
            raise ReplayEmptyError(
                f'There is no sequence of {length} rows yet: the replay has not seen a row.'
            )
        number = self.made if draw is None else draw
        chance = lambda folder: self._sampler.generator(number, STREAMS[folder.key])
        spans, own = {}, batch  # where in the batch each further folder stands
        for folder in self._further:
            count = min(own, folder.count(batch, chance(folder)))
            spans[folder] = own - count, own
            own -= count
        out = self._empty(batch, length, without)
        part = lambda begin, end, keys=out: {key: out[key][begin:end] for key in keys}
        stored = [key for key in out if key == ROW_ID or key in self._shelf.schema]
        chosen = self._relevant(own, number) if relevant else 0
        fresh = self._sampler.draw(part(0, own - chosen, stored), number, draw is None)
        if chosen:
            self._sampler.draw(part(own - chosen, own, stored), number, relevant=True)
        for folder, (begin, end) in spans.items():
            if begin < end:
                # numbers of their own, though one of them decided how many sequences there are
                folder.fill(part(begin, end), chance(folder))
        if relevant and (self._of_demos or self._split_by_relevance):
            demos = next((spans[x] for x in spans if x.key == 'demos'), (batch, batch))
            out |= self._roles(out[ROW_ID], (own - chosen, own), demos)
        if own < batch or chosen:
            # a place in the batch tells nothing of where a sequence is from
            order = self._sampler.generator(number, ORDER).permutation(batch)
            out = {key: array[order] for key, array in out.items()}
        return out, fresh

    def _empty(self, batch: int, length: int, without: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Arrays for a draw; flags that only demonstrations have are not set."""
        out = {
            key: np.empty((batch, length, *shape), dtype)
            for key, dtype, shape in self._shelf.schema.specs
            if key not in without
        }
        out[ROW_ID] = np.empty((batch, length), np.int64)
        added = {flag for folder in self._further for flag in folder.labels.added}
        return out | {flag: np.zeros((batch, length), bool) for flag in sorted(added - {*without})}

    @property
    def _split_by_relevance(self) -> bool:
        split = self._sampler.split
        return split is not None and len(split.relevant.slots) > 0

    def _relevant(self, own: int, number: int) -> int:
        """How many of so many sequences are to be relevant ones: the share, in expectation; never
        all, for the dynamics learn from the others.
        """
        if not self._split_by_relevance:
            return 0
        # of numbers that pick nothing: one that decides how many would decide which, too
        chance = self._sampler.generator(number, COUNT)
        return max(0, min(int(own * self._share + chance.random()), own - 1))

    def _roles(
        self, ids: np.ndarray, chosen: tuple[int, int], demos: tuple[int, int]
    ) -> dict[str, np.ndarray]:
        """MIX of the rows `ids` (batch, length).

        Args: from and up to which sequence those stand that were drawn as relevant; likewise the
        demonstrations.
        """
        imitated, predicted = np.zeros(ids.shape, bool), np.ones(ids.shape, bool)
        begin, end = demos if self._of_demos else chosen
        imitated[begin:end] = self._of_demos or self._sampler.relevant(ids[begin:end])
        predicted[begin:end] = False
        return dict(zip(MIX, (imitated, predicted)))
