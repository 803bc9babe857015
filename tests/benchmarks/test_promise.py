"""What dreams of a policy promise, beside what a physics pays."""

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from benchmarks import promise
from embodied.errors import ConfigError
from embodied.wrappers import ActionRepeat


class Track:
    """An env whose physics pays the action; `state` counts what was stepped."""

    obs_space, repeat = {}, 1
    act_space = {'action': spaces.Box(-1, 1, (1,), np.float32), 'reset': spaces.Discrete(2)}

    def __init__(self):
        self._env, self.at, self.resets = SimpleNamespace(physics=self), 0, 0

    def step(self, action):
        self.resets += bool(action['reset'])
        self.at += 1
        last = self.at % 12 == 0
        return {'is_first': np.bool_(action['reset']), 'is_last': np.bool_(last), 'reward': 0.0}

    # as a Simulator
    def state(self):
        self.told = self.at
        return np.array([self.at])

    def rollout(self, states, actions):
        assert (states == self.told).all(), 'dreams begin where the env stands'
        self.at = -1
        return actions[..., 0]

    def go_to(self, state):
        self.at = state[0]


class Believer:
    """A dream that promises 1 more than is paid for what the policy does, which is the same for all
    dreams of a start.
    """

    act_space = {'action': Track.act_space['action']}

    def __init__(self):
        self.count = 0

    def begin(self, rows):
        assert rows['is_first'].shape == (1, 1)
        return Seen(1)

    def see(self, moment, action, obs):
        return Seen(1)

    def act(self, moment):
        self.count += 1
        return {'action': np.full((len(moment), 1), 0.001 * self.count, np.float32)}

    def step(self, moment, action):
        return Seen(len(moment), action['action'][:, 0] + (0 if np.ptp(action['action']) else 1))


class Seen:
    def __init__(self, count, reward=0.0):
        self.count, self.reward = count, np.broadcast_to(reward, count)

    def __len__(self):
        return self.count

    def take(self, index):
        return Seen(len(index))


def test_dreams_and_physics_do_the_same_from_where_the_policy_was(monkeypatch):
    env = Track()
    monkeypatch.setattr(promise, 'simulator_of', lambda env: env)
    found = promise.compare(Believer(), env, starts=5, tries=3, horizon=4)
    promised, paid = found['policy']
    assert promised.shape == paid.shape == (5, 3, 4)
    assert np.allclose(promised, paid + 1), 'the policy was believed'
    promised, paid = found['random']
    assert np.allclose(promised, paid) and (np.ptp(paid, 2) == 0).all(), 'one action is held'
    assert env.at == 5 * promise.APART, 'the env went on from where it stood'
    assert env.resets == 4, 'episodes of 12 rows'
    text = promise.report(found)
    assert '| random | 3 | 1.00 | 1.00 |' in text and '| policy | 8 |' not in text


def test_agreement_within_starts_knows_nothing_of_what_lies_between_them():
    paid = np.array([[0.0, 1.0], [10.0, 11.0]])
    within, between = promise.agreement(np.array([[1.0, 0.0], [11.0, 10.0]]), paid)
    assert within == pytest.approx(-1) and between == pytest.approx(1)
    assert np.isnan(promise.agreement(np.ones((2, 2)), paid)[0])


def test_the_repeat_of_all_wrappers_is_that_of_the_physics(monkeypatch):
    monkeypatch.setattr(promise, 'Simulator', lambda inner, repeat: (inner, repeat))
    env = Track()
    assert promise.simulator_of(ActionRepeat(ActionRepeat(env, 2), 3)) == (env._env, 6)


def test_what_has_no_physics_is_refused_by_name():
    env = Track()
    env._env = None
    with pytest.raises(ConfigError, match='expected a run on dm_control, got one on Track'):
        promise.simulator_of(env)
