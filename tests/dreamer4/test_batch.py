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


def test_unlabeled_rows_have_no_action_before_or_after():
    data = rows() | {'unlabeled': np.array([[False, True, False, False, False, False]])}
    b = batch(data)
    assert b.action_valid.tolist() == [[False, False, True, True, True]]
    assert b.prev_valid.tolist() == [[True, False, False, True, True]]


def test_cut_sequences_are_single_images_without_history():
    b = batch().cut(1)
    assert b.is_first.all() and not b.prev_valid.any()


def test_missing_keys_are_named():
    data = rows()
    del data['reward']
    with pytest.raises(KeyError, match='reward'):
        batch(data)
