"""A seed and a number become sequences: which ones, and their rows from the shelf."""

import itertools
from typing import Any

import numpy as np

from ..errors import ReplayEmptyError, ReplayError
from ..tasks import KEY
from .mix import Split
from .selectors import Mixture, Selection
from .shelf import Shelf, Unusable
from .streams import Stream

# the independent random streams of one draw
MAIN, DEMOS, ORDER, RELEVANT, VIDEO, COUNT = 0, 1, 2, 3, 4, 5

ROW_ID = 'row_id'  # key of a draw: which row it is, until clear() is called
# of a row id: below the number within its stream, then the stream's slot, then the number of the
# index
SLOT_BIT, INDEX_BIT = 32, 52
_INDICES = itertools.count()  # of this process: rows of two replays have different ids


class Sampler:
    """Draws sequences of the rows on a shelf. Nothing is locked: whoever calls holds the shelf's
    lock.

    Attributes:
      index: number of this index among all of the process, part of the ids of its rows.
      split: what of the rows is learned from and what is measured on; None where all are both.
    """

    def __init__(self, shelf: Shelf, mixture: Mixture, seed: int, shares: tuple[float, ...] = ()):
        """Args: where the rows are; what sequences are drawn from; an integer >= 0; the share of
        each folder, where several are on the shelf, none: every row counts the same.
        """
        self._shelf, self._mixture, self._shares = shelf, mixture, shares
        self._key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self.split: Split | None = None
        self.clear()

    def clear(self) -> None:
        """Give the rows new ids: the shelf is another one now."""
        self.index = next(_INDICES) % 1024

    def generator(self, number: int, part: int) -> np.random.Generator:
        """The random numbers of one draw: Philox is a function of key and counter, so no state has
        to be kept.

        Args: the number of the draw; MAIN or another of its streams.
        """
        return np.random.Generator(np.random.Philox(counter=[0, 0, part, number], key=self._key))

    def draw(
        self,
        out: dict[str, np.ndarray],
        number: int,
        newest: bool = True,
        relevant: bool = False,
    ) -> dict[int, int]:
        """Fill arrays with the sequences of one draw.

        Args:
          out: key -> (batch, length, *shape), ROW_ID among them.
          number: of the draw.
          newest: whether the draw is one to learn from, and the share of newest rows is handed out;
              else it is to measure on.
          relevant: only sequences of relevant episodes.

        Returns:
          Stream slot -> first row that is still fresh, once the draw is used.

        Raises:
          ReplayEmptyError: no worker has that many rows in succession.
          OutOfResources: a chunk cannot be read now.
        """
        while True:  # a chunk that turns out to be broken is no longer part of the streams
            try:
                selection = self._select(*out[ROW_ID].shape, number, newest, relevant)
            except Unusable as unusable:
                self._shelf.set_aside(unusable)
                continue
            if self._gather(selection, out):
                return selection.fresh

    def fill(self, out: dict[str, np.ndarray], rng: np.random.Generator) -> bool:
        """Fill arrays with sequences that `rng` chooses; False where there is none so long."""
        batch, length = out[ROW_ID].shape
        state = rng.bit_generator.state
        while True:
            rng.bit_generator.state = state
            try:
                selection = self._choose(batch, length, rng)
            except Unusable as unusable:
                self._shelf.set_aside(unusable)
                continue
            if selection is None:
                return False
            if self._gather(selection, out):
                return True

    def read(self, row_id: int, out: dict[str, np.ndarray]) -> None:
        """The row of an id and its successors, as they are stored.

        Raises:
          ReplayError: they are not held any more, or cannot be read.
        """
        streams = self._shelf.streams
        index, slot = row_id >> INDEX_BIT, row_id >> SLOT_BIT & ((1 << INDEX_BIT - SLOT_BIT) - 1)
        row, length = row_id & ((1 << SLOT_BIT) - 1), len(next(iter(out.values())))
        try:
            if (
                index != self.index
                or slot >= len(streams.ends)
                or not streams.begins[slot] <= row <= streams.ends[slot] - length
            ):
                raise ReplayError(
                    f'{length} rows from number {row} of stream {slot} on are not held any more.'
                )
            self._shelf.read(streams[slot], row, out)
        except Unusable as unusable:
            self._shelf.set_aside(unusable)
            raise ReplayError(f'Rows that had been drawn cannot be read: {unusable}') from unusable

    def relevant(self, ids: np.ndarray) -> np.ndarray:
        """bool, of the shape of `ids`: whether rows belong to relevant episodes that are learned
        from.
        """
        slots = ids >> SLOT_BIT & ((1 << INDEX_BIT - SLOT_BIT) - 1)
        return self.split.relevant.hold(slots, ids & ((1 << SLOT_BIT) - 1))

    def _choose(
        self,
        batch: int,
        length: int,
        rng: np.random.Generator,
        newest: bool = True,
        relevant: bool = False,
    ) -> Selection | None:
        """Windows of all folders; by shares those of each, among them none so long: the others
        take its part.
        """
        if not self._shares:
            return self._choose_among(None, batch, length, rng, newest, relevant)
        choose = lambda n, count: self._choose_among(own[n], count, length, rng, newest, relevant)
        own = [self._shelf.streams.places == number for number in range(len(self._shares))]
        able = [number for number in range(len(own)) if choose(number, 0) is not None]
        if not able:
            return None
        numbers = np.repeat(able, deal(batch, np.array(self._shares)[able], rng))
        numbers = rng.permutation(numbers)
        slots, rows, fresh = np.zeros(batch, int), np.zeros(batch, int), {}
        for number in able:
            here = numbers == number
            slots[here], rows[here], more = choose(number, int(here.sum()))
            fresh |= more
        return Selection(slots, rows, fresh)

    def _choose_among(
        self,
        among: np.ndarray | None,
        batch: int,
        length: int,
        rng: np.random.Generator,
        newest: bool,
        relevant: bool,
    ) -> Selection | None:
        """Windows of the streams that bool (streams,) `among` says, None for all."""
        shelf, split = self._shelf, self.split
        if split is None:
            known = dict(seen=shelf.seen, newest=newest, tasks=self._tasks(), among=among)
            return self._mixture.choose(shelf.streams, batch, length, rng, **known)
        if relevant:
            found = split.draw_relevant(shelf.streams, batch, length, rng, among)
        else:
            held_out = not newest and len(split.measured.slots)
            spans = split.measured if held_out else split.learned
            found = split.draw(spans, shelf.streams, batch, length, rng, among)
        return found and Selection(*found, {})

    def _tasks(self) -> np.ndarray | None:
        """Of every stream the number of its task, -1 where it holds no rows; None where rows have
        none. Raises Unusable.
        """
        shelf, streams = self._shelf, self._shelf.streams
        if shelf.schema is None or KEY not in shelf.schema:
            return None
        for stream in streams:
            slot = stream.slot
            if stream.task is None and streams.ends[slot] > streams.begins[slot]:
                stream.task = int(shelf.value(stream, int(streams.begins[slot]), KEY))
        return np.array([-1 if stream.task is None else stream.task for stream in streams])

    def _select(
        self, batch: int, length: int, number: int, newest: bool, relevant: bool
    ) -> Selection:
        rng = self.generator(number, RELEVANT if relevant else MAIN)
        selection = self._choose(batch, length, rng, newest, relevant)
        if selection is None and batch:
            streams = self._shelf.streams
            raise ReplayEmptyError(
                f'There is no sequence of {length} rows yet: the longest of {len(streams)} streams'
                f' has {streams.longest}, {length - streams.longest} rows are missing. The replay'
                f' holds {streams.rows} rows.'
            )
        return selection or Selection(np.zeros(0, int), np.zeros(0, int), {})

    def _gather(self, selection: Selection, out: dict[str, np.ndarray]) -> bool:
        """Copy the selected rows to out. False where a chunk turned out to be broken, which then is
        no longer part of the streams: select again.
        """
        streams, length = self._shelf.streams, out[ROW_ID].shape[1]
        rows = {key: array for key, array in out.items() if key != ROW_ID}
        try:
            for index, (slot, row) in enumerate(
                zip(selection.slots.tolist(), selection.rows.tolist())
            ):
                first = (self.index << INDEX_BIT) + (slot << SLOT_BIT) + row
                out[ROW_ID][index] = first + np.arange(length)
                self._copy(streams[slot], row, {key: array[index] for key, array in rows.items()})
        except Unusable as unusable:
            self._shelf.set_aside(unusable)
            return False
        if 'is_first' in out and 'is_last' in out:
            out['is_last'][:, :-1] |= out['is_first'][:, 1:]
        return True

    def _copy(self, stream: Stream, row: int, out: dict[str, Any]) -> None:
        if not out:
            return
        length = len(next(iter(out.values())))
        self._shelf.read(stream, row, out)
        # An episode that was cut right after the last row shows only in the row that follows.
        if (
            'is_last' in out
            and 'is_first' in out
            and not out['is_last'][-1]
            and row + length < self._shelf.streams.ends[stream.slot]
        ):
            out['is_last'][-1] = self._shelf.value(stream, row + length, 'is_first')


def deal(count: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`count` in whole parts by shares (n,), each rounded up or down so that it holds in
    expectation.
    """
    upto = np.cumsum(shares) / np.sum(shares) * count + rng.random()
    upto[-1] = count + 0.5  # the sum is exact, rounding aside
    return np.diff(np.floor(upto).astype(int), prepend=0)
