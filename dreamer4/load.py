"""An agent and its environment, or a policy alone, from the folder of a run, for those who want to
act with it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from embodied import envs
from embodied.base import Env, Spaces, Values
from embodied.config import Config, Value, configs_dir, parse
from embodied.contract import nonfinite
from embodied.errors import ConfigError
from embodied.run import load_agent
from embodied.seeds import derive

from . import runs
from .agent import Agent


def load(
    logdir: str | Path, seed: int = 0, task: str = '', trust: bool = False, **machine: Value
) -> tuple[Agent, Env]:
    """The agent of the newest checkpoint of a run, and one environment of its task.

    The process stays as it is: its torch threads, precision and random numbers are left alone.

    Args:
      logdir: folder of the run. seed: of the environment, and of what the agent draws.
      task: the run's own if not given; of several, an env that takes turns in them, or one of
          them. A run whose task names a module, as in
          gym_minigrid:MiniGrid-Empty-5x5-v0, needs it, or trust.
      trust: import the module that the run names, where it is an installed package.
      machine: keys of the block `machine`, such as device='cpu'; those of the run do not matter.

    Raises:
      ConfigError: the folder holds no config, or its task names a module that nobody vouches for.
      CheckpointError: it holds no checkpoint, or a damaged one.
    """
    logdir = runs.folder_of(logdir)
    config = stored(logdir, machine)
    if not task:
        envs.check_stored(config.task, trust, logdir)
    settings, tasks = config.env.to_dict(), runs.read_tasks(logdir)
    env = envs.make(task or config.task, settings, derive(seed, 'env'), tasks)
    return restored(logdir, config, env.obs_space, env.act_space, seed), env


def load_policy(
    logdir: str | Path, seed: int = 0, mode: str = 'sample', **machine: Value
) -> 'Policy':
    """The policy of a run's newest checkpoint, for one env that somebody else steps:

        policy = load_policy('logdir/catch')
        action = policy.act(obs)

    No env is built and no module of the task is imported: the spaces stand in the run.

    Args:
      logdir: folder of the run. seed: of its draws.
      mode: 'sample' or 'mode' (the most likely action). machine: as for load().

    Raises:
      ConfigError, CheckpointError: as load(); or the run keeps no spaces.
    """
    if mode not in ('sample', 'mode'):
        raise ConfigError(f"load_policy: mode must be 'sample' or 'mode', got {mode!r}")
    logdir = runs.folder_of(logdir)
    config, (obs_space, act_space) = stored(logdir, machine), runs.read_spaces(logdir)
    return Policy(restored(logdir, config, obs_space, act_space, seed), mode)


class Policy:
    """A policy with its memory inside, for one env.

    Args:
      agent: who acts. mode: 'sample' or 'mode' (the most likely action).

    Attributes:
      obs_space, act_space: name -> space of what act() takes and returns.
    """

    def __init__(self, agent: Agent, mode: str = 'sample'):
        seen = set(agent.obs_keys)
        self.obs_space = {key: space for key, space in agent.obs_space.items() if key in seen}
        self.act_space = {key: space for key, space in agent.act_space.items() if key != 'reset'}
        self._agent, self._mode = agent, mode
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next observation is the first one of an episode."""
        self._carry, self._first = self._agent.init_policy(1), True

    def act(self, obs: Values) -> Values:
        """The action for an observation.

        Args:
          obs: key -> value in the shape and dtype of obs_space; further keys are ignored. Where
              is_first is set, an episode begins; without that key reset() says so.

        Returns:
          key -> array in the shape and dtype of act_space.

        Raises:
          ValueError: a key is missing, or its value has another shape, is not finite, or does not
            fit its dtype, as a picture in [0, 1] does not. The memory is as it was.
        """
        if not isinstance(obs, Mapping):
            raise ValueError(
                f'act: expected a dict of {", ".join(self.obs_space)}, got {type(obs).__name__}'
            )
        batch = {'is_first': np.array([bool(obs.get('is_first', False)) or self._first])}
        for key, space in self.obs_space.items():
            if key not in obs:
                raise ValueError(
                    f'act: the observation lacks {key!r}; it needs {", ".join(self.obs_space)}'
                )
            batch[key] = fitted(key, obs[key], space)[None]
        self._carry, action = self._agent.policy(self._carry, batch, self._mode)
        self._first = False
        return {
            key: np.asarray(value[0], self.act_space[key].dtype) for key, value in action.items()
        }


def fitted(key: str, value: Any, space: spaces.Space) -> np.ndarray:
    """A value that somebody gives as an observation, in the dtype of its space.

    Raises:
      ValueError: it has another shape, is not finite, or the dtype cannot hold it.
    """
    array = np.asarray(value)
    if array.dtype.kind not in 'biuf':
        raise ValueError(f'act: {key!r} must be numbers, got {value!r:.80}')
    if array.shape != space.shape:
        raise ValueError(f'act: {key!r} must have shape {space.shape}, got {array.shape}')
    with np.errstate(over='ignore', invalid='ignore'):
        cast = array.astype(space.dtype)
    if fault := nonfinite(cast if space.dtype.kind == 'f' else array):
        raise ValueError(f'act: {key!r} is not finite: {fault}')
    if space.dtype.kind != 'f' and not np.array_equal(cast, array):
        raise ValueError(
            f'act: {key!r} must be {space.dtype}, whole numbers that it can hold, got'
            f' {array.dtype} from {array.min():g} to {array.max():g}'
        )
    return cast


def stored(logdir: Path, machine: Mapping[str, Value]) -> Config:
    """The configuration that the agent of a run acts by, on this machine."""
    config = parse([], configs_dir(Path(__file__).parent), runs.acting(logdir))
    config = config.update({f'machine.{key}': value for key, value in machine.items()})
    return config.update({'agent.tokenizer.lpips': 0.0})  # a loss, and the agent is to act


def restored(
    logdir: Path, config: Config, obs_space: Spaces, act_space: Spaces, seed: int
) -> Agent:
    """The agent of a run for these spaces, with the weights of its newest checkpoint; what it draws
    is by `seed`, and not what the run would have drawn next.
    """
    agent = Agent.from_config(config, obs_space, act_space, derive(seed, 'agent'))
    load_agent(agent, logdir)
    agent.machine.seed(derive(seed, 'agent'))
    return agent


def play(agent: Agent, env: Env, steps: int, mode: str = 'sample') -> Iterator[Values]:
    """Let the agent act, and yield every observation with the action that it answers.

    Args:
      steps: observations, first ones of episodes included. mode: 'sample' or 'mode' (the most
          likely action).
    """
    carry, reset = agent.init_policy(1), True
    action = {
        key: np.zeros(space.shape, space.dtype)
        for key, space in env.act_space.items()
        if key != 'reset'
    }
    for _ in range(steps):
        obs = env.step({**action, 'reset': np.bool_(reset)})
        carry, batch = agent.policy(
            carry, {key: np.asarray(value)[None] for key, value in obs.items()}, mode
        )
        action = {
            key: np.asarray(value[0], env.act_space[key].dtype) for key, value in batch.items()
        }
        reset = obs['is_last']
        yield obs | action
