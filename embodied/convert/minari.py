"""Minari data sets, in HDF5 or as Arrow, without minari. An episode of T steps has T+1
observations; actions are taken at them, rewards are what they earned. Images may be JPEG, one per
row.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ..errors import ReplayError
from ..extras import require
from .episode import Episode, Options, Recording, Row, Unit, row_names
from .hdf5 import BLOCK, opened


class Leaf(NamedTuple):
    """A plain space within the space of a data set.

    Attributes:
      path: of names that lead to it.
      spec: as metadata.json describes it.
    """

    path: tuple[str, ...]
    spec: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.spec.get('shape') or np.shape(self.spec.get('nvec', ())))

    @property
    def is_image(self) -> bool:
        return self.spec.get('dtype') == 'uint8' and len(self.shape) == 3


def open_minari(source: Path, options: Options) -> Recording:
    """A data set folder, NAME-v0 or its subfolder data."""
    data = source / 'data' if (source / 'data').is_dir() else source
    try:
        meta = json.loads((data / 'metadata.json').read_text())
        seen = leaves(json.loads(meta['observation_space']))
        acted = leaves(json.loads(meta['action_space']))
        form, total = meta.get('data_format', 'hdf5'), int(meta['total_episodes'])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReplayError(f'{data}/metadata.json: cannot be read: {error!r}.') from error
    names = row_names({'/'.join(leaf.path): leaf.is_image for leaf in seen}, options)
    wanted = {n: leaf for n, leaf in zip(names.values(), seen) if options.wanted(n)}
    actions = {'/'.join(('action', *leaf.path)): leaf for leaf in acted}
    kinds = {'hdf5': _hdf5_units, 'arrow': _arrow_units, 'parquet': _arrow_units}
    if form not in kinds:
        raise ReplayError(f'{data}: expected the format {" or ".join(kinds)}, found {form!r}.')
    spec = meta.get('env_spec') or '{}'
    facts = {
        'task': json.loads(spec).get('id') if isinstance(spec, str) else None,
        'dataset': meta.get('dataset_id'),
    }
    declared = {key: space for key, leaf in actions.items() if (space := space_of(leaf.spec))}
    return Recording(kinds[form](data, form, wanted, actions, options), total, facts, declared)


def leaves(spec: dict[str, Any], path: tuple[str, ...] = ()) -> list[Leaf]:
    """The plain spaces of numbers in a space; texts are left out."""
    match spec['type']:
        case 'Dict':
            return [x for k, v in spec['subspaces'].items() for x in leaves(v, (*path, k))]
        case 'Tuple':
            return [x for i, v in enumerate(spec['subspaces']) for x in leaves(v, (*path, str(i)))]
        case 'Text':
            return []
    return [Leaf(path, spec)]


def space_of(spec: dict[str, Any]) -> spaces.Space | None:
    """The space of an action, as far as it says what the values alone do not."""
    match spec['type']:
        case 'Box':
            low, high = (np.array(spec[end], spec['dtype']) for end in ('low', 'high'))
            return spaces.Box(low, high, tuple(spec['shape']), np.dtype(spec['dtype']).type)
        case 'Discrete':
            return spaces.Discrete(spec['n'])
        case 'MultiDiscrete':
            return spaces.MultiDiscrete(spec['nvec'])
    return None


def counted(values: np.ndarray, leaf: Leaf) -> np.ndarray:
    """Actions as rows have them: choices count from 0, buttons are booleans."""
    if leaf.spec['type'] == 'MultiBinary':
        return values.astype(bool)
    return values - np.asarray(leaf.spec.get('start', 0), values.dtype)


def picture(content: bytes) -> np.ndarray:
    """uint8 (H, W, C) of an encoded image.

    Raises:
      ReplayError: it is damaged.
    """
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(content)))
    except OSError as error:
        raise ReplayError(f'an image cannot be decoded: {error}.') from error


def _hdf5_units(
    data: Path, form: str, seen: dict[str, Leaf], actions: dict[str, Leaf], options: Options
) -> Iterator[Unit]:
    require('h5py', 'data')
    with opened(data / 'main_data.hdf5') as file:
        numbers = sorted(int(name.removeprefix('episode_')) for name in file)
        for number in numbers:
            group = file[f'episode_{number}']
            yield Unit(f'{number:08}', lambda g=group: _hdf5_episode(g, seen, actions, options))


def _hdf5_episode(
    group: Any, seen: dict[str, Leaf], actions: dict[str, Leaf], options: Options
) -> Episode:
    at = lambda root, leaf: group[
        '/'.join([root, *(f'_index_{n}' if n.isdigit() else n for n in leaf.path)])
    ]
    try:
        sets = {key: (at('observations', leaf), leaf) for key, leaf in seen.items()}
        acted = {key: counted(at('actions', leaf)[:], leaf) for key, leaf in actions.items()}
        rewards, ends = group['rewards'][:], group['terminations'][:]
    except KeyError as error:
        raise ReplayError(f'it lacks a part: {error}.') from error

    def frames() -> Iterator[Row]:
        length = len(next(iter(sets.values()))[0])
        for begin in range(0, length, BLOCK):
            block = {key: values[begin : begin + BLOCK] for key, (values, _) in sets.items()}
            for index in range(min(BLOCK, length - begin)):
                yield {key: _frame(block[key][index], leaf) for key, (_, leaf) in sets.items()}

    return Episode(
        frames(), acted, options.convention(False), rewards, terminal=bool(len(ends) and ends[-1])
    )


def _frame(value: np.ndarray, leaf: Leaf) -> np.ndarray:
    encoded = leaf.is_image and np.ndim(value) == 1
    return picture(value.tobytes()) if encoded else value


def _arrow_units(
    data: Path, form: str, seen: dict[str, Leaf], actions: dict[str, Leaf], options: Options
) -> Iterator[Unit]:
    require('pyarrow', 'data')
    numbers = sorted(int(path.name) for path in data.iterdir() if path.name.isdigit())
    for number in numbers:
        yield Unit(
            f'{number:08}',
            lambda path=data / str(number): _arrow_episode(path, form, seen, actions, options),
        )


def _arrow_episode(
    path: Path, form: str, seen: dict[str, Leaf], actions: dict[str, Leaf], options: Options
) -> Episode:
    import pyarrow.dataset

    ignored = ['_', '.', 'metadata.json']
    try:
        table = pyarrow.dataset.dataset(str(path), format=form, ignore_prefixes=ignored).to_table()
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error
    table = table.combine_chunks()
    column = lambda root, leaf: _descend(table[root].chunk(0), leaf.path)
    steps = table.num_rows - 1  # the row behind the last step holds its observation alone
    acted = {
        key: counted(_numbers(column('actions', leaf), leaf)[:steps], leaf)
        for key, leaf in actions.items()
    }
    stored = {key: (column('observations', leaf), leaf) for key, leaf in seen.items()}
    values = {k: _numbers(v, leaf) for k, (v, leaf) in stored.items() if not _is_binary(v)}

    def frames() -> Iterator[Row]:
        for index in range(steps + 1):
            yield {
                key: values[key][index] if key in values else picture(v[index].as_py())
                for key, (v, _) in stored.items()
            }

    rewards = np.asarray(table['rewards'])[:steps]
    ends = np.asarray(table['terminations'])[:steps]
    return Episode(
        frames(), acted, options.convention(False), rewards, terminal=bool(steps and ends[-1])
    )


def _descend(array: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        array = array.field(name)
    return array


def _is_binary(array: Any) -> bool:
    return str(array.type) == 'binary'


def _numbers(array: Any, leaf: Leaf) -> np.ndarray:
    """(N, *shape) of an Arrow array of numbers or of lists of equal length."""
    if hasattr(array, 'flatten') and 'list' in str(array.type):
        return np.asarray(array.flatten()).reshape(len(array), *leaf.shape)
    return np.asarray(array)
