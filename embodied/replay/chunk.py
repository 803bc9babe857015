"""A chunk: a block of consecutive rows of one worker, linked to the block that follows, and its
file.

The file is named {time}-{uuid}-{successor}-{length}.npz, as DreamerV3 names its own: `time` is the
local time at which the chunk was opened (YYYYmmddTHHMMSSF and microseconds), the ids are 128 random
bits as 22 digits of base 62, all zeros for no successor. So an index of a folder is made from names
alone. Beside the rows it holds the column that DreamerV3 looks for, 'stepid' (16 bytes of the id
and the row's number), which nothing here reads. A file is written once, appears whole or not at
all, and is never changed.
"""

import datetime
import re
import string
import uuid as uuidlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ChunkError
from ..files import whole
from . import npz
from .schema import Schema

NO_SUCCESSOR = '0' * 22
FIRST_CAPACITY = 32  # rows that a new chunk has memory for
# times as many when these are full: few copies; pages that no row has touched cost nothing
GROWTH = 4

_NAME = re.compile(
    r'([0-9]{8}T[0-9]{6}F[0-9]{6})-([0-9A-Za-z]{22})-([0-9A-Za-z]{22})-([0-9]{1,9})\.npz'
)
_TIME = '%Y%m%dT%H%M%SF%f'
STEPID = 'stepid'
_BASE62 = string.digits + string.ascii_letters


class ChunkName(NamedTuple):
    """What the name of a chunk file says. Sorts by time."""

    time: str
    uuid: str
    succ: str
    length: int

    @classmethod
    def parse(cls, filename: str) -> 'ChunkName':
        """Raises ChunkError where the file name is not that of a chunk."""
        match = _NAME.fullmatch(filename)
        if not match or int(match[4]) < 1:
            raise ChunkError(
                f'{filename!r} is not the name of a chunk,'
                ' {time}-{uuid}-{successor}-{length}.npz.'
            )
        try:
            year = datetime.datetime.strptime(match[1], _TIME).year
        except ValueError as error:
            raise ChunkError(f'{filename!r} holds no time: {error}.') from error
        if year > 9000:
            raise ChunkError(f'{filename!r} comes from the year {year}.')
        return cls(match[1], match[2], match[3], int(match[4]))

    def __str__(self) -> str:
        return f'{self.time}-{self.uuid}-{self.succ}-{self.length}.npz'


