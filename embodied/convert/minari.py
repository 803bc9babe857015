"""Minari data sets, in HDF5 or as Arrow, without minari. An episode of T steps has T+1
observations; actions are taken at them, rewards are what they earned. Images may be JPEG, one per
row.
"""

import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ..errors import ReplayError
from ..extras import require
from .arrays import MOST_ROWS, block_rows
from .episode import Episode, Options, Recording, Row, Unit, row_names
from .hdf5 import opened
from .tables import Parquet, arrow_batches, numbers


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
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.spec.get('dtype', 'int64')).itemsize

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
            shape, dtype = tuple(spec['shape']), np.dtype(spec['dtype'])
            low, high = (
                np.broadcast_to(np.array(spec[end], dtype), shape) for end in ('low', 'high')
            )
            return spaces.Box(low, high, shape, dtype.type)
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
        size = block_rows(sum(leaf.nbytes for leaf in seen.values()))
        for begin in range(0, length, size):
            block = {key: values[begin : begin + size] for key, (values, _) in sets.items()}
            for index in range(min(size, length - begin)):
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
    labels = list(_batches(path, form, {'actions', 'rewards', 'terminations'}, MOST_ROWS))
    steps = sum(batch.num_rows for batch in labels) - 1  # behind the last is an observation alone
    if steps < 0:
        raise ReplayError(f'{path}: holds no row.')
    joined = lambda parts: np.concatenate(list(parts))[:steps]
    ends = joined(_column(batch, 'terminations') for batch in labels)
    return Episode(
        _arrow_frames(path, form, seen),
        {
            key: counted(joined(_column(batch, 'actions', leaf) for batch in labels), leaf)
            for key, leaf in actions.items()
        },
        options.convention(False),
        joined(_column(batch, 'rewards') for batch in labels),
        terminal=bool(steps and ends[-1]),
    )


def _arrow_frames(path: Path, form: str, seen: dict[str, Leaf]) -> Iterator[Row]:
    rows = block_rows(sum(leaf.nbytes for leaf in seen.values()))
    for batch in _batches(path, form, {'observations'}, rows):
        stored = {key: _descend(batch['observations'], leaf.path) for key, leaf in seen.items()}
        encoded = {key: values for key, values in stored.items() if _is_binary(values)}
        plain = {
            key: numbers(values, seen[key].shape)
            for key, values in stored.items()
            if key not in encoded
        }
        for index in range(batch.num_rows):
            row = {key: values[index] for key, values in plain.items()}
            yield row | {k: picture(values[index].as_py()) for k, values in encoded.items()}


def _batches(path: Path, form: str, columns: set[str], rows: int) -> Iterator[Any]:
    """The rows of an episode, in record batches."""
    files = sorted(path.glob(f'*.{form}'))
    if not files:
        raise ReplayError(f'{path}: there is no file .{form} in it.')
    for file in files:
        if form == 'arrow':
            yield from arrow_batches(file, columns, rows)
        else:
            table = Parquet(file, columns, rows)
            yield from table.batches(0, table.length)


def _column(batch: Any, root: str, leaf: Leaf | None = None) -> np.ndarray:
    if root not in batch.schema.names:
        raise ReplayError(f'it lacks the column {root}.')
    array = batch[root] if leaf is None else _descend(batch[root], leaf.path)
    return numbers(array, () if leaf is None else leaf.shape)


def _descend(array: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        array = array.field(name)
    return array


def _is_binary(array: Any) -> bool:
    return str(array.type) in ('binary', 'large_binary')
