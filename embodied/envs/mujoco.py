"""The MuJoCo tasks of Gymnasium: mujoco_half_cheetah, mujoco_walker2d, in their newest version."""

import dataclasses

import gymnasium

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown_task
from .gymnasium import from_gymnasium, repeated

TASKS = {
    'ant': 'Ant-v5',
    'half_cheetah': 'HalfCheetah-v5',
    'hopper': 'Hopper-v5',
    'humanoid': 'Humanoid-v5',
    'humanoid_standup': 'HumanoidStandup-v5',
    'inverted_double_pendulum': 'InvertedDoublePendulum-v5',
    'inverted_pendulum': 'InvertedPendulum-v5',
    'pusher': 'Pusher-v5',
    'reacher': 'Reacher-v5',
    'swimmer': 'Swimmer-v5',
    'walker2d': 'Walker2d-v5',
}


@dataclasses.dataclass(frozen=True)
class MuJoCoConfig:
    """What can be set.

    Attributes:
      image: observe the rendered frame as well.
      size: its height and width in pixels.
      repeat: decisions of the task per decision of the agent.
    """

    image: bool
    size: int
    repeat: int


def check(name: str, config: MuJoCoConfig) -> None:
    """Refuse what make() would refuse, without importing the simulator.

    Raises:
      ConfigError: unknown task or value. EnvMissing: the package mujoco is not installed.
    """
    if name not in TASKS:
        raise unknown_task('mujoco', name, TASKS)
    if min(config.size, config.repeat) < 1:
        raise ConfigError('env.mujoco: size and repeat must be at least 1.')
    require('mujoco', 'dmc')


def make(name: str, config: MuJoCoConfig, seed: int) -> Env:
    """The task mujoco_<name>; raises as check()."""
    check(name, config)
    render = {'width': config.size, 'height': config.size, 'render_mode': 'rgb_array'}
    env = gymnasium.make(TASKS[name], disable_env_checker=True, **(render if config.image else {}))
    adapted = from_gymnasium(env, seed, image=config.image, size=config.size * config.image)
    return repeated(adapted, config.repeat)
