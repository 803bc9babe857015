"""Conventions of time: the same three decisions, stored in every way, become the same rows."""

import numpy as np
import pytest

from embodied.convert import Episode
from embodied.errors import ReplayError

# three decisions: a0 a1 a2 earn 1 2 3; the last one ends the episode
ACTIONS = np.float32([[10], [11], [12]])
EARNED = np.float32([1, 2, 3])


def frames(count):
    return ({'count': np.int32(index)} for index in range(count))


def table(episode):
    rows = list(episode.rows())
    column = lambda key: [np.asarray(row[key]).item() for row in rows]
    keys = ('count', 'action', 'reward', 'is_first', 'is_last', 'is_terminal')
    return {key: column(key) for key in keys if key in rows[0]}


WANTED = {
    'count': [0, 1, 2, 3],
    'action': [10, 11, 12, 0],
    'reward': [0, 1, 2, 3],
    'is_first': [True, False, False, False],
    'is_last': [False, False, False, True],
    'is_terminal': [False, False, False, True],
}
NAN = np.float32([[np.nan]])


@pytest.mark.parametrize(
    'stored',
    [
        {'actions': ACTIONS, 'rewards': EARNED},
        {'actions': ACTIONS, 'rewards': np.float32([0, *EARNED]), 'came': True},
        {'actions': np.concatenate([NAN, ACTIONS]), 'led': True, 'rewards': EARNED},
        {
            'actions': np.concatenate([NAN, ACTIONS]),
            'led': True,
            'rewards': np.float32([np.nan, *EARNED]),
            'came': True,
        },
        {
            'actions': np.concatenate([ACTIONS, [[99]]]),
            'idle': True,
            'rewards': np.float32([0, *EARNED]),
            'came': True,
        },
        {
            'actions': np.concatenate([ACTIONS, [[99]]]),
            'idle': True,
            'rewards': np.float32([*EARNED, 0]),
        },
    ],
    ids=['earned', 'came', 'led-earned', 'led-came', 'idle-came', 'idle-earned'],
)
def test_every_convention_becomes_the_row_table(stored):
    actions = {'action': stored.pop('actions')}
    assert table(Episode(frames(4), actions, terminal=True, **stored)) == WANTED


def test_an_action_without_a_frame_that_it_led_to_is_left_out():
    episode = Episode(frames(3), {'action': ACTIONS}, rewards=EARNED)
    assert table(episode) == {
        'count': [0, 1, 2],
        'action': [10, 11, 0],
        'reward': [0, 1, 2],
        'is_first': [True, False, False],
        'is_last': [False, False, True],
        'is_terminal': [False, False, False],
    }


@pytest.mark.parametrize('rewards, terminal', [([1, 2, 3], True), ([0, 0, 1], False)])
def test_but_the_end_and_a_single_reward_stay_and_the_last_frame_stands_twice(rewards, terminal):
    episode = Episode(
        frames(3), {'action': ACTIONS}, rewards=np.float32(rewards), terminal=terminal
    )
    found = table(episode)
    assert found['count'] == [0, 1, 2, 2] and found['action'] == [10, 11, 12, 0]
    assert found['reward'] == [0, *rewards] and found['is_terminal'][-1] is terminal


def test_a_reward_at_an_idle_last_row_is_not_lost():
    actions = {'action': np.concatenate([ACTIONS, [[99]]])}
    rewards = np.float32([0, 0, 0, 1])
    assert table(Episode(frames(4), actions, rewards=rewards, idle=True))['reward'] == [0, 0, 0, 1]


def test_rows_say_that_nobody_recorded_rewards():
    rows = list(Episode(frames(4), {'action': ACTIONS}).rows())
    assert all(row['unlabeled_reward'] and row['reward'] == 0 for row in rows)
    assert 'reward' not in next(Episode(frames(4)).rows()), 'nor actions: plain video'


@pytest.mark.parametrize(
    'count, stored, words',
    [
        (5, {'rewards': EARNED}, "5 frames need 4 or 5 actions 'action', there are 3"),
        (3, {'led': True, 'rewards': np.ones(4)}, 'need 2 or 3 rewards, there are 4'),
        (4, {'led': True}, "4 frames need 4 actions 'action', there are 3"),
        (0, {}, 'holds no frame'),
        (1, {}, 'holds one frame'),
    ],
)
def test_counts_that_do_not_fit_are_refused(count, stored, words):
    with pytest.raises(ReplayError, match=words):
        list(Episode(frames(count), {'action': ACTIONS}, **stored).rows())
