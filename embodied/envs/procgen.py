"""Procgen: procgen_<game> such as procgen_coinrun, through its own interface, gym3.

The game begins the next episode within the step that ends one, so that the last frame of an episode
is never seen: the row that ends it shows the frame before.
"""

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError
from ..extras import require
from . import unknown, unknown_task

GAMES = (
    'bigfish bossfight caveflyer chaser climber coinrun dodgeball fruitbot heist jumper leaper maze'
    ' miner ninja plunder starpilot'
).split()
MODES = ('easy', 'hard', 'extreme', 'memory', 'exploration')
FORCE_RESET = -1  # an action that no agent takes: the game begins the next level


@dataclasses.dataclass(frozen=True)
class ProcgenConfig:
    """What can be set.

    Attributes:
      levels: number of different levels; 0 for all.
      start: number of the first level.
      mode: difficulty, one of MODES; not every game has all of them.
    """

    levels: int
    start: int
    mode: str


def check(name: str, config: ProcgenConfig) -> None:
    """Refuse what make() would refuse, without importing the games.

    Raises:
      ConfigError: unknown game or value. EnvMissing: the package procgen is not installed.
    """
    if name not in GAMES:
        raise unknown_task('procgen', name, GAMES)
    if config.mode not in MODES:
        raise ConfigError(unknown('mode', config.mode, MODES, ' in env.procgen.mode'))
    if min(config.levels, config.start) < 0:
        raise ConfigError('env.procgen: levels and start must not be negative.')
    require('procgen', 'procgen')


def make(name: str, config: ProcgenConfig, seed: int) -> Env:
    """The task procgen_<name>; raises as check()."""
    check(name, config)
    from procgen import ProcgenGym3Env

    games = ProcgenGym3Env(
        num=1,
        env_name=name,
        num_levels=config.levels,
        start_level=config.start,
        distribution_mode=config.mode,
        rand_seed=seed % 2**31,
    )
    return Procgen(games)


class Procgen(Env):
    """One game of gym3. Every end is terminal: a game's limit of steps is not told apart."""

    def __init__(self, games: Any):
        self._games, self._done, self._image = games, True, None
        space = games.ob_space['rgb']
        self.obs_space = {'image': spaces.Box(0, 255, space.shape, np.uint8), **OUTCOME}
        self.act_space = {'action': spaces.Discrete(games.ac_space.eltype.n), 'reset': FLAG}

    def step(self, action: Values) -> Values:
        begins = bool(action['reset'] or self._done)
        if not begins:
            self._games.act(np.array([action['action']], np.int32))
        elif not self._games.observe()[2][0]:  # in the middle of a level
            self._games.act(np.array([FORCE_RESET], np.int32))
        reward, obs, first = self._games.observe()
        self._done = bool(first[0]) and not begins
        if not self._done:
            self._image = np.array(obs['rgb'][0])
        result = outcome(
            0.0 if begins else float(reward[0]),
            is_first=begins,
            is_last=self._done,
            is_terminal=self._done,
        )
        return {'image': self._image.copy(), **result}

    def close(self) -> None:
        self._games.close()
