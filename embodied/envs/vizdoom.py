"""ViZDoom: vizdoom_<Scenario> such as vizdoom_Basic or vizdoom_HealthGathering."""

import dataclasses
import re

import gymnasium

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown_task
from .gymnasium import from_gymnasium


@dataclasses.dataclass(frozen=True)
class VizDoomConfig:
    """What can be set.

    Attributes:
      repeat: tics of the game per decision.
      size: height and width of the image in pixels.
    """

    repeat: int
    size: int


def check(name: str, config: VizDoomConfig) -> None:
    """Refuse what make() would refuse, without importing the game.

    Raises:
      ConfigError: a value out of range. EnvMissing: the package vizdoom is not installed.
    """
    if min(config.repeat, config.size) < 1:
        raise ConfigError('env.vizdoom: repeat and size must be at least 1.')
    require('vizdoom', 'vizdoom')


def make(name: str, config: VizDoomConfig, seed: int) -> Env:
    """The task vizdoom_<name>: the id without 'Vizdoom' and its version.

    Raises:
      ConfigError: unknown scenario. EnvMissing: as check().
    """
    check(name, config)
    from vizdoom import gymnasium_wrapper  # noqa: F401 - registers its ids

    ids = [id for id in gymnasium.registry if id.startswith('Vizdoom')]
    short = {re.sub(r'^Vizdoom|-v\d+$', '', id): id for id in sorted(ids)}
    if name not in short:
        raise unknown_task('vizdoom', name, short)
    env = gymnasium.make(short[name], disable_env_checker=True, frame_skip=config.repeat)
    return from_gymnasium(TimeUp(env, config.repeat), seed, size=config.size)


class TimeUp(gymnasium.Wrapper):
    """The game says 'terminated' also where its time is up, which ends no life."""

    def __init__(self, env: gymnasium.Env, repeat: int):
        super().__init__(env)
        self.frames_per_step = repeat

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated and not truncated, truncated, info
