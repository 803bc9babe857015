"""Checkpoints: a folder per save that is complete or invisible, and that can execute nothing.

    ckpt/20261120T193749F833588-000000012000/     time (UTC) and step
        agent.safetensors   the arrays of the tree 'agent', by '/'-joined keys
        agent.json          the rest of it
        ...
        done.json           sizes and checksums of all the others, and the meta data; written last

A save is written into a folder with another name and renamed when it is whole. Loading trusts no
byte: sizes and checksums first, then safetensors and JSON, neither of which can run code or claim
more memory than a file's size allows.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from .errors import CheckpointError, EmbodiedError
from .files import open_regular, refusal, starved, sync

DONE, PARTIAL = 'done.json', '.partial-'
STAMP = '%Y%m%dT%H%M%SF%f'
SAVE_NAME = re.compile(r'\d{8}T\d{6}F\d{6}-\d+')
LAST_YEAR = 9000  # a later one is a mistake, and nothing could come after the last of them
OS_ERROR = re.compile(r'\(os error (\d+)\)')  # how safetensors says what the system refused
TREE_NAME = re.compile(r'\w[\w-]*', re.ASCII)
# bytes; JSON takes some 30 times as much memory, so this bounds what a crafted file can cost
MAX_JSON = 1 << 25
MAX_HEADER = 1 << 25  # bytes of names, dtypes and shapes in a safetensors file
BLOCK = 1 << 20
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


class Checkpoint:
    """The saves of one run."""

    def __init__(self, directory: str | Path, keep: int, on_event: Callable[[str], None] = print):
        """Nothing is touched before the first save.

        Args:
          directory: of the saves; made when the first one is written.
          keep: newest saves to keep, at least 1.
          on_event: receives a text for every damaged save that is passed over.
        """
        self.directory, self.keep, self._on_event = Path(directory), keep, on_event

    def saves(self) -> list[Path]:
        """Folders of all saves, oldest first; whatever else lies in the directory is not counted
        and never touched.
        """
        return self._listed()[0]

    def odd(self) -> list[str]:
        """What has the name of a save and is none, as text: no folder, or of a time that cannot
        be.
        """
        return self._listed()[1]

    def _listed(self) -> tuple[list[Path], list[str]]:
        saves, odd = [], []
        try:
            for path in sorted(self.directory.iterdir()):
                if not SAVE_NAME.fullmatch(path.name):
                    continue
                if not path.is_dir():
                    odd.append(f'{path.name} (no folder)')
                elif not _possible(path.name):
                    odd.append(f'{path.name} (no possible time)')
                else:
                    saves.append(path)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise refusal(
                error, f'{self.directory}: expected a folder of checkpoints', CheckpointError
            ) from error
        return saves, odd

    def save(self, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
        """Write one save and remove those beyond `keep`.

        Args:
          trees: name (letters, digits, '_', '-') -> nested dicts whose leaves are numpy arrays or
            JSON values. They are loaded as they are, except that numpy scalars become arrays () and
            tuples become lists.
          meta: JSON values; 'step' enters the folder's name.

        Returns:
          its folder.

        Raises:
          CheckpointError: it could not be written; earlier saves are untouched.
        """
        name = f'{self._stamp()}-{int(meta.get("step", 0)):012d}'
        partial = self.directory / f'{PARTIAL}{name}'
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._clean()
            partial.mkdir()
            write_save(partial, trees, meta)
            os.rename(partial, self.directory / name)
            sync(self.directory)
        except DAMAGE as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f'{self.directory}: this save could not be written: {_describe(error)}'
            ) from error
        for old in self.saves()[: -self.keep]:
            self._remove(old)
        return self.directory / name

    def load(self, path: str | Path | None = None) -> tuple[Trees, dict[str, Any]] | None:
        """(trees, meta) of the newest undamaged save, or None if there is no save at all.

        Args:
          path: folder of one save; then nothing else is tried.

        Raises:
          CheckpointError: the save at `path`, or every save there is, is damaged; says what is
              wrong with each.
          OutOfResources: descriptors or memory ran out; an older save would be the wrong one.
        """
        if path is not None:
            return read(Path(path))
        problems = []
        self.say_what_is_odd()
        for save in reversed(self.saves()):
            try:
                return read(save)
            except CheckpointError as error:
                problems.append(str(error))
                self._on_event(f'Passing over a damaged checkpoint: {error}')
        if problems:
            raise CheckpointError('No checkpoint can be read: ' + '; '.join(problems))
        return None

    def say_what_is_odd(self) -> None:
        """Name what has the name of a save and is none; it is left alone."""
        if odd := self.odd():
            self._on_event(f'{self.directory}: not saves, left alone: {", ".join(odd[:10])}.')

    def _stamp(self) -> str:
        """The time, or just after that of the newest save where the clock was set back: names
        must sort by age.
        """
        now, saves = datetime.now(UTC), self.saves()
        if saves:
            newest = datetime.strptime(saves[-1].name.partition('-')[0], STAMP).replace(tzinfo=UTC)
            now = max(now, newest + timedelta(microseconds=1))
        return now.strftime(STAMP)

    def _clean(self) -> None:
        """Remove what interrupted saves and removals have left."""
        for stale in self.directory.glob(f'{PARTIAL}*'):
            shutil.rmtree(stale, ignore_errors=True)

    def _remove(self, save: Path) -> None:
        """Make a save invisible first, so that none is ever seen half removed. A disk that
        refuses is asked again at the next save.
        """
        hidden = save.with_name(f'{PARTIAL}{save.name}')
        try:
            os.rename(save, hidden)
        except OSError:
            return
        shutil.rmtree(hidden, ignore_errors=True)


def find_save(path: str | Path, on_event: Callable[[str], None] = print) -> Path:
    """The newest undamaged save of a logdir or ckpt folder, or the save that `path` is itself.

    Raises:
      CheckpointError: there is none, or all there are, are damaged.
    """
    path, problems = Path(path), []
    if (path / DONE).exists() or SAVE_NAME.fullmatch(path.name):
        return path
    for folder in (path / 'ckpt', path):
        store = Checkpoint(folder, 1, on_event)
        store.say_what_is_odd()
        for save in reversed(store.saves() if folder.is_dir() else []):
            try:
                verify(save)
                return save
            except CheckpointError as error:
                problems.append(str(error))
                on_event(f'Passing over a damaged checkpoint: {error}')
    found = '; '.join(problems) or 'there is none' + (
        '' if path.exists() else ', nor such a folder'
    )
    raise CheckpointError(
        f'{path}: expected a save, a ckpt folder or a logdir that holds one; {found}'
    )


def verify(path: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Compare a save's files with its done.json.

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
        raise _fault(error, f'{path}: expected a complete save, found no valid {DONE}') from error
    for name, (size, checksum) in expected.items():
        stem, _, kind = name.rpartition('.')
        if not TREE_NAME.fullmatch(stem) or kind not in ('json', 'safetensors'):
            raise CheckpointError(
                f'{path / DONE}: expected names such as agent.json, found {name[:80]!r}'
            )
        try:
            with open_regular(path / name, follow=False) as file:
                found = os.fstat(file.fileno()).st_size
                if found != size:
                    raise CheckpointError(f'{path / name}: expected {size} bytes, found {found}')
                crc = _crc32(file)
        except OSError as error:
            raise _fault(
                error, f'{path / name}: expected {size} bytes, found none that can be read'
            ) from error
        if crc != checksum:
            raise CheckpointError(f'{path / name}: expected the checksum {checksum}, found {crc}')
    return {name: size for name, (size, _) in expected.items()}, meta


def read(path: Path) -> tuple[Trees, dict[str, Any]]:
    """(trees, meta) of one save.

    Raises:
      CheckpointError: names the file, what was expected and what was found.
    """
    files, meta = verify(path)
    trees = {}
    for file in files:
        name, _, kind = file.rpartition('.')
        try:
            if kind == 'json':
                arrays = (
                    _arrays(path / f'{name}.safetensors') if f'{name}.safetensors' in files else {}
                )
                trees[name] = merge(json.loads(_content(path / file, MAX_JSON)), arrays)
            elif f'{name}.json' not in files:
                raise ValueError(f'there is no {name}.json beside it')
        except DAMAGE as error:
            raise _fault(error, f'{path / file}: expected a part of a checkpoint, found') from error
    return trees, meta


def write_save(folder: Path, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write the files of a save, done.json last, into a folder that is empty.

    Args: as for Checkpoint.save().

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
    sums = {}
    for path in sorted(folder.iterdir()):
        with open_regular(path, follow=False) as file:
            sums[path.name] = {'bytes': os.fstat(file.fileno()).st_size, 'crc32': _crc32(file)}
    _write_json(folder / DONE, {'files': sums, 'meta': dict(meta)})
    sync(folder)


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
        with open_regular(path, follow=False) as file:
            header = int.from_bytes(file.read(8), 'little')
        if header > MAX_HEADER:
            raise ValueError(f'a header of {header} bytes, more than {MAX_HEADER}')
        return safetensors.load_file(path)
    except DAMAGE as error:
        raise _fault(error, f'{path}: expected arrays, found') from error


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


def _possible(name: str) -> bool:
    """Whether a save can have been made at the time in its name."""
    try:
        return datetime.strptime(name.partition('-')[0], STAMP).year <= LAST_YEAR
    except ValueError:
        return False


def _fault(error: BaseException, what: str) -> EmbodiedError:
    """The error to raise for one of DAMAGE: a save is damaged only if it could be read."""
    code = OS_ERROR.search(str(error)) if isinstance(error, SafetensorError) else None
    cause = OSError(int(code[1]), os.strerror(int(code[1]))) if code else error
    if starved(cause):
        return refusal(cause, what, CheckpointError)
    return CheckpointError(f'{what}: {_describe(error)}')


def _describe(error: BaseException) -> str:
    return f'{type(error).__name__}: {error}'[:500]
