"""Meta-World: metaworld_<task> such as metaworld_reach or metaworld_window-open, one of its 50
tasks with a new goal in every episode; log/success is 1 where the goal is met.
"""

import dataclasses
import os

import gymnasium

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown_task
from .gymnasium import from_gymnasium, repeated
from .sets import METAWORLD

TASKS = METAWORLD.split()


@dataclasses.dataclass(frozen=True)
class MetaWorldConfig:
    """What can be set.

    Attributes:
      image: observe what the camera sees, beside or instead of the state.
      proprio: observe the state: gripper, objects and goal.
      size: height and width of the image in pixels.
      camera: its name.
      repeat: frames per decision.
      length: frames of an episode, which no success ends.
    """

    image: bool
    proprio: bool
    size: int
    camera: str
    repeat: int
    length: int


def check(name: str, config: MetaWorldConfig) -> None:
    """Refuse what make() would refuse, without importing the suite.

    Raises:
      ConfigError: unknown task or value. EnvMissing: the package metaworld is not installed.
    """
    if full_name(name) not in TASKS:
        raise unknown_task('metaworld', name, TASKS)
    if not (config.image or config.proprio):
        raise ConfigError('env.metaworld.image and .proprio are both false: nothing to observe.')
    if min(config.size, config.repeat, config.length) < 1:
        raise ConfigError('env.metaworld: size, repeat and length must be at least 1.')
    require('metaworld', 'metaworld')


def full_name(name: str) -> str:
    """The suite's own name of a task, without its version: with '-' between the words."""
    return name.replace('_', '-').removesuffix('-v3')


def make(name: str, config: MetaWorldConfig, seed: int) -> Env:
    """The task metaworld_<name>; raises as check()."""
    check(name, config)
    os.environ.setdefault('MUJOCO_GL', 'egl')
    import metaworld

    render = {
        'render_mode': 'rgb_array',
        'camera_name': config.camera,
        'width': config.size,
        'height': config.size,
    }
    env = metaworld.make_mt_envs(
        f'{full_name(name)}-v3',
        seed=seed % 2**31,
        max_episode_steps=config.length,
        **(render if config.image else {}),
    )
    env = Seeded(env, seed % 2**31)
    if config.image:
        env = gymnasium.wrappers.AddRenderObservation(
            env, render_only=not config.proprio, render_key='image', obs_key='state'
        )
    return repeated(from_gymnasium(env, seed, logs=('success',)), config.repeat)


class Seeded(gymnasium.Wrapper):
    """Goals follow from the seed: the suite draws them from generators of its own."""

    def __init__(self, env: gymnasium.Env, seed: int):
        super().__init__(env)
        self._seed = seed

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.unwrapped.seed(self._seed)
        return self.env.reset(seed=seed, options=options)
