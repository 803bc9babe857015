"""Replay folders out again: to .npz and .mp4, one per episode, and to LeRobot v3.0."""

import contextlib
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..base import is_image
from ..errors import ReplayError
from ..extras import require
from ..files import whole
from ..pictures import displayable
from ..replay import npz
from .chunks import open_chunks
from .episode import Episode, Options, Recording, Row

FPS = 15.0  # where nobody says


def fresh(dest: Path) -> None:
    """Make a folder.

    Raises:
      ReplayError: it is there and holds something.
    """
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise ReplayError(
            f'{dest} exists and is not empty; nothing is overwritten, choose another folder.'
        )
    dest.mkdir(parents=True, exist_ok=True)


def episodes(recording: Recording) -> Iterator[tuple[str, Episode]]:
    """Name and content of each."""
    for unit in recording.units:
        yield unit.name, unit.open()


def to_npz(source: Path, dest: Path, options: Options, fps: float | None) -> str:
    """One .npz per episode, which `npz` reads back. Returns what was done as a sentence."""
    count = 0
    recording = _opened(source, dest, options)
    with contextlib.closing(Spool(dest)) as spool:
        for name, episode in episodes(recording):
            for row in episode.rows():
                spool.add(row)
            with whole(dest / f'{name}.npz') as file:
                npz.write(file, spool.columns())
            count += 1
    return f'{dest}: {count:,} files .npz.'


class Spool:
    """The columns of an episode while its rows come, in unnamed files: an episode may be as long as
    the folder is large.
    """

    def __init__(self, folder: Path):
        """Args: the folder whose disk is used."""
        self._folder, self._length = folder, 0
        self._files: dict[str, IO[bytes]] = {}
        self._kinds: dict[str, tuple[np.dtype, tuple[int, ...]]] = {}

    def add(self, row: Row) -> None:
        """Add a row; all rows of an episode have the same keys, dtypes and shapes."""
        for key, value in row.items():
            value = np.asarray(value)
            if key not in self._files:
                self._files[key] = tempfile.TemporaryFile(dir=self._folder)
            self._kinds[key] = value.dtype, value.shape
            self._files[key].write(value.tobytes())
        self._length += 1

    def columns(self) -> dict[str, np.ndarray]:
        """(rows, ...) each, mapped, in the order in which they came first. The next row begins
        another episode.
        """
        made = {}
        for key, (dtype, shape) in self._kinds.items():
            file = self._files[key]
            file.flush()
            whole = self._length, *shape
            empty = not math.prod(whole)
            made[key] = np.zeros(whole, dtype) if empty else np.memmap(file, dtype, 'r', 0, whole)
        self._length = 0
        self._kinds.clear()
        self._files.clear()  # the mappings keep their files
        return made

    def close(self) -> None:
        """Give up rows that belong to no episode yet."""
        for file in self._files.values():
            file.close()


def _opened(source: Path, dest: Path, options: Options) -> Recording:
    recording = open_chunks(source, options)
    fresh(dest)
    return recording


def to_mp4(source: Path, dest: Path, options: Options, fps: float | None) -> str:
    """One video per episode and image, and its other columns as .npz beside, where `video` looks
    for actions and rewards. The codec loses a little of each frame.
    """
    require('av', 'data')
    count = 0
    recording = _opened(source, dest, options)
    with contextlib.closing(Spool(dest)) as spool:
        for name, episode in episodes(recording):
            _film(dest / name, episode, fps or FPS, spool)
            _write_labels(dest / f'{name}.npz', spool.columns(), episode.actions)
            count += 1
    return f'{dest}: {count:,} episodes as .mp4 and .npz.'


def _film(place: Path, episode: Episode, fps: float, spool: Spool) -> None:
    """Write the images of an episode; what else it holds goes into the spool."""
    films: dict[str, Film] = {}
    for row in episode.rows():
        images = {key: value for key, value in row.items() if is_image(np.asarray(value))}
        for key, value in images.items():
            if key not in films:
                suffix = '' if len(images) == 1 else f'-{key.replace("/", "-")}'
                films[key] = Film(place.with_name(f'{place.name}{suffix}.mp4'), fps)
            films[key].add(value)
        spool.add({key: value for key, value in row.items() if key not in images})
    for film in films.values():
        film.close()


def write_beside(path: Path, rows: list[Row], actions: Iterable[str]) -> None:
    """The columns of an episode that are no pictures, where `video` looks for them."""
    columns = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}
    _write_labels(path, columns, actions)


def _write_labels(path: Path, columns: dict[str, np.ndarray], actions: Iterable[str]) -> None:
    if 'reward' in columns:
        columns['rewards'] = columns.pop('reward')[1:]  # as what the actions earned
    for key in actions:
        columns[key] = columns[key][:-1]
    with whole(path) as file:
        npz.write(file, {k: np.ascontiguousarray(v) for k, v in columns.items()})


class Film:
    """A video that is written frame by frame.

    Attributes:
      frames: written so far.
    """

    def __init__(self, path: Path, fps: float):
        import av

        self._av, self.frames, self.shape = av, 0, None
        self._container = av.open(str(path), 'w')
        self._rate = round(fps)
        self._stream: Any = None

    def add(self, image: np.ndarray) -> None:
        """Add a frame, uint8 (H, W, C)."""
        image = displayable(image)
        image = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
        if self._stream is None:
            height, width = image.shape[0] + image.shape[0] % 2, image.shape[1] + image.shape[1] % 2
            self._stream = self._container.add_stream('libx264', rate=self._rate)
            self._stream.height, self._stream.width = height, width
            self._stream.pix_fmt, self._stream.options = 'yuv420p', {'crf': '18', 'g': '2'}
            self.shape = height, width
        sides = [(0, self.shape[0] - image.shape[0]), (0, self.shape[1] - image.shape[1]), (0, 0)]
        padded = np.ascontiguousarray(np.pad(image, sides, 'edge'))  # the codec takes even sides
        frame = self._av.VideoFrame.from_ndarray(padded, format='rgb24')
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
