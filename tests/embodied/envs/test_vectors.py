"""Vectorised envs as the envs of one worker: every row is that of the env stepped alone, whatever
their mode of beginning anew.
"""

import contextlib
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from embodied import envs
from embodied.base import RandomAgent
from embodied.config import parse
from embodied.drive import Driver, DriverConfig
from embodied.envs.gymnasium import from_gymnasium
from embodied.envs.vectors import Lane, Lanes
from embodied.errors import ConfigError, EnvError
from embodied.together import NotYet, shared, together
from embodied.wrappers import wrap

CONFIG = parse([], Path(__file__).parents[3] / 'configs').env.to_dict()
VECTOR = CONFIG | {'gym': CONFIG['gym'] | {'vector': True}}
LOCAL = DriverConfig(False, False, 600, 600, 0, 2, 3600)


class Counting(gymnasium.Env):
    """Observes how often it was stepped in this episode, in episodes of `length` steps that end in
    a terminal state, and how many episodes there were.
    """

    observation_space = gymnasium.spaces.Box(-1e6, 1e6, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, length):
        self.length, self.episode = length, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.episode + 1
        return self.observed(), {}

    def step(self, action):
        self.count += 1
        return self.observed(), float(action), self.count >= self.length, False, {}

    def observed(self):
        return np.array([self.count, self.episode], np.float32)


def lanes(mode, lengths=(2, 3, 5)):
    """Envs that are lanes of one, made as in a worker."""
    make = lambda count: SyncVectorEnv(
        [lambda n=n: Counting(n) for n in lengths[:count]], autoreset_mode=mode
    )
    with together():
        return [
            wrap(from_gymnasium(Lane(shared('counting', lambda: Lanes(make, 'counting')))))
            for _ in lengths
        ]


def stepped(made, actions, resets):
    """A row of every env, as a group of them asks."""
    rows, left = {}, list(range(len(made)))
    while left:
        number = left.pop(0)
        try:
            rows[number] = made[number].step(
                {'action': np.int32(actions[number]), 'reset': np.bool_(resets[number])}
            )
        except NotYet:
            left.append(number)
    return [rows[number] for number in range(len(made))]


@pytest.mark.parametrize('mode', list(AutoresetMode))
def test_no_observation_is_lost_in_any_mode(mode):
    made, rows, last = lanes(mode), [], [True] * 3
    for _ in range(18):
        rows.append(stepped(made, [1, 2, 0], last))
        last = [bool(row['is_last']) for row in rows[-1]]
    begins = 0 if mode is AutoresetMode.NEXT_STEP else 1  # an action of zeros comes first
    for lane, length in enumerate((2, 3, 5)):
        own, episode = [row[lane] for row in rows], 0
        for number, row in enumerate(own):
            count, found = row['state'].tolist()
            first = number == 0 or own[number - 1]['is_last']
            assert row['is_first'] == first and (not first or row['reward'] == 0)
            episode += bool(first and number)
            if first:
                assert count == (begins if number else 0)
            else:
                assert count == own[number - 1]['state'][0] + 1
                assert row['reward'] == (1, 2, 0)[lane]
            assert found == episode and row['is_last'] == row['is_terminal'] == (count == length)
        assert episode >= 2
    told = {topic for env in made for topic, _ in env.notes()}
    assert ('zero action' in told) == bool(begins)


def test_one_lane_begins_anew_in_the_middle_of_its_episode():
    made = lanes(AutoresetMode.NEXT_STEP)
    stepped(made, [0] * 3, [True] * 3)
    stepped(made, [0] * 3, [False] * 3)
    rows = stepped(made, [0] * 3, [False, False, True])
    assert rows[2]['is_first'] and rows[2]['state'].tolist() == [1, 1]
    assert not rows[1]['is_first'] and rows[1]['state'].tolist() == [2, 0]


def driven(config, task='gym_CartPole-v1', steps=120, num=4):
    """Rows by env of the task in a driver that acts at random."""
    makers = [envs.Maker(task, config, seed) for seed in range(num)]
    rows = [[] for _ in makers]
    with contextlib.closing(Driver(makers, LOCAL)) as driver:
        agent = RandomAgent(driver.act_space, 0)
        driver.on_row(lambda row, index: rows[index].append(row))
        driver.reset(agent.init_policy)
        driver(agent.policy, steps=steps * num)
        groups = driver.groups
    return rows, groups


def test_cartpole_that_is_vectorised_by_itself_is_one_worker():
    rows, groups = driven(VECTOR)
    assert groups == [[0, 1, 2, 3]]
    for own in rows:
        firsts = [number for number, row in enumerate(own) if row['is_first']]
        assert len(firsts) > 2
        for before, row in zip(own, own[1:]):
            assert row['is_first'] == before['is_last']
            x, speed = before['state'][:2]
            if not row['is_first']:  # the same physics: Euler steps of 0.02 s
                assert row['state'][0] == pytest.approx(x + 0.02 * speed, abs=1e-5)
                assert row['reward'] == 1
        assert all(abs(own[number]['state']).max() <= 0.05 for number in firsts)
        ends = [row for row in own if row['is_last']]
        assert all(abs(row['state'][2]) > 0.2 or abs(row['state'][0]) > 2.4 for row in ends)


def test_lanes_of_a_vectorised_env_equal_envs_alone():
    """Pendulum has no vectorised form of its own, so that SyncVectorEnv steps it."""
    alone, _ = driven(CONFIG, 'gym_Pendulum-v1', steps=30, num=3)
    lanes_, _ = driven(VECTOR, 'gym_Pendulum-v1', steps=30, num=3)
    for one, other in zip(alone, lanes_):
        for row, copy in zip(one, other, strict=True):
            assert all(np.array_equal(row[key], copy[key]) for key in row)


def test_what_a_vectorised_env_cannot_do_is_said():
    config = CONFIG | {'gym': CONFIG['gym'] | {'vector': True, 'repeat': 2}}
    with pytest.raises(ConfigError, match='repeat must be 1'):
        envs.make('gym_CartPole-v1', config, 0)
    with together():
        made = [envs.make('gym_CartPole-v1', VECTOR, seed) for seed in range(2)]
    stepped(made, [0, 0], [True, True])
    stepped(made, [0, 0], [False, False])
    with pytest.raises(EnvError, match=r'CartPoleVectorEnv cannot begin anew.*env.gym.vector'):
        stepped(made, [0, 0], [True, False])
