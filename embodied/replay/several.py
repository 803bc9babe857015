"""Several folders whose rows are read as those of one: which they are, whether their rows are of
one kind, and what each gives.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import ConfigError, ReplaySchemaError
from ..space_json import encode_space
from ..tasks import TaskId
from .infer import demand_rows, folder_of
from .mix import Split
from .streams import Streams


def folders_of(named: Iterable[str | Path]) -> tuple[Path, ...]:
    """The replay folders that are meant, each a folder of rows or the logdir above it.

    Raises:
      ConfigError: one is no folder, holds no rows, or is named twice.
    """
    found = tuple(folder_of(name) for name in named)
    for number, folder in enumerate(found):
        demand_rows('--replay.directory', folder)
        if any(folder.samefile(other) for other in found[:number]):
            raise ConfigError(f'--replay.directory: {folder} is named twice')
    return found


def paths(
    directory: str | os.PathLike | Sequence[str | os.PathLike] | None, read_only: bool
) -> list[Path]:
    """One folder, several that are only read, or none, as a list."""
    one = directory is None or isinstance(directory, (str, os.PathLike))
    found = [Path(place) for place in ([directory] if one else directory) if place]
    assert read_only or len(found) <= 1, f'rows are written to one folder, not to {found}'
    return found


def agree(
    where: Path,
    expected: Mapping[str, spaces.Space] | None,
    found: Mapping[str, spaces.Space] | None,
    whole: bool,
) -> None:
    """Compare the spaces of a further folder with those of the first.

    Args:
      where: the further folder. expected, found: the spaces of both, None where they are not known.
      whole: they are of actions, whose range says what a number does; of what is observed the
        shapes and dtypes count, and how many tasks there are.

    Raises:
      ReplaySchemaError: names the folder, the key, what was expected and what came.
    """
    if expected is None or found is None:
        return
    for key, space in expected.items():
        if key.startswith('log/') or key == 'reset':  # which are in no row
            continue
        theirs = found.get(key)
        if theirs is None or _told(space, whole) != _told(theirs, whole):
            came = 'no such key' if theirs is None else _words(theirs)
            raise ReplaySchemaError(
                f'{where}: key {key!r}: expected {_words(space)}, as in the first folder of'
                f' replay.directory, found {came}.'
            )


def _told(space: spaces.Space, whole: bool) -> Any:
    """What must be the same of two spaces of one key."""
    if whole or isinstance(space, TaskId):
        return encode_space(space)
    return space.dtype, space.shape


def _words(space: spaces.Space) -> str:
    """A space for a message; bounds that are all the same once."""
    if not isinstance(space, spaces.Box):
        return str(space)
    low, high = (sorted(set(np.ravel(x).tolist())) for x in (space.low, space.high))
    span = ' to '.join(f'{x[0]:g}' if len(x) == 1 else str(x) for x in (low, high))
    return f'{space.dtype} {space.shape} from {span}'


def describe(
    folders: Sequence[Path],
    streams: Streams,
    split: Split | None,
    shares: Sequence[float],
    length: int,
) -> str:
    """What each of several folders gives: rows, episodes, its share of the sequences.

    Args:
      split: which episodes are held out; None where none are. shares: as configured, none: by rows.
      length: rows of the longest sequence.

    Raises:
      ConfigError: a folder has no sequence so long.
    """
    windows = np.maximum(streams.ends - streams.begins - length + 1, 0)
    lines = []
    for number, folder in enumerate(folders):
        own = streams.places == number
        rows = int((streams.ends - streams.begins)[own].sum())
        if not windows[own].any():
            longest = int((streams.ends - streams.begins)[own].max(initial=0))
            raise ConfigError(
                f'{folder}: no sequence of {length:,} rows, the longest stream has {longest:,};'
                ' learn from shorter ones (agent.batch) or leave the folder out of'
                ' replay.directory'
            )
        share = shares[number] if shares else windows[own].sum() / windows.sum()
        text = f'{folder}: {rows:,} rows'
        if split is not None:
            text += f', {split.measured.rows(own):,} of them held out'
        lines.append(f'{text}, {share:.3g} of the sequences')
    return f'{len(folders)} replay folders: {"; ".join(lines)}.'
