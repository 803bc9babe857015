"""A replay folder opened to be looked at: its rows, and the episodes that they tell of."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import ChunkError, ChunkUnreadable, ReplayError
from . import meta as metas
from . import npz
from .chunk import Chunk
from .folder import Folder
from .schema import Schema
from .streams import Stream, Streams, chains

FLAGS = ('is_first', 'is_last', 'is_terminal', 'reward')  # what episodes are told by


class Episode(NamedTuple):
    """Rows `first` to `first + length` of stream `slot`. `ends` is one of 'terminal', 'truncated'
    (a time limit), 'cut' (a new episode began without a last row), 'open' (no more rows); `whole`
    is False where the first row is not held any more. The length counts rows, so decisions are one
    fewer.
    """

    slot: int
    first: int
    length: int
    score: float
    ends: str
    whole: bool


class Archive:
    """A replay folder opened to be looked at; files that are damaged or cannot be read are listed
    and left out.

    Attributes:
      broken: file name -> what is wrong with it.
      unverified: files that were not read to their last byte.
      verified: whether all were to be.
      act_space: spaces of the actions as meta.json names them, None where it does not.
    """

    def __init__(self, directory: Path, verify: bool = False):
        """Opens every file.

        Args:
          directory: of the chunks.
          verify: compare the checksums of all files; otherwise of small ones, and of the columns
            that are looked at.

        Raises:
          ReplayError: there is no such folder, or nothing readable in it.
        """
        if not directory.is_dir():
            raise ReplayError(f'{directory}: there is no such folder.')
        self.verified = verify
        self.notes: list[str] = []
        self.broken: dict[str, str] = {}
        self.unverified = 0
        found = Folder(directory, True, self.notes.append).scan()
        self.bytes = sum(chunk.file_bytes for chunk in found.values())
        stored = metas.read(directory)
        self.schema, _, self.act_space, self.meta = stored or (
            first_schema(found, directory),
            None,
            None,
            {},
        )
        self.streams = Streams()
        self.chunks = self._link(found)

    def _link(self, found: dict[str, Chunk]) -> int:
        good = {uuid: chunk for uuid, chunk in found.items() if self._check(chunk)}
        for chain in chains(chunk.name for chunk in good.values()):
            stream = self.streams.new()
            for name in chain:
                self.streams.link(stream, good[name.uuid])
        return len(good)

    def _check(self, chunk: Chunk) -> bool:
        whole = self.verified or chunk.file_bytes <= npz.READ_WHOLE
        columns = self.schema.columns(chunk.length)
        try:
            if whole:
                npz.verify(chunk.path)
            npz.read(chunk.path, columns)
            npz.read(
                chunk.path, {key: columns[key] for key in FLAGS if key in columns}, verify=not whole
            )
        except (ChunkError, ChunkUnreadable) as error:
            self.broken[chunk.path.name] = str(error)
            return False
        self.unverified += not whole
        return True

    def column(self, stream: Stream, key: str, first: int, length: int) -> np.ndarray:
        """(length, *shape): one column of some rows."""
        parts = []
        for chunk, start, stop in stream.pieces(first, length):
            expected = self.schema.columns(chunk.length)[key]
            parts.append(npz.read(chunk.path, {key: expected}, verify=True)[key][start:stop])
        return np.concatenate(parts)

    def episodes(self) -> Iterator[Episode]:
        """All episodes, stream by stream in the order their first chunks were opened; none where
        the rows do not tell their borders. Where they have no reward the score is nan.
        """
        if not all(key in self.schema for key in ('is_first', 'is_last')):
            return
        for stream in self.streams:
            begin, end = int(self.streams.begins[stream.slot]), int(self.streams.ends[stream.slot])
            unknown = {
                'is_terminal': np.zeros(end - begin, bool),
                'reward': np.full(end - begin, np.nan),
            }
            first, last, terminal, reward = (
                self.column(stream, key, begin, end - begin) if key in self.schema else unknown[key]
                for key in FLAGS
            )
            starts = np.flatnonzero(first | np.concatenate([[True], last[:-1]]))
            for start, stop in zip(starts, [*starts[1:], len(first)]):
                how = (
                    'terminal'
                    if terminal[stop - 1]
                    else 'truncated'
                    if last[stop - 1]
                    else 'cut'
                    if stop < len(first)
                    else 'open'
                )
                score = float(reward[start:stop].sum(dtype=np.float64))
                yield Episode(
                    stream.slot,
                    begin + int(start),
                    int(stop - start),
                    score,
                    how,
                    bool(first[start]),
                )


def first_schema(found: dict[str, Chunk], directory: Path) -> Schema:
    """Of the newest readable chunk in a folder; raises ReplayError where there is none."""
    for chunk in reversed(found.values()):
        try:
            return Schema.from_columns(npz.describe(chunk.path), str(chunk.path))
        except (ChunkError, ChunkUnreadable):
            continue
    inner = sorted(path.parent for path in directory.glob('*/*.npz'))
    inner += sorted(path.parent.parent for path in directory.glob('*/replay/*.npz'))
    near = f'; there are some in {inner[0]}' if inner else ''
    raise ReplayError(f'{directory} holds no readable chunk{near}.')