class Chunk:
    """Rows in memory, in a file, or both.

    Attributes:
      time, uuid: see the module; fixed from the start.
      succ: uuid of the chunk that follows, None as long as rows may be appended.
      length: rows.
      columns: key -> array (at least length, *shape), or None while the rows are in the file only.
      path: the file; None as long as there is none.
      file_bytes: size of the file, or of the file to be; 0 as long as rows may be appended.
      mapped: whether the columns hold a file descriptor.
      stream: the stream that the chunk is part of; set and used by streams.py.
    """

    __slots__ = (
        'time',
        'uuid',
        'succ',
        'length',
        'columns',
        'path',
        'file_bytes',
        'mapped',
        'stream',
        '_arrays',
        '_capacity',
        '_limit',
        '_verified',
    )

    def __init__(self, time: str, uuid: str, limit: int):
        """An empty chunk for at most `limit` rows."""
        self.time, self.uuid, self.succ = time, uuid, None
        self.length, self._capacity, self._limit = 0, 0, limit
        self.columns, self._arrays = None, []
        self.path, self.file_bytes, self.stream = None, 0, None
        self.mapped = self._verified = False

    @classmethod
    def on_disk(cls, path: Path, name: ChunkName, file_bytes: int) -> 'Chunk':
        """A chunk whose rows are in a file, which is not opened yet."""
        chunk = cls(name.time, name.uuid, name.length)
        chunk.succ, chunk.length, chunk.path, chunk.file_bytes = (
            name.succ,
            name.length,
            path,
            file_bytes,
        )
        return chunk

    @property
    def name(self) -> ChunkName:
        return ChunkName(self.time, self.uuid, self.succ or NO_SUCCESSOR, self.length)

    @property
    def full(self) -> bool:
        return self.length >= self._limit

    @property
    def nbytes(self) -> int:
        """Bytes that the columns take in memory (or in the address space, where they are
        mapped).
        """
        return sum(column.nbytes for column in self.columns.values()) if self.columns else 0

    def append(self, schema: Schema, values: list) -> bool:
        """Add one row, as Schema.check() returned it. Returns whether the memory of the chunk
        grew.
        """
        grows = self.length == self._capacity
        if grows:
            self._resize(schema, min(max(FIRST_CAPACITY, GROWTH * self._capacity), self._limit))
        index = self.length
        for array, value in zip(self._arrays, values):
            array[index] = value
        self.length = index + 1
        return grows

    def close(self, succ: str) -> None:
        """Fix the successor. No row can be appended any more, and memory that was kept for rows
        is given back.
        """
        assert self.succ is None and self.length, (self.name, self.succ)
        if self._capacity > self.length:
            self.columns = {
                key: column[: self.length].copy() for key, column in self.columns.items()
            }
        self._arrays = []
        self.succ = succ
        self.file_bytes = npz.size(file_columns(self.columns, self.uuid))

    def write(self, directory: Path) -> Path:
        """Write the file: first under a hidden name, then flushed to the disk, then renamed.
        Returns its path.

        Raises:
          OSError: nothing remains under either name then.
        """
        path = directory / str(self.name)
        directory.mkdir(parents=True, exist_ok=True)  # somebody may have deleted it
        with whole(path) as file:
            npz.write(file, file_columns(self.columns, self.uuid))
        return path

    def load(self, schema: Schema, limit: int = npz.LIMIT) -> None:
        """Map, read or decompress (up to `limit` bytes) the columns from the file. The first time
        the checksum of every column is compared.

        Raises:
          ChunkError: names the file and what is wrong with it.
          ChunkUnreadable, OutOfResources: the system does not let it be read.
        """
        verify = not self._verified
        self.columns = npz.read(self.path, schema.columns(self.length), limit, verify)
        self.mapped, self._verified = npz.is_mapped(self.columns), True

    def drop(self) -> None:
        """Give memory and descriptor back; the rows stay in the file."""
        assert self.path is not None, self.name
        self.columns, self.mapped = None, False

    def _resize(self, schema: Schema, capacity: int) -> None:
        grown = {key: np.empty((capacity, *shape), dtype) for key, dtype, shape in schema.specs}
        if self.columns:
            for key, column in self.columns.items():
                grown[key][: self.length] = column[: self.length]
        self.columns, self._arrays, self._capacity = grown, list(grown.values()), capacity


def file_columns(columns: dict[str, np.ndarray], uuid: str) -> dict[str, np.ndarray]:
    """The columns of a chunk's file: those of its rows, and 'stepid' uint8 (length, 20)."""
    length = len(next(iter(columns.values())))
    number = 0
    for digit in uuid:
        number = 62 * number + _BASE62.index(digit)
    ids = np.empty((length, 20), np.uint8)
    ids[:, :16] = np.frombuffer(number.to_bytes(17, 'big')[1:], np.uint8)
    ids[:, 16:] = np.arange(length, dtype='>u4').view(np.uint8).reshape(length, 4)
    return {**columns, STEPID: ids}


def file_bytes(schema: Schema, length: int) -> int:
    """Bytes of the file of a chunk of that many rows."""
    columns = {  # of the right size, without memory
        key: np.broadcast_to(np.zeros((), dtype), (length, *shape))
        for key, dtype, shape in schema.specs
    }
    return npz.size(file_columns(columns, NO_SUCCESSOR))


def new_uuid() -> str:
    """128 random bits as 22 digits of base 62."""
    number, digits = uuidlib.uuid4().int, []
    for _ in range(22):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return ''.join(reversed(digits))


def timestamp(after: str = '') -> str:
    """The local time as in chunk names, and always later than `after`, also where the clock was
    set back.
    """
    now = datetime.datetime.now().strftime(_TIME)
    if now > after:
        return now
    return (datetime.datetime.strptime(after, _TIME) + datetime.timedelta(microseconds=1)).strftime(
        _TIME
    )
