"""RLDS episodes as TFDS stores them, without TensorFlow: TFRecord files of tf.train.Example
messages, one per episode, whose parts features.json describes.
"""

import itertools
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ReplayError
from .episode import Episode, Options, Recording, Row, Unit, row_names
from .folders import relative
from .minari import picture
from .tfrecord import Feature, example, records

NOT_SEEN = ('is_first', 'is_last', 'is_terminal', 'reward', 'discount')


class Leaf(NamedTuple):
    """A feature of a step: what features.json says of it."""

    shape: tuple[int, ...]
    dtype: str
    is_image: bool
    encoding: str


def open_rlds(source: Path, options: Options) -> Recording:
    """A folder NAME/VERSION of TFDS. The action of the last step is not valid, and its reward comes
    with it; other rewards are what the action of their step earned.
    """
    folder = _version(source)
    leaves = step_leaves(_json(folder / 'features.json'))
    shards = sorted(folder.glob('*.tfrecord-*')) or sorted(folder.glob('*.tfrecord'))
    if not shards:
        other = ', but .array_record, which tfds can write anew as tfrecord'
        found = other if any(folder.glob('*.array_record*')) else ''
        raise ReplayError(f'{folder}: there is no .tfrecord in it{found}.')
    info = _json(folder / 'dataset_info.json') if (folder / 'dataset_info.json').exists() else {}
    counts = [int(n) for split in info.get('splits', []) for n in split.get('shardLengths', [])]
    reader = Reader(leaves, options)
    units = _units(shards, folder, reader)
    return Recording(units, sum(counts) or None, {'dataset': info.get('name')})


def _version(source: Path) -> Path:
    if (source / 'features.json').is_file():
        return source
    found = [path.parent for path in sorted(source.glob('*/features.json'))]
    if len(found) != 1:
        raise ReplayError(
            f'{source}: expected a folder with features.json, found {len(found)} below it'
            f'{": " if found else ""}{", ".join(path.name for path in found)}.'
        )
    return found[0]


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error


def step_leaves(features: dict[str, Any]) -> dict[str, Leaf]:
    """Path within a step -> what stands there. Texts, and sequences within a step, are left out.

    Raises:
      ReplayError: these are no episodes of steps.
    """
    try:
        steps = features['featuresDict']['features']['steps']['sequence']['feature']
        return dict(_leaves(steps, ''))
    except (KeyError, TypeError, ValueError) as error:
        raise ReplayError(f'features.json describes no steps of episodes: {error!r}.') from error


def _leaves(feature: dict[str, Any], path: str) -> Iterator[tuple[str, Leaf]]:
    if 'featuresDict' in feature:
        for name, inner in feature['featuresDict']['features'].items():
            yield from _leaves(inner, f'{path}/{name}'.lstrip('/'))
    elif 'image' in feature:
        yield path, Leaf(_shape(feature['image']), 'uint8', True, '')
    elif 'classLabel' in feature:
        yield path, Leaf((), 'int64', False, 'none')
    elif 'tensor' in feature and feature['tensor']['dtype'] != 'string':
        tensor = feature['tensor']
        if min(_shape(tensor), default=0) < 0:
            return  # of another length in every step: a sequence, stored as such
        dtype = 'float32' if tensor['dtype'] == 'bfloat16' else tensor['dtype']
        yield path, Leaf(_shape(tensor), dtype, False, tensor.get('encoding', 'none'))


def _shape(spec: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(size) for size in spec.get('shape', {}).get('dimensions', ()))


def _units(shards: list[Path], folder: Path, reader: 'Reader') -> Iterator[Unit]:
    for shard in shards:
        for number, content in enumerate(records(shard)):
            name = f'{relative(shard, folder)}:{number}'
            yield Unit(name, lambda c=content: reader.episode(example(c)))


class Reader:
    """Turns examples into episodes."""

    def __init__(self, leaves: dict[str, Leaf], options: Options):
        self._leaves, self._options = leaves, options
        acts = lambda k: k in options.action if options.action else k.split('/')[0] == 'action'
        self._actions = [key for key in leaves if acts(key)]
        seen = {
            key: key.removeprefix('observation/')
            for key in leaves
            if key not in self._actions and key not in NOT_SEEN
        }
        names = row_names({seen[key]: leaves[key].is_image for key in seen}, options)
        self._names = {k: names[n] for k, n in seen.items() if options.wanted(names[n])}

    def episode(self, found: dict[str, Feature]) -> Episode:
        """One example."""
        ends = self._values(found, 'is_terminal') if 'is_terminal' in self._leaves else ()
        return Episode(
            self._frames(found),
            {key: self._values(found, key) for key in self._actions},
            self._options.convention(False),
            self._values(found, 'reward') if 'reward' in self._leaves else None,
            terminal=bool(len(ends) and ends[-1]),
            idle=True,
        )

    def _frames(self, found: dict[str, Feature]) -> Iterator[Row]:
        columns = [self._rows(found, key) for key in self._names]
        if not columns:
            raise ReplayError('none of its observations is kept.')
        names = list(self._names.values())
        for count in itertools.count():
            values = [next(column, None) for column in columns]
            over = [name for name, value in zip(names, values) if value is None]
            if len(over) == len(names):
                return
            if over:
                raise ReplayError(
                    'its observations are of different lengths: there are'
                    f' {count} of {", ".join(over)}, and more of others.'
                )
            yield dict(zip(names, values))

    def _values(self, found: dict[str, Feature], key: str) -> np.ndarray:
        """(T, *shape) of a feature of numbers."""
        leaf = self._leaves[key]
        return np.concatenate(
            [
                np.zeros((0, *leaf.shape), leaf.dtype),
                *(rows for rows in self._blocks(found, key)),
            ]
        )

    def _rows(self, found: dict[str, Feature], key: str) -> Iterator[np.ndarray]:
        """The values of a feature, step by step."""
        if self._leaves[key].is_image:
            return map(picture, _of(found, key).parts())
        return itertools.chain.from_iterable(self._blocks(found, key))

    def _blocks(self, found: dict[str, Feature], key: str) -> Iterator[np.ndarray]:
        """(some of T, *shape) each, of a feature of numbers."""
        leaf, feature = self._leaves[key], _of(found, key)
        dtype, size = np.dtype(leaf.dtype), math.prod(leaf.shape)
        if leaf.encoding in ('bytes', 'zlib'):
            unpack = zlib.decompress if leaf.encoding == 'zlib' else bytes
            for content in feature.parts():
                yield np.frombuffer(unpack(content), dtype).reshape(-1, *leaf.shape)
            return
        rest, gathered = [], 0  # what is less than a step
        for block in feature.blocks():
            rest, gathered = [*rest, block], gathered + len(block)
            if gathered < size:
                continue
            values = np.concatenate(rest)
            whole = gathered // size * size
            yield values[:whole].astype(dtype).reshape(-1, *leaf.shape)
            rest, gathered = [values[whole:]], gathered - whole
        if gathered:
            raise ReplayError(f'{key} ends within a step: {gathered} of {size} numbers.')


def _of(found: dict[str, Feature], key: str) -> Feature:
    if f'steps/{key}' not in found:
        raise ReplayError(f'it has no {key}; it has {", ".join(sorted(found))}.')
    return found[f'steps/{key}']
