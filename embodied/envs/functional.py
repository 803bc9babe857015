"""Simulators of JAX as an Env: pure functions of a state, compiled once in a process for all envs
of a task.

JAX, and what is built on it, is imported by the suite that makes the functions, not here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..base import FLAG, OUTCOME, REWARD, Env, Spaces, Values, outcome


@dataclass(frozen=True)
class Functions:
    """A simulator.

    Attributes:
      observed: name -> space. acted: name -> space, of the one action.
      key: seed -> random key.
      reset: key -> (key, state, observations by name).
      step: (key, state, action) -> (key, state, observations by name, reward, whether the episode
        ended, whether the future is worth zero, logs by name).
      logs: names of the logs.
    """

    observed: Spaces
    acted: Spaces
    key: Callable[[int], Any]
    reset: Callable
    step: Callable
    logs: tuple[str, ...]


class Functional(Env):
    """An env that holds the state of a simulator. Images in floats, 0 .. 1, become bytes."""

    def __init__(self, functions: Functions, seed: int):
        self._functions, self._key = functions, functions.key(seed % 2**31)
        self._state, self._done = None, True
        (self._name,) = functions.acted
        logs = {f'log/{name}': REWARD for name in functions.logs}
        self.obs_space = functions.observed | OUTCOME | logs
        self.act_space = functions.acted | {'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            self._done = False
            self._key, self._state, obs = self._functions.reset(self._key)
            return self._observe(obs, outcome(is_first=True), {})
        self._key, self._state, obs, reward, last, terminal, logs = self._functions.step(
            self._key, self._state, action[self._name]
        )
        self._done = bool(last)
        result = outcome(float(reward), is_last=self._done, is_terminal=bool(terminal))
        return self._observe(obs, result, logs)

    def _observe(self, obs: Values, result: Values, logs: Values) -> Values:
        seen = {name: self._array(name, value) for name, value in obs.items()}
        told = {f'log/{name}': np.float32(logs.get(name, 0)) for name in self._functions.logs}
        return seen | result | told

    def _array(self, name: str, value: Any) -> np.ndarray:
        value, space = np.asarray(value), self.obs_space[name]
        if space.dtype == np.uint8 and value.dtype != np.uint8:
            value = np.rint(np.clip(value, 0, 1) * 255)
        return np.array(value, space.dtype)
