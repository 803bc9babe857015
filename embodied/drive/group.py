"""Some envs stepped one after another: what a worker does, in a process of its own or in the
caller's.
"""

import contextlib
import itertools
import json
import pickle
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base import Spaces
from ..contract import nonfinite, spoken
from ..errors import EnvContractError, EnvNonFinite
from ..together import NotYet, together
from .arena import Arena, map_memory


class EnvGroup:
    """Envs that are stepped one after another, each with its row of the arena. Every public method
    is a request.

    Attributes:
      current: index of the env at work, for error messages.
    """

    REQUESTS = ('build', 'attach', 'step', 'renderers', 'save', 'load', 'close')

    def __init__(self, arena_fd):
        self.current = None
        self._arena_fd = arena_fd
        self._arena = None
        self._envs = {}
        self._floats = []

    def build(self, constructors: Mapping[int, bytes]) -> dict[str, Any]:
        """Make the envs. Args: dict index -> cloudpickled constructor. Returns a dict obs_space,
        act_space, repeat, tasks, notes.
        """
        self.close()
        with together():
            for self.current, constructor in constructors.items():
                self._envs[self.current] = pickle.loads(constructor)()
        infos = {index: _describe(env) for index, env in self._envs.items()}
        tasks = {index: info.pop('task') for index, info in infos.items()}
        first, *others = infos.items()
        for self.current, info in others:
            demand_same_spaces(first, (self.current, info))
        return {**first[1], 'tasks': tasks, 'notes': self._notes()}

    def attach(self, obs_space: Spaces, act_space: Spaces, num_envs: int) -> None:
        """Map the arena, which the caller has given its size."""
        self._arena = Arena(obs_space, act_space, num_envs, map_memory(self._arena_fd))
        self._floats = [
            key
            for key, array in self._arena.obs.items()
            if array.dtype.kind == 'f' and not key.startswith('log/')
        ]

    def step(self) -> list[tuple[str, str]] | None:
        """Step each env with its row of the actions and write what it returns to its row of the
        observations.

        Returns notes of the envs (see Env.notes), None where there are none.
        """
        # envs may keep what they are given
        actions = {key: array.copy() for key, array in self._arena.action.items()}
        busy = self._arena.busy
        waiting = []
        for index, env in itertools.chain(self._envs.items(), waiting):
            self.current = index
            action = {key: array[index] for key, array in actions.items()}
            busy[index] = True
            try:
                obs = env.step(action)
            except NotYet as error:  # a lane of a vectorised env, whose other lanes come first
                if len(waiting) == len(self._envs):
                    raise EnvContractError(f'env {index} waits for lanes that are idle') from error
                waiting.append((index, env))
                continue
            busy[index] = False
            self._write(index, obs)
            if action['reset'] and not obs['is_first']:
                raise EnvContractError(
                    f"env {index}: obs['is_first'] must be True after action['reset'], got False"
                )
        return self._notes() or None

    def renderers(self) -> list[str]:
        """Names of what the envs render with, '' where they do not say."""
        return [str(getattr(env, 'renderer', '') or '') for env in self._envs.values()]

    def save(self) -> list[tuple[Any, str]]:
        """Returns a list of (state or None, error text): JSON-able states of the envs that can
        continue mid-episode.
        """
        return [
            attempt(lambda env=env: json.loads(json.dumps(env.save())))
            for env in self._envs.values()
        ]

    def load(self, states: list[Any]) -> list[tuple[bool | None, str]]:
        """Args: one state or None per env. Returns a list of (whether it was restored, error
        text).
        """
        assert len(states) == len(self._envs), (len(states), len(self._envs))
        return [
            (
                (False, '')
                if state is None
                else attempt(lambda env=env, state=state: (env.load(state), True)[1])
            )
            for env, state in zip(self._envs.values(), states)
        ]

    def close(self) -> None:
        envs, self._envs = self._envs, {}
        with contextlib.ExitStack() as stack:  # closes all of them even if one raises
            for env in envs.values():
                stack.callback(env.close)

    def _write(self, index, obs):
        expected = self._arena.obs
        if obs.keys() != expected.keys():
            missing, surplus = (
                sorted(expected.keys() - obs.keys()),
                sorted(obs.keys() - expected.keys()),
            )
            raise EnvContractError(
                f'env {index}: obs keys differ from obs_space: missing {missing}, not declared'
                f' {surplus}'
            )
        for key, array in expected.items():
            value = np.asarray(obs[key])
            if value.dtype != array.dtype or value.shape != array.shape[1:]:
                raise EnvContractError(
                    f'env {index}: obs[{key!r}] must be {array.dtype}{list(array.shape[1:])} as in'
                    f' obs_space, got {value.dtype}{list(value.shape)}'
                )
            array[index] = value
        if not getattr(self._envs[index], 'checked', False):
            for key in self._floats:
                if fault := nonfinite(obs[key]):
                    raise EnvNonFinite(f'{spoken(key)} is not finite: {fault}.')

    def _notes(self):
        return [
            note for env in self._envs.values() if hasattr(env, 'notes') for note in env.notes()
        ]


def _describe(env):
    return {
        'obs_space': dict(env.obs_space),
        'act_space': dict(env.act_space),
        'repeat': int(getattr(env, 'repeat', 1)),
        'task': str(getattr(env, 'task', '') or ''),
    }


def demand_same_spaces(one: tuple[int, Mapping], other: tuple[int, Mapping]) -> None:
    """Raise EnvContractError unless two (env index, description) agree in everything that rows
    are made of.
    """
    for name in ('obs_space', 'act_space', 'repeat'):
        if one[1][name] != other[1][name]:
            raise EnvContractError(
                f'all envs of a driver must have the same {name}; env {one[0]} has {one[1][name]}, '
                f'env {other[0]} has {other[1][name]}'
            )


def attempt(function):
    try:
        return function(), ''
    except Exception:  # an env that cannot save or load starts a new episode; the run goes on
        return None, traceback.format_exc()
