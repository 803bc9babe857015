"""Replay folders out again: to .npz and .mp4, one per episode, and to LeRobot v3.0."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
    for name, episode in episodes(_opened(source, dest, options)):
        columns = stacked(episode.rows())
        with whole(dest / f'{name}.npz') as file:
            npz.write(file, columns)
        count += 1
    return f'{dest}: {count:,} files .npz.'


def stacked(rows: Iterator[Row]) -> dict[str, np.ndarray]:
    """Rows as columns."""
    made = list(rows)
    return {key: np.stack([np.asarray(row[key]) for row in made]) for key in made[0]}


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
    for name, episode in episodes(_opened(source, dest, options)):
        films: dict[str, Film] = {}
        rest: list[Row] = []
        for row in episode.rows():
            images = {key: value for key, value in row.items() if is_image(np.asarray(value))}
            for key, value in images.items():
                if key not in films:
                    suffix = '' if len(images) == 1 else f'-{key.replace("/", "-")}'
                    films[key] = Film(dest / f'{name}{suffix}.mp4', fps or FPS)
                films[key].add(value)
            rest.append({key: value for key, value in row.items() if key not in images})
        for film in films.values():
            film.close()
        write_beside(dest / f'{name}.npz', rest, episode.actions)
        count += 1
    return f'{dest}: {count:,} episodes as .mp4 and .npz.'


def write_beside(path: Path, rows: list[Row], actions: Iterable[str]) -> None:
    """The columns of an episode that are no pictures, where `video` looks for them."""
    columns = stacked(iter(rows))
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
