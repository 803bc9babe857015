"""Stable-Retro: retro_<Game> such as retro_Airstriker-Genesis, whose ROM the package brings; other
games need theirs imported first (python -m stable_retro.import FOLDER).

A process runs one emulator: set driver.envs_per_worker to 1, as the preset `retro` does.
"""

import dataclasses
import re

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown_task
from .gymnasium import from_gymnasium, repeated


@dataclasses.dataclass(frozen=True)
class RetroConfig:
    """What can be set.

    Attributes:
      repeat: frames per decision.
      size: height and width of the image in pixels.
      state: name of a saved state of the game to begin in; '' for the game's own.
    """

    repeat: int
    size: int
    state: str


def check(name: str, config: RetroConfig) -> None:
    """Refuse what make() would refuse, without importing the emulator.

    Raises:
      ConfigError: a value out of range. EnvMissing: the package stable-retro is not installed.
    """
    if min(config.repeat, config.size) < 1:
        raise ConfigError('env.retro: repeat and size must be at least 1.')
    require('stable_retro', 'retro')


def make(name: str, config: RetroConfig, seed: int) -> Env:
    """The task retro_<name>: a game with or without its version.

    Raises:
      ConfigError: unknown game, or its ROM has not been imported. EnvMissing: as check().
    """
    check(name, config)
    import stable_retro

    short = {re.sub(r'-v\d+$', '', game): game for game in sorted(stable_retro.data.list_games())}
    game = short.get(name, name)
    if game not in short.values():
        raise unknown_task('retro', name, short)
    try:
        env = stable_retro.make(
            game, state=config.state or stable_retro.State.DEFAULT, render_mode='rgb_array'
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f'retro_{name}: {error}; import its ROM with python -m stable_retro.import FOLDER.'
        ) from error
    return repeated(from_gymnasium(env, seed, size=config.size), config.repeat)
