"""Rows that a device keeps, found by the ids that the replay hands out; never part of its files.

Letters: B sequences, T rows, N rows of a list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

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


def frames_gb(config: CacheConfig, device: torch.device) -> float:
    """Gigabytes for frames: as configured, or on a GPU a share of what is free, elsewhere none."""
    if config.frames_gb >= 0:
        return config.frames_gb
    return SHARE * free_gb(device) if device.type == 'cuda' else 0.0


def free_gb(device: torch.device) -> float:
    """Memory of a GPU that nobody takes, 10^9 bytes."""
    return torch.cuda.mem_get_info(device)[0] / 1e9
