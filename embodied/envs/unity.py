"""Unity ML-Agents: unity_<path of a built player>, or unity_editor for the editor that waits for a
connection; one behaviour, of which the first agent is played.
"""

import dataclasses
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError, EnvContractError
from ..extras import require


@dataclasses.dataclass(frozen=True)
class UnityConfig:
    """What can be set.

    Attributes:
      base_port: first network port; every env takes its own, base_port + worker.
      timeout: seconds to wait for the player.
      graphics: whether the player opens a window; cameras need it.
    """

    base_port: int
    timeout: int
    graphics: bool


def check(name: str, config: UnityConfig) -> None:
    """Refuse what make() would refuse, without starting a player.

    Raises:
      ConfigError: a value out of range. EnvMissing: the package mlagents-envs is not installed.
    """
    if config.base_port < 1 or config.timeout < 1:
        raise ConfigError('env.unity: base_port and timeout must be at least 1.')
    require('mlagents_envs', 'unity')


def make(name: str, config: UnityConfig, seed: int) -> Env:
    """The task unity_<name>; raises as check()."""
    check(name, config)
    from mlagents_envs.environment import UnityEnvironment

    player = UnityEnvironment(
        file_name=None if name == 'editor' else name,
        worker_id=seed % 1000,  # of the port
        base_port=config.base_port,
        seed=seed % 2**31,
        timeout_wait=config.timeout,
        no_graphics=not config.graphics,
    )
    return Unity(player, action_tuple())


def action_tuple() -> type:
    """The class in which a player takes actions."""
    from mlagents_envs.base_env import ActionTuple

    return ActionTuple


class Unity(Env):
    """The first agent of a behaviour. Observations of rank three are images, all else vectors; an
    action has a continuous part, a discrete part, or both.
    """

    def __init__(self, player: Any, action: type):
        self._player, self._action, self._done, self._agent = player, action, True, None
        player.reset()
        if not len(player.behavior_specs):
            raise EnvContractError('the Unity player has no behaviour that asks for decisions.')
        self._name = next(iter(player.behavior_specs))
        spec = player.behavior_specs[self._name]
        self._images = [len(one.shape) == 3 for one in spec.observation_specs]
        self.obs_space = dict(OUTCOME)
        for number, one in enumerate(spec.observation_specs):
            shape = tuple(one.shape)
            if self._images[number]:
                # channels come first
                space = spaces.Box(0, 255, (*shape[1:], shape[0]), np.uint8)
            else:
                space = spaces.Box(-np.inf, np.inf, shape, np.float32)
            self.obs_space[f'obs_{number}'] = space
        self.act_space = {'reset': FLAG}
        if spec.action_spec.continuous_size:
            size = (spec.action_spec.continuous_size,)
            self.act_space['continuous'] = spaces.Box(-1, 1, size, np.float32)
        if spec.action_spec.discrete_size:
            self.act_space['discrete'] = spaces.MultiDiscrete(spec.action_spec.discrete_branches)

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            self._player.reset()
            self._done = False
            decision, _ = self._player.get_steps(self._name)
            self._agent = int(decision.agent_id[0])
            return self._observe(decision, outcome(is_first=True))
        parts = {
            key: np.asarray(action[key], kind)[None]
            for key, kind in (('continuous', np.float32), ('discrete', np.int32))
            if key in self.act_space
        }
        self._player.set_action_for_agent(self._name, self._agent, self._action(**parts))
        while True:  # the agent need not decide in every step of the simulation
            self._player.step()
            decision, terminal = self._player.get_steps(self._name)
            if self._agent in terminal:
                self._done = True
                cut = bool(terminal[self._agent].interrupted)
                reward = terminal[self._agent].reward
                return self._observe(terminal, outcome(reward, is_last=True, is_terminal=not cut))
            if self._agent in decision:
                return self._observe(decision, outcome(decision[self._agent].reward))

    def _observe(self, steps: Any, result: Values) -> Values:
        row = {}
        for number, value in enumerate(steps[self._agent].obs):
            value = np.asarray(value)
            if self._images[number]:  # floats in 0 .. 1
                value = np.rint(np.clip(value.transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)
            row[f'obs_{number}'] = np.array(value, self.obs_space[f'obs_{number}'].dtype)
        return row | result

    def close(self) -> None:
        self._player.close()
