"""What may be observed: values beyond their box are noted once and kept, what is not finite or no
class is refused.
"""

import re

import numpy as np
import pytest
from gymnasium import spaces

from embodied.base import FLAG, OUTCOME, Env, outcome
from embodied.contract import Guard, beyond, nonfinite
from embodied.errors import EnvContractError, EnvNonFinite
from embodied.wrappers import wrap

SPACES = {
    'state': spaces.Box(-1, 1, (3,), np.float32),
    'free': spaces.Box(-np.inf, np.inf, (2, 2), np.float32),
    'half': spaces.Box(0, np.inf, (), np.float32),
    'count': spaces.Box(0, 9, (2,), np.int32),
    'token': spaces.Discrete(4, dtype=np.int32),
    'log/loss': spaces.Box(-np.inf, np.inf, (), np.float32),
    **OUTCOME,
}


@pytest.mark.parametrize(
    'key, value, words',
    [
        (
            'state',
            np.array([0, 1.0001, 9], np.float32),
            r"'state'.* 1.0001\d* came at \[1\], -1.0 .. 1.0 was declared",
        ),
        ('half', np.float32(-2), r"'half'.* -2.0 came, 0.0 .. inf"),
        ('count', np.array([3, 12], np.int32), r"'count'.* 12 came at \[1\], 0 .. 9"),
    ],
)
def test_a_value_beyond_its_box_is_noted_once_and_goes_on(key, value, words):
    guard = Guard(SPACES, 'Robot')
    for _ in range(3):
        guard(key, value)
    ((topic, note),) = guard.take()
    assert key in topic and re.search(words, note), note
    assert guard.take() == []


@pytest.mark.parametrize('bad, text', [(np.nan, 'nan'), (np.inf, 'inf'), (-np.inf, '-inf')])
@pytest.mark.parametrize(
    'key, index, place',
    [('reward', (), ''), ('free', (1, 0), r' at \[1, 0\]'), ('state', (2,), r' at \[2\]')],
)
def test_what_is_not_finite_is_refused_by_key_and_place(key, index, place, bad, text):
    value = np.zeros(SPACES[key].shape, np.float32)
    value[index] = bad
    with pytest.raises(EnvNonFinite, match=f'{key}.* is not finite: {text}{place}'):
        Guard(SPACES, 'Robot')(key, value[()])


def test_log_keys_may_hold_anything():
    Guard(SPACES, 'Robot')('log/loss', np.float32(np.nan))


def test_a_class_that_the_space_does_not_have_is_a_mistake():
    with pytest.raises(EnvContractError, match=r"'token': expected values in 0 .. 3, got 4"):
        Guard(SPACES, 'Robot')('token', np.int32(4))


def test_words_count_what_they_do_not_name():
    assert nonfinite(np.array([1, np.nan, np.inf, 2])) == 'nan at [1] and 1 more of 4 entries'
    assert (
        nonfinite(np.zeros(3)) is None and beyond(SPACES['state'], np.ones(3, np.float32)) is None
    )


class Told(Env):
    """Observes what it is told."""

    obs_space = {
        'state': spaces.Box(-1, 1, (), np.float64),
        'big': spaces.Box(0, 2**60, (), np.int64),
        **OUTCOME,
    }
    act_space = {'go': spaces.Discrete(2), 'reset': FLAG}

    def __init__(self, *values):
        self.values = list(values)

    def step(self, action):
        state, big, reward = self.values.pop(0)
        return {
            'state': np.float64(state),
            'big': np.int64(big),
            **outcome(reward, is_first=bool(action['reset'])),
        }


def act(reset=False):
    return {'go': np.int32(0), 'reset': np.bool_(reset)}


def test_a_wrapped_env_goes_on_beyond_its_box_and_says_so_once():
    env = wrap(Told((0, 5, 0), (1.5, 2**40, 1), (-7, 2**50, 1)))
    rows = [env.step(act(True)), env.step(act()), env.step(act())]
    assert [float(row['state']) for row in rows] == [0, 1.5, -7]
    assert rows[1]['big'] == rows[2]['big'] == 2**31 - 1
    assert [topic for topic, _ in env.notes()] == [
        'bounds state',
        'saturates big',
    ] and env.notes() == []


@pytest.mark.parametrize(
    'values, words',
    [((np.nan, 0, 0), "'state' is not finite: nan"), ((0, 0, np.inf), 'the reward is not finite')],
)
def test_a_wrapped_env_refuses_what_is_not_finite(values, words):
    with pytest.raises(EnvNonFinite, match=words):
        wrap(Told(values)).step(act(True))


@pytest.mark.parametrize('name', ['a:b', '', 'a//b', '..', 'row_id', 'stepid', 'x\n'])
def test_keys_that_a_row_cannot_have_are_refused_by_name(name):
    class Named(Told):
        obs_space = Told.obs_space | {name: spaces.Discrete(2)}

    with pytest.raises(EnvContractError, match=re.escape(f'{name!r} cannot be a key')):
        wrap(Named())


def test_whole_numbers_are_floats_where_those_are_declared():
    class Whole(Told):
        def step(self, action):
            return {**super().step(action), 'state': 1, 'reward': 3}

    row = wrap(Whole((0, 0, 0))).step(act(True))
    assert row['state'].dtype == row['reward'].dtype == np.float32 and row['reward'] == 3
