"""The one time shift, on an episode worked by hand."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer4.actions import Actions
from dreamer4.batch import Roles, make_batch

ACTIONS = Actions({'action': spaces.Discrete(10)}, 'bins', 5, 0.0)


def rows():
    """Two episodes of one worker. Row t: action chosen after seeing obs t; reward for the action
    before.
    """
    return {
        'image': np.arange(6, dtype=np.uint8).reshape(1, 6, 1, 1, 1),
        # zero where the episode ended, never executed
        'action': np.array([[7, 5, 0, 3, 4, 6]], np.int32),
        'reward': np.array([[0, 70, 50, 0, 30, 40]], np.float32),
        'is_first': np.array([[True, False, False, True, False, False]]),
        'is_last': np.array([[False, False, True, False, False, False]]),
        'is_terminal': np.array([[False, False, True, False, False, False]]),
    }


def batch(data=None):
    return make_batch(rows() if data is None else data, ['image'], ACTIONS, torch.device('cpu'))


def test_a_frame_carries_the_action_that_led_to_it_and_the_reward_it_earned():
    b = batch()
    assert b.shape == (1, 5)
    assert b.obs['image'].flatten().tolist() == [1, 2, 3, 4, 5]
    assert b.prev_valid.tolist() == [[True, True, False, True, True]]
    assert b.prev_action[b.prev_valid].flatten().tolist() == [7, 5, 3, 4]
    earned = b.reward[b.prev_valid] / 10
    assert earned.tolist() == b.prev_action[b.prev_valid].flatten().tolist(), (
        'reward 10 a belongs to the frame that action a led to'
    )


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
    actions = Actions(
        {'arm': spaces.Box(-1, 1, (2,), np.float32), 'gear': spaces.Discrete(3)}, 'bins', 5, 0.0
    )
    unknown = np.array([[False, True, False, True, True, False]])
    data = rows() | {
        'arm': np.zeros((1, 6, 2), np.float32),
        'gear': np.ones((1, 6), np.int32),
        'unlabeled': unknown,
    }
    clean = make_batch(data, ['image'], actions, torch.device('cpu'))
    data['arm'][unknown], data['gear'][unknown], data['reward'][unknown] = filler, 10**6, filler
    dirty = make_batch(data, ['image'], actions, torch.device('cpu'))
    for key, value in dirty.flat().items():
        assert value.isfinite().all(), key
    assert torch.isfinite(actions.embed(dirty.prev_action)).all()
    for mask, name in (
        ('prev_valid', 'prev_action'),
        ('action_valid', 'action'),
        ('reward_valid', 'reward'),
    ):
        where = getattr(clean, mask)
        assert torch.equal(getattr(clean, name)[where], getattr(dirty, name)[where])


def test_cut_sequences_are_single_images_without_history():
    three = batch().at(torch.tensor([0, 0, 0]))
    b = three.cut(1, 2)
    assert (
        b.is_first[1].all()
        and not b.prev_valid[1].any()
        and b.single.tolist() == [False, True, False]
    )
    for row in (0, 2):
        assert torch.equal(b.is_first[row], three.is_first[row]) and torch.equal(
            b.prev_valid[row], three.prev_valid[row]
        )


def test_what_stands_behind_a_place_carries_the_actions_that_lead_on_from_it():
    came = batch().after(torch.tensor([0, 0]), torch.tensor([0, 2]), 2)
    # frames 0 to 4 are rows 1 to 5
    assert came.reward.tolist() == [[50, 0], [30, 40]]
    assert ACTIONS.decode(came.prev_action)['action'].tolist() == [[5, 0], [3, 4]]
    assert came.prev_valid.tolist() == [[True, False], [True, True]]
    assert came.is_first.tolist() == [[False, True], [False, False]]
    assert not came.obs, 'nobody reads what is shown there'


def test_a_shuffled_batch_has_the_same_sequences_in_another_order():
    data = {
        key: np.concatenate([value + (value.dtype == np.float32) * i for i in range(20)])
        for key, value in rows().items()
    }
    before, after = batch(data), batch(data).shuffled()
    order = after.reward[:, 0].long() - 70
    assert sorted(order.tolist()) == list(range(20)) and order.tolist() != list(range(20))
    for key, value in before.flat().items():
        assert torch.equal(value[order], after.flat()[key]), key


def drawn(rows, large, single, count=4000):
    """For each of many draws, bool (count, rows): which sequences train large steps, and which
    are single images.
    """
    found = [Roles.draw(rows, large, single, np.random.default_rng(i)) for i in range(count)]
    place = np.arange(rows)
    return np.array([place < r.large for r in found]), np.array(
        [(place >= r.single[0]) & (place < r.single[1]) for r in found]
    )


@pytest.mark.parametrize(
    'rows, large, single',
    [
        (16, 0.25, 0.3),
        (16, 0.25, 0.25),
        (16, 0.25, 0.9),
        (16, 0.75, 0.5),
        (4, 0.25, 0.5),
        (8, 0.1, 0.3),
        (5, 0.5, 0.4),
        (3, 0.9, 0.34),
        (2, 0.5, 0.3),  # what each of eight ranks has of 16 sequences
    ],
)
def test_every_role_takes_its_share_of_the_other(rows, large, single):
    steps, images = drawn(rows, large, single)
    assert abs(images.mean() - single) < 0.01 and abs(steps.mean() - large) < 0.01
    assert abs(images.sum(1) - single * rows).max() < 1
    assert abs((steps & images).mean() - large * single) < 0.015
    assert abs((steps & ~images).mean() - large * (1 - single)) < 0.015


@pytest.mark.parametrize('rows', [1, 2, 7])
@pytest.mark.parametrize('large', [0.0, 0.3, 0.75])
def test_shares_hold_in_batches_of_few_long_sequences_and_one_always_has_a_past(rows, large):
    steps, images = drawn(rows, large, 0.99)
    assert abs(steps.mean() - large) < 0.02 and not images.all(1).any()
    assert images.sum() == (rows - 1) * len(images)


def test_there_are_roles_without_shares():
    steps, images = drawn(4, 0.0, 0.0, 10)
    assert not steps.any() and not images.any()


def test_missing_keys_are_named():
    data = rows()
    del data['reward']
    with pytest.raises(KeyError, match='reward'):
        batch(data)


def test_what_is_not_finite_is_named_by_key_sequence_and_frames():
    b = batch()
    b.reward[0, 3] = float('nan')
    b.obs['speed'] = torch.zeros(1, 5, 2)
    b.obs['speed'][0, 1:3, 1] = float('inf')
    words = b.blame()
    assert (
        'reward in sequence 0, frames 3' in words
        and 'obs/speed in sequence 0, frames 1, 2' in words
        and 'action' not in words
    )


def test_where_all_is_finite_the_largest_value_is_named():
    b = batch()
    b.reward[0, 2] = -3e20
    assert 'All values of the batch are finite; the largest is 3e+20 in reward' in b.blame()
