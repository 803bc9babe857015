"""envpool as lanes of one worker, with a stand-in that behaves as envpool 1.2.5 was seen to: it
begins anew in the next step, and is no VectorEnv.
"""

import sys
import types

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from test_vectors import CONFIG, VECTOR, driven

from embodied import envs
from embodied.errors import ConfigError

LENGTH = 4


class Standin:
    """Shows, channels first, how often an env was stepped in its episode; every step pays 1."""

    observation_space = gymnasium.spaces.Box(0, 255, (3, 8, 6), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)
    metadata = {'autoreset_mode': AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs, seed=0):
        self.num, self.seed, self.done = num_envs, seed, np.zeros(num_envs, bool)

    def reset(self):
        self.count, self.done = np.zeros(self.num, int), np.zeros(self.num, bool)
        return self.seen(), {}

    def step(self, actions):
        assert actions.dtype == np.int32 and actions.shape == (self.num,)
        reward = np.where(self.done, 0, 1).astype(np.float32)
        self.count = np.where(self.done, 0, self.count + 1)
        self.done = self.count == LENGTH
        return self.seen(), reward, self.done, np.zeros(self.num, bool), {'elapsed_step': 1}

    def seen(self):
        frames = np.zeros((self.num, 3, 8, 6), np.uint8)
        frames[:, 0] = self.count[:, None, None]
        frames[:, 1] = self.seed % 251
        return frames

    def close(self):
        pass


@pytest.fixture
def pool(monkeypatch):
    made = []
    module = types.ModuleType('envpool')
    module.list_all_envs = lambda: ['Count-v0', 'Pong-v5']
    module.make_gymnasium = lambda name, num_envs, **more: (
        made.append((name, num_envs, more)) or Standin(num_envs, **more)
    )
    monkeypatch.setitem(sys.modules, 'envpool', module)
    return made


def test_rows_of_a_pool_are_those_of_envs_stepped_alone(pool):
    rows, groups = driven(VECTOR, 'gym_envpool:Count-v0', steps=23, num=3)
    assert groups == [[0, 1, 2]] and ('Count-v0', 3, {}) in pool
    for own in rows:
        counts = [int(row['image'][0, 0, 0]) for row in own]
        assert own[0]['image'].shape == (8, 6, 3), 'channels last'
        assert counts[:7] == [0, 1, 2, 3, 4, 0, 1], 'no observation is lost, none is shown twice'
        assert [row['is_first'] for row in own] == [count == 0 for count in counts]
        assert [row['is_terminal'] for row in own] == [count == LENGTH for count in counts]
        assert [row['reward'] for row in own] == [float(count > 0) for count in counts]


def test_a_pool_is_seeded_where_it_is_made(pool):
    seen = [
        driven(VECTOR, 'gym_envpool:Count-v0', steps=1, num=2)[0][0][0]['image'][0, 0, 1]
        for _ in range(2)
    ]
    seeds = [more['seed'] for _, _, more in pool if more]
    assert len(seeds) == 2 and seeds[0] == seeds[1] and seen[0] == seen[1] == seeds[0] % 251


def test_what_a_pool_cannot_be_is_said(pool):
    with pytest.raises(ConfigError, match='--env.gym.vector true'):
        envs.make('gym_envpool:Count-v0', CONFIG, 0)
    with pytest.raises(ConfigError, match="envpool has no 'Count-v9'.*Count-v0"):
        envs.make('gym_envpool:Count-v9', VECTOR, 0)
