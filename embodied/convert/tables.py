"""Parquet and Arrow files, read a few rows at a time: a file, a row group and an episode may each
be as large as the source.
"""

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReplayError

BUFFER = 1 << 20  # bytes of a Parquet file that are read at a time, per column


@contextlib.contextmanager
def damaged_is_said(path: Path) -> Iterator[None]:
    """What pyarrow raises of a damaged file, as a ReplayError that names it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error


class Parquet:
    """Some columns of a Parquet file. Memory holds a batch, and of each column the page that it
    comes from.

    Attributes:
      path: the file.
      names: of the columns that it has, of those that were asked for.
    """

    def __init__(self, path: Path, columns: Collection[str], rows: int):
        """
        Args:
          columns: that are wanted; what the file lacks is left out.
          rows: of a batch.

        Raises:
          ReplayError: the file cannot be read.
        """
        import pyarrow.parquet as pq

        self.path, self._rows = path, rows
        with damaged_is_said(path):
            self._file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
            self.names = [name for name in self._file.schema_arrow.names if name in columns]
        meta = self._file.metadata
        counts = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        self._starts = [0, *np.cumsum(counts).tolist()]
        self._open(0)

    def batches(self, first: int, count: int) -> Iterator[Any]:
        """Record batches of rows `first` to `first + count`. Rows behind those of the call before
        cost no more than reading on.

        Raises:
          ReplayError: the file is damaged, or ends before.
        """
        if first < self._begin:
            self._open(first)
        while count > 0:
            while first >= self._end:
                self._next(first)
            piece = self._batch.slice(first - self._begin, count)
            yield piece
            first, count = first + piece.num_rows, count - piece.num_rows

    def _open(self, first: int) -> None:
        """Begin with the row group of a row."""
        group = max(0, int(np.searchsorted(self._starts, first, 'right')) - 1)
        groups = range(group, len(self._starts) - 1)
        self._stream = self._file.iter_batches(
            self._rows, row_groups=groups, columns=self.names, use_threads=False
        )
        self._begin = self._end = self._starts[min(group, len(self._starts) - 1)]
        self._batch: Any = None

    def _next(self, first: int) -> None:
        self._batch = None  # two of them need not be there at a time
        with damaged_is_said(self.path):
            batch = next(self._stream, None)
        if batch is None:
            raise ReplayError(f'{self.path}: ends before row {first + 1}.')
        self._batch, self._begin, self._end = batch, self._end, self._end + batch.num_rows

    @property
    def length(self) -> int:
        """Rows of the file."""
        return self._starts[-1]


def arrow_batches(path: Path, columns: Collection[str], rows: int) -> Iterator[Any]:
    """Record batches of at most `rows` rows of an Arrow file, which is mapped: what was read may
    leave memory again.

    Raises:
      ReplayError: the file cannot be read.
    """
    import pyarrow as pa

    with damaged_is_said(path), pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source)
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            batch = batch.select([name for name in batch.schema.names if name in columns])
            for first in range(0, batch.num_rows, rows):
                yield batch.slice(first, rows)


def numbers(array: Any, shape: tuple[int, ...]) -> np.ndarray:
    """(N, *shape) of an Arrow array of numbers, or of lists of them, one within the other.

    Raises:
      ValueError: it holds lists of other lengths.
    """
    import pyarrow as pa

    length = len(array)
    listed = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    while any(is_one(array.type) for is_one in listed):
        array = array.flatten()
    values = array.to_numpy(zero_copy_only=False)
    if len(values) != length * math.prod(shape):
        raise ValueError(f'{length} rows of the shape {shape} hold {len(values)} numbers')
    return values.reshape(length, *shape)
