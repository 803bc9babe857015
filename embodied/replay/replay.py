"""The replay as its users see it: rows in, sequences out, save and load.

Sequences cross the borders of chunks and of episodes. Here a seed and a number become rows.
"""

import itertools
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base import UNLABELED
from ..errors import (
    ConfigError,
    OutOfResources,
    ReplayEmptyError,
    ReplayError,
    ReplaySchemaError,
)
from . import manifest as manifests
from . import schema as schemas
from .chunk import STEPID
from .folder import Folder, listing
from .labels import Labels, align
from .schema import Schema
from .selectors import Mixture, Selection
from .shelf import CHUNK_BYTES, GB, Shelf, Unusable
from .streams import Stream, Streams

_MAIN, _DEMOS, _ORDER = 0, 1, 2  # the independent random streams of one draw

ROW_ID = 'row_id'  # key of sample(): which row it is, until load() is called
# of a row id: below the number within its stream, then the stream's slot, then the number of the
# index
_SLOT_BIT, _INDEX_BIT = 32, 52
_INDICES = itertools.count()  # of this process: rows of two replays have different ids


@dataclass(frozen=True)
class ReplayConfig:
    """Block `replay` of the config; see configs/defaults.yaml.

    Attributes:
      directory: folder of the chunks; '' is logdir/replay.
      max_gb: memory for rows, 10^9 bytes.
      disk_gb: size of the chunk files, 10^9 bytes; the oldest are deleted.
      chunk_rows: rows of a full chunk.
      uniform, recent, newest, recent_rows: see selectors.Mixture.
      resume: 'manifest' restores the rows that the checkpoint names, 'all' every row in the folder.
      demos: folder of a further replay that is only read, '' for none.
      demo_share: share of each batch that comes from it, in [0, 1].
      prefetch: whether draws that expect() announced are prepared by a thread.
    """

    directory: str
    max_gb: float
    disk_gb: float
    chunk_rows: int
    uniform: float
    recent: float
    newest: float
    recent_rows: int
    resume: str
    demos: str
    demo_share: float
    prefetch: bool

    @property
    def mixture(self) -> Mixture:
        """What sequences are drawn from."""
        return Mixture(self.uniform, self.recent, self.newest, self.recent_rows)

    def __post_init__(self):
        self.mixture  # refuses shares that cannot be
        if not (0 < self.max_gb < math.inf and 0 < self.disk_gb < math.inf):
            raise ConfigError(
                f'replay.max_gb and replay.disk_gb must be above 0 and finite; got {self.max_gb}'
                f' and {self.disk_gb}.'
            )
        if self.chunk_rows < 1:
            raise ConfigError(f'replay.chunk_rows must be at least 1, got {self.chunk_rows}.')
        if self.resume not in ('manifest', 'all'):
            raise ConfigError(f"replay.resume must be 'manifest' or 'all', got {self.resume!r}.")
        if not 0 <= self.demo_share <= 1:
            raise ConfigError(f'replay.demo_share must lie in [0, 1], got {self.demo_share}.')


