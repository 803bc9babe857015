"""A counting world: observations name their episode, step and the action that led to them, so tests
and a checking agent notice any row that is lost, doubled or shifted. It has every kind of
observation and action.
"""

import dataclasses

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError
from . import unknown


@dataclasses.dataclass(frozen=True)
class DummyConfig:
    """What can be set.

    Attributes:
      length: decisions per episode, >= 1.
      terminal: episodes end in a terminal row; False: by a time limit.
      size: height and width of the image, >= 1.
    """

    length: int
    terminal: bool
    size: int


ACTIONS = {
    'box': spaces.Box(np.array([-1, 0, -3], np.float32), np.array([1, 2, 5], np.float32)),
    'discrete': spaces.Discrete(5),
    'multidiscrete': spaces.MultiDiscrete([2, 3]),
    'multibinary': spaces.MultiBinary(4),
}


def kinds(name: str) -> list[str]:
    """The entries of ACTIONS that the task dummy_<name> has."""
    return list(ACTIONS) if name in ('', 'default') else name.split('+')


def check(name: str, config: DummyConfig) -> None:
    """ConfigError if dummy_<name> does not exist or the values are out of range."""
    for kind in kinds(name):
        if kind not in ACTIONS:
            where = f' in the task dummy_{name}'
            raise ConfigError(unknown('kind of action', kind, ACTIONS, where))
    if min(config.length, config.size) < 1:
        raise ConfigError(
            'env.dummy.length and env.dummy.size must be at least 1, '
            f'got {config.length} and {config.size}.'
        )


class Dummy(Env):
    """The counting env. Its name says which actions it has: 'default' or '' all kinds, otherwise
    one or several of ACTIONS joined by '+', such as 'discrete' or 'box+multibinary'.

    Observations at step n of episode e (both count from 0; e counts all episodes since the env was
      made): count int64 n; episode int64 e; echo float32: the executed action that led here, keys
      in order, zeros where is_first; image uint8 (size, size, 3) with channels n, e, noise; vector
      float32 (3,) noise; token Discrete n % 7; even bool n % 2 == 0; grid float32 (2, 4) filled
      with n; log/count float32 n.
    Reward: n % 3 where not is_first, so that it differs between neighbouring steps; total() is the
        return of an episode.
    """

    def __init__(self, name: str, config: DummyConfig, seed: int):
        check(name, config)
        self._config = config
        self._actions = {kind: ACTIONS[kind] for kind in kinds(name)}
        self._echo_size = sum(int(np.prod(space.shape)) for space in self._actions.values())
        self._rng = np.random.default_rng(seed)
        self._count, self._episode, self._done = 0, -1, True

    @property
    def obs_space(self):
        size = self._config.size
        return {
            'count': spaces.Box(0, np.iinfo(np.int64).max, (), np.int64),
            'episode': spaces.Box(0, np.iinfo(np.int64).max, (), np.int64),
            'echo': spaces.Box(-np.inf, np.inf, (self._echo_size,), np.float32),
            'image': spaces.Box(0, 255, (size, size, 3), np.uint8),
            'vector': spaces.Box(-np.inf, np.inf, (3,), np.float32),
            'token': spaces.Discrete(7),
            'even': FLAG,
            'grid': spaces.Box(0, np.inf, (2, 4), np.float32),
            'log/count': spaces.Box(0, np.inf, (), np.float32),
            **OUTCOME,
        }

    @property
    def act_space(self):
        return {**self._actions, 'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            self._count, self._episode = 0, self._episode + 1
            echo = np.zeros(self._echo_size, np.float32)
            result = outcome(is_first=True)
        else:
            self._count += 1
            echo = np.concatenate([np.ravel(action[name]) for name in self._actions]).astype(
                np.float32
            )
            last = self._count == self._config.length
            result = outcome(
                self._count % 3, is_last=last, is_terminal=last and self._config.terminal
            )
        self._done = bool(result['is_last'])
        return {**self._observe(), 'echo': echo, **result}

    def total(self) -> float:
        """The return of every complete episode."""
        return float(sum(n % 3 for n in range(1, self._config.length + 1)))

    def save(self) -> Values:
        return {
            'count': self._count,
            'episode': self._episode,
            'done': self._done,
            'rng': self._rng.bit_generator.state,
        }

    def load(self, state: Values) -> None:
        self._count, self._episode, self._done = state['count'], state['episode'], state['done']
        self._rng.bit_generator.state = state['rng']

    def _observe(self):
        size, n = self._config.size, self._count
        image = np.empty((size, size, 3), np.uint8)
        image[..., 0], image[..., 1] = n % 256, self._episode % 256
        image[..., 2] = self._rng.integers(256, size=(size, size), dtype=np.uint8)
        return {
            'count': np.int64(n),
            'episode': np.int64(self._episode),
            'image': image,
            'vector': self._rng.standard_normal(3, np.float32),
            'token': np.int64(n % 7),
            'even': np.bool_(n % 2 == 0),
            'grid': np.full((2, 4), n, np.float32),
            'log/count': np.float32(n),
        }
