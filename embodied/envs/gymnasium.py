"""Any Gymnasium environment: gym_<id> makes one by name, from_gymnasium() takes one that exists.

terminated becomes is_last with is_terminal, truncated is_last alone. Nested observations and actions become one flat dict with keys
joined by '/'. A single observation is called 'image' where it is one and 'state' otherwise; a single action 'action'.
"""

import dataclasses

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from ..base import FLAG, OUTCOME, Env, Spaces, Values, outcome
from ..errors import ConfigError, EnvContractError
from ..wrappers import ActionRepeat
from . import unknown


@dataclasses.dataclass(frozen=True)
class GymConfig:
    """What can be set.

    Attributes:
      image: render the env (render_mode 'rgb_array') as observation 'image', where it observes none.
      size: height and width that rendered images are resized to.
      repeat: frames per decision, >= 1.
    """

    image: bool
    size: int
    repeat: int


def make(name: str, config: GymConfig, seed: int) -> Env:
    """The env gym_<name>, such as gym_CartPole-v1.

    Raises:
      ConfigError: Gymnasium knows no such id, or the env cannot be made; says why.
    """
    if config.size < 1 or config.repeat < 1:
        raise ConfigError(f'env.gym.size and env.gym.repeat must be at least 1, got {config.size} and {config.repeat}.')
    if name.split(':')[-1] not in gymnasium.registry and ':' not in name:
        raise ConfigError(unknown('task', f'gym_{name}', [f'gym_{known}' for known in gymnasium.registry]))
    try:
        env = gymnasium.make(name, render_mode='rgb_array' if config.image else None)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ConfigError(f'gym_{name} cannot be made: {error}') from error
    env = from_gymnasium(env, seed=seed, image=config.image, size=config.size)
    return ActionRepeat(env, config.repeat) if config.repeat > 1 else env


def from_gymnasium(env: gymnasium.Env, seed: int = 0, image: bool = False, size: int = 64) -> Env:
    """A gymnasium env as an Env.

    Args:
      env: with spaces made of Box, Discrete, MultiDiscrete, MultiBinary, Dict and Tuple; action Boxes must be bounded.
      seed: given to its first reset; later resets go on with its generator.
      image: render it as the observation 'image' where it has none; needs render_mode 'rgb_array'.
      size: height and width of rendered images.

    Raises:
      EnvContractError: a space of another kind, or an unbounded action Box; names its key.
    """
    return Gymnasium(env, seed, image, size)


class Gymnasium(Env):
    """See from_gymnasium()."""

    def __init__(self, env: gymnasium.Env, seed: int, image: bool, size: int):
        self._env, self._seed, self._size = env, seed, size
        single = 'image' if is_image(env.observation_space) else 'state'
        self._observed = flatten_space(env.observation_space, single)
        self._acted = flatten_space(env.action_space, 'action')
        for key, space in self._acted.items():
            if isinstance(space, spaces.Box) and not space.is_bounded():
                raise EnvContractError(
                    f'{env}: the action {key!r} is unbounded ({space}); wrap the env with gymnasium.wrappers.RescaleAction or ClipAction')
        self._renders = image and not any(is_image(space) for space in self._observed.values())
        if self._renders and env.render_mode != 'rgb_array':
            raise EnvContractError(f"{env}: expected render_mode 'rgb_array' to observe images, got {env.render_mode!r}")
        self._done, self._seeded = True, False

    @property
    def obs_space(self) -> Spaces:
        observed = {key: shifted(space) for key, space in self._observed.items()}
        if self._renders:
            observed['image'] = spaces.Box(0, 255, (self._size, self._size, 3), np.uint8)
        return {**observed, **OUTCOME}

    @property
    def act_space(self) -> Spaces:
        return {**{key: shifted(space) for key, space in self._acted.items()}, 'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            obs, _ = self._env.reset(seed=None if self._seeded else self._seed % 2 ** 32)
            self._done, self._seeded = False, True
            return self._observe(obs, outcome(is_first=True))
        inner = {key: native(space, action[key]) for key, space in self._acted.items()}
        obs, reward, terminated, truncated, _ = self._env.step(unflatten(self._env.action_space, inner, 'action'))
        self._done = bool(terminated or truncated)
        return self._observe(obs, outcome(float(reward), is_last=self._done, is_terminal=bool(terminated)))

    def _observe(self, obs, result: Values) -> Values:
        flat = flatten_value(self._env.observation_space, obs, next(iter(self._observed)))
        values = {key: flat[key] - getattr(space, 'start', 0) if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) else flat[key]
                  for key, space in self._observed.items()}
        values = {key: np.array(value, self._observed[key].dtype) for key, value in values.items()}  # the env may reuse its own
        if self._renders:
            frame = Image.fromarray(np.asarray(self._env.render())[..., :3])
            values['image'] = np.array(frame.resize((self._size, self._size), Image.Resampling.BILINEAR))
        return {**values, **result}

    def close(self) -> None:
        self._env.close()


def is_image(space: spaces.Space) -> bool:
    """Whether a space is a uint8 picture (H, W, C)."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def flatten_space(space: spaces.Space, name: str) -> Spaces:
    """Leaves of a nested space by key; `name` is that of a space that is no container."""
    inner = children(space)
    if inner is None:
        if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            raise EnvContractError(f'{name!r} is a {type(space).__name__} space; expected Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple')
        return {name: space}
    return {path: leaf for key, child in inner.items() for path, leaf in join(key, flatten_space(child, '')).items()}


def flatten_value(space: spaces.Space, value, name: str) -> Values:
    """The value of a nested space as a flat dict with the keys of flatten_space."""
    inner = children(space)
    if inner is None:
        return {name: value}
    items = value.items() if isinstance(space, spaces.Dict) else enumerate(value)
    return {path: leaf for key, item in items for path, leaf in join(str(key), flatten_value(inner[str(key)], item, '')).items()}


def unflatten(space: spaces.Space, flat: Values, name: str):
    """Inverse of flatten_value."""
    inner = children(space)
    if inner is None:
        return flat[name]
    parts = {
        key: unflatten(child, {path[len(key):].removeprefix('/'): v for path, v in flat.items() if path.split('/')[0] == key}, '')
        for key, child in inner.items()}
    return parts if isinstance(space, spaces.Dict) else tuple(parts.values())


def children(space: spaces.Space) -> Spaces | None:
    """Parts of a container by key, None for a leaf."""
    if isinstance(space, spaces.Dict):
        return {str(key): child for key, child in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return {str(index): child for index, child in enumerate(space.spaces)}
    return None


def join(key: str, leaves: dict) -> dict:
    return {f'{key}/{path}' if path else key: leaf for path, leaf in leaves.items()}


def shifted(space: spaces.Space) -> spaces.Space:
    """Discrete spaces counted from 0; others as they are."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec)
    return space


def native(space: spaces.Space, value):
    """A value counted from 0 as the env's own, with its dtype."""
    if isinstance(space, spaces.Discrete):
        return space.dtype.type(int(value) + int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return (np.asarray(value) + space.start).astype(space.dtype)
    return np.asarray(value, space.dtype)