class Replay:
    """See the module. Every public method may be called from any thread; one lock makes them take
    turns.

    Attributes:
      schema: keys, dtypes and shapes of a row; None until they are known.
      obs_space, act_space: the spaces of the env, given or read from meta.json; None where neither
          knows them.
      meta: facts about the run that made the rows, given or read from meta.json.
    """

    def __init__(
        self,
        config: ReplayConfig,
        directory: str | os.PathLike | None,
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
          directory: folder of the chunks; None keeps rows in memory only.
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
        self._config = config
        self._mixture = config.mixture
        self._read_only = read_only
        self._on_event = on_event or _warn
        self._lock = threading.Condition()
        self._philox_key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._folder = Folder(Path(directory), read_only, self._on_event) if directory else None
        self._shelf = Shelf(
            config.max_gb,
            config.disk_gb,
            config.chunk_rows,
            self._folder,
            self._lock,
            self._on_event,
        )
        self._draws = self._seen = 0
        self._closed = False
        self._expected, self._helper = 0, None
        self._clear()
        self.meta, self._labels = dict(meta or {}), Labels({}, ())
        self.obs_space, self.act_space = obs_space, act_space
        self._demos = self._open_demos() if config.demos and config.demo_share else None
        self._settle_schema()

    def __len__(self) -> int:
        """Rows that can be sampled, without demonstrations."""
        with self._lock:
            return self._streams.rows

    def sequences(self, length: int) -> int:
        """How many sequences of `length` rows sample() can draw, without demonstrations.

        Raises:
          ReplayEmptyError: the demonstrations hold none, and nobody adds to them.
        """
        with self._lock:
            if self._demos is not None and not self._demos.sequences(length):
                raise ReplayEmptyError(
                    f'{self._config.demos}: the demonstrations hold no sequence of {length} rows,'
                    f' the longest stream has {self._demos.longest}. Learn from shorter sequences'
                    ' (agent.batch) or leave them out (replay.demo_share 0).'
                )
            return int(np.maximum(self._streams.ends - self._streams.begins - length + 1, 0).sum())

    @property
    def longest(self) -> int:
        """Rows of the longest stream, without demonstrations."""
        return int((self._streams.ends - self._streams.begins).max(initial=0))

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
          ReplayError: the replay is read-only or closed.
        """
        with self._lock:
            if self._read_only or self._closed:
                raise ReplayError(
                    'Rows cannot be added to a replay that is'
                    f' {"closed" if self._closed else "read-only"}.'
                )
            if self.schema is None:
                self._adopt(Schema.from_row(row))
            values = self.schema.check(row)
            stream = self._streams.of(worker)
            self._shelf.append(stream, values)
            self._seen += 1
            stream.touched = self._seen
            self._shelf.keep_budget()

    def sample(
        self, batch: int, length: int, draw: int | None = None, without: Iterable[str] = ()
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
            of newest. For reports.
          without: keys to leave out, for who has them already.

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
            with self._lock:
                return self._draw(batch, length, tuple(without), draw)[0]
        kind, ahead = (batch, length, tuple(without)), None
        with self._lock:
            # a measurement that comes in between is none of those announced
            announced = self._ahead is None or self._ahead[0] == kind
            if announced and self._ahead is not None:
                ahead, self._ahead = self._ahead[1], None
        prepared = ahead and ahead.result()  # without the lock, which the helper needs
        with self._lock:
            rows, fresh = (
                prepared[1] if prepared and prepared[0] == self._state(*kind) else self._draw(*kind)
            )
            self._draws += 1
            for slot, row in fresh.items():
                self._streams[slot].fresh = row
            self._expected = max(0, self._expected - announced)
            if announced and self._expected and self._config.prefetch and not self._closed:
                self._helper = self._helper or ThreadPoolExecutor(1, 'replay-prefetch')
                self._ahead = kind, self._helper.submit(self._prepare, *kind)
            return rows

    def expect(self, draws: int) -> None:
        """Say that so many draws of the same kind come in a row: each is prepared while the caller
        works on the one before.

        What is drawn stays the same: a draw that was prepared for another state of the replay, or
        another kind, is made anew.
        """
        with self._lock:
            self._expected, self._ahead = draws, None

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
            out = {
                key: np.empty((len(ids), *shape), dtype)
                for key, dtype, shape in self.schema.specs
                if key in keys
            }
            borders = np.flatnonzero(np.diff(ids) != 1) + 1
            for begin, end in zip([0, *borders], [*borders, len(ids)]):
                if begin < end:
                    owner = (
                        self._demos
                        if self._demos and ids[begin] >> _INDEX_BIT == self._demos._index
                        else self
                    )
                    owner._read(
                        int(ids[begin]), {key: array[begin:end] for key, array in out.items()}
                    )
            return out

    @property
    def schema(self) -> Schema | None:
        return self._shelf.schema

    @property
    def rows_missing(self) -> int:
        """Rows that the checkpoint named and that were gone when load() looked for them."""
        return self._shelf.rows_missing

    @property
    def _streams(self) -> Streams:
        return self._shelf.streams

    @property
    def draws(self) -> int:
        """Number of draws so far; with the seed it decides what the next one picks."""
        return self._draws

    def seek(self, draws: int) -> None:
        """Go on as if `draws` draws had been made: how a reader of a folder that does not change
        resumes.
        """
        with self._lock:
            self._draws = int(draws)

    def save(self) -> dict[str, Any]:
        """Close the chunks that are being filled, wait until all are on disk, and return what
        load() needs to restore this state: chunk names, worker tails and counters, as JSON-able
        values.

        Rows that only memory holds (no folder) are not part of it.

        Raises:
          ReplayWriteError: a chunk cannot be written. No row is lost; writing is tried again later.
        """
        with self._lock:
            self._shelf.rotate_all()
            manifest = {
                'version': schemas.VERSION,
                'draws': self._draws,
                'seen': self._seen,
                'streams': [],
            }
            if self._folder:
                manifest['streams'] = manifests.describe(self._streams)
                self._shelf.writer.flush()
                self._keep_meta()
            return manifest

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
            self._clear()
            if manifest is not None:
                self._draws, self._seen = manifests.counters(manifest)
            if self._folder:
                self._shelf.load(manifest, listed=self._config.resume == 'manifest')
            self._seen = max(self._seen, self._streams.rows)
            self._check_first_chunk()

    def close(self) -> None:
        """Bring everything to disk and end the writing thread. May be called more than once.

        Raises:
          ReplayWriteError: chunks cannot be written; their rows are lost with the process.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._helper is not None:
                self._helper.shutdown(wait=False)
            try:
                if self._folder and not self._read_only:
                    self._shelf.rotate_all()
                    self._shelf.writer.flush()
            finally:
                if self._shelf.writer is not None:
                    self._shelf.writer.close()
                if self._demos is not None:
                    self._demos.close()
                if self._folder is not None:
                    self._say_what_was_lost()
                    self._folder.close()

    def _say_what_was_lost(self) -> None:
        """One line at the end: what happened to chunks is easily missed among a day's output."""
        shelf, folder = self._shelf, self._folder
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

    def stats(self) -> dict[str, float]:
        """What there is and what happened: rows, streams, chunks, budgets used, draws, trouble."""
        with self._lock:
            backlog = sum(
                int(self._streams.ends[stream.slot])
                - max(stream.fresh, int(self._streams.begins[stream.slot]))
                for stream in self._streams.workers
            )
            shelf, writer = self._shelf, self._shelf.writer
            aside = self._folder.aside_bytes if self._folder else 0
            return {
                'rows': float(self._streams.rows),
                'rows_seen': float(self._seen),
                'rows_evicted': float(shelf.rows_evicted),
                'streams': float(len(self._streams)),
                'chunks': float(len(shelf)),
                'draws': float(self._draws),
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
        row = self.schema.nbytes
        text = (
            f'Replay: {row:,} bytes per row; {self._config.max_gb:g} GB of memory hold'
            f' {int(self._shelf.memory_budget // row):,} rows'
        )
        if self._folder is None:
            return f'{text}; nothing is kept on disk.'
        return (
            f'{text}, {self._config.disk_gb:g} GB of disk hold {self.capacity:,}'
            f' ({self._folder.path}).'
        )

    @property
    def capacity(self) -> int | None:
        """Rows that can be held at the same time: what fits on disk or, without a folder, in
        memory; None while rows are not known.
        """
        return None if self.schema is None else self._shelf.capacity

    # Rows out

    def _state(self, *kind) -> tuple:
        """All that decides what the next draw of a kind will be."""
        shelf = self._shelf
        lost = shelf.rows_evicted, shelf.broken, shelf.unreadable
        return kind, self._draws, self._seen, lost

    def _prepare(self, *kind) -> tuple | None:
        """The next draw, not handed out, and the state it was made for; None where it fails,
        which whoever asks for it will be told.
        """
        with self._lock:
            try:
                made = self._draw(*kind)
                return self._state(*kind), made
            except (ReplayError, OutOfResources):
                return None

    def _draw(
        self, batch: int, length: int, without: tuple[str, ...], draw: int | None = None
    ) -> tuple[dict[str, np.ndarray], dict[int, int]]:
        """Rows of one draw, and what newest-first would have handed out with them: stream slot
        -> first row that is still fresh.
        """
        if self.schema is None:
            raise ReplayEmptyError(
                f'There is no sequence of {length} rows yet: the replay has not seen a row.'
            )
        number = self._draws if draw is None else draw
        from_demos = self._demo_count(batch, number)
        own = batch - from_demos
        selection = self._select(own, length, number, draw is None)
        out = {
            key: np.empty((batch, length, *shape), dtype)
            for key, dtype, shape in self.schema.specs
            if key not in without
        }
        out[ROW_ID] = np.empty((batch, length), np.int64)
        while not self._gather(selection, {key: array[:own] for key, array in out.items()}):
            selection = self._select(own, length, number, draw is None)
        out |= {
            flag: np.zeros((batch, length), bool)
            for flag in self._labels.added
            if flag not in without
        }
        if from_demos:
            theirs = {key: array[own:] for key, array in out.items()}
            for key in self._labels.fill.keys() & theirs.keys():
                theirs.pop(key)[:] = self._labels.fill[key]
            self._demos._fill(theirs, number, self._generator(number, _DEMOS))
            # a place in the batch tells nothing of where a sequence is from
            order = self._generator(number, _ORDER).permutation(batch)
            out = {key: array[order] for key, array in out.items()}
        return out, selection.fresh

    def _generator(self, draw: int, part: int) -> np.random.Generator:
        """The random numbers of one draw: Philox is a function of key and counter, so no state
        has to be kept.
        """
        return np.random.Generator(
            np.random.Philox(counter=[0, 0, part, draw], key=self._philox_key)
        )

    def _demo_count(self, batch: int, draw: int) -> int:
        """How many sequences come from the demonstrations: the share, rounded up or down so that
        it holds in expectation.
        """
        if self._demos is None:
            return 0
        return int(batch * self._config.demo_share + self._generator(draw, _DEMOS).random())

    def _select(self, batch: int, length: int, draw: int, newest: bool) -> Selection:
        rng = self._generator(draw, _MAIN)
        selection = self._mixture.choose(
            self._streams, batch, length, rng, seen=self._seen, newest=newest
        )
        if selection is None and batch:
            raise ReplayEmptyError(
                f'There is no sequence of {length} rows yet: the longest of {len(self._streams)}'
                f' streams has {self.longest}, {length - self.longest} rows are missing. The replay'
                f' holds {self._streams.rows} rows.'
            )
        return selection or Selection(np.zeros(0, int), np.zeros(0, int), {})

    def _fill(self, out: dict[str, np.ndarray], draw: int, rng: np.random.Generator) -> None:
        """Fill arrays with uniformly drawn sequences, as the demonstrations of another replay."""
        batch, length = next(iter(out.values())).shape[:2]
        with self._lock:
            state = rng.bit_generator.state
            while True:
                rng.bit_generator.state = state
                selection = self._mixture.choose(self._streams, batch, length, rng, seen=self._seen)
                if selection is None:
                    raise ReplayEmptyError(
                        f'{self._folder.path}: the demonstrations hold no sequence of {length}'
                        ' rows.'
                    )
                if self._gather(selection, out):
                    return

    def _gather(self, selection: Selection, out: dict[str, np.ndarray]) -> bool:
        """Copy the selected rows to out. False where a chunk turned out to be broken, which then is
        no longer part of the streams: select again.
        """
        try:
            length = out[ROW_ID].shape[1]
            for index, (slot, row) in enumerate(
                zip(selection.slots.tolist(), selection.rows.tolist())
            ):
                out[ROW_ID][index] = (
                    (self._index << _INDEX_BIT) + (slot << _SLOT_BIT) + row + np.arange(length)
                )
                self._copy(
                    self._streams[slot],
                    row,
                    {key: array[index] for key, array in out.items() if key != ROW_ID},
                )
        except Unusable as unusable:
            self._shelf.set_aside(unusable)
            return False
        if 'is_first' in out and 'is_last' in out:
            out['is_last'][:, :-1] |= out['is_first'][:, 1:]
        return True

    def _copy(self, stream: Stream, row: int, out: dict[str, np.ndarray]) -> None:
        length = len(next(iter(out.values())))
        self._shelf.read(stream, row, out)
        # An episode that was cut right after the last row shows only in the row that follows.
        if (
            'is_last' in out
            and 'is_first' in out
            and not out['is_last'][-1]
            and row + length < self._streams.ends[stream.slot]
        ):
            out['is_last'][-1] = self._shelf.value(stream, row + length, 'is_first')

    def _read(self, row_id: int, out: dict[str, np.ndarray]) -> None:
        """The row of an id and its successors, as they are stored."""
        index, slot = (
            row_id >> _INDEX_BIT,
            row_id >> _SLOT_BIT & ((1 << _INDEX_BIT - _SLOT_BIT) - 1),
        )
        row, length = row_id & ((1 << _SLOT_BIT) - 1), len(next(iter(out.values())))
        try:
            if (
                index != self._index
                or slot >= len(self._streams.ends)
                or not self._streams.begins[slot] <= row <= self._streams.ends[slot] - length
            ):
                raise ReplayError(
                    f'{length} rows from number {row} of stream {slot} on are not held any more.'
                )
            self._shelf.read(self._streams[slot], row, out)
        except Unusable as unusable:
            self._shelf.set_aside(unusable)
            raise ReplayError(f'Rows that had been drawn cannot be read: {unusable}') from unusable

    # The folder

    def _clear(self) -> None:
        """An index without rows."""
        self._index = next(_INDICES) % 1024
        self._ahead = None
        self._shelf.clear()

    def _check_first_chunk(self) -> None:
        """Compare the rows of the newest readable chunk with the schema, or take the schema from
        it.
        """
        for chunk, columns in self._shelf.newest():
            found = Schema.from_columns(columns, str(chunk.path))
            if self.schema is None:
                self._adopt(found)
            self.schema.compare(found, str(chunk.path), extra=True)
            ignored = sorted(key for key in columns if key not in self.schema and key != STEPID)
            if ignored:
                self._on_event(
                    f'{self._folder.path}: keys in the chunks that are not part of a row are'
                    f' ignored: {listing(ignored)}.'
                )
            return

    def _open_demos(self) -> 'Replay':
        directory = Path(self._config.demos)
        if not directory.is_dir():
            raise ReplayError(
                f'{directory}: the folder of demonstrations (replay.demos) does not exist.'
            )
        config = ReplayConfig(
            **{
                **vars(self._config),
                'uniform': 1.0,
                'recent': 0.0,
                'newest': 0.0,
                'demos': '',
                'demo_share': 0.0,
            }
        )
        demos = Replay(config, directory, 0, read_only=True, on_event=self._on_event)
        demos.load(None)
        return demos

    # The schema

    def _settle_schema(self) -> None:
        """Bring together what the spaces, meta.json and the demonstrations say about rows."""
        given = None
        if self.obs_space is not None and self.act_space is not None:
            given = Schema.from_spaces(self.obs_space, self.act_space)
        stored = schemas.read(self._folder.path) if self._folder else None
        if stored is not None:
            schema, obs_space, act_space, meta = stored
            if given is not None:
                given.compare(schema, str(self._folder.path))
                self._folder.warn_of_other_meta(self.meta, meta)
            self.obs_space, self.act_space = (
                self.obs_space or obs_space,
                self.act_space or act_space,
            )
            self.meta = {**meta, **self.meta}
            given = schema
        if given is not None and self.schema is None:
            self._adopt(given)

    def _adopt(self, schema: Schema) -> None:
        """Rows are like this from now on."""
        if self._demos is not None:
            if self._demos.schema is None:
                raise ReplayError(
                    f'{self._config.demos}: the folder of demonstrations (replay.demos) holds no'
                    ' readable chunk.'
                )
            self._labels = align(
                schema, self._demos.schema, self.act_space or (), self._config.demos
            )
            if lacking := self._labels.words():
                self._on_event(
                    f'{self._config.demos}: the demonstrations are unlabeled, their rows hold no'
                    f' {lacking}.'
                )
            if unread := sorted(
                key
                for key, _, _ in self._demos.schema.specs
                if key not in schema and key not in UNLABELED
            ):
                self._on_event(
                    f'{self._config.demos}: keys that rows here do not have are ignored:'
                    f' {listing(unread)}.'
                )
        if ROW_ID in schema:
            raise ReplaySchemaError(f'A row must not have a key {ROW_ID!r}, which sample() adds.')
        if schema.nbytes > CHUNK_BYTES:
            raise ReplaySchemaError(
                f'A row takes {schema.nbytes:,} bytes; up to {CHUNK_BYTES:,} can be stored.'
            )
        self._shelf.schema = schema
        self._keep_meta()

    def _keep_meta(self) -> None:
        """Write meta.json where there is none, or none any more."""
        if (
            self._folder
            and self.schema
            and not self._read_only
            and schemas.read(self._folder.path) is None
        ):
            self._folder.write_meta(
                schemas.encode(self.schema, self.obs_space, self.act_space, self.meta)
            )


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
