"""Formats in HDF5 files: shards of machines-in-motion, D4RL, and V-D4RL at 84 pixels."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReplayError
from .arrays import block_rows, spans
from .episode import Episode, Options, Recording, Row, Unit
from .folders import Files, relative
from .npz_files import open_torch

SUFFIXES = ('.h5', '.hdf5', '.hdf')


def opened(path: Path) -> Any:
    """The file, as h5py opens it.

    Raises:
      ReplayError: it is damaged, or no HDF5.
    """
    import h5py

    try:
        return h5py.File(path, 'r')
    except OSError as error:
        raise ReplayError(f'{path}: cannot be read as HDF5: {error}.') from error


def blocks(dataset: Any, first: int, count: int) -> Iterator[np.ndarray]:
    """Rows `first` to `first + count` of a dataset, a block of them in memory at a time."""
    size = block_rows(dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    for begin in range(first, first + count, size):
        yield from dataset[begin : min(begin + size, first + count)]


def expect(file: Any, path: Path, *names: str) -> None:
    """Raises ReplayError where a file lacks a dataset; names those that it has."""
    if missing := [name for name in names if name not in file]:
        raise ReplayError(
            f'{path}: expected {", ".join(missing)}; it has {", ".join(file) or "nothing"}.'
        )


def open_mim(source: Path, options: Options) -> Recording:
    """Shards with images (E, Lmax, H, W, C), actions (E, Lmax, A), episode_lengths (E,), zeros
    behind each episode; or one file per episode with cam1 (T, 3, H, W) in [0, 1] and actions.

    Who converts LeRobot to shards swaps red and blue and stores differences of actions; who
    converts RLDS does neither, and notes num_episodes as an attribute.
    """
    found = Files(source, *SUFFIXES)
    total = 0
    for path in found:
        with opened(path) as file:
            total += len(file['episode_lengths']) if 'episode_lengths' in file else 1
    return Recording(_mim(found, source, options), total, _mim_facts(source))


def _mim_facts(source: Path) -> dict[str, Any]:
    path = source / 'metadata.json'
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error
    known = ('relative_actions', 'relative_mode', 'split')
    return {key: content[key] for key in known if key in content}


def _mim(found: Files, source: Path, options: Options) -> Iterator[Unit]:
    for path in found:
        with opened(path) as file:
            if 'episode_lengths' not in file:
                expect(file, path, 'cam1', 'actions')
                yield Unit(relative(path, source), lambda f=file: _push(f, options))
                continue
            expect(file, path, 'images', 'actions')
            lengths = file['episode_lengths'][:]
            for number, length in enumerate(lengths.tolist()):
                name = f'{relative(path, source)}:{number}'
                yield Unit(name, lambda f=file, n=number, k=length: _shard(f, n, k, options))


def _shard(file: Any, number: int, length: int, options: Options) -> Episode:
    images = file['images']
    if not 0 < length <= images.shape[1]:
        raise ReplayError(f'a length of {length} in rows of {images.shape[1]}.')
    bgr = 'num_episodes' not in file.attrs if options.bgr is None else options.bgr

    def frames() -> Iterator[Row]:
        size = block_rows(images.dtype.itemsize * math.prod(images.shape[2:]))
        for begin in range(0, length, size):
            for frame in images[number, begin : min(begin + size, length)]:
                yield {options.key: frame[..., ::-1] if bgr else frame}

    actions = file['actions'][number, :length]
    return Episode(frames(), {'action': actions}, options.convention(False))


def _push(file: Any, options: Options) -> Episode:
    states = file['states'][:] if 'states' in file else None

    def frames() -> Iterator[Row]:
        for index, frame in enumerate(blocks(file['cam1'], 0, len(file['cam1']))):
            image = np.moveaxis(frame, 0, -1)
            if image.dtype != np.uint8:
                image = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
            row = {options.key: image[..., ::-1] if options.bgr else image}
            yield row if states is None else row | {'states': states[index]}

    return Episode(frames(), {'action': file['actions'][:]}, options.convention(False))


def open_d4rl(source: Path, options: Options) -> Recording:
    """Flat arrays observations, actions, rewards, terminals, timeouts: an episode ends where one
    of the last two is set. next_observations, where they are, hold what the last action led to.
    """
    found = Files(source, *SUFFIXES)
    return Recording(_d4rl(found, source, options))


def _d4rl(found: Files, source: Path, options: Options) -> Iterator[Unit]:
    for path in found:
        with opened(path) as file:
            expect(file, path, 'observations', 'actions', 'rewards', 'terminals')
            ends = file['terminals'][:].astype(bool)
            terminal = ends.copy()
            if 'timeouts' in file:
                ends |= file['timeouts'][:].astype(bool)
            yield from _spans(
                ends,
                relative(path, source),
                lambda first, stop, f=file, t=terminal: _flat(f, first, stop, t, options),
            )


def _spans(ends: np.ndarray, name: str, opener: Callable[[int, int], Episode]) -> Iterator[Unit]:
    """Units of flat arrays that are cut behind each end; what follows the last is one more."""
    for first, stop in spans(ends):
        yield Unit(f'{name}:{first}', lambda a=first, b=stop: opener(a, b))


def _flat(file: Any, first: int, stop: int, terminal: np.ndarray, options: Options) -> Episode:
    def frames() -> Iterator[Row]:
        for value in blocks(file['observations'], first, stop - first):
            yield {'observation': value}
        if 'next_observations' in file:
            yield {'observation': file['next_observations'][stop - 1]}

    return Episode(
        frames(),
        {'action': file['actions'][first:stop]},
        options.convention(False),
        file['rewards'][first:stop],
        terminal=bool(terminal[stop - 1]),
    )


def open_vd4rl(source: Path, options: Options) -> Recording:
    """64px: .npz as dreamerv2 writes them. 84px: HDF5 with observation (N, 3, 84, 84), action,
    reward, discount, step_type (0 first, 1 mid, 2 last); a row's action led to its frame.
    """
    hdf5 = source.suffix in SUFFIXES or any(
        path.suffix in SUFFIXES for path in (source.rglob('*') if source.is_dir() else ())
    )
    if not hdf5:
        return open_torch(source, options)
    return Recording(_steps(Files(source, *SUFFIXES), source, options))


def _steps(found: Files, source: Path, options: Options) -> Iterator[Unit]:
    for path in found:
        with opened(path) as file:
            expect(file, path, 'observation', 'action', 'reward', 'step_type')
            kinds = file['step_type'][:]
            yield from _spans(
                kinds == 2,
                relative(path, source),
                lambda first, stop, f=file: _step_episode(f, first, stop, options),
            )


def _step_episode(file: Any, first: int, stop: int, options: Options) -> Episode:
    frames = (
        {options.key: np.moveaxis(frame, 0, -1)}
        for frame in blocks(file['observation'], first, stop - first)
    )
    discount = file['discount'][stop - 1] if 'discount' in file else 1
    return Episode(
        frames,
        {'action': file['action'][first:stop]},
        options.convention(True),
        file['reward'][first:stop],
        came=True,
        terminal=not discount,
    )
