"""envpool: gym_envpool:<Id>, with --env.gym.vector true; C++ threads step all envs of a worker.

Written against envpool 1.2.5, whose envs speak Gymnasium without being a VectorEnv of it: they
begin anew in the next step, are seeded where they are made, and show images channels first.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from ..errors import ConfigError, nearest
from ..together import shared
from .vectors import Lane, Lanes

MODULE = 'envpool'
COLOURS = (1, 3, 4)  # channels of a picture


def lane(envpool: ModuleType, identifier: str, task: str) -> Lane:
    """One of the envs that the module envpool makes together for a worker.

    Raises:
      ConfigError: there is no such id.
    """
    known = envpool.list_all_envs()
    if identifier not in known:
        raise ConfigError(f'{task}: envpool has no {identifier!r}; {nearest(identifier, known)}')
    make = lambda count, **more: envpool.make_gymnasium(identifier, num_envs=count, **more)
    return Lane(shared((MODULE, identifier), lambda: Lanes(lambda n: Pool(make, n), task)))


class Pool(VectorEnv):
    """A pool of envpool as a VectorEnv of Gymnasium.

    Args:
      make: (number of envs, seed=...) -> the pool; made again where reset() names a seed.
    """

    def __init__(self, make: Callable[..., Any], count: int):
        self._make, self.num_envs, self._pool = make, count, make(count)
        self._first = picture_first(self._pool.observation_space)
        self.single_observation_space = channels_last(self._pool.observation_space, self._first)
        self.single_action_space = self._pool.action_space
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)
        self.metadata, self.render_mode = dict(self._pool.metadata), None

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self._pool.close()
            self._pool = self._make(self.num_envs, seed=int(seed) % 2**31)
        return self._seen(self._pool.reset()[0]), {}

    def step(self, actions: Any) -> tuple:
        space = self.single_action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            actions = np.asarray(actions, np.int32)
        found, reward, terminated, truncated, _ = self._pool.step(actions)
        return self._seen(found), reward, terminated, truncated, {}

    def close_extras(self, **kwargs: Any) -> None:
        self._pool.close()

    def _seen(self, found: Any) -> Any:
        return np.moveaxis(found, 1, -1) if self._first else found


def picture_first(space: gymnasium.Space) -> bool:
    """Whether an observation is a picture with its channels first."""
    shape = space.shape or ()
    pixels = isinstance(space, gymnasium.spaces.Box) and space.dtype == np.uint8
    return pixels and len(shape) == 3 and shape[0] in COLOURS and shape[2] not in COLOURS


def channels_last(space: gymnasium.Space, first: bool) -> gymnasium.Space:
    """The space of the picture with its channels last."""
    if not first:
        return space
    low, high = (np.moveaxis(bound, 0, -1) for bound in (space.low, space.high))
    return gymnasium.spaces.Box(low, high, dtype=np.uint8)
