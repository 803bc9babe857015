"""From the replay to the agent: batches on the device, as updates, gates and reports want them.

The agent says what its next update needs, and is given it; it never calls the replay. Images may
stay on the device, so that each crosses the bus once. A thread of the replay prepares the next draw
while the agent learns from the last one; what is drawn stays the same.
"""

from collections.abc import Callable, Iterator, Mapping
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
    """

    batch: tuple[int, int]
    measured: tuple[int, int]
    gate: bool


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
        self._replay, self._needs, self._make = replay, needs, make
        self._images = Images(replay, device, gigabytes) if gigabytes else None
        self._sample = self._images.sample if self._images else replay.sample

    def next(self) -> Meal:
        """What the agent needs now.

        Raises:
            ReplayEmptyError: there are not so many rows.
        """
        needs = self._needs()
        batch = self._make(self._sample(*needs.batch))
        return Meal(batch, self._make(self._sample(*needs.measured)) if needs.gate else None)

    def take(self, count: int) -> Iterator[Meal]:
        """The next `count`, one for each update: the agent must have learned from one before it
        takes the next, which is prepared meanwhile.
        """
        self._replay.expect(count)
        for _ in range(count):
            yield self.next()

    def fresh(self, draw: int) -> Batch:
        """Sequences to measure on; a draw of its own number, which training does not miss."""
        return self._make(self._sample(*self._needs().measured, draw))

    def describe(self) -> str:
        """One line about what stays on the device, '' for nothing."""
        return self._images.describe() if self._images else ''


class Images:
    """Rows of a replay whose images are gathered from those that the device has seen.

    Args:
        replay, device, gigabytes: as for Feed.
    """

    def __init__(self, replay, device: torch.device, gigabytes: float):
        self._replay, self._device, self._bytes, self._store = replay, device, gigabytes * 1e9, None

    def describe(self) -> str:
        """How many rows fit."""
        rows = self._limit()
        size = f'{self._bytes / 1e9:.3g} GB on {self._device}'
        return f'{size} hold the images of {rows:,} rows.' if rows else ''

    def sample(self, batch: int, length: int, draw: int | None = None) -> Rows:
        """As Replay.sample; images are tensors on the device, if so many fit."""
        images = self._shapes()
        if not images or batch * length > self._limit():
            return self._replay.sample(batch, length, draw)
        if self._store is None:
            columns = {key: (shape, torch.uint8) for key, shape in images.items()}
            self._store = Store(columns, self._limit(), self._device)
        out = self._replay.sample(batch, length, draw, tuple(images))
        try:
            found = self._store.get(out['row_id'], lambda ids, _: self._read(ids, images))
        except ReplayError:  # a chunk turned out to be broken since
            return self._replay.sample(batch, length, draw)
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
