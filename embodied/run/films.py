"""Episodes as videos while they are collected: a folder that the format `video` of dreamer4.convert
reads back, and that other programs can play and learn from.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from ..base import Values, is_image
from ..extras import require
from .setup import Counters


class Films:
    """A listener of rows. Every whole episode becomes NAME.mp4, or NAME-<key>.mp4 for each of
    several images, and NAME.npz with all else; frames are written as they come. The codec loses a
    little of each.
    """

    def __init__(self, folder: Path, actions: Iterable[str], fps: float, counters: Counters):
        """Args: the folder, made if it is not there; keys of the actions; frames per second; of the
        run, whose episodes number the files.

        Raises:
          EnvMissing: the package that writes .mp4 is not installed.
        """
        require('av', 'data')
        self._folder, self._actions, self._fps = folder, sorted(actions), fps
        self._counters, self._open = counters, {}
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, row: Values, worker: int) -> None:
        """Take one row of env `worker`; rows of an episode whose beginning was not seen are left
        out.
        """
        if row['is_first']:
            self._drop(worker)
            self._open[worker] = {}, []
        if worker not in self._open:
            return
        films, rows = self._open[worker]
        shown = {key: value for key, value in row.items() if not key.startswith('log/')}
        for key in [key for key, value in shown.items() if is_image(value)]:
            if key not in films:
                films[key] = self._film(key, worker)
            films[key].add(shown.pop(key))
        rows.append(shown)
        if row['is_last']:
            self._finish(worker)

    def close(self) -> None:
        """Leave out the episodes that have not ended."""
        for worker in list(self._open):
            self._drop(worker)

    def _film(self, key: str, worker: int):
        from ..convert.exports import Film

        return Film(self._unfinished(key, worker), self._fps)

    def _unfinished(self, key: str, worker: int) -> Path:
        return self._folder / f'.{worker}-{key.replace("/", "-")}.mp4'

    def _finish(self, worker: int) -> None:
        from ..convert.exports import write_beside

        films, rows = self._open.pop(worker)
        name = f'episode-{self._counters.episodes:06d}'
        write_beside(self._folder / f'{name}.npz', rows, self._actions)
        for key, film in films.items():
            film.close()
            suffix = '' if len(films) == 1 else f'-{key.replace("/", "-")}'
            os.replace(self._unfinished(key, worker), self._folder / f'{name}{suffix}.mp4')

    def _drop(self, worker: int) -> None:
        films, _ = self._open.pop(worker, ({}, []))
        for key, film in films.items():
            film.close()
            with contextlib.suppress(FileNotFoundError):
                self._unfinished(key, worker).unlink()
