"""RLDS episodes as TFDS stores them, without TensorFlow: TFRecord files of tf.train.Example
messages, one per episode, whose parts features.json describes.

Wire format of the messages (protobuf): each field begins with a number, 8 * field + type, of which
type 0 is a number and 2 a length with as many bytes; numbers are base 128, lowest digits first.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ReplayError
from .episode import Episode, Options, Recording, Row, Unit, row_names
from .minari import picture
from .npz_files import relative

NUMBER, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # types of fields
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3  # kinds of a feature
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
        raise ReplayError(f'{folder}: there is no .tfrecord in it.')
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
        yield path, Leaf(_shape(tensor), tensor['dtype'], False, tensor.get('encoding', 'none'))


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

    def episode(self, found: dict[str, Any]) -> Episode:
        """One example."""
        vectors = {k: self._values(found, k) for k in self._names if not self._leaves[k].is_image}
        images = {k: found.get(f'steps/{k}', []) for k in self._names if self._leaves[k].is_image}
        lengths = {key: len(values) for key, values in {**vectors, **images}.items()}
        if len(set(lengths.values())) != 1:
            raise ReplayError(f'its observations are of different lengths: {lengths}.')
        length = next(iter(lengths.values()))

        def frames() -> Iterator[Row]:
            for index in range(length):
                row = {self._names[key]: values[index] for key, values in vectors.items()}
                for key, values in images.items():
                    row[self._names[key]] = picture(values[index])
                yield row

        ends = self._values(found, 'is_terminal') if 'is_terminal' in self._leaves else ()
        return Episode(
            frames(),
            {key: self._values(found, key) for key in self._actions},
            self._options.convention(False),
            self._values(found, 'reward') if 'reward' in self._leaves else None,
            terminal=bool(len(ends) and ends[-1]),
            idle=True,
        )

    def _values(self, found: dict[str, Any], key: str) -> np.ndarray:
        """(T, *shape) of a feature of numbers."""
        leaf, values = self._leaves[key], found.get(f'steps/{key}')
        if values is None:
            raise ReplayError(f'it has no {key}; it has {", ".join(sorted(found))}.')
        dtype = np.dtype(leaf.dtype)
        if leaf.encoding in ('bytes', 'zlib'):
            unpack = zlib.decompress if leaf.encoding == 'zlib' else bytes
            values = np.concatenate([np.frombuffer(unpack(v), dtype) for v in values])
        return np.asarray(values).astype(dtype).reshape(-1, *leaf.shape)


def records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length u64, its checksum, content, its checksum.

    Raises:
      ReplayError: the file ends within one.
    """
    with open(path, 'rb') as file:
        while head := file.read(12):
            length = struct.unpack('<Q', head[:8])[0] if len(head) == 12 else -1
            content = file.read(length) if 0 <= length < 1 << 40 else b''
            if len(content) != length or len(file.read(4)) != 4:
                raise ReplayError(f'{path}: ends within a record.')
            yield content


def example(content: bytes) -> dict[str, Any]:
    """The features of a tf.train.Example: key -> list of bytes, or array of float32 or int64.

    Raises:
      ReplayError: the message is damaged.
    """
    try:
        found = {}
        for _, features in _fields(memoryview(content)):
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                kinds = list(_fields(parts.get(2, memoryview(b''))))
                kind, values = kinds[0] if kinds else (BYTES_LIST, memoryview(b''))
                found[bytes(parts[1]).decode()] = _list(kind, values)
        return found
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ReplayError(f'is no tf.train.Example: {error!r}.') from error


def _list(kind: int, content: memoryview) -> Any:
    parts = [value for _, value in _fields(content)]
    if kind == BYTES_LIST:
        return [bytes(part) for part in parts]
    if kind == FLOAT_LIST:  # packed, or each number for itself: both are its bytes
        return np.frombuffer(b''.join(parts), '<f4')
    numbers = []
    for part in parts:
        numbers += [part] if isinstance(part, int) else _packed(part)
    return np.array([n - (1 << 64) if n >> 63 else n for n in numbers], np.int64)


def _packed(content: memoryview) -> list[int]:
    numbers, at = [], 0
    while at < len(content):
        number, at = _varint(content, at)
        numbers.append(number)
    return numbers


def _fields(content: memoryview) -> Iterator[tuple[int, Any]]:
    """(field, value) of a message; values are numbers or bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        kind = key & 7
        if kind == NUMBER:
            value, at = _varint(content, at)
        else:
            if kind == BYTES:
                length, at = _varint(content, at)
            else:
                length = {FOUR: 4, EIGHT: 8}[kind]
            value, at = content[at : at + length], at + length
            if len(value) < length:
                raise ValueError('it ends early')
        yield key >> 3, value


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
