"""Environments of the user: package.module:Class, or a function, that makes an Env or a Gymnasium
env.
"""

from collections.abc import Callable
from typing import Any

import gymnasium

from ..base import Env
from ..errors import ConfigError, EnvContractError
from ..wrappers import ReadImages, UnifyDtypes
from . import unknown
from .arguments import needs, parameters, seed_among
from .gymnasium import GymConfig, check_values, from_gymnasium, repeated
from .imports import demand, load_module


def check(name: str, config: GymConfig) -> None:
    """Refuse what cannot be made, as far as possible without importing the module.

    Raises:
      ConfigError: unknown module, or a value out of range.
    """
    check_values(config)
    demand(name.partition(':')[0], name)


def make(name: str, config: GymConfig, seed: int) -> Env:
    """The env returned by package.module:Class or package.module:function.

    It is called with seed=... if it takes a seed, in [0, 2^32), and with render_mode='rgb_array' if
    it takes that and env.gym.image is set.

    Raises:
      ConfigError: unknown module or name, or it needs more than a seed. EnvContractError: it
      returns something other than a single env.
    """
    check(name, config)
    module, _, attribute = name.partition(':')
    target = load_module(module, name)
    for part in attribute.split('.'):
        if not hasattr(target, part):
            known = [each for each in dir(target) if not each.startswith('_')]
            raise ConfigError(unknown('name', part, known, f' in the task {name}'))
        target = getattr(target, part)
    if not callable(target):
        raise ConfigError(
            f'--task {name}: expected a class or a function that makes an env, got '
            f'{type(target).__name__}.'
        )
    return adapted(call(target, name, config, seed % 2**32), name, config, seed)


def call(target: Callable, name: str, config: GymConfig, seed: int) -> Any:
    """Call a class or function, with a seed if it takes one.

    Raises:
      ConfigError: it needs other arguments.
    """
    known, needed = parameters(target), needs(target)
    if known is None:
        return target()
    given = {'seed': seed}
    if config.image or 'render_mode' in [each.name for each in needed]:
        modes = (getattr(target, 'metadata', None) or {}).get('render_modes') or ()
        drawn = config.image or 'rgb_array' in modes
        given['render_mode'] = 'rgb_array' if drawn else None
    named = {
        key: value
        for key, value in given.items()
        if key in known and known[key].kind is not known[key].POSITIONAL_ONLY
    }
    needed = [each for each in needed if each.name not in named]
    if 'seed' not in named and seed_among(needed):
        return target(seed, **named)
    if needed:
        raise ConfigError(
            f'--task {name}: it needs {", ".join(p.name for p in needed)}; name a function that '
            'takes at most a seed and makes the env.'
        )
    return target(**named)


def adapted(env: Any, name: str, config: GymConfig, seed: int) -> Env:
    """An Env or a Gymnasium env with the settings of env.gym.

    Raises:
      EnvContractError: neither of them.
    """
    if isinstance(env, type):
        raise EnvContractError(
            f'{name} makes the class {env.__qualname__} and no env of it; let it call the class,'
            ' or name that.'
        )
    if isinstance(env, Env) or all(
        hasattr(env, part) for part in ('obs_space', 'act_space', 'step')
    ):
        sized = ReadImages(UnifyDtypes(env), config.size) if config.size else env
        return repeated(sized, config.repeat)
    if isinstance(env, gymnasium.vector.VectorEnv):
        raise EnvContractError(
            f'{name} makes a vector of envs; make a single one, run.envs says how many are run.'
        )
    if isinstance(env, gymnasium.Env) or all(
        hasattr(env, part) for part in ('observation_space', 'action_space', 'reset', 'step')
    ):
        return repeated(from_gymnasium(env, seed, config.image, config.size), config.repeat)
    raise EnvContractError(
        f'{name} makes a {type(env).__module__}.{type(env).__qualname__}; expected an '
        'embodied.Env or a gymnasium.Env.'
    )
