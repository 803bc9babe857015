"""The replay as its users see it: rows in, sequences out, save and load.

Sequences cross the borders of chunks and of episodes. The rows stand in store.py, what is drawn is
decided in draws.py, as often for each of several tasks; here both come together, with
demonstrations, under one lock.
"""

import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ReplayError
from ..tasks import KEY
from . import manifest as manifests
from . import meta as metas
from .config import ReplayConfig
from .demos import further
from .draws import Draws, Prepared
from .mix import Relevance, Split
from .sampler import Sampler
from .schema import Schema
from .several import describe, paths
from .store import Store


class Replay:
    """See the module. Every public method may be called from any thread; one lock makes them take
    turns.

    Attributes:
      schema: keys, dtypes and shapes of a row; None until they are known.
      obs_space, act_space: the spaces of the env, given or read from meta.json; None where neither
          knows them.
      meta: facts about the run that made the rows, given or read from meta.json.
      prefetch: whether somebody who draws may have the next draw prepared by a thread.
      rows_missing: rows that the checkpoint named and that were gone when load() looked for them.
      directory: folder of the chunks, the first of several; None: rows are in memory only.
    """

    def __init__(
        self,
        config: ReplayConfig,
        directory: str | os.PathLike | Sequence[str | os.PathLike] | None,
        seed: int,
        obs_space: Mapping[str, Any] | None = None,
        act_space: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        read_only: bool = False,
        on_event: Callable[[str], None] | None = None,
    ):
        """An empty replay; load() brings in what the folder holds.

        Args:
          config: budgets and mixture.
          directory: folder of the chunks, several to be read as one; None: rows in memory only.
          seed: integer >= 0; with the number of the draw it decides what sample() picks.
          obs_space, act_space: spaces of the env; without them the folder or the first row says
              what a row is.
          meta: JSON-able facts kept in the folder: task, repeat, image size, seed.
          read_only: nothing in the folder is changed, and add() is refused.
          on_event: called with one sentence for everything that goes wrong and is survived; the
              default is a warning.

        Raises:
          ReplaySchemaError: the folder (or that of the demonstrations) holds rows of other keys,
              dtypes or shapes.
          ReplayWriteError: the folder cannot be made.
          FolderInUse: another process writes to the folder.
        """
        self._read_only = read_only
        on_event = on_event or _warn
        self._lock = threading.Condition()
        self._closed, self.prefetch = False, config.prefetch
        folders = paths(directory, read_only)
        self._store = Store(config, folders, read_only, self._lock, on_event, self._align)
        self._shelf = self._store.shelf
        self._further = further(config, on_event)
        sampler = Sampler(self._shelf, config.mixture, seed, config.shares[: len(folders)])
        self._draws = Draws(self._shelf, sampler, self._further, config, self._lock)
        self._config, self._sampler, self._on_event = config, sampler, on_event
        self._store.settle(obs_space, act_space, meta)

    schema = property(lambda self: self._store.schema)
    obs_space = property(lambda self: self._store.obs_space)
    act_space = property(lambda self: self._store.act_space)
    meta = property(lambda self: self._store.meta)
    rows_missing = property(lambda self: self._store.rows_missing)
    directory = property(lambda self: self._store.folder and self._store.folder.path)

    def __len__(self) -> int:
        """Rows that can be sampled, without demonstrations."""
        with self._lock:
            return self._shelf.streams.rows

    def sequences(self, length: int) -> int:
        """How many sequences of `length` rows sample() can draw, without demonstrations.

        Raises:
          ReplayEmptyError: the demonstrations hold none, and nobody adds to them.
        """
        with self._lock:
            for folder in self._further:
                folder.require(length)
            return self._shelf.streams.sequences(length)

    @property
    def longest(self) -> int:
        """Rows of the longest stream, without demonstrations."""
        return self._shelf.streams.longest

    @property
    def capacity(self) -> int | None:
        """Rows that can be held at the same time: what fits on disk or, without a folder, in
        memory; None while rows are not known.
        """
        return None if self.schema is None else self._shelf.capacity

    # Rows in

    def add(self, row: Mapping[str, Any], worker: int = 0) -> None:
        """Store one row, a copy of it, as the next one of a worker.

        Where the disk is slower than the rows that come, and memory is full, this waits for the
        disk.

        Args:
          row: the keys of the row table with the dtypes and shapes of the spaces; 'log/' keys are
              dropped.
          worker: which env the row comes from. Rows of one worker must come in order.

        Raises:
          ReplaySchemaError: names the key that is missing, unknown, or of another dtype or shape.
          ReplayNonFinite: a value is NaN or infinite and not marked as unlabeled.
          ReplayError: the replay is read-only or closed.
        """
        with self._lock:
            if self._read_only or self._closed:
                raise ReplayError(
                    'Rows cannot be added to a replay that is'
                    f' {"closed" if self._closed else "read-only"}.'
                )
            if self.schema is None:
                self._store.adopt(Schema.from_row(row))
            values = self.schema.check(row)
            self._store.finite.check(values, row, worker)
            self._shelf.append(self._shelf.streams.of(self._stream(row, worker)), values)
            self._shelf.keep_budget()

    def _stream(self, row: Mapping[str, Any], worker: int) -> int:
        """The stream of a row: a worker that takes turns in tasks has one for each of them."""
        tasks = self._store.tasks
        return worker * tasks + int(row[KEY]) if tasks > 1 else worker

    # Rows out

    def sample(
        self,
        batch: int,
        length: int,
        draw: int | None = None,
        without: Iterable[str] = (),
        prepared: Prepared | None = None,
        relevant: bool = False,
    ) -> dict[str, np.ndarray]:
        """Draw sequences of consecutive rows of one worker each.

        The rows are as stored; they may cross the borders of episodes, and a sequence may begin
        anywhere in one. Only where an episode was cut (the env crashed, the run was interrupted) so
        that a first row follows a row that is not a last one, the latter has is_last set: a
        truncated end. Where demonstrations are not labeled, all rows have the flags of labels.py.

        Args:
          batch: number of sequences.
          length: rows of each.
          draw: with a number, the draw of that number is made without taking part in the sequence
            of draws: the counter stays, nothing counts as handed out, and uniform takes the place
            of newest. For reports: after split() such draws are of what is held out.
          without: keys to leave out, for who has them already.
          prepared: of prepare(), taken if it is what would be drawn now.
          relevant: whether relevant episodes have their share, and rows the flags of mix.MIX.

        Returns:
          Key of the row -> fresh array (batch, length, *shape), and 'row_id', int64 (batch,
          length): equal ids are the same row, until load() is called; rows() reads them. Decided by
          the seed, the number of the draw, and what is stored.

        Raises:
          ReplayEmptyError: no worker has that many rows in succession; says how many are missing.
          OutOfResources: a chunk cannot be read now for want of descriptors or memory; no row is
              lost.
        """
        if batch < 1 or length < 1:
            raise ValueError(f'batch and length must be at least 1, got {batch} and {length}.')
        if draw is not None:
            return self._draws.peek(batch, length, tuple(without), draw)
        return self._draws.next(batch, length, tuple(without), relevant, prepared)

    def prepare(
        self, batch: int, length: int, without: Iterable[str] = (), relevant: bool = False
    ) -> Prepared | None:
        """The next draw, made and not handed out, for sample(): another thread may have it made
        while the caller works. None where it fails, which whoever asks for the draw will be told.
        """
        return self._draws.prepare(batch, length, tuple(without), relevant)

    @property
    def held_out(self) -> bool:
        """Whether there are episodes that draws with a number alone are of."""
        return self._sampler.split is not None and len(self._sampler.split.measured.slots) > 0

    def split(self, length: int) -> None:
        """Set the share replay.held_out of the episodes aside, and find the relevant ones, as
        mix.Split does; of a loaded replay that nobody adds to. Args: rows of the longest sequence.
        """
        c, relevance = self._config, Relevance.read(self._config.relevance)
        asked = relevance if c.relevant and relevance.kind != 'demos' else None
        folders = [folder.path for folder in self._store.folders]
        split = None
        if self._read_only and (c.held_out or asked):
            with self._lock:
                found = list(self._store.episodes(asked.key if asked else ''))
                self._sampler.split = split = Split(found, c.held_out, asked, length)
            self._on_event(f'Episodes of {", ".join(map(str, folders))}: {split.words()}.')
        if len(folders) > 1:
            self._on_event(describe(folders, self._shelf.streams, split, c.shares, length))

    def rows(self, ids: np.ndarray, keys: Iterable[str]) -> dict[str, np.ndarray]:
        """Read rows that sample() has named.

        Args:
          ids: int64 (n,), of rows that are still held. Runs of neighbours are read at once.
          keys: of the row.

        Returns:
          Key -> fresh array (n, *shape), as stored.

        Raises:
          ReplayError: a row is not held any more.
        """
        with self._lock:
            return self._draws.rows(ids, keys)

    @property
    def draws(self) -> int:
        """Number of draws so far; with the seed it decides what the next one picks."""
        return self._draws.made

    def seek(self, draws: int) -> None:
        """Go on as if `draws` draws had been made: how a reader of a folder that does not change
        resumes.
        """
        with self._lock:
            self._draws.made = int(draws)

    def _align(self, schema: Schema) -> None:
        for folder in self._further:
            folder.align(schema, self._store.act_space or ())

    # Saving

    def save(self) -> dict[str, Any]:
        """Close the chunks that are being filled, wait until all are on disk, and return what
        load() needs to restore this state: chunk names, worker tails and counters, as JSON-able
        values.

        Rows that only memory holds (no folder) are not part of it.

        Raises:
          ReplayWriteError: a chunk cannot be written. No row is lost; writing is tried again later.
        """
        with self._lock:
            counts = {'version': metas.VERSION, 'draws': self._draws.made}
            return counts | self._store.save()

    def load(self, manifest: Mapping[str, Any] | None) -> None:
        """Index the folder; files are opened when their rows are first drawn.

        With a manifest and resume 'manifest', exactly its rows come back, and other chunk files are
        moved to the subfolder `unlisted`; but if some of its rows are gone, the others take their
        place. Otherwise every chunk in the folder comes back; with a manifest and resume 'all',
        counters are restored too, and workers whose stream ends where the manifest says continue
        it. Chunks that turn out to be damaged are moved to the subfolder `broken`: those that were
        read whole and are wrong. What the system does not let be read is left where it is. Whatever
        is set aside or left out is named in an event.

        Raises:
          ReplayError: rows have been added before, or the manifest is not one.
          ReplaySchemaError: the rows in the folder have other keys, dtypes or shapes.
        """
        with self._lock:
            if self._shelf.unsaved:
                raise ReplayError('A replay must be loaded before rows are added to it.')
            self._shelf.clear()
            self._draws.clear()
            if manifest is not None:
                self._draws.made, self._shelf.seen = manifests.counters(manifest)
            self._store.load(manifest)

    def close(self) -> None:
        """Bring everything to disk and end the writing thread. May be called more than once.

        Raises:
          ReplayWriteError: chunks cannot be written; their rows are lost with the process.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._store.flush()
            finally:
                for folder in self._further:
                    folder.close()
                self._store.close()

    # Words

    def stats(self) -> dict[str, float]:
        """What there is and what happened: rows, streams, chunks, budgets used, draws, trouble."""
        with self._lock:
            return self._store.stats(self._draws.made)

    def estimate(self) -> str:
        """One line on how many rows the budgets hold, for the start of a run."""
        return self._store.estimate()


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
