"""Brax: brax_<env> such as brax_inverted_pendulum or brax_halfcheetah, from its own vectors."""

import dataclasses
import functools

import numpy as np
from gymnasium import spaces

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown, unknown_task
from .functional import Functional, Functions

TASKS = (
    'ant halfcheetah hopper humanoid humanoidstandup inverted_pendulum inverted_double_pendulum'
    ' pusher reacher swimmer walker2d'
).split()
BACKENDS = ('generalized', 'positional', 'spring', 'mjx')


@dataclasses.dataclass(frozen=True)
class BraxConfig:
    """What can be set.

    Attributes:
      repeat: steps of the task per decision.
      length: steps after which an episode is cut.
      backend: how contacts and joints are solved, one of BACKENDS.
    """

    repeat: int
    length: int
    backend: str


def check(name: str, config: BraxConfig) -> None:
    """Refuse what make() would refuse, without importing JAX.

    Raises:
      ConfigError: unknown task or value. EnvMissing: the package brax is not installed.
    """
    if name not in TASKS:
        raise unknown_task('brax', name, TASKS)
    if config.backend not in BACKENDS:
        raise ConfigError(unknown('backend', config.backend, BACKENDS, ' in env.brax.backend'))
    if min(config.repeat, config.length) < 1:
        raise ConfigError('env.brax: repeat and length must be at least 1.')
    require('brax', 'brax')


def make(name: str, config: BraxConfig, seed: int) -> Env:
    """The task brax_<name>; raises as check()."""
    check(name, config)
    env = Functional(functions(name, config), seed)
    env.repeat = config.repeat
    return env


@functools.cache
def functions(name: str, config: BraxConfig) -> Functions:
    """The physics of a task, compiled at its first steps."""
    import jax
    from brax import envs

    env = envs.create(
        name,
        episode_length=config.length,
        action_repeat=config.repeat,
        auto_reset=False,
        backend=config.backend,
    )

    @jax.jit
    def reset(key):
        key, now = jax.random.split(key)
        state = env.reset(now)
        return key, state, {'state': state.obs}

    @jax.jit
    def step(key, state, action):
        state = env.step(state, action)
        ends, cut = state.done > 0, state.info['truncation'] > 0
        return key, state, {'state': state.obs}, state.reward, ends, ends & ~cut, {}

    return Functions(
        {'state': spaces.Box(-np.inf, np.inf, (env.observation_size,), np.float32)},
        {'action': spaces.Box(-1, 1, (env.action_size,), np.float32)},
        jax.random.PRNGKey,
        reset,
        step,
        (),
    )
