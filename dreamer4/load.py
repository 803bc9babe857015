"""An agent and its environment from the folder of a run, for those who want to act with it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from embodied import envs
from embodied.base import Env, Values
from embodied.config import Config
from embodied.run import load_agent
from embodied.seeds import derive

from .agent import Agent
from .agent_config import AgentConfig


def load(logdir: str | Path, seed: int = 0) -> tuple[Agent, Env]:
    """The agent of the newest checkpoint of a run, and one environment of its task.

    Args:
      logdir: folder of the run. seed: of the environment.

    Raises:
      ConfigError: the folder holds no config. CheckpointError: it holds no checkpoint, or a damaged
          one.
    """
    config = Config.load(Path(logdir) / 'config.yaml')
    env = envs.make(config.task, config.env.to_dict(), derive(seed, 'env'))
    act_space = {key: space for key, space in env.act_space.items() if key != 'reset'}
    config = config.update(
        {
            # changes no result, and one kernel exists on some machines alone
            'agent.attention': 'auto',
            'agent.tokenizer.lpips': 0.0,
        }
    )  # a loss, and the agent is to act
    agent = Agent(env.obs_space, act_space, config.agent.build(AgentConfig), derive(seed, 'agent'))
    load_agent(agent, Path(logdir))
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
