"""From the replay to the agent: batches on the device, as updates, gates and reports want them.

The agent says what its next update needs, and is given it; it never calls the replay. Images may
stay on the device, so that each crosses the bus once. A thread prepares the next draw while the
agent learns from the last one; what is drawn stays the same, and an interrupted run draws what an
uninterrupted one draws.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from embodied.errors import ReplayError

from .batch import Batch, move
from .cache import Store

Rows = dict[str, np.ndarray | torch.Tensor]


@dataclass(frozen=True)
class Needs:
    """What an agent wants to be given.

    Attributes:
        batch: (sequences, rows) of the next update. measured: of what gates and reports look at.
        gate: whether the next update ends with a measurement.
        relevant: whether a share of the sequences is drawn to be imitated alone.
    """

    batch: tuple[int, int]
    measured: tuple[int, int]
    gate: bool
    relevant: bool = False


@dataclass(frozen=True)
class Meal:
    """What one update is made of: a batch, and fresh sequences where its gate measures."""

    batch: Batch
    gate: Batch | None


class Feed:
    """A stream of batches of a replay.

    Args:
        replay: an embodied.replay.Replay. needs: what the agent wants now. make: rows -> Batch.
        device: of the batches. gigabytes: for images that stay there, 10^9 bytes.
    """

    def __init__(
        self,
        replay,
        needs: Callable[[], Needs],
        make: Callable[[Mapping], Batch],
        device: torch.device,
        gigabytes: float,
    ):
        self._needs, self._make, self._replay = needs, make, replay
        self._ahead = Ahead(replay)
        self._images = Images(self._ahead, device, gigabytes) if gigabytes else None
        self._sample = self._images.sample if self._images else self._ahead.sample

    def next(self) -> Meal:
        """What the agent needs now.

        Raises:
            ReplayEmptyError: there are not so many rows.
        """
        needs = self._needs()
        batch = self._make(self._sample(*needs.batch, relevant=needs.relevant))
        if not needs.gate:
            return Meal(batch, None)
        # what is held out is the same each time, so that measures of it can be compared
        fixed = (0,) if self._replay.held_out else ()
        return Meal(batch, self._make(self._sample(*needs.measured, *fixed)))

    def take(self, count: int) -> Iterator[Meal]:
        """The next `count`, one for each update: the agent must have learned from one before it
        takes the next, which is prepared meanwhile.
        """
        self._ahead.expect(count)
        for _ in range(count):
            yield self.next()

    def fresh(self, draw: int) -> Batch:
        """Sequences to measure on; a draw of its own number, which training does not miss."""
        return self._make(self._sample(*self._needs().measured, draw))

    def describe(self) -> str:
        """One line about what stays on the device, '' for nothing."""
        return self._images.describe() if self._images else ''


class Ahead:
    """The draws of a replay, of which a thread prepares the next one where several come in a row.

    Attributes:
        replay: the replay. next: (kind, future) of the draw that is being prepared, None for none.
        thread: that prepares, once it was needed.
    """

    def __init__(self, replay):
        self.replay, self.next, self.thread, self._expected = replay, None, None, 0

    def expect(self, draws: int) -> None:
        """So many draws of one kind are about to come."""
        self._expected, self.next = draws, None

    def sample(
        self,
        batch: int,
        length: int,
        draw: int | None = None,
        without: tuple[str, ...] = (),
        relevant: bool = False,
    ) -> Rows:
        """As Replay.sample. A draw that was prepared for another state of the replay is made anew;
        one of another kind that comes in between, such as a measurement, is none of those expected.
        """
        more = {'without': without} if without else {}
        if draw is not None:
            return self.replay.sample(batch, length, draw, **more)
        if relevant:
            more['relevant'] = True
        kind, prepared = (batch, length, without, relevant), None
        announced = self.next is None or self.next[0] == kind
        if announced and self.next is not None:
            prepared, self.next = self.next[1].result(), None
        if prepared is not None:
            more['prepared'] = prepared
        rows = self.replay.sample(batch, length, **more)
        self._expected = max(0, self._expected - announced)
        if announced and self._expected and self.replay.prefetch:
            self.thread = self.thread or ThreadPoolExecutor(1, 'replay-prefetch')
            self.next = kind, self.thread.submit(self.replay.prepare, *kind)
        return rows


class Images:
    """Rows of a replay whose images are gathered from those that the device has seen.

    Args:
        ahead: the draws of the replay. device, gigabytes: as for Feed.
    """

    def __init__(self, ahead: Ahead, device: torch.device, gigabytes: float):
        self._ahead, self._replay = ahead, ahead.replay
        self._device, self._bytes, self._store = device, gigabytes * 1e9, None

    def describe(self) -> str:
        """How many rows fit."""
        rows = self._limit()
        size = f'{self._bytes / 1e9:.3g} GB on {self._device}'
        return f'{size} hold the images of {rows:,} rows.' if rows else ''

    def sample(
        self, batch: int, length: int, draw: int | None = None, relevant: bool = False
    ) -> Rows:
        """As Replay.sample; images are tensors on the device, if so many fit."""
        images, more = self._shapes(), {'relevant': relevant}
        if not images or batch * length > self._limit():
            return self._ahead.sample(batch, length, draw, **more)
        if self._store is None:
            columns = {key: (shape, torch.uint8) for key, shape in images.items()}
            self._store = Store(columns, self._limit(), self._device)
        out = self._ahead.sample(batch, length, draw, tuple(images), **more)
        try:
            found = self._store.get(out['row_id'], lambda ids, _: self._read(ids, images))
        except ReplayError:  # a chunk turned out to be broken since
            return self._ahead.sample(batch, length, draw, **more)
        return out | found

    def _read(self, ids: np.ndarray, images: Mapping) -> dict[str, torch.Tensor]:
        rows = self._replay.rows(ids, images)
        return {key: move(value, self._device) for key, value in rows.items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of the images of a row."""
        return self._replay.schema.images if self._replay.schema else {}

    def _limit(self) -> int:
        """Rows that there is room for; never more than the replay can hold."""
        size = sum(int(np.prod(shape)) for shape in self._shapes().values())
        return min(int(self._bytes // size), self._replay.capacity) if size else 0
