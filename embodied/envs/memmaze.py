"""Memory Maze: memmaze_9x9 to memmaze_15x15, a maze whose coloured goals have to be remembered."""

import dataclasses
import os

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown_task
from .dm_env import from_dm

SIZES = ('9x9', '11x11', '13x13', '15x15')


@dataclasses.dataclass(frozen=True)
class MemMazeConfig:
    """size: height and width of the image in pixels."""

    size: int


def check(name: str, config: MemMazeConfig) -> None:
    """Refuse what make() would refuse, without importing the maze.

    Raises:
      ConfigError: unknown task or value. EnvMissing: the package memory-maze is not installed.
    """
    if name not in SIZES:
        raise unknown_task('memmaze', name, SIZES)
    if config.size < 1:
        raise ConfigError(f'env.memmaze.size must be at least 1, got {config.size}.')
    require('memory_maze', 'memmaze')


def make(name: str, config: MemMazeConfig, seed: int) -> Env:
    """The task memmaze_<name>; raises as check(). The frame of the image has the colour of the
    goal that is asked for.
    """
    check(name, config)
    os.environ.setdefault('MUJOCO_GL', 'egl')
    from memory_maze import tasks

    build = getattr(tasks, f'memory_maze_{name}')
    env = build(image_only_obs=True, camera_resolution=config.size, seed=seed % 2**32)
    return from_dm(Named(env))


class Named:
    """A dm_env environment whose one observation is called 'image'."""

    def __init__(self, env):
        self._env = env
        self.action_spec, self.close = env.action_spec, env.close

    def observation_spec(self):
        return {'image': self._env.observation_spec()}

    def reset(self):
        return self._named(self._env.reset())

    def step(self, action):
        return self._named(self._env.step(int(action)))

    def _named(self, step):
        return step._replace(observation={'image': step.observation})
