"""Craftax: craftax_Classic-Pixels, craftax_Classic-Symbolic, craftax_Pixels, craftax_Symbolic."""

import dataclasses
import functools

import numpy as np
from gymnasium import spaces

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown_task
from .functional import Functional, Functions

TASKS = ('Classic-Pixels', 'Classic-Symbolic', 'Pixels', 'Symbolic')
HUNDRED = 100  # an achievement is told in percent, with the step that ends the episode


@dataclasses.dataclass(frozen=True)
class CraftaxConfig:
    """length: decisions after which an episode is cut."""

    length: int


def check(name: str, config: CraftaxConfig) -> None:
    """Refuse what make() would refuse, without importing JAX.

    Raises:
      ConfigError: unknown task or value. EnvMissing: the package craftax is not installed.
    """
    if name not in TASKS:
        raise unknown_task('craftax', name, TASKS)
    if config.length < 1:
        raise ConfigError(f'env.craftax.length must be at least 1, got {config.length}.')
    require('craftax', 'craftax')


def make(name: str, config: CraftaxConfig, seed: int) -> Env:
    """The task craftax_<name>; raises as check(). log/achievement_<name> is 1 in the last row of an
    episode that reached it.
    """
    check(name, config)
    return Functional(functions(name, config.length), seed)


@functools.cache
def functions(name: str, length: int) -> Functions:
    """The game of a task, compiled at its first steps."""
    import jax
    from craftax.craftax_env import make_craftax_env_from_name

    env = make_craftax_env_from_name(f'Craftax-{name}-v1', auto_reset=False)
    params = env.default_params.replace(max_timesteps=length)
    key_of, shape = ('image', 'state')['Symbolic' in name], env.observation_space(params).shape

    @jax.jit
    def reset(key):
        key, now = jax.random.split(key)
        obs, state = env.reset(now, params)
        return key, state, {key_of: obs}

    @jax.jit
    def step(key, state, action):
        key, now = jax.random.split(key)
        obs, state, reward, done, info = env.step(now, state, action, params)
        cut = state.timestep >= length
        logs = {
            f'achievement_{word.rpartition("/")[2]}': value / HUNDRED
            for word, value in info.items()
            if word.startswith('Achievements/')
        }
        return key, state, {key_of: obs}, reward, done, done & ~cut, logs

    key, state, _ = jax.eval_shape(reset, jax.random.PRNGKey(0))
    logs = jax.eval_shape(step, key, state, np.int32(0))[-1]
    observed = (
        spaces.Box(-np.inf, np.inf, shape, np.float32)
        if 'Symbolic' in name
        else spaces.Box(0, 255, shape, np.uint8)
    )
    return Functions(
        {key_of: observed},
        {'action': spaces.Discrete(int(env.action_space(params).n))},
        jax.random.PRNGKey,
        reset,
        step,
        tuple(sorted(logs)),
    )
