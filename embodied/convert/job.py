"""One conversion: episodes of a recording become rows of a folder, one after the other."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import OUTCOME, UNLABELED
from ..console import is_terminal
from ..errors import ReplayError
from ..replay import meta as metas
from ..replay.importer import narrow
from ..replay.infer import observation_space
from .episode import Episode, Options, Recording, Row
from .lag import Verdict, measure
from .ledger import Ledger

SAVE_BYTES = 64e6  # of rows between two notes of what is done
BINARY = np.int8  # dtype of boolean actions in rows, as envs have it


def convert(
    open_source: Callable[[], Recording],
    dest: Path,
    request: dict[str, Any],
    options: Options,
    on_event: Callable[[str], None],
    skip: bool = False,
) -> str:
    """Bring all episodes of a source that are not there yet into a folder.

    Rows are streamed: memory holds what one episode's actions take, the blocks that its reader
    reads, and ledger.MEMORY_GB of rows.

    Args:
      open_source: opens it.
      dest: the folder; see Ledger.
      request: what is converted and how, JSON-able; a folder takes rows of one request.
      options: what a person says of the source.
      on_event: receives sentences for a person.
      skip: whether episodes that cannot be read are named and left out.

    Returns:
      What was done, as a sentence.

    Raises:
      ReplayError: an episode cannot be read or does not fit; names it. Those before it are kept.
    """
    ledger = Ledger(dest, request, on_event)
    recording = open_source()
    before, progress = len(ledger.done), Progress(recording.total)
    broken: dict[str, ReplayError] = {}
    while failure := _fill(ledger, recording, options, progress, broken, skip):
        name, error = failure
        broken[name] = error
        if skip:
            on_event(f'left out: {error}')
        recording = open_source()
    progress.end()
    if broken and not skip:
        raise next(iter(broken.values()))
    if not ledger.done:
        raise ReplayError(f'{request["source"]}: there is no episode in it.')
    _write_meta(ledger, recording, request, options)
    new = len(ledger.done) - before
    return (
        f'{dest}: {len(ledger.done):,} episodes ({new:,} new), {len(ledger.replay):,} rows of'
        f' {", ".join(key for key, _, _ in ledger.replay.schema.specs)}'
        f'{f"; {len(broken):,} episodes left out" if broken else ""}.'
    )


def check(recording: Recording, options: Options) -> Verdict:
    """Whether actions stand at their rows, as far as the first rows of a recording show."""
    actions: set[str] = set()

    def rows() -> Iterator[Row]:
        for unit in recording.units:
            episode = unit.open()
            actions.update(episode.actions)
            for row in episode.rows():
                yield finished(row, (*episode.actions, *episode.blank), options)

    return measure(rows(), actions)


def _fill(
    ledger: Ledger,
    recording: Recording,
    options: Options,
    progress: 'Progress',
    broken: Mapping[str, Any],
    skip: bool,
) -> tuple[str, ReplayError] | None:
    """Bring in episodes up to the first that fails, which is returned with what is wrong; then the
    rows since the last note of what is done are gone again. Those that are known to be broken are
    skipped, or end it.
    """
    ledger.start()
    unsaved, sound = 0, False
    try:
        for unit in recording.units:
            if unit.name in broken and not skip:
                break
            if unit.name in ledger.done or unit.name in broken:
                continue
            try:
                unsaved += _add(ledger, unit.open(), options, progress)
            except (ReplayError, OSError, ValueError, EOFError) as error:
                return unit.name, ReplayError(f'{unit.name}: {error}')
            ledger.done[unit.name] = None
            progress.episode(len(ledger.done))
            if unsaved >= SAVE_BYTES:
                ledger.save()
                unsaved = 0
        ledger.save()
        sound = True
    except ReplayError:  # between two episodes: those before it are whole
        ledger.save()
        sound = True
        raise
    finally:
        ledger.close(sound)


def _add(ledger: Ledger, episode: Episode, options: Options, progress: 'Progress') -> int:
    """Store one episode; bytes of its rows."""
    stored = 0
    if options.timed:
        episode = replace(episode, terminal=False)
    for row in episode.rows():
        row = finished(row, (*episode.actions, *episode.blank), options)
        ledger.add(row, tuple(episode.actions))
        stored += ledger.replay.schema.nbytes
        progress.row(ledger.replay.schema.nbytes)
    return stored


def finished(row: Row, actions: tuple[str, ...], options: Options) -> Row:
    """A row of an episode in the dtypes, sizes and names of the folder.

    Raises:
      ReplayError: two columns would have the same name.
    """
    done = {}
    for key, value in row.items():
        value = np.asarray(value)
        if key in actions:
            done[key] = _action(value, options.onehot)
        elif key in OUTCOME or key in UNLABELED:
            done[key] = value
        elif options.wanted(key):
            name = options.rename.get(key, key)
            if name != key and (name in row or name in done or name in OUTCOME):
                raise ReplayError(f'{key} cannot be renamed: rows have a column {name!r}.')
            done[name] = narrow(value, options.size)
    return done


def _action(value: np.ndarray, onehot: bool) -> np.ndarray:
    if onehot:
        return np.int32(value.argmax())
    return value.astype(BINARY) if value.dtype == bool else narrow(value, None)


def _write_meta(ledger: Ledger, recording: Recording, request: dict, options: Options) -> None:
    """The final meta.json: now the spaces of the actions are known."""
    schema = ledger.replay.schema
    act_space = {
        key: action_space(key, schema.columns(1)[key][0], pair, recording.act_space.get(key))
        for key, pair in ledger.ranges.items()
    }
    obs_space = {
        key: observation_space(dtype, shape)
        for key, dtype, shape in schema.specs
        if key not in act_space
    }
    labels = {key: space for key, space in OUTCOME.items() if key in obs_space}
    facts = dict(recording.facts) | {'source': request}
    content = metas.encode(schema, obs_space | labels, act_space or None, facts)
    ledger.replace_meta(content)


def action_space(
    key: str, dtype: np.dtype, pair: list, declared: spaces.Space | None
) -> spaces.Space:
    """The space of an action: the declared one, else [-1, 1] where all stored ones lie in it, else
    what they span, dimension by dimension.

    Raises:
      ReplayError: integers below zero, which count nothing.
    """
    low, high = (np.asarray(bound) for bound in pair)
    if dtype == BINARY:
        return spaces.MultiBinary(low.shape)
    if dtype.kind == 'f':
        if isinstance(declared, spaces.Box) and declared.is_bounded('both'):
            return spaces.Box(declared.low, declared.high, low.shape, dtype.type)
        if (np.abs(low) <= 1).all() and (np.abs(high) <= 1).all():
            return spaces.Box(-1, 1, low.shape, dtype.type)
        wide = np.where(high > low, high, low + 1)  # a constant entry has no span of its own
        return spaces.Box(low.astype(dtype), wide.astype(dtype), low.shape, dtype.type)
    if (low < 0).any():
        raise ReplayError(
            f'the action {key!r} holds the integer {low.min()}; choices count from 0.'
        )
    known = getattr(declared, 'nvec', getattr(declared, 'n', 0))
    choices = np.maximum(high + 1, known)
    space = spaces.MultiDiscrete(choices) if low.ndim else spaces.Discrete(int(choices))
    space.dtype = dtype
    return space


class Progress:
    """One line on standard error while a conversion goes on; none where nobody looks."""

    EVERY = 0.5  # seconds

    def __init__(self, total: int | None):
        self._total, self._shown = total, 0.0
        self._episodes = self._rows = self._bytes = 0
        self._begin = time.monotonic()
        self._live = is_terminal(sys.stderr)

    def episode(self, done: int) -> None:
        """So many episodes are there."""
        self._episodes = done

    def row(self, nbytes: int) -> None:
        """One more row of so many bytes."""
        self._rows += 1
        self._bytes += nbytes
        now = time.monotonic()
        if self._live and now - self._shown > self.EVERY:
            self._shown = now
            print(f'\r{self.words(now - self._begin)}\033[K', end='', file=sys.stderr)

    def words(self, seconds: float) -> str:
        """The line, after so many seconds."""
        total, share = '', ''
        if self._total:
            total = f' of {self._total:,}'
            filled = int(20 * min(1, self._episodes / self._total))
            share = f'[{"#" * filled}{"." * (20 - filled)}] '
        speed = self._rows / max(seconds, 1e-6)
        return (
            f'{share}{self._episodes:,}{total} episodes, {self._rows:,} rows,'
            f' {self._bytes / 1e9:.2f} GB, {speed:,.0f} rows/s'
        )

    def end(self) -> None:
        """Leave the line."""
        if self._live and self._rows:
            print(f'\r{self.words(time.monotonic() - self._begin)}\033[K', file=sys.stderr)
