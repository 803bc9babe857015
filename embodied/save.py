"""The files of one save of a checkpoint, see checkpoint.py: how they are written and read.

Loading trusts no byte: sizes and checksums first, then safetensors and JSON, neither of which can
run code or claim more memory than a file's size allows.
"""

import json
import os
import re
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from .base import Shards, Stored
from .errors import CheckpointError, EmbodiedError
from .files import open_regular, refusal, starved, sync

DONE = 'done.json'
SHARDS = '.shards'  # of the folder of a part that ranks have written in files of their own
TREE_NAME = re.compile(r'\w[\w-]*', re.ASCII)
FILE_NAME = re.compile(r'(\w[\w-]*\.shards/)?\w[\w-]*\.(json|safetensors)', re.ASCII)
OS_ERROR = re.compile(r'\(os error (\d+)\)')  # how safetensors says what the system refused
# bytes; JSON takes some 30 times as much memory, so this bounds what a crafted file can cost
MAX_JSON = 1 << 25
MAX_HEADER = 1 << 25  # bytes of names, dtypes and shapes in a safetensors file
BLOCK = 1 << 20
Sums = Mapping[str, Mapping[str, int]]  # name of a file -> its 'bytes' and 'crc32'
NO_SUMS: Sums = {}
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    MemoryError,
    SafetensorError,
)

Trees = dict[str, Any]


def verify(path: Path, sums: bool = True) -> tuple[dict[str, int], dict[str, Any]]:
    """Compare a save's files with its done.json.

    Args:
      sums: also the checksums, for which all of them are read; else their sizes alone.

    Returns:
      name -> bytes of each file, and the meta data.

    Raises:
      CheckpointError: names the file, what was expected and what was found.
    """
    try:
        done = json.loads(_content(path / DONE, MAX_JSON))
        files, meta = dict(done['files']), dict(done['meta'])
        expected = {name: (int(file['bytes']), int(file['crc32'])) for name, file in files.items()}
    except DAMAGE as error:
        raise fault(error, f'{path}: expected a complete save, found no valid {DONE}') from error
    for name, (size, checksum) in expected.items():
        if not FILE_NAME.fullmatch(name) or (path / name).parent.is_symlink() and '/' in name:
            raise CheckpointError(
                f'{path / DONE}: expected names such as agent.json, found {name[:80]!r}'
            )
        try:
            with open_regular(path / name, follow=False) as file:
                found = os.fstat(file.fileno()).st_size
                if found != size:
                    raise CheckpointError(f'{path / name}: expected {size} bytes, found {found}')
                crc = _crc32(file) if sums else checksum
        except OSError as error:
            raise fault(
                error, f'{path / name}: expected {size} bytes, found none that can be read'
            ) from error
        if crc != checksum:
            raise CheckpointError(f'{path / name}: expected the checksum {checksum}, found {crc}')
    return {name: size for name, (size, _) in expected.items()}, meta


def read(path: Path, sums: bool = True) -> tuple[Trees, dict[str, Any]]:
    """(trees, meta) of one save; a tree that was Shards is Stored.

    Args:
      sums: see verify().

    Raises:
      CheckpointError: names the file, what was expected and what was found.
    """
    files, meta = verify(path, sums)
    trees, cut = {}, {file.partition(SHARDS)[0] for file in files if '/' in file}
    for file in files:
        name, _, kind = file.rpartition('.')
        try:
            if '/' in file:
                name = name.partition(SHARDS)[0]
                _check_header(path / file)
            elif kind == 'json':
                arrays = (
                    _arrays(path / f'{name}.safetensors') if f'{name}.safetensors' in files else {}
                )
                trees[name] = merge(json.loads(_content(path / file, MAX_JSON)), arrays)
            if f'{name}.json' not in files:
                raise ValueError(f'there is no {name}.json beside it')
        except DAMAGE as error:
            raise fault(error, f'{path / file}: expected a part of a checkpoint, found') from error
    return trees | {name: Stored(trees[name], _shards(path, name, files)) for name in cut}, meta


def _shards(path: Path, name: str, files: Collection[str]) -> Path:
    """The folder of the shards of a tree, which holds no file of which nothing is known."""
    folder = path / f'{name}{SHARDS}'
    more = sorted(
        file.name for file in folder.iterdir() if f'{folder.name}/{file.name}' not in files
    )
    if more:
        raise CheckpointError(f'{folder}: expected the files of {DONE} alone, found {more[0]}')
    return folder


