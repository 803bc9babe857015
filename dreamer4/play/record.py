"""What was played, as files: rows of a replay folder that can be learned from, and films."""

import itertools
from pathlib import Path

import numpy as np

from embodied.base import Spaces, Values
from embodied.errors import EnvMissing
from embodied.media import gif, write_mp4
from embodied.pictures import displayable
from embodied.replay import Replay
from embodied.replay.config import unlimited

from .controls import resting
from .game import GameError
from .tree import Node, pictures, unbroken

GAP = 4  # pixels between the panes of a film
FILM = 512 << 20  # bytes of enlarged frames that are held at once


class Recorder:
    """Writes below one folder: rows into `rows`, films beside them.

    Args:
        folder: of all that is written, made when something is. obs_space, act_space: of the env.
        meta: facts about the env kept with the rows, such as its task.
    """

    def __init__(self, folder: Path, obs_space: Spaces, act_space: Spaces, meta: dict):
        self.folder, self.rows = folder, folder / 'rows'
        self._spaces, self._meta = (obs_space, act_space), meta

    def save_rows(self, path: list[Node]) -> int:
        """Add the real frames of a path to the replay folder as an episode; returns how many.

        The first row is a first one and the last a last one: if the episode began earlier or went
        on, it was cut there.

        Raises:
            GameError: there are no two real frames on it. ReplayError: they cannot be written.
        """
        real = list(itertools.takewhile(lambda node: node.real is not None, unbroken(path)))
        if len(real) < 2:
            raise GameError('no real frames were played here: nothing to save')
        replay = Replay(unlimited(1.0), self.rows, 0, *self._spaces, self._meta)
        try:
            replay.load(None)
            rest = resting({k: s for k, s in self._spaces[1].items() if k != 'reset'})
            for index, node in enumerate(real):
                last = index == len(real) - 1
                # that of the next frame was chosen at this one
                action = nothing(rest) if last else real[index + 1].action
                replay.add(self._row(node, action, first=index == 0, last=last))
        finally:
            replay.close()
        return len(real)

    def _row(self, node: Node, action: Values, first: bool, last: bool) -> Values:
        obs = {k: node.real[k] for k in self._spaces[0] if not k.startswith('log/')}
        flags = {'is_first': np.bool_(first), 'is_last': np.bool_(last)}
        reward = np.float32(0.0 if first else node.real['reward'])
        return obs | flags | {'reward': reward} | action

    def save_film(self, path: list[Node], kind: str, fps: float, scale: int = 4) -> Path:
        """Dream, and the real frame beside it where there is one, as a 'gif' or 'mp4' file: as many
        of the newest frames as memory allows.

        Raises:
            GameError: there are no images, or the package that writes .mp4 is not installed.
        """
        frames = [film_frame(node) for node in path[:1]]
        if frames[0] is None:
            raise GameError('there are no images to make a film of')
        most = max(1, FILM // (scale**2 * frames[0].nbytes))
        frames = [film_frame(node) for node in unbroken(path)[-most:]]
        high, wide = (max(frame.shape[axis] for frame in frames) for axis in (0, 1))
        grown = [
            np.pad(f, ((0, high - f.shape[0]), (0, wide - f.shape[1]), (0, 0))) for f in frames
        ]
        video = np.stack(grown)
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            file = self.folder / f'film-{number:03}.{kind}'
            if not file.exists():
                break
        if kind == 'gif':
            file.write_bytes(gif(video, fps))
        else:
            factor = max(1, min(scale, 1024 // max(high, wide)))
            try:
                write_mp4(file, video.repeat(factor, 1).repeat(factor, 2), fps)
            except EnvMissing as error:
                raise GameError(str(error)) from error
        return file


def nothing(action: Values) -> Values:
    """Zeros for an action that is never executed."""
    return {k: np.zeros_like(v) for k, v in action.items()}


def film_frame(node: Node) -> np.ndarray | None:
    """uint8 (H, W, 3): the images of the dream, and right of them the real ones; None without."""
    panes = [pictures({k: v[0] for k, v in node.dream.obs.items()})]
    if node.real is not None:
        panes.append({k: v for k, v in pictures(node.real).items() if k in panes[0]})
    images = [shown(image) for pane in panes for image in pane.values()]
    if not images:
        return None
    high = max(image.shape[0] for image in images)
    grown = [np.pad(x, ((0, high - x.shape[0]), (0, GAP), (0, 0))) for x in images]
    return np.concatenate(grown, 1)


def shown(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) in colours; channels that are none stand side by side."""
    image = displayable(image)
    return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image
