"""What the device keeps of the replay's rows: frames, so that each crosses the bus once. They are
found by the row ids that the replay hands out, and never part of its files.

Letters: B sequences, T rows, N rows of a list.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from embodied.errors import ReplayError

from .batch import move

FIRST = 4096  # rows that a store has memory for at first; it doubles until its limit
# of the free memory of a GPU that frames may take where nobody says how much; growing takes twice
# that for a moment
SHARE = 0.25


@dataclass(frozen=True)
class CacheConfig:
    """Block `machine.cache` of the configuration; meanings stand there."""

    frames_gb: float


class Store:
    """Rows of some columns on a device, found by their id; at its limit the oldest are overwritten.

    Args:
        columns: name -> (shape, dtype) of a row. limit: rows at most. device: where.
    """

    def __init__(
        self,
        columns: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
        limit: int,
        device: torch.device,
    ):
        self.limit, self._next = limit, 0
        self._place: dict[int, int] = {}  # row id -> where it stands
        self._owner = np.full(min(FIRST, limit), -1, np.int64)  # and back
        self._columns = {
            name: torch.empty(len(self._owner), *shape, dtype=dtype, device=device)
            for name, (shape, dtype) in columns.items()
        }

    def __len__(self) -> int:
        return len(self._place)

    def clear(self) -> None:
        """Forget all rows."""
        self._place.clear()
        self._owner[:], self._next = -1, 0

    def get(
        self, ids: np.ndarray, make: Callable[[np.ndarray, np.ndarray], Mapping[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """Rows by id.

        Args:
            ids: int64 (B, T), of no more than `limit` rows.
            make: (ids (N,), where each first stands in the flat `ids` (N,)) -> name -> (N, ...) on
                the device, of rows that are not here.

        Returns:
            name -> (B, T, ...).
        """
        unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        assert len(unique) <= self.limit, (len(unique), self.limit)
        places = np.array([self._place.get(row, -1) for row in unique.tolist()], np.int64)
        missing = np.flatnonzero(places < 0)
        if len(missing):
            made = make(unique[missing], first[missing])
            places[missing] = self._take(unique[missing].tolist(), set(places.tolist()))
            where = self._index(places[missing])
            for name, column in self._columns.items():
                column.index_copy_(0, where, made[name].to(column.dtype))
        index = self._index(places[inverse.reshape(-1)])
        return {
            name: column.index_select(0, index).unflatten(0, ids.shape)
            for name, column in self._columns.items()
        }

    def _index(self, places: np.ndarray) -> torch.Tensor:
        return move(places, next(iter(self._columns.values())).device)

    def _take(self, ids: list[int], used: set[int]) -> list[int]:
        """Places for new rows; those in `used` are left alone."""
        places = []
        while len(places) < len(ids):
            if self._next == len(self._owner):
                self._wrap()
            place, self._next = self._next, self._next + 1
            if place in used:
                continue
            self._place.pop(int(self._owner[place]), None)
            self._place[ids[len(places)]], self._owner[place] = place, ids[len(places)]
            places.append(place)
        return places

    def _wrap(self) -> None:
        """At the end of the memory: take more, or begin anew where the limit is reached."""
        size = min(2 * len(self._owner), self.limit)
        if size == len(self._owner):
            self._next = 0
            return
        try:
            grown = {
                name: torch.empty(size, *x.shape[1:], dtype=x.dtype, device=x.device)
                for name, x in self._columns.items()
            }
        except torch.cuda.OutOfMemoryError:  # others have taken what was free at the start
            self.limit, self._next = len(self._owner), 0
            return
        for name, column in self._columns.items():
            grown[name][: len(column)] = column
        self._columns = grown
        self._owner = np.concatenate([self._owner, np.full(size - len(self._owner), -1, np.int64)])


class Mirror:
    """A replay whose images also stand on the device: sample() gathers them there, and gives
    tensors for them. All else is the replay's.

    Args:
        replay: an embodied.replay.Replay. device: where images are kept. gigabytes: for them, 10^9
            bytes.
    """

    def __init__(self, replay, device: torch.device, gigabytes: float):
        self._replay, self._device, self._bytes, self._store = replay, device, gigabytes * 1e9, None

    def __getattr__(self, name):
        return getattr(self._replay, name)

    def __len__(self) -> int:
        return len(self._replay)

    def estimate(self) -> str:
        """That of the replay, and what of it the device holds."""
        text = self._replay.estimate()
        return (
            f'{text} {self._bytes / 1e9:.3g} GB on {self._device} hold the images of'
            f' {self._limit():,} rows.'
            if self._limit()
            else text
        )

    def sample(
        self, batch: int, length: int, draw: int | None = None, without: Iterable[str] = ()
    ) -> dict[str, np.ndarray | torch.Tensor]:
        """As Replay.sample; images are tensors on the device."""
        images = [key for key in self._images() if key not in without]
        if not images or batch * length > self._limit():
            return self._replay.sample(batch, length, draw, without)
        if self._store is None:
            self._store = Store(
                {key: (shape, torch.uint8) for key, shape in self._images().items()},
                self._limit(),
                self._device,
            )
        out = self._replay.sample(batch, length, draw, [*without, *images])
        read = lambda ids, _: {
            key: move(value, self._device)
            for key, value in self._replay.rows(ids, self._images()).items()
        }
        try:
            found = self._store.get(out['row_id'], read)
        except ReplayError:  # a chunk turned out to be broken since
            return self._replay.sample(batch, length, draw, without)
        return out | {key: found[key] for key in images}

    def _images(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of the images of a row."""
        return self._replay.schema.images if self._replay.schema else {}

    def _limit(self) -> int:
        """Rows that there is room for; never more than the replay can hold."""
        size = sum(int(np.prod(shape)) for shape in self._images().values())
        return min(int(self._bytes // size), self._replay.capacity) if size else 0


def frames_gb(config: CacheConfig, device: torch.device) -> float:
    """Gigabytes for frames: as configured, or on a GPU a share of what is free, elsewhere none."""
    if config.frames_gb >= 0:
        return config.frames_gb
    return SHARE * free_gb(device) if device.type == 'cuda' else 0.0


def free_gb(device: torch.device) -> float:
    """Memory of a GPU that nobody takes, 10^9 bytes."""
    return torch.cuda.mem_get_info(device)[0] / 1e9
