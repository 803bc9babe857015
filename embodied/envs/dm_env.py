"""Any environment of the interface dm_env as an Env: observations by name, one action.

A discount of 0 at the last step is terminal; a last step with another discount is the end of a time
limit.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import EnvContractError
from .leaves import clean


class FromDM(Env):
    """See from_dm()."""

    def __init__(self, env: Any, keys: Iterable[str] | None):
        self._env, self._done = env, True
        specs = env.observation_spec()
        wanted = list(specs if keys is None else keys)
        if missing := sorted(set(wanted) - set(specs)):
            raise EnvContractError(f'observed are {sorted(specs)}; there is no {missing}.')
        # some tasks have observations without entries
        self._names = {clean(key): key for key in wanted if 0 not in specs[key].shape}
        self.obs_space = {name: observed(specs[key]) for name, key in self._names.items()} | OUTCOME
        self.act_space = {'action': acted(env.action_spec()), 'reset': FLAG}

    def step(self, action: Values) -> Values:
        begins = action['reset'] or self._done
        step = self._env.reset() if begins else self._env.step(action['action'])
        self._done = step.last()
        values = {
            name: np.array(step.observation[key], self.obs_space[name].dtype)
            for name, key in self._names.items()
        }
        return values | outcome(
            0.0 if begins else step.reward,
            is_first=bool(begins),
            is_last=step.last(),
            is_terminal=step.last() and step.discount == 0,
        )

    def close(self) -> None:
        self._env.close()


def from_dm(env: Any, keys: Iterable[str] | None = None) -> Env:
    """A dm_env environment as an Env.

    Args:
      env: has reset(), step(), observation_spec(), action_spec(); its action is one array.
      keys: observations to keep; None for all.

    Raises:
      EnvContractError: a key it does not observe, or an action without bounds; names it.
    """
    return FromDM(env, keys)


def observed(spec: Any) -> spaces.Space:
    """The space of an observation: images keep their bytes, all else is float32."""
    if spec.dtype == np.uint8 and len(spec.shape) == 3:
        return spaces.Box(0, 255, spec.shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, spec.shape, np.float32)


def acted(spec: Any) -> spaces.Space:
    """The space of an action. Raises EnvContractError."""
    if hasattr(spec, 'num_values'):
        return spaces.Discrete(int(spec.num_values))
    if not hasattr(spec, 'minimum'):
        raise EnvContractError(f'an action needs bounds or a number of choices, got {spec}.')
    low, high = (np.broadcast_to(bound, spec.shape) for bound in (spec.minimum, spec.maximum))
    return spaces.Box(low.astype(np.float32), high.astype(np.float32))