def write_save(
    folder: Path, trees: Mapping[str, Any], meta: Mapping[str, Any], sums: Sums = NO_SUMS
) -> None:
    """Write the files of a save, done.json last, into a folder in which nothing is but shards.

    Args: as for Checkpoint.finish().

    Raises:
      one of DAMAGE: it cannot be written.
    """
    for name, tree in trees.items():
        if not TREE_NAME.fullmatch(name):
            raise ValueError(
                f'the name of a tree consists of letters, digits, _ and -, got {name!r}'
            )
        arrays, rest = split(tree)
        _write_json(folder / f'{name}.json', rest)
        if arrays:
            _write_arrays(folder / f'{name}.safetensors', arrays)
    own = {path.name: sum_of(path) for path in sorted(folder.iterdir()) if path.is_file()}
    _write_json(folder / DONE, {'files': own | dict(sums), 'meta': dict(meta)})
    for shards in folder.glob(f'*{SHARDS}'):
        sync(shards)
    sync(folder)


def write_shards(folder: Path, name: str, shards: Shards) -> Sums:
    """Write what this process has of a tree into the folder of a save; its files.

    Raises:
      CheckpointError, OSError: a process cannot write.
    """
    place = folder / f'{name}{SHARDS}'
    place.mkdir(parents=True, exist_ok=True)
    files = shards.write(place)
    for file in files:
        sync(file)
    return {f'{place.name}/{file.name}': sum_of(file) for file in files}


def sum_of(path: Path) -> dict[str, int]:
    """Size and checksum of a file."""
    with open_regular(path, follow=False) as file:
        return {'bytes': os.fstat(file.fileno()).st_size, 'crc32': _crc32(file)}


def split(tree: Any, path: str = '') -> tuple[dict[str, np.ndarray], Any]:
    """A tree as arrays by path and a JSON value in which {'': path} stands for every array."""
    if isinstance(tree, (np.ndarray, np.generic)):
        array = np.asarray(tree)
        # ascontiguousarray makes () to (1,)
        return {path: np.ascontiguousarray(array).reshape(array.shape)}, {'': path}
    if isinstance(tree, Mapping):
        arrays, rest = {}, {}
        for key, value in tree.items():
            if not isinstance(key, str) or not key:
                raise TypeError(f'{path or "the tree"}: keys must be non-empty text, got {key!r}')
            inner, rest[key] = split(value, f'{path}/{key.replace("~", "~0").replace("/", "~1")}')
            arrays |= inner
        return arrays, rest
    return {}, tree


def merge(rest: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Inverse of split."""
    if not isinstance(rest, dict):
        return rest
    if rest.keys() == {''}:
        return arrays[rest['']]
    return {key: merge(value, arrays) for key, value in rest.items()}


def _write_json(path: Path, value: Any) -> None:
    content = json.dumps(value).encode()
    if len(content) > MAX_JSON:
        raise ValueError(
            f'{path.name} would have {len(content)} bytes, more than the {MAX_JSON} that are read'
            ' again; large data must be arrays'
        )
    with open(path, 'xb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind not in 'biufc' or array.dtype.itemsize > 8:
            raise TypeError(
                f'{name}: expected an array of numbers of at most 64 bits, got {array.dtype}'
            )
    safetensors.save_file(arrays, path)
    sync(path)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        _check_header(path)
        return safetensors.load_file(path)
    except DAMAGE as error:
        raise fault(error, f'{path}: expected arrays, found') from error


def _check_header(path: Path) -> None:
    with open_regular(path, follow=False) as file:
        header = int.from_bytes(file.read(8), 'little')
    if header > MAX_HEADER:
        raise ValueError(f'a header of {header} bytes, more than {MAX_HEADER}')


def _content(path: Path, limit: int) -> bytes:
    with open_regular(path, follow=False) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f'{path.name} has more than {limit} bytes')
    return content


def _crc32(file: BinaryIO) -> int:
    crc = 0
    while block := file.read(BLOCK):
        crc = zlib.crc32(block, crc)
    return crc


def fault(error: BaseException, what: str) -> EmbodiedError:
    """The error to raise for one of DAMAGE: a save is damaged only if it could be read."""
    code = OS_ERROR.search(str(error)) if isinstance(error, SafetensorError) else None
    cause = OSError(int(code[1]), os.strerror(int(code[1]))) if code else error
    if starved(cause):
        return refusal(cause, what, CheckpointError)
    return CheckpointError(f'{what}: {describe(error)}')


def describe(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'[:500]
