"""Recordings in files of torch: the TensorDicts of nicklashansen/dreamer4 and TD-MPC2. Whatever is
not a tensor in them is refused, as weights_only does. A row's action led to its frame; row 0 of an
episode holds NaN.
"""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from embodied.convert import Episode, Options, Recording, Unit
from embodied.errors import ReplayError


def open_hansen(source: Path, options: Options) -> Recording:
    """TASK.pt with episode, action, reward, one row per frame; the frames in film strips
    TASK-0.png, TASK-1.png ... of squares side by side, or in TASK/TASK_shard0000.pt. Several tasks
    are numbered in their order (task_id).
    """
    paths = [source] if source.is_file() else sorted(source.glob('*.pt'))
    if not paths:
        raise ReplayError(f'{source}: there is no TASK.pt in it.')
    tasks = [path.stem for path in paths]
    known = _task_facts(paths[0].parent)
    facts = {'tasks': tasks} if len(tasks) > 1 else {'task': tasks[0]}
    width = known.get(tasks[0], {}).get('action_dim') if len(tasks) == 1 else None
    return Recording(_hansen(paths, width, options), None, facts)


def _task_facts(folder: Path) -> dict[str, Any]:
    for path in (folder / 'tasks.json', folder.parent / 'tasks.json'):
        if path.is_file():
            try:
                return json.loads(path.read_text())
            except (OSError, ValueError) as error:
                raise ReplayError(f'{path}: cannot be read: {error}.') from error
    return {}


def _hansen(paths: list[Path], width: int | None, options: Options) -> Iterator[Unit]:
    for task, path in enumerate(paths):
        rows = load(path, 'episode', 'action', 'reward')
        numbers = rows['episode'].reshape(-1)
        action = rows['action'].reshape(len(numbers), -1)[:, :width]
        reward = rows['reward'].reshape(-1)
        frames = Frames(path)
        constants = {'task_id': np.int32(task)} if len(paths) > 1 else {}
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in zip(starts, starts[1:]):
            yield Unit(
                f'{path.stem}:{start}',
                lambda a=start, b=stop, f=frames, x=action, r=reward, c=constants: Episode(
                    ({options.key: frame} for frame in f.cut(a, b)),
                    {'action': x[a:b]},
                    options.convention(True),
                    r[a:b],
                    came=True,
                    constants=c,
                ),
            )


class Frames:
    """The frames of a task in their order, a file of them at a time."""

    def __init__(self, path: Path):
        number = lambda p: int(p.stem.rpartition('-')[2])
        strips = [p for p in path.parent.glob(f'{path.stem}-*.png') if _is_number(p)]
        shards = sorted((path.parent / path.stem).glob('*shard*.pt'))
        self._files = sorted(strips, key=number) or shards
        if not self._files:
            raise ReplayError(
                f'{path}: its frames are neither in {path.stem}-0.png nor in'
                f' {path.stem}/{path.stem}_shard0000.pt.'
            )
        self._at, self._next, self._block = 0, 0, np.zeros((0, 1, 1, 3), np.uint8)

    def cut(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """uint8 (H, W, 3): frames `start` to `stop`.

        Raises:
          ReplayError: there are not so many.
        """
        for index in range(start, stop):
            if index < self._at:
                self._at, self._next, self._block = 0, 0, self._block[:0]
            while index >= self._at + len(self._block):
                self._advance(stop)
            yield self._block[index - self._at]

    def _advance(self, needed: int) -> None:
        self._at += len(self._block)
        if self._next == len(self._files):
            raise ReplayError(f'there are {self._at} frames, {needed} are needed.')
        path, self._next = self._files[self._next], self._next + 1
        if path.suffix == '.png':
            self._block = strip(path)
        else:
            frames = load(path, 'frames')['frames']
            self._block = frames if frames.shape[-1] == 3 else np.moveaxis(frames, 1, -1)


def _is_number(path: Path) -> bool:
    return path.stem.rpartition('-')[2].isdigit()


def strip(path: Path) -> np.ndarray:
    """uint8 (N, H, H, 3) of N squares side by side.

    Raises:
      ReplayError: it is no picture, or not as wide as a number of squares.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # strips are long
            image = np.asarray(Image.open(path).convert('RGB'))
    except OSError as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error
    height, width, _ = image.shape
    if width % height:
        raise ReplayError(f'{path}: {width} pixels are no number of squares {height} wide.')
    return image.reshape(height, width // height, height, 3).transpose(1, 0, 2, 3)


def open_tdmpc2(source: Path, options: Options) -> Recording:
    """Offline sets of TD-MPC2: .pt files with obs, action, reward (episodes, T, ...), and task."""
    paths = [source] if source.is_file() else sorted(source.rglob('*.pt'))
    if not paths:
        raise ReplayError(f'{source}: there is no .pt in it.')
    return Recording(_tdmpc2(paths, options))


def _tdmpc2(paths: list[Path], options: Options) -> Iterator[Unit]:
    for path in paths:
        rows = load(path, 'obs', 'action', 'reward', optional=('task',))
        for number in range(len(rows['obs'])):
            yield Unit(f'{path.name}:{number}', lambda r=rows, n=number: _slice(r, n, options))


def _slice(rows: dict[str, np.ndarray], number: int, options: Options) -> Episode:
    constants = {}
    if 'task' in rows:
        constants['task_id'] = np.int32(rows['task'][number].reshape(-1)[0])
    return Episode(
        ({'observation': value} for value in rows['obs'][number]),
        {'action': rows['action'][number]},
        options.convention(True),
        rows['reward'][number].reshape(-1),
        came=True,
        constants=constants,
    )


def load(path: Path, *names: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Tensors of a file, mapped.

    Raises:
      ReplayError: it is damaged, holds something else than tensors, or lacks one.
    """
    try:
        import tensordict  # noqa: F401  lets torch know its class
    except ImportError as error:
        raise ReplayError(f'{path}: needs the package tensordict: {error}.') from error
    try:
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        keys = set(content.keys())
    except UnpicklingError as error:
        raise ReplayError(f'{path}: is refused: {str(error).splitlines()[0]}') from error
    except (OSError, RuntimeError, ValueError, AttributeError, EOFError, KeyError) as error:
        raise ReplayError(f'{path}: cannot be read: {str(error).splitlines()[0]}') from error
    if missing := sorted(set(names) - keys):
        raise ReplayError(f'{path}: lacks {", ".join(missing)}; it has {", ".join(sorted(keys))}.')
    return {name: content[name].numpy() for name in (*names, *optional) if name in keys}
