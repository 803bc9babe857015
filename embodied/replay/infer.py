"""The spaces of a replay folder without meta.json, such as DreamerV3 leaves: from the arrays of a
chunk, and from what the user says of the actions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from gymnasium import spaces

from ..base import OUTCOME
from ..errors import ConfigError, ReplayError
from . import meta
from .archive import first_schema
from .folder import Folder

LEFT_OUT = ('consec',)  # bookkeeping that DreamerV3 stores in rows
EXAMPLE = '--run.actions action=-2:2 for a range, action=5 for a number of choices'


def folder_of(directory: str | Path) -> Path:
    """The replay folder that is meant: `directory`, or its `replay` where it is a logdir."""
    directory = Path(directory).expanduser()
    inner = directory / 'replay'
    rows = (directory / meta.FILENAME).exists() or any(directory.glob('*.npz'))
    return inner if inner.is_dir() and not rows else directory


def demand_rows(flag: str, folder: Path) -> None:
    """Refuse a folder that is to be read and holds no rows; no file is opened. Chunks in folders
    below it may be what was meant, which reading it tells.

    Raises:
      ConfigError: it is no folder, or no chunk is in or below it. Args: flag: that named it.
    """
    if not folder.is_dir():
        raise ConfigError(f'{flag}: {folder} is no folder')
    if not any(folder.rglob('*.npz')):
        raise ConfigError(f'{flag}: {folder} holds no rows: there is no chunk (.npz) in it')


def infer_spaces(directory: Path, said: Sequence[str]) -> tuple[dict, dict]:
    """Observation and action spaces of the chunks in a folder.

    Actions are the columns that `said` names, or else those that are called action or action/...;
    a float one that nothing is said about spans [-1, 1].

    Args:
      directory: of the chunks.
      said: 'key=low:high' or 'key=choices' of action keys.

    Raises:
      ConfigError: there is no readable chunk, a column is missing, or it does not follow what an
        action may be; says how to say it.
    """
    try:
        schema = first_schema(Folder(directory, True, print).scan(), directory)
    except ReplayError as error:
        raise ConfigError(str(error)) from error
    columns = {key: (dtype, shape) for key, dtype, shape in schema.specs if key not in LEFT_OUT}
    ranges = dict(_parse(text) for text in said)
    names = ranges or [key for key in columns if key.partition('/')[0] == 'action']
    if missing := sorted({*OUTCOME, *names} - columns.keys()):
        raise ConfigError(
            f'{directory}: its rows have no {", ".join(missing)}; they have {", ".join(columns)}.'
        )
    if not names:
        raise ConfigError(
            f'{directory}: which of {", ".join(columns)} is the action? Say it: {EXAMPLE}.'
        )
    act_space = {key: _action(directory, key, *columns[key], ranges.get(key)) for key in names}
    obs_space = {k: observation_space(*spec) for k, spec in columns.items() if k not in act_space}
    return obs_space | OUTCOME, act_space


def _parse(text: str) -> tuple[str, tuple[float, ...]]:
    key, equals, value = text.rpartition('=')
    try:
        numbers = tuple(float(part) for part in value.split(':'))
    except ValueError:
        numbers = ()
    choices = len(numbers) == 1 and numbers[0] >= 1 and numbers[0].is_integer()
    if not equals or not (choices or len(numbers) == 2 and numbers[0] < numbers[1] < np.inf):
        raise ConfigError(f'--run.actions {text!r} is neither a range nor a number: {EXAMPLE}.')
    return key, numbers


def _action(directory: Path, key: str, dtype: np.dtype, shape: tuple, said: tuple | None):
    if dtype.kind == 'f':
        low, high = (-1, 1) if said is None else said if len(said) == 2 else (None, None)
        if low is None:
            raise ConfigError(f'{directory}: {key} holds {dtype}; it wants a range, as {EXAMPLE}.')
        return spaces.Box(low, high, shape, dtype.type)
    if said is None or len(said) != 1:
        raise ConfigError(f'{directory}: {key} holds {dtype}; it wants its choices, as {EXAMPLE}.')
    count = int(said[0])
    space = spaces.MultiDiscrete(np.full(shape, count)) if shape else spaces.Discrete(count)
    space.dtype = dtype
    return space


def observation_space(dtype: np.dtype, shape: tuple[int, ...]) -> spaces.Box:
    """The space of everything that a column of this dtype and shape can hold."""
    if dtype.kind == 'b':
        return spaces.Box(0, 1, shape, bool)
    if dtype.kind == 'f':
        return spaces.Box(-np.inf, np.inf, shape, dtype.type)
    limits = np.iinfo(dtype)
    return spaces.Box(limits.min, limits.max, shape, dtype.type)


def check_actions(rows: Mapping[str, np.ndarray], act_space: Mapping[str, spaces.Space]) -> None:
    """Refuse stored actions that their space does not hold.

    Args:
      rows: key -> (..., *shape), some of the replay.

    Raises:
      ConfigError: names the key, what it holds, and how to say what it spans.
    """
    for key, space in act_space.items():
        if key not in rows or key == 'reset' or not rows[key].size:
            continue
        if why := range_fault(space, float(rows[key].min()), float(rows[key].max())):
            box = isinstance(space, spaces.Box)
            said = 'LOW:HIGH, which is mapped to [-1, 1]' if box else 'CHOICES'
            raise ConfigError(
                f'offline: the action {key!r} {why}; say what it spans: --run.actions {key}={said}'
            )


def range_fault(space: spaces.Space, least: float, most: float) -> str | None:
    """How actions from `least` to `most` leave their space, in words; None where they do not."""
    if isinstance(space, spaces.MultiBinary):
        return None
    if isinstance(space, spaces.Box):
        low, high = float(space.low.min()), float(space.high.max())
        slack = 1e-3 * (high - low)
    else:
        low, high = 0.0, float(np.max(getattr(space, 'nvec', getattr(space, 'n', 0)))) - 1
        slack = 0.0
    if low - slack <= least and most <= high + slack:
        return None
    return f'spans [{low:g}, {high:g}], but rows of the folder hold {least:g} to {most:g}'
