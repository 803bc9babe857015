"""Formats in .npz files: one file per episode (ours, and that of DreamerV2 and V-D4RL), and one
file for many episodes of equal length.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..base import OUTCOME
from ..errors import ReplayError
from . import arrays
from .episode import Episode, Options, Recording, Unit, records

# what V-D4RL and dreamerv3-torch store beside observation and action
BOOKKEEPING = ('discount', 'logprob', 'step_type', 'is_valid', 'stepid')


def files(source: Path, *suffixes: str) -> list[Path]:
    """The files that a source is: itself, or all below it with one of the suffixes, by name.

    Raises:
      ReplayError: there is none.
    """
    if source.is_file():
        return [source]
    found = sorted(path for path in source.rglob('*') if path.suffix.lower() in suffixes)
    found = [path for path in found if path.is_file() and not path.name.startswith('.')]
    if not found:
        raise ReplayError(f'{source}: there is no file {", ".join(suffixes)} in it.')
    return found


def relative(path: Path, source: Path) -> str:
    """The name of a file within its source."""
    return path.name if path == source else path.relative_to(source).as_posix()


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
    found = files(source, '.npz')
    led = options.convention(led)
    units = (Unit(relative(path, source), _opener(path, options, led)) for path in found)
    return Recording(units, len(found))


def _opener(path: Path, options: Options, led: bool) -> Callable[[], Episode]:
    return lambda: columns_episode(arrays.whole(path), options, led)


def columns_episode(
    columns: dict[str, np.ndarray], options: Options, led: bool, came: bool = True
) -> Episode:
    """An episode of columns that carry the names of our rows (or `frames`, the images).

    Raises:
      ReplayError: the columns are of different lengths, or hold several episodes.
    """
    columns = {options.key if key == 'frames' else key: v for key, v in columns.items()}
    lengths = {key: len(v) for key, v in columns.items() if v.ndim}
    if len(set(lengths.values())) != 1:
        raise ReplayError(f'the columns must be equally long, found {lengths or "none"}.')
    if 'is_first' in columns and columns['is_first'][1:].any():
        raise ReplayError('several episodes in one file: is_first is set beyond its first row.')
    actions = {key: columns[key] for key in columns if is_action(key, options)}
    seen = {
        key: values
        for key, values in columns.items()
        if key not in actions and key not in OUTCOME and key not in BOOKKEEPING
    }
    return Episode(
        records(seen),
        actions,
        led,
        columns.get('reward'),
        came,
        terminal=_terminal(columns),
        idle=not led and came,
    )


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
    the last action led to is not stored.
    """
    found = files(source, '.npz')
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


def _vijayabhaskar(found: list[Path], source: Path, options: Options) -> Iterator[Unit]:
    for path in found:
        with arrays.opened(path) as columns:
            for number in range(columns['frames'].shape[0]):
                name = f'{relative(path, source)}:{number}'
                yield Unit(name, lambda n=number, c=columns: _slice(c, n, options))


def _slice(columns: dict[str, arrays.Column], number: int, options: Options) -> Episode:
    read = lambda key: columns[key].rows(number, 1)[0] if key in columns else None
    dones, led = read('dones'), options.convention(False)
    return Episode(
        records({options.key: read('frames')}),
        {'action': read('actions')},
        led,
        read('rewards'),
        came=led,
        terminal=dones is not None and bool(dones[-1]),
    )
