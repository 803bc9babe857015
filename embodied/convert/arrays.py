"""Arrays in .npz and .npy files, read a few rows at a time: numpy.load brings each array of an .npz
into memory whole, also where it is asked to map it.
"""

import contextlib
import math
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from ..errors import ReplayError

DTYPES = 'biuf'
BLOCK_BYTES = 8 << 20  # that are read of a source at a time, where rows are not larger
MOST_ROWS = 1024


def block_rows(nbytes: int) -> int:
    """How many rows are read at a time, given the bytes of one."""
    return max(1, min(MOST_ROWS, BLOCK_BYTES // max(1, nbytes)))


class Column:
    """One array of an .npz, read from its first row on.

    Attributes:
      dtype, shape: of the array.
    """

    def __init__(self, archive: zipfile.ZipFile, name: str):
        """Raises ReplayError where it is no array of numbers, row after row."""
        self._file = archive.open(name)
        version = np.lib.format.read_magic(self._file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        self.shape, fortran, self.dtype = read(self._file)
        if self.dtype.kind not in DTYPES or (fortran and len(self.shape) > 1):
            raise ReplayError(f'{name} holds {self.dtype}{", column by column" * fortran}.')
        self._at = 0  # bytes that were read

    def rows(self, first: int, count: int) -> np.ndarray:
        """Rows `first` to `first + count`, which must lie behind those read before."""
        size = self.row_bytes
        assert size * first >= self._at, (size * first, self._at)
        self._file.seek(size * first - self._at, 1)
        content = self._file.read(size * count)
        if len(content) < size * count:
            raise ReplayError(f'ends before row {first + count} of {self.shape[0]}.')
        self._at = size * (first + count)
        return np.frombuffer(content, self.dtype).reshape(count, *self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    def merged(self) -> 'Column':
        """The same array with its first two axes as one; who asks reads this one alone."""
        self.shape = (self.shape[0] * self.shape[1], *self.shape[2:])
        return self


def side_by_side(
    columns: Mapping[str, Column], first: int = 0, count: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Rows `first` to `first + count`, or to the last, of columns that are equally long."""
    if not columns:
        return
    if count is None:
        count = next(iter(columns.values())).shape[0] - first
    size = block_rows(sum(column.row_bytes for column in columns.values()))
    for begin in range(first, first + count, size):
        length = min(size, first + count - begin)
        block = {key: column.rows(begin, length) for key, column in columns.items()}
        for index in range(length):
            yield {key: values[index] for key, values in block.items()}


def spans(ends: np.ndarray) -> Iterator[tuple[int, int]]:
    """First row, and the one behind the last, of each episode of two rows or more, given the rows
    at which one ends; what follows the last end is one more."""
    first = 0
    for stop in [*(np.flatnonzero(ends) + 1).tolist(), len(ends)]:
        if stop - first > 1:
            yield first, stop
        first = stop


@contextlib.contextmanager
def damaged_is_said(file: Path) -> Iterator[None]:
    """What a damaged .npz raises, as a ReplayError that names the file."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError) as error:
        raise ReplayError(f'{file}: cannot be read as .npz: {error}.') from error


@contextlib.contextmanager
def opened(file: Path) -> Iterator[dict[str, Column]]:
    """The arrays of an .npz, not read yet; others than of numbers are left out."""
    with damaged_is_said(file), zipfile.ZipFile(file) as archive:
        columns = {}
        for name in archive.namelist():
            with contextlib.suppress(ReplayError):
                columns[name.removesuffix('.npy')] = Column(archive, name)
        yield columns


def whole(file: Path, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of numbers of an .npz, all or those of some names.

    Raises:
      ReplayError: it is damaged, or no .npz.
    """
    with opened(file) as columns:
        return {
            key: column.rows(0, column.shape[0]) if column.shape else column.rows(0, 1)
            for key, column in columns.items()
            if names is None or key in names
        }
