"""Where dreams begin: frames of a replay folder with what happened before them, and after.

Letters: N starts, T rows.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from embodied.base import Spaces
from embodied.errors import ChunkError, ChunkUnreadable, ConfigError, ReplayError
from embodied.replay.archive import Archive, Episode
from embodied.replay.infer import folder_of

Rows = dict[str, np.ndarray]


class Starts:
    """Frames of a replay folder, which is only read.

    Args:
        directory: the folder, or a logdir that holds one. obs_space, act_space: of the agent that
            is to dream.

    Attributes:
        episodes: those that have a frame to begin at.

    Raises:
        ConfigError: there is no such folder, it holds nothing to begin at, or its rows do not fit.
    """

    def __init__(self, directory: str | Path, obs_space: Spaces, act_space: Spaces):
        self.directory = folder_of(directory)
        try:
            self._archive = Archive(self.directory)
            schema = {key: (dtype, shape) for key, dtype, shape in self._archive.schema.specs}
            self._refuse(schema, obs_space | {k: s for k, s in act_space.items() if k != 'reset'})
            self._keys = [key for key in schema if key in obs_space or key in act_space]
            self.episodes = [each for each in self._archive.episodes() if each.length > 1]
        except ReplayError as error:
            raise ConfigError(f'{self.directory}: no frames to begin at: {error}') from error
        if not self.episodes:
            raise ConfigError(f'{self.directory} holds no episode of two rows or more')
        self._lengths = np.array([each.length - 1 for each in self.episodes])
        self._streams = self._archive.streams

    def _refuse(self, schema: Mapping, spaces: Spaces) -> None:
        for key, space in spaces.items():
            if key.startswith('log/'):
                continue
            found = schema.get(key)
            if found is None or tuple(found[1]) != tuple(space.shape):
                raise ConfigError(
                    f'{self.directory}: the agent knows {key!r} of shape {space.shape}, the rows'
                    f' have {"no such key" if found is None else f"shape {tuple(found[1])}"}'
                )

    def draw(self, rng: np.random.Generator, count: int, context: int, first: bool = False) -> Rows:
        """Random frames that are not the last of an episode, with their past.

        Args:
            count: N. context: T. first: only frames that begin an episode.

        Returns:
            key -> (N, T, ...), the frame last.
        """
        if first:
            picked = [(int(rng.integers(len(self.episodes))), 0) for _ in range(count)]
        else:
            ends = self._lengths.cumsum()
            numbers = rng.integers(ends[-1], size=count)
            episodes = np.searchsorted(ends, numbers, side='right')
            begins = ends - self._lengths
            picked = [(int(e), int(n - begins[e])) for e, n in zip(episodes, numbers)]
        found = [self.before(episode, frame, context) for episode, frame in picked]
        return {key: np.stack([rows[key] for rows in found]) for key in found[0]}

    def before(self, episode: int, frame: int, context: int) -> Rows:
        """The rows up to a frame of an episode, key -> (T, ...) with T = context.

        Where the stream of rows begins later, its first row stands in for what is missing, as an
        episode of its own.

        Raises:
            IndexError: there is no such frame.
        """
        told = self.episode(episode)
        if not 0 <= frame < told.length:
            raise IndexError(f'episode {episode} has frames 0 to {told.length - 1}, not {frame}')
        last = told.first + frame
        begin = int(self._streams.begins[told.slot])
        first = max(last - context + 1, begin)
        rows, lacking = self._read(told, first, last - first + 1), context - (last - first + 1)
        if lacking:
            rows = {k: np.concatenate([v[:1].repeat(lacking, 0), v]) for k, v in rows.items()}
            rows['is_first'][: lacking + 1] = True
        return rows

    def after(self, episode: int, frame: int) -> Rows:
        """The rows of an episode from a frame to its end, key -> (T, ...)."""
        told = self.episode(episode)
        return self._read(told, told.first + frame, told.length - frame)

    def episode(self, number: int) -> Episode:
        """Raises IndexError where there is none of this number."""
        if not 0 <= number < len(self.episodes):
            raise IndexError(f'there are episodes 0 to {len(self.episodes) - 1}, not {number}')
        return self.episodes[number]

    def _read(self, told: Episode, first: int, length: int) -> Rows:
        stream = self._streams[told.slot]
        try:
            rows = {k: self._archive.column(stream, k, first, length) for k in self._keys}
        except (ChunkError, ChunkUnreadable) as error:
            raise ConfigError(f'{self.directory}: a file is gone or damaged: {error}') from error
        return {key: np.array(value) for key, value in rows.items()}
