"""An agent and its environment from the folder of a run, for those who want to act with it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embodied import envs
from embodied.base import Env, Values
from embodied.config import Value, configs_dir, parse
from embodied.run import load_agent
from embodied.seeds import derive

from . import runs
from .agent import Agent
from .agent_config import AgentConfig
from .machine import MachineConfig


def load(
    logdir: str | Path, seed: int = 0, task: str = '', trust: bool = False, **machine: Value
) -> tuple[Agent, Env]:
    """The agent of the newest checkpoint of a run, and one environment of its task.

    The process stays as it is: its torch threads, precision and random numbers are left alone.

    Args:
      logdir: folder of the run. seed: of the environment.
      task: the run's own if not given. A run whose task names a module, as in
          gym_minigrid:MiniGrid-Empty-5x5-v0, needs it, or trust.
      trust: import the module that the run names, where it is an installed package.
      machine: keys of the block `machine`, such as device='cpu'; those of the run do not matter.

    Raises:
      ConfigError: the folder holds no config, or its task names a module that nobody vouches for.
      CheckpointError: it holds no checkpoint, or a damaged one.
    """
    logdir = Path(logdir).expanduser()
    config = parse([], configs_dir(Path(__file__).parent), runs.acting(logdir))
    config = config.update({f'machine.{key}': value for key, value in machine.items()})
    config = config.update({'agent.tokenizer.lpips': 0.0})  # a loss, and the agent is to act
    if not task:
        envs.check_stored(config.task, trust, logdir)
    env = envs.make(task or config.task, config.env.to_dict(), derive(seed, 'env'))
    agent = Agent(
        env.obs_space,
        {key: space for key, space in env.act_space.items() if key != 'reset'},
        config.agent.build(AgentConfig),
        config.machine.build(MachineConfig),
        derive(seed, 'agent'),
    )
    load_agent(agent, logdir)
    return agent, env


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
