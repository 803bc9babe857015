"""The one time shift, on an episode worked by hand."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer4.actions import Actions
from dreamer4.batch import make_batch

ACTIONS = Actions({'action': spaces.Discrete(10)}, 'bins', 5, 0.0)


def rows():
    """Two episodes of one worker. Row t: action chosen after seeing obs t; reward for the action before."""
    return {
            'image':       np.arange(6, dtype=np.uint8).reshape(1, 6, 1, 1, 1),
            'action':      np.array([[7, 5, 0, 3, 4, 6]], np.int32),  # zero where the episode ended, never executed
            'reward':      np.array([[0, 70, 50, 0, 30, 40]], np.float32),
            'is_first':    np.array([[True, False, False, True, False, False]]),
            'is_last':     np.array([[False, False, True, False, False, False]]),
            'is_terminal': np.array([[False, False, True, False, False, False]])}


def batch(data=None):
    return make_batch(rows() if data is None else data, ['image'], ACTIONS, torch.device('cpu'))


def test_a_frame_carries_the_action_that_led_to_it_and_the_reward_it_earned():
    b = batch()
    assert b.shape == (1, 5)
    assert b.obs['image'].flatten().tolist() == [1, 2, 3, 4, 5]
    assert b.prev_valid.tolist() == [[True, True, False, True, True]]
    assert b.prev_action[b.prev_valid].flatten().tolist() == [7, 5, 3, 4]
    earned = b.reward[b.prev_valid] / 10
    assert earned.tolist() == b.prev_action[b.prev_valid].flatten().tolist(), 'reward 10 a belongs to the frame that action a led to'


def test_the_policy_target_is_the_action_chosen_at_the_frame_and_none_at_the_end():
    b = batch()
    assert b.action_valid.tolist() == [[True, False, True, True, True]]
    assert b.action[b.action_valid].flatten().tolist() == [5, 3, 4, 6]


@pytest.mark.parametrize('flag', ['unlabeled', 'unlabeled_action'])
def test_rows_with_unknown_actions_have_no_action_before_or_after(flag):
    data = rows() | {flag: np.array([[False, True, False, False, False, False]])}
    b = batch(data)
    assert b.action_valid.tolist() == [[False, False, True, True, True]]
    assert b.prev_valid.tolist() == [[True, False, False, True, True]]
    assert b.reward_valid.tolist() == [[flag == 'unlabeled_action'] + [True] * 4]


@pytest.mark.parametrize('flag', ['unlabeled', 'unlabeled_reward'])
def test_rows_with_unknown_rewards_have_neither_reward_nor_end(flag):
    data = rows() | {flag: np.array([[False, False, True, False, True, False]])}
    b = batch(data)
    assert b.reward_valid.tolist() == [[True, False, True, False, True]]
    assert b.reward.tolist() == [[70, 0, 0, 0, 40]] and not b.is_terminal.any()
    assert b.is_last[0, 1], 'where an episode ends is known'
    assert b.action_valid.tolist() == [[True, False, True, flag == 'unlabeled_reward', True]]


def test_flags_of_both_kinds_add_up():
    none = np.zeros((1, 6), bool)
    data = rows() | {'unlabeled': none, 'unlabeled_action': ~none, 'unlabeled_reward': none}
    b = batch(data)
    assert not b.action_valid.any() and not b.prev_valid.any() and b.reward_valid.all()


@pytest.mark.parametrize('filler', [np.nan, np.inf, 1e9])
def test_what_stands_in_for_unknown_values_never_reaches_the_batch(filler):
    """A filler may be no action of the space, whose table it must not index."""
    actions = Actions({'arm': spaces.Box(-1, 1, (2,), np.float32), 'gear': spaces.Discrete(3)}, 'bins', 5, 0.0)
    unknown = np.array([[False, True, False, True, True, False]])
    data = rows() | {'arm': np.zeros((1, 6, 2), np.float32), 'gear': np.ones((1, 6), np.int32), 'unlabeled': unknown}
    clean = make_batch(data, ['image'], actions, torch.device('cpu'))
    data['arm'][unknown], data['gear'][unknown], data['reward'][unknown] = filler, 10 ** 6, filler
    dirty = make_batch(data, ['image'], actions, torch.device('cpu'))
    for key, value in dirty.flat().items():
        assert value.isfinite().all(), key
    assert torch.isfinite(actions.embed(dirty.prev_action)).all()
    for mask, name in (('prev_valid', 'prev_action'), ('action_valid', 'action'), ('reward_valid', 'reward')):
        where = getattr(clean, mask)
        assert torch.equal(getattr(clean, name)[where], getattr(dirty, name)[where])


def test_cut_sequences_are_single_images_without_history():
    b = batch().cut(1)
    assert b.is_first.all() and not b.prev_valid.any()


def test_missing_keys_are_named():
    data = rows()
    del data['reward']
    with pytest.raises(KeyError, match='reward'):
        batch(data)
