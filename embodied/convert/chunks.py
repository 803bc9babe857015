"""Folders of chunks: DreamerV3's, and our own."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..base import OUTCOME
from ..errors import ReplayError
from ..replay import meta as metas
from ..replay import npz
from ..replay.archive import Archive
from ..replay.archive import Episode as Span
from ..replay.chunk import Chunk
from ..replay.infer import LEFT_OUT, folder_of
from ..replay.streams import Stream
from .episode import Episode, Options, Recording, Row, Unit
from .npz_files import is_action


def open_chunks(source: Path, options: Options) -> Recording:
    """Chunks in chains, whose rows are as ours: the action is taken at its frame, the reward came
    with it. Latents and row ids that DreamerV3 stores beside are left out.
    """
    directory = folder_of(source)
    archive = Archive(directory)
    if archive.broken:
        name, fault = next(iter(archive.broken.items()))
        raise ReplayError(f'{fault} Move {name} away to convert what is left.')
    if missing := {'is_first', 'is_last'} - {key for key, _, _ in archive.schema.specs}:
        raise ReplayError(f'{directory}: its rows have no {" and no ".join(sorted(missing))}.')
    stored = metas.read(directory)
    act_space = (stored and stored[2]) or {}
    act_space = {key: space for key, space in act_space.items() if key != 'reset'}
    names = {
        key for key, _, _ in archive.schema.specs if key in act_space or is_action(key, options)
    }
    spans = list(archive.episodes())
    return Recording(_units(archive, spans, names), len(spans), archive.meta, act_space)


def _units(archive: Archive, spans: list[Span], names: set[str]) -> Iterator[Unit]:
    reader = Reader(archive)
    for number, span in enumerate(spans):
        yield Unit(f'{number:08}', lambda span=span: _episode(reader, span, names))


def _episode(reader: 'Reader', span: Span, names: set[str]) -> Episode:
    stream = reader.archive.streams[span.slot]
    schema = reader.archive.schema
    actions = {key: reader.column(stream, key, span) for key in names}
    seen = [
        key
        for key, _, _ in schema.specs
        if key not in actions and key not in OUTCOME and key not in LEFT_OUT
    ]
    return Episode(
        reader.rows(stream, span, seen),
        actions,
        rewards=reader.column(stream, 'reward', span) if 'reward' in schema else None,
        came=True,
        terminal=span.ends == 'terminal',
        idle=True,
    )


class Reader:
    """Reads rows of an archive in order, a chunk at a time."""

    def __init__(self, archive: Archive):
        self.archive = archive
        self._chunk: Chunk | None = None
        self._columns: dict[str, np.ndarray] = {}

    def column(self, stream: Stream, key: str, span: Span) -> np.ndarray:
        """(length, *shape): one column of an episode."""
        return np.concatenate(
            [
                self._read(chunk)[key][start:stop]
                for chunk, start, stop in stream.pieces(span.first, span.length)
            ]
        )

    def rows(self, stream: Stream, span: Span, keys: list[str]) -> Iterator[Row]:
        """The rows of an episode."""
        for chunk, start, stop in stream.pieces(span.first, span.length):
            for index in range(start, stop):
                columns = self._read(chunk)
                yield {key: columns[key][index] for key in keys}

    def _read(self, chunk: Chunk) -> dict[str, np.ndarray]:
        if chunk is not self._chunk:
            self._columns = npz.read(chunk.path, self.archive.schema.columns(chunk.length))
            self._chunk = chunk
        return self._columns
