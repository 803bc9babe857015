"""Checkpoints: a folder per save that is complete or invisible, and that can execute nothing.

    ckpt/20261120T193749F833588-000000012000/
        agent.safetensors   the arrays of the tree 'agent', by '/'-joined keys
        agent.json          the rest of it
        ...
        done.json           sizes and checksums of all the others, and the meta data; written last
A save is written into a folder with another name and renamed when it is whole. Loading trusts no byte: sizes and checksums first,
then safetensors and JSON, neither of which can run code or claim more memory than the file has bytes.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, numpy as safetensors

from .errors import CheckpointError

DONE, PARTIAL = 'done.json', '.partial-'
MAX_JSON = 1 << 28  # bytes; a JSON file beyond is not ours
DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError)


class Checkpoint:
    """The saves of one run.

    Args:
      directory: of the saves; made when the first one is written.
      keep: newest saves to keep, at least 1.
      on_event: receives a text for every damaged save that is passed over.
    """

    def __init__(self, directory: str | Path, keep: int, on_event: Callable[[str], None] = print):
        self.directory, self.keep, self._on_event = Path(directory), keep, on_event

    def saves(self) -> list[Path]:
        """Folders of all saves, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted(p for p in self.directory.iterdir() if p.is_dir() and not p.name.startswith('.'))

    def save(self, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
        """Write one save and remove those beyond `keep`.

        Args:
          trees: name -> nested dicts whose leaves are numpy arrays or JSON values. meta: JSON values; 'step' enters the folder's name.

        Raises:
          CheckpointError: it could not be written; earlier saves are untouched.
        """
        name = f'{datetime.now().strftime("%Y%m%dT%H%M%SF%f")}-{int(meta.get("step", 0)):012d}'
        partial = self.directory / f'{PARTIAL}{name}'
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            for stale in self.directory.glob(f'{PARTIAL}*'):
                shutil.rmtree(stale, ignore_errors=True)
            partial.mkdir()
            files = {}
            for tree_name, tree in trees.items():
                arrays, rest = split(tree)
                files[f'{tree_name}.json'] = json.dumps(rest).encode()
                if arrays:
                    files[f'{tree_name}.safetensors'] = safetensors.save(arrays)
            for file, content in files.items():
                _write(partial / file, content)
            sums = {file: {'bytes': len(content), 'crc32': zlib.crc32(content)} for file, content in files.items()}
            _write(partial / DONE, json.dumps({'files': sums, 'meta': dict(meta)}).encode())
            _sync(partial)
            os.rename(partial, self.directory / name)
            _sync(self.directory)
        except (OSError, TypeError, ValueError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(f'{self.directory}: this save could not be written: {error}') from error
        for old in self.saves()[:-self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return self.directory / name

    def load(self, path: str | Path | None = None) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(trees, meta) of the newest undamaged save, or None if there is no save at all.

        Args:
          path: folder of one save; then nothing else is tried.

        Raises:
          CheckpointError: the save at `path`, or every save there is, is damaged; says what is wrong with each.
        """
        if path is not None:
            return read(Path(path))
        problems = []
        for save in reversed(self.saves()):
            try:
                return read(save)
            except CheckpointError as error:
                problems.append(str(error))
                self._on_event(f'Passing over a damaged checkpoint: {error}')
        if problems:
            raise CheckpointError('no checkpoint can be read: ' + '; '.join(problems))
        return None


def find_save(path: str | Path) -> Path:
    """The newest save of a logdir or ckpt folder, or the save that `path` is itself.

    Raises:
      CheckpointError: there is none.
    """
    path = Path(path)
    if (path / DONE).is_file():
        return path
    for folder in (path / 'ckpt', path):
        for save in reversed(Checkpoint(folder, 1).saves()):
            if (save / DONE).is_file():
                return save
    raise CheckpointError(f'{path}: expected a save, a ckpt folder or a logdir that holds one; there is none')


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trees, meta) of one save.

    Raises:
      CheckpointError: names the file, what was expected and what was found.
    """
    try:
        done = _json(path / DONE)
        files, meta = dict(done['files']), dict(done['meta'])
    except DAMAGE as error:
        raise CheckpointError(f'{path}: no valid {DONE} ({error}): the save is incomplete or no checkpoint') from error
    contents = {}
    for file, expected in files.items():
        if Path(file).name != file or file.startswith('.'):
            raise CheckpointError(f'{path / DONE}: names the file {file!r}, which is not a plain name')
        contents[file] = _checked(path / file, expected)
    trees = {}
    for file in files:
        name, dot, kind = file.rpartition('.')
        try:
            if kind == 'json':
                arrays = safetensors.load(contents[f'{name}.safetensors']) if f'{name}.safetensors' in contents else {}
                trees[name] = merge(json.loads(contents[file]), arrays)
        except DAMAGE as error:
            raise CheckpointError(f'{path / file}: cannot be read: {error}') from error
    return trees, meta


def split(tree: Any, path: str = '') -> tuple[dict[str, np.ndarray], Any]:
    """A tree as arrays by path and a JSON value in which {'': path} stands for every array."""
    if isinstance(tree, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(tree).reshape(np.shape(tree))
        return {path: array}, {'': path}
    if isinstance(tree, Mapping):
        arrays, rest = {}, {}
        for key, value in tree.items():
            if not isinstance(key, str) or not key:
                raise TypeError(f'{path}: keys must be non-empty text, got {key!r}')
            inner, rest[key] = split(value, f'{path}/{key.replace("~", "~0").replace("/", "~1")}')
            arrays |= inner
        return arrays, rest
    return {}, tree


def merge(rest: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Inverse of split."""
    if isinstance(rest, dict):
        if set(rest) == {''}:
            return arrays[rest['']]
        return {key: merge(value, arrays) for key, value in rest.items()}
    return rest


def _checked(path: Path, expected: Mapping[str, int]) -> bytes:
    try:
        size = path.stat().st_size
        if size != expected['bytes']:
            raise CheckpointError(f'{path}: expected {expected["bytes"]} bytes, found {size}')
        content = path.read_bytes()
        if zlib.crc32(content) != expected['crc32']:
            raise CheckpointError(f'{path}: checksum differs from the one in {DONE}')
        return content
    except DAMAGE as error:
        raise CheckpointError(f'{path}: cannot be read: {error}') from error


def _json(path: Path) -> Any:
    size = path.stat().st_size
    if size > MAX_JSON:
        raise ValueError(f'{path.name} has {size} bytes, more than {MAX_JSON}')
    return json.loads(path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    with open(path, 'xb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
