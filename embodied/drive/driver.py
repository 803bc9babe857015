"""Steps all envs with a policy and hands each row to its listeners.

One driver step, for N envs in lockstep:

    pending actions -> envs -> observations -> policy -> rows to the listeners; its actions are
                 pending now `during` runs here, while the envs step in their processes (overlap),
                 or just before the actions are sent

Both places of `during` come after the acts of the last step and before those of this one, so the
sequence of acts and updates is the same with overlap and without, and so are the rows.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from ..base import Env, Values
from ..contract import nonfinite
from ..errors import CheckpointError, ConfigError
from ..tree_spec import ANYTHING, COUNT, Array, Each, demand
from .pool import Pool

Policy = Callable[[Any, Values], tuple[Any, Values]]


@dataclass(frozen=True)
class DriverConfig:
    """How envs are run.

    Attributes:
      parallel: 'auto' (in the calling process for one env, in worker processes otherwise), True or
          False.
      overlap: envs step while the learner computes; the same rows come out either way.
      timeout: seconds a worker may take for one step of its envs.
      start_timeout: seconds all workers together may take to build their envs and to reset them
        once, and each worker for a step that begins an episode.
      envs_per_worker: 0 spreads the envs over the cores. More saves switching between processes,
          fewer lose less when one fails.
      max_restarts: replacements allowed within restart_window; the next one ends the run.
      restart_window: seconds.
    """

    parallel: str | bool
    overlap: bool
    timeout: float
    start_timeout: float
    envs_per_worker: int
    max_restarts: int
    restart_window: float

    def __post_init__(self):
        if self.parallel not in ('auto', True, False):
            raise ConfigError(
                f"driver.parallel must be 'auto', true or false, got {self.parallel!r}"
            )
        for name in ('timeout', 'start_timeout', 'restart_window'):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f'driver.{name} must be a positive number of seconds, got'
                    f' {getattr(self, name)!r}'
                )
        for name in ('envs_per_worker', 'max_restarts'):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f'driver.{name} must not be negative, got {getattr(self, name)!r}'
                )


class Phase(Enum):
    """How far the driver step is."""

    PENDING = 'the actions wait to be sent'
    SENT = 'the envs are stepping'
    ARRIVED = 'the observations wait for the policy'


class Driver:
    """Runs a policy in N envs.

    A failed env is replaced by a fresh one within the same driver step. Nothing false is emitted
    for it: the rows already handed out stand, and the next row of that env `is_first`. So in the
    rows of one env, `is_first` after a row without `is_last` is the mark of an episode that was cut
    there, to be treated as truncated. Envs that share a worker process are replaced together.

    Attributes:
      obs_space, act_space, repeat: of every env, as the envs tell them; none is built in this
          process when running in parallel.
      renderers: names of what the envs render with, as far as they say.
      num_envs: N.
    """

    def __init__(
        self,
        make_envs: Sequence[Callable[[], Env]],
        config: DriverConfig,
        on_event: Callable[[str], None] | None = None,
        notes: bool = True,
        folder: Path | None = None,
    ):
        """Start the envs and reset each of them once, all at the same time.

        Args:
          make_envs: a constructor per env. They travel to other processes by cloudpickle, so
            closures and partials are fine; what they refer to is imported there, so they should not
            refer to anything that imports torch. Where one has a method renewed(count), its result
            builds replacement number `count`, with random numbers of its own (see envs.Maker).
          on_event: receives a text for each thing that happened to the envs: faults, replacements,
            fallbacks at the start, software rendering. Standard error by default.
          notes: whether on_event also receives what the envs say about themselves (Env.notes);
            False where another driver of the same envs told it.
          folder: where the stacks of all threads of a worker that hangs are written; on_event
              receives that of its main one.

        Raises:
          EnvError: the envs do not start in any of the ways that are tried; what was tried, with
              tracebacks.
        """
        self.config = config
        self.num_envs = len(make_envs)
        self._pool = Pool(make_envs, config, on_event or _print, notes, folder)
        self._on_event = on_event or _print
        # runs once: by close(), with the last reference, or at exit
        self._finalizer = finalize(self, self._pool.close)
        self.obs_space, self.act_space, self.repeat = (
            self._pool.obs_space,
            self._pool.act_space,
            self._pool.repeat,
        )
        self.renderers = self._pool.renderers
        self._listeners = []
        self._carry = None
        self._ready = False  # whether there is a carry
        self._phase = Phase.ARRIVED  # the pool has reset its envs
        self._untouched = True  # no policy has seen anything yet
        self._action, self._reset = self._all_reset()

    @property
    def restarts(self) -> int:
        """Workers replaced so far, those before the last load() included."""
        return self._pool.restarts

    @property
    def pids(self) -> list[int]:
        """Process id of each worker, in env order; this process's own where the envs are in it."""
        return self._pool.pids

    @property
    def groups(self) -> list[list[int]]:
        """The envs of each worker."""
        return self._pool.groups

    def on_row(self, listener: Callable[[Values, int], Any]) -> None:
        """Call listener(row, env index) for each row, in env order, all listeners in the order they
        came.

        A row is a dict of the observation ('log/' keys included) and the action without 'reset'. It
        may be kept: its arrays belong to this step alone, and all listeners share them.
        """
        self._listeners.append(listener)

    def reset(self, init_policy: Callable[[int], Any]) -> None:
        """Begin a new episode in every env at the next step, with the carry that
        init_policy(num_envs) returns.
        """
        self._carry, self._ready = init_policy(self.num_envs), True
        self._begin_anew()

    def __call__(
        self,
        policy: Policy,
        steps: int = 0,
        episodes: int = 0,
        during: Callable[[], Any] | None = None,
    ) -> None:
        """Take driver steps until there were enough rows and enough finished episodes, over all
        envs together.

        Args:
          policy: policy(carry, obs) -> carry, action; dicts of arrays (N, ...), obs without 'log/'
            keys and action without 'reset'. Actions are cast to the dtype of their space if that
            loses nothing of their kind.
          steps: rows, the first rows of episodes included. steps=1 is one driver step, so N rows.
          episodes: rows with is_last.
          during: called once per driver step, while the envs step if overlap is on. May not call
              the driver.

        Raises:
          EnvError: an env broke its contract, or there were more faults than the config allows;
              with all tracebacks.
          ValueError: the policy returned something that does not fit act_space.
        """
        if not self._ready:
            raise ValueError(
                'the driver has no carry for the policy: call reset(init_policy) or load(tree,'
                ' load_carry) first'
            )
        num_rows = num_episodes = 0
        while num_rows < steps or num_episodes < episodes:
            num_episodes += self._step(policy, during)
            num_rows += self.num_envs

    def save(self, save_carry: Callable[[Any], Values] | None = None) -> Values:
        """Everything load() needs to continue as if nothing had happened, as a tree of arrays and
        JSON values.

        Exact between calls of the driver, for envs that support save(). Other envs begin a new
        episode after load(). So do all envs if this is called in the middle of a driver step, that
        is after one failed, or from `during` with overlap on.

        Args:
          save_carry: turns the policy's carry into a tree, such as Agent.save_carry; without it the
              carry is left out.
        """
        whole = self._phase is Phase.PENDING
        states = self._pool.save() if whole else [None] * self.num_envs
        tree = {
            'envs': states,
            'restarts': self.restarts,
            'reset': self._reset | np.array([state is None for state in states]),
            'action': {key: value.copy() for key, value in self._action.items()},
        }
        if save_carry:
            tree['carry'] = save_carry(self._carry)
        return tree

    def load(self, tree: Values, load_carry: Callable[[Values], Any] | None = None) -> None:
        """Continue from what save() returned. If that had another number of envs, all begin new
        episodes and the carry stays.

        Args:
          load_carry: turns the saved carry back, such as Agent.load_carry; without it the carry
              stays that of reset().
        """
        demand(tree, {'envs': Each(ANYTHING, list), 'restarts': COUNT}, 'The state of the driver')
        states, self._pool.restarts = tree['envs'], tree['restarts']
        if len(states) != self.num_envs:
            self._on_event(
                f'the saved run had {len(states)} envs and this one has {self.num_envs}: all begin'
                ' new episodes'
            )
            self._begin_anew()
            return
        expected = {key: Array('biuf', *array.shape) for key, array in self._action.items()}
        demand(
            tree,
            {'action': expected, 'reset': Array('b', self.num_envs)},
            'The state of the driver',
        )
        if load_carry:
            self._take_carry(tree, load_carry)
        if self._untouched and all(state is None for state in states):
            # the first observations are already there, and resetting twice would skip an episode
            return
        self._drain()
        restored = self._pool.load(states)
        self._action = self._checked(tree['action'], np.zeros(self.num_envs, bool))
        self._reset = np.asarray(tree['reset'], bool) | ~np.array(restored)

    def _take_carry(self, tree, load_carry):
        demand(tree, {'carry': ANYTHING}, 'The state of the driver')
        carry = load_carry(tree['carry'])
        if self._ready and _form(carry) != _form(self._carry):
            raise CheckpointError(
                f'The carry of the policy is {_form(carry)!r:.300} in the checkpoint, must be'
                f' {_form(self._carry)!r:.300}'
            )
        self._carry, self._ready = carry, True

    def close(self) -> None:
        """Close the envs and end their processes, by force if that takes longer than a moment.
        May be called again.
        """
        self._finalizer()

    def _step(self, policy, during):
        """One driver step; returns how many episodes it finished."""
        if during and not self.config.overlap:
            during()
        if self._phase is Phase.PENDING:
            self._send()
        if during and self.config.overlap:
            during()
        if self._phase is Phase.SENT:
            self._pool.receive()
            self._phase = Phase.ARRIVED

        # Out of the shared memory, which the envs write to again while these arrays may still be in
        # use.
        obs = {key: array.copy() for key, array in self._pool.arena.obs.items()}
        is_last = obs['is_last']
        seen = {key: value for key, value in obs.items() if not key.startswith('log/')}
        carry, action = policy(self._carry, seen)
        action = self._checked(action, is_last)

        # A listener that raises has broken some streams of rows. If the run goes on, it goes on
        # with new episodes in all of them.
        self._action, self._reset = self._all_reset()
        self._carry, self._phase, self._untouched = carry, Phase.PENDING, False
        self._emit(obs, action)
        self._action, self._reset = action, is_last.copy()
        return int(is_last.sum())

    def _send(self):
        target = self._pool.arena.action
        for key, value in self._action.items():
            target[key][...] = value
        target['reset'][...] = self._reset
        self._phase = Phase.SENT
        self._pool.send()

    def _emit(self, obs, action):
        keys = *obs, *action
        rows = zip(*obs.values(), *action.values(), strict=True)
        for index, values in enumerate(rows):
            row = dict(zip(keys, values, strict=True))
            for listener in self._listeners:
                listener(row, index)

    def _begin_anew(self):
        if not self._untouched:
            self._drain()
            self._action, self._reset = self._all_reset()

    def _drain(self):
        """Finish a driver step that was begun, without its rows."""
        if self._phase is Phase.SENT:
            self._pool.receive()
        self._phase, self._untouched = Phase.PENDING, False

    def _all_reset(self):
        action = {
            key: np.zeros_like(array)
            for key, array in self._pool.arena.action.items()
            if key != 'reset'
        }
        return action, np.ones(self.num_envs, bool)

    def _checked(self, action, is_last):
        """The policy's actions as fresh arrays of the dtype of their spaces, zero where no
        action follows.
        """
        expected = {key: array for key, array in self._pool.arena.action.items() if key != 'reset'}
        if action.keys() != expected.keys():
            raise ValueError(
                f'the policy must return the actions {sorted(expected)}, got {sorted(action)}'
            )
        checked = {}
        for key, array in expected.items():
            value = np.asarray(action[key])
            if value.shape != array.shape or not np.can_cast(value.dtype, array.dtype, 'same_kind'):
                raise ValueError(
                    f'the policy must return action {key!r} as {array.dtype}{list(array.shape)}, '
                    f'got {value.dtype}{list(value.shape)}'
                )
            if value.dtype.kind == 'f' and (fault := nonfinite(value)):
                raise ValueError(
                    f'the policy must return finite numbers for action {key!r}, got {fault}'
                )
            checked[key] = value.astype(array.dtype)
            checked[key][is_last] = 0
        return checked


def _form(carry):
    """Shape and kind of each array in a tree; what a policy makes of other values is its own
    affair.
    """
    if isinstance(carry, dict):
        return {key: _form(value) for key, value in carry.items()}
    return (
        (tuple(carry.shape), getattr(carry.dtype, 'kind', str(carry.dtype)))
        if hasattr(carry, 'dtype')
        else '?'
    )


def _print(text):
    print(text, file=sys.stderr, flush=True)
