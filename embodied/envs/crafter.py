"""Crafter: crafter_reward and crafter_noreward, with achievements as log/ keys."""

import dataclasses

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, REWARD, Env, Values, outcome
from ..errors import ConfigError
from ..extras import require
from . import unknown_task

LEAST_SIZE = 18  # pixels; in smaller frames the nine fields and their numbers cannot be read


@dataclasses.dataclass(frozen=True)
class CrafterConfig:
    """size: height and width of the image in pixels."""

    size: int


def check(name: str, config: CrafterConfig) -> None:
    """Refuse what make() would refuse, without importing the game.

    Raises:
      ConfigError: unknown task. EnvMissing: the package crafter is not installed.
    """
    if name not in ('reward', 'noreward'):
        raise unknown_task('crafter', name, ('reward', 'noreward'))
    if config.size < LEAST_SIZE:
        raise ConfigError(f'env.crafter.size must be at least {LEAST_SIZE}, got {config.size}.')
    require('crafter', 'crafter')


def make(name: str, config: CrafterConfig, seed: int) -> Env:
    """The task crafter_<name>; raises as check()."""
    check(name, config)
    import crafter

    return Crafter(
        crafter.Env(size=(config.size, config.size), reward=name == 'reward', seed=seed % 2**31),
        config.size,
    )


class Crafter(Env):
    """An episode ends terminally when the player dies, otherwise at the game's limit of 10000
    steps. Unlike the package's own, this world is a function of its seed and the actions.
    """

    def __init__(self, env, size: int):
        self._env, self._size, self._done = env, size, True
        # The game keeps the creatures of an area in a set ordered by memory address, and draws by
        # position which one vanishes: equal seeds would give equal worlds for only about a hundred
        # steps.
        balance = env._balance_chunk
        env._balance_chunk = lambda chunk, creatures: balance(
            chunk, sorted(creatures, key=lambda creature: tuple(creature.pos))
        )
        self._achievements = sorted(_achievements())

    @property
    def obs_space(self):
        logs = {f'log/achievement_{name}': REWARD for name in self._achievements}
        return {
            'image': spaces.Box(0, 255, (self._size, self._size, 3), np.uint8),
            **OUTCOME,
            **logs,
        }

    @property
    def act_space(self):
        return {'action': spaces.Discrete(int(self._env.action_space.n)), 'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            self._done = False
            return self._observe(self._env.reset(), outcome(is_first=True), {})
        image, reward, self._done, info = self._env.step(int(action['action']))
        dead = bool(self._done and info['discount'] == 0)
        return self._observe(
            image,
            outcome(float(reward), is_last=bool(self._done), is_terminal=dead),
            info['achievements'],
        )

    def _observe(self, image, result, achievements) -> Values:
        logs = {
            f'log/achievement_{name}': np.float32(achievements.get(name, 0))
            for name in self._achievements
        }
        return {'image': np.array(image), **result, **logs}


def _achievements() -> list[str]:
    from crafter import constants

    return list(constants.achievements)
