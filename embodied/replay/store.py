"""Folders of rows, opened: its shelf, what a row is, and what is known of the run that made them.

Nothing is locked here: whoever calls a method holds the lock that it was given.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ChunkError, ChunkUnreadable, ReplaySchemaError
from ..tasks import KEY
from . import manifest as manifests
from . import meta as metas
from . import npz
from .chunk import STEPID
from .config import ReplayConfig
from .finite import Finite
from .folder import Folder, listing
from .mix import Episode, episodes_of
from .restore import Restorer
from .sampler import ROW_ID
from .schema import Schema
from .several import agree
from .shelf import CHUNK_BYTES, GB, Shelf, Unusable


class Store:
    """A shelf and its folders.

    Attributes:
      shelf: the chunks. folders: of them, several only where they are read; none where rows are
        kept in memory only. folder: the first of them.
      obs_space, act_space: the spaces of the env, given or read from meta.json; None where neither
          knows them.
      meta: facts about the run that made the rows, given or read from meta.json.
      finite: refuses rows that hold NaN; None as long as there is no schema.
    """

    def __init__(
        self,
        config: ReplayConfig,
        directories: Sequence[Path],
        read_only: bool,
        lock: threading.Condition,
        on_event: Callable[[str], None],
        adopting: Callable[[Schema], None] = lambda schema: None,
    ):
        """An empty shelf; settle() and load() bring in what the folder holds.

        Args:
          config: budgets, and which rows load() restores.
          directories, read_only, on_event: as for Replay.
          lock: that the writing thread takes turns with.
          adopting: called with the schema before rows are like that; may refuse it.
        """
        self._read_only, self._on_event, self._adopting = read_only, on_event, adopting
        self._listed = config.resume == 'manifest'
        self._budgets = config.max_gb, config.disk_gb
        self.folders = tuple(Folder(path, read_only, on_event) for path in directories)
        self.folder = self.folders[0] if self.folders else None
        budgets = config.max_gb, config.disk_gb, config.chunk_rows
        self.shelf = Shelf(*budgets, self.folder, lock, on_event)
        self._restorers = [
            Restorer(self.shelf, folder, on_event, place)
            for place, folder in enumerate(self.folders)
        ]
        self.meta, self.obs_space, self.act_space = {}, None, None
        self.finite: Finite | None = None

    @property
    def schema(self) -> Schema | None:
        """What a row is; None until it is known."""
        return self.shelf.schema

    @property
    def rows_missing(self) -> int:
        """Rows that the checkpoint named and that were gone when load() looked for them."""
        return sum(restorer.rows_missing for restorer in self._restorers)

    # What a row is

    def settle(
        self,
        obs_space: Mapping[str, Any] | None = None,
        act_space: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Bring together what the spaces of the env and meta.json say about rows.

        Raises:
          ReplaySchemaError: they do not agree, or meta.json is damaged.
        """
        self.meta, self.obs_space, self.act_space = dict(meta or {}), obs_space, act_space
        given = None
        if obs_space is not None and act_space is not None:
            given = Schema.from_spaces(obs_space, act_space)
        stored = metas.read(self.folder.path) if self.folder else None
        if stored is not None:
            schema, there, here, facts = stored
            if given is not None:
                given.compare(schema, str(self.folder.path))
                self.folder.warn_of_other_meta(self.meta, facts)
            self.obs_space, self.act_space = obs_space or there, act_space or here
            self.meta = {**facts, **self.meta}
            given = schema
        if given is not None and self.schema is None:
            self.adopt(given)
        for folder in self.folders[1:]:
            self._compare(folder)

    def _compare(self, folder: Folder) -> None:
        """What meta.json of a further folder says, with what is known of the first."""
        stored = metas.read(folder.path)
        if stored is None:  # its rows will be compared
            return
        schema, there, here, facts = stored
        agree(folder.path, self.act_space, here, whole=True)
        agree(folder.path, self.obs_space, there, whole=False)
        if self.schema is not None:
            self.schema.compare(schema, str(folder.path), extra=True)
        task = {key: value for key, value in self.meta.items() if key == 'task'}
        folder.warn_of_other_meta(task, facts)

    @property
    def tasks(self) -> int:
        """How many tasks rows may be of."""
        return int(self.obs_space[KEY].n) if self.obs_space and KEY in self.obs_space else 1

    def adopt(self, schema: Schema) -> None:
        """Rows are like this from now on.

        Raises:
          ReplaySchemaError: rows cannot be like this.
        """
        self._adopting(schema)
        if ROW_ID in schema:
            raise ReplaySchemaError(f'A row must not have a key {ROW_ID!r}, which sample() adds.')
        if schema.nbytes > CHUNK_BYTES:
            raise ReplaySchemaError(
                f'A row takes {schema.nbytes:,} bytes; up to {CHUNK_BYTES:,} can be stored.'
            )
        self.shelf.schema, self.finite = schema, Finite(schema, self.act_space or ())
        self._keep_meta()

    def _keep_meta(self) -> None:
        """Write meta.json where there is none, or none any more."""
        if (
            self.folder
            and self.schema
            and not self._read_only
            and metas.read(self.folder.path) is None
        ):
            self.folder.write_meta(
                metas.encode(self.schema, self.obs_space, self.act_space, self.meta)
            )

    # The folder

    def load(self, manifest: Mapping[str, Any] | None) -> None:
        """Index the folder; see Replay.load(). The shelf must be empty."""
        for restorer in self._restorers:
            restorer.load(manifest, self._listed)
        self.shelf.seen = max(self.shelf.seen, self.shelf.streams.rows)
        for place, folder in enumerate(self.folders):
            self._check_first_chunk(place, folder)

    def save(self) -> dict[str, Any]:
        """Bring all rows to disk; the part of the manifest that tells of them.

        Raises:
          ReplayWriteError: a chunk cannot be written.
        """
        self.shelf.rotate_all()
        manifest = {'seen': self.shelf.seen, 'streams': []}
        if self.folder:
            manifest['streams'] = manifests.describe(self.shelf.streams)
            self.shelf.writer.flush()
            self._keep_meta()
        return manifest

    def flush(self) -> None:
        """Bring all rows to disk, if that is allowed; raises like save()."""
        if self.folder and not self._read_only:
            self.shelf.rotate_all()
            self.shelf.writer.flush()

    def close(self) -> None:
        """End the writing thread, say what was lost, and give the folder back."""
        if self.folder is not None:
            self.shelf.writer.close()
            self._say_what_was_lost()
            for folder in self.folders:
                folder.close()

    def _check_first_chunk(self, place: int, folder: Folder) -> None:
        """Compare the rows of the newest readable chunk of a folder with the schema, or take the
        schema from it.
        """
        for chunk in reversed(self.shelf.chunks()):
            if chunk.stream.place != place:
                continue
            try:
                columns = npz.describe(chunk.path)
            except (ChunkError, ChunkUnreadable) as error:
                self.shelf.set_aside(Unusable(chunk, error))
                continue
            found = Schema.from_columns(columns, str(chunk.path))
            if self.schema is None:
                self.adopt(found)
            self.schema.compare(found, str(chunk.path), extra=True)
            ignored = sorted(key for key in columns if key not in self.schema and key != STEPID)
            if ignored:
                self._on_event(
                    f'{folder.path}: keys in the chunks that are not part of a row are'
                    f' ignored: {listing(ignored)}.'
                )
            return

    def episodes(self, key: str) -> list[Episode]:
        """All episodes, as mix.episodes_of() has them; damaged chunks are set aside."""
        columns = {name: (dtype, shape) for name, dtype, shape in self.schema.specs}
        while True:
            try:
                return list(episodes_of(self.shelf.streams, columns, key))
            except Unusable as unusable:
                self.shelf.set_aside(unusable)

    # Words

    def stats(self, draws: int) -> dict[str, float]:
        """What there is and what happened; see Replay.stats()."""
        shelf, writer, folder = self.shelf, self.shelf.writer, self.folder
        backlog = sum(
            int(shelf.streams.ends[stream.slot])
            - max(stream.fresh, int(shelf.streams.begins[stream.slot]))
            for stream in shelf.streams.workers
        )
        aside = folder.aside_bytes if folder else 0
        return {
            'rows': float(shelf.streams.rows),
            'rows_seen': float(shelf.seen),
            'rows_evicted': float(shelf.rows_evicted),
            'streams': float(len(shelf.streams)),
            'chunks': float(len(shelf)),
            'draws': float(draws),
            'memory_gb': shelf.memory / GB,
            'disk_gb': (shelf.disk + aside) / GB,
            'newest_backlog': float(backlog),
            'chunks_waiting': float(writer.waiting if writer else 0),
            'write_errors': float(writer.failures if writer else 0),
            'chunks_broken': float(shelf.broken),
            'chunks_unreadable': float(shelf.unreadable),
        }

    def estimate(self) -> str:
        """One line on how many rows the budgets hold, for the start of a run."""
        if self.schema is None:
            return 'Replay: rows are not known yet.'
        row, (memory, disk) = self.schema.nbytes, self._budgets
        text = (
            f'Replay: {row:,} bytes per row; {memory:g} GB of memory hold'
            f' {int(self.shelf.memory_budget // row):,} rows'
        )
        if self.folder is None:
            return f'{text}; nothing is kept on disk.'
        return f'{text}, {disk:g} GB of disk hold {self.shelf.capacity:,} ({self.folder.path}).'

    def _say_what_was_lost(self) -> None:
        """One line at the end: what happened to chunks is easily missed among a day's output."""
        shelf, folder = self.shelf, self.folder
        told = [
            f'{folder.moved[name]} chunks were {verb} {name}'
            for name, verb in (
                ('broken', 'left out as' if self._read_only else 'moved to'),
                ('unlisted', 'moved to'),
            )
            if folder.moved[name]
        ]
        if shelf.unreadable:
            told.append(f'{shelf.unreadable} could not be read and were left out')
        if folder.aside_deleted:
            told.append(
                f'{folder.aside_deleted} that had been set aside were deleted for the disk budget'
            )
        if told:
            self._on_event(f'{folder.path}: in this run {", ".join(told)}.')
