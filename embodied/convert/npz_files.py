"""Formats in .npz files: one file per episode (ours, and that of DreamerV2 and V-D4RL), and one
file for many episodes of equal length.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..base import OUTCOME
from ..errors import ReplayError
from . import arrays
from .episode import Episode, Options, Recording, Row, Unit
from .folders import Files, relative

NO_ROW = ('actions', 'rewards', 'dones', 'terminals', 'timeouts')  # names of other layouts
# what V-D4RL and dreamerv3-torch store beside observation and action
BOOKKEEPING = ('discount', 'logprob', 'step_type', 'is_valid', 'stepid')


def open_npz(source: Path, options: Options) -> Recording:
    """One file per episode, columns in the names and at the times of our rows, as `to-npz` writes
    them; reward, ends and action may be missing.
    """
    return _episodes(source, options, led=False)


def open_torch(source: Path, options: Options) -> Recording:
    """One file per episode as dreamerv2, dreamerv3-torch and V-D4RL (64px) write them: the action
    of a row led to its frame, that of row 0 is zero.
    """
    return _episodes(source, options, led=True)


def _episodes(source: Path, options: Options, led: bool) -> Recording:
    found = Files(source, '.npz')
    led = options.convention(led)
    units = (Unit(relative(path, source), _opener(path, options, led)) for path in found)
    return Recording(units, len(found))


def _opener(path: Path, options: Options, led: bool) -> Callable[[], Episode]:
    return lambda: _episode(path, options, led)


def _episode(path: Path, options: Options, led: bool) -> Episode:
    """An episode of columns that carry the names of our rows (or `frames`, the images). What is
    seen is read when its row is due.

    Raises:
      ReplayError: the columns are of different lengths, or hold several episodes.
    """
    with arrays.opened(path) as found:
        lengths = {key: column.shape[0] for key, column in found.items() if column.shape}
        if len(set(lengths.values())) != 1:
            raise ReplayError(f'the columns must be equally long, found {lengths or "none"}.')
        actions = [key for key in lengths if is_action(key, options)]
        known = {*OUTCOME, *BOOKKEEPING}
        columns = {k: found[k].rows(0, lengths[k]) for k in lengths if k in actions or k in known}
    if 'is_first' in columns and columns['is_first'][1:].any():
        raise ReplayError('several episodes in one file: is_first is set beyond its first row.')
    seen = {k: options.key if k == 'frames' else k for k in lengths if k not in columns}
    if strange := [key for key in seen if key in NO_ROW and options.wanted(key)]:
        raise ReplayError(
            f'{", ".join(strange)} would be observations: expected the names of rows, action,'
            ' reward and is_terminal, in their times. Rename them in the file, or leave them out'
            ' with --keys.'
        )
    return Episode(
        _seen(path, seen),
        {key: columns[key] for key in actions},
        led,
        columns.get('reward'),
        came=True,
        terminal=_terminal(columns),
        idle=not led,
    )


def _seen(path: Path, names: dict[str, str]) -> Iterator[Row]:
    with arrays.opened(path) as columns:
        yield from arrays.side_by_side({name: columns[key] for key, name in names.items()})


def is_action(key: str, options: Options) -> bool:
    """Whether a column is an action: as said, or called action or action/..."""
    return key in options.action if options.action else key.partition('/')[0] == 'action'


def _terminal(columns: dict[str, np.ndarray]) -> bool:
    if 'is_terminal' in columns:
        return bool(columns['is_terminal'][-1])
    return 'discount' in columns and not columns['discount'][-1]


def open_vijayabhaskar(source: Path, options: Options) -> Recording:
    """Arrays (N, T, ...) of N episodes of T frames: frames, actions, and rewards and dones where
    there are any. The action of a row is taken at its frame, its reward is what that earned; what
    the last action led to is not stored. A done within a row of the arrays ends an episode there.
    """
    found = Files(source, '.npz')
    total = 0
    for path in found:
        with arrays.opened(path) as columns:
            if missing := {'frames', 'actions'} - columns.keys():
                raise ReplayError(
                    f'{path}: expected the arrays frames and actions, {", ".join(missing)} is not'
                    f' there; it has {", ".join(columns) or "none"}.'
                )
            total += columns['frames'].shape[0]
    return Recording(_vijayabhaskar(found, source, options), total)


def _vijayabhaskar(found: Files, source: Path, options: Options) -> Iterator[Unit]:
    for path in found:
        with arrays.opened(path) as columns:
            count, length = columns['frames'].shape[:2]
            dones = columns.pop('dones', None)
            flat = {
                k: columns[k].merged() for k in ('frames', 'actions', 'rewards') if k in columns
            }
            for number in range(count):
                ends = np.zeros(length, bool) if dones is None else _done(dones, number)
                for first, stop in arrays.spans(ends):
                    name = f'{relative(path, source)}:{number}'
                    name += f':{first}' if stop - first < length else ''
                    place = number * length + first, stop - first, bool(ends[stop - 1])
                    yield Unit(name, lambda at=place: _slice(flat, *at, options))


def _done(dones: arrays.Column, number: int) -> np.ndarray:
    return dones.rows(number, 1).reshape(-1).astype(bool)


def _slice(
    columns: dict[str, arrays.Column], first: int, length: int, terminal: bool, options: Options
) -> Episode:
    read = lambda key: columns[key].rows(first, length) if key in columns else None
    led = options.convention(False)
    return Episode(
        arrays.side_by_side({options.key: columns['frames']}, first, length),
        {'action': read('actions')},
        led,
        read('rewards'),
        came=led,
        terminal=terminal,
    )
