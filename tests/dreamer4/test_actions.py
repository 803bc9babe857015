"""The action codec: every kind of space, there and back, and its distribution."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer4.actions import CONTINUOUS, MOST, Actions

EVERY_KIND = {
    'arm': spaces.Box(-1, 1, (2,), np.float32),
    'buttons': spaces.MultiBinary(3),
    'gear': spaces.Discrete(4),
    'keys': spaces.MultiDiscrete([2, 5]),
}


def codec(continuous='bins', space=EVERY_KIND):
    return Actions(space, continuous, bins=5, unimix=0.01)


@pytest.mark.parametrize('continuous', CONTINUOUS)
def test_decode_inverts_encode_for_every_kind_at_once(continuous):
    actions = codec(continuous)
    action = {
        'arm': torch.tensor([[[-1.0, 0.5]]]),
        'buttons': torch.tensor([[[True, False, True]]]),
        'gear': torch.tensor([[3]]),
        'keys': torch.tensor([[[1, 4]]]),
    }
    code = actions.encode(action)
    assert code.shape == (1, 1, actions.code_size)
    back = actions.decode(code)
    for key, value in action.items():
        assert torch.equal(back[key].float(), value.float()), key


@pytest.mark.parametrize('continuous', CONTINUOUS)
def test_decoded_actions_lie_in_their_spaces_with_their_dtypes(continuous):
    actions = codec(continuous)
    policy = actions.policy(torch.zeros(20, actions.outputs))
    for code in torch.cat([actions.uniform(20), policy.sample(), policy.mode()]):
        for key, value in actions.decode(code).items():
            space = EVERY_KIND[key]
            assert space.contains(value.numpy().astype(space.dtype)), (key, value)


def test_continuous_values_go_to_the_nearest_bin():
    actions = codec(space={'arm': spaces.Box(-1, 1, (4,), np.float32)})
    code = actions.encode({'arm': torch.tensor([-0.8, -0.7, 0.1, 3.0])})
    assert actions.decode(code)['arm'].tolist() == [-1.0, -0.5, 0.0, 1.0]


@pytest.mark.parametrize('continuous', CONTINUOUS)
def test_a_code_stands_for_the_action_that_is_executed_and_stored(continuous):
    """What the dream and the acting window embed is what the replay will hold, also of draws far
    beyond the bounds.
    """
    torch.manual_seed(0)
    actions = codec(continuous)
    policy = actions.policy(3 * torch.randn(512, actions.outputs))
    codes = torch.cat([actions.uniform(64), policy.sample(), policy.mode()])
    stored = actions.encode(actions.decode(codes))
    assert torch.equal(codes, stored)
    beyond = codes.clone()
    beyond[:, actions.parts :] *= 9
    stored = actions.encode(actions.decode(beyond))
    assert torch.equal(actions.embed(beyond), actions.embed(stored))
    assert (beyond[:, actions.parts :].abs() > 1).any() == (continuous != 'bins')
    other = actions.policy(torch.randn(len(codes), actions.outputs))
    assert torch.equal(other.log_prob(beyond), other.log_prob(stored))


def test_stored_actions_beyond_a_box_are_its_bounds():
    for continuous in CONTINUOUS:
        actions = codec(continuous, {'arm': spaces.Box(-1, 1, (2,), np.float32)})
        code = actions.encode({'arm': torch.tensor([-7.0, 1.25])})
        assert actions.decode(code)['arm'].tolist() == [-1.0, 1.0]
        assert torch.equal(actions.embed(code), torch.tensor([-1.0, 1.0])), continuous


def test_parts_stand_group_by_group_and_every_key_finds_its_own():
    """Parts of five, two and four choices are mixed among the keys."""
    actions = codec(
        space=EVERY_KIND
        | {
            'lamps': spaces.MultiBinary((2, 2)),
            'more': spaces.MultiDiscrete([[4, 2], [5, 3]]),
        }
    )
    assert actions.groups == [(4, 5), (9, 2), (2, 4), (1, 3)] and actions.parts == 16
    assert actions.outputs == actions.choices == 4 * 5 + 9 * 2 + 2 * 4 + 3
    codes = actions.uniform(300)
    back = actions.decode(codes)
    assert torch.equal(actions.encode(back), codes)
    for key, n in (('gear', 4), ('buttons', 2)):
        assert back[key].int().max() == n - 1 and back[key].int().min() == 0
    assert back['more'].amax(0).tolist() == [[3, 1], [4, 2]]
    policy = actions.policy(torch.randn(300, actions.outputs))
    draws = actions.decode(policy.sample())
    assert torch.equal(actions.encode(draws), actions.encode(actions.decode(actions.encode(draws))))
    assert draws['more'].amax(0).tolist() == [[3, 1], [4, 2]] and draws['keys'].amax(
        0
    ).tolist() == [1, 4]


def test_the_probability_of_an_action_is_that_of_its_own_outputs():
    """Only the output of one choice is raised, and only actions that take this choice become
    likely.
    """
    actions = codec(space={'gear': spaces.Discrete(4), 'keys': spaces.MultiDiscrete([2, 5])})
    action = {'gear': torch.tensor(2), 'keys': torch.tensor([1, 3])}
    at = 0
    for (_, count), choice in zip(actions.groups, actions.encode(action).long().tolist()):
        outputs = torch.zeros(actions.outputs)
        outputs[at + choice] = 20.0
        at += count
        gain = actions.policy(outputs).log_prob(actions.encode(action)) - actions.policy(
            torch.zeros(actions.outputs)
        ).log_prob(actions.encode(action))
        assert torch.allclose(gain, torch.tensor(np.log(count), dtype=torch.float32), atol=0.01), (
            count
        )


@pytest.mark.parametrize(
    'space',
    [
        spaces.Discrete(100_000),
        spaces.MultiDiscrete([100_000] + [2] * 50),
        spaces.Dict({'many': spaces.Discrete(100_000), 'lamps': spaces.MultiBinary(200)}),
    ],
    ids=['discrete', 'multi', 'both'],
)
def test_tables_outputs_and_draws_grow_with_the_choices_and_not_with_their_square(space):
    actions = codec(space=getattr(space, 'spaces', {'action': space}))
    choices = 100_000 + 2 * (actions.parts - 1)
    assert (
        sum(buffer.numel() for buffer in actions.buffers()) < 3 * choices
        and actions.outputs == choices
    )
    policy = actions.policy(torch.zeros(2, actions.outputs))
    assert sum(x.numel() for x in policy.log_probs) == 2 * choices
    code = policy.sample()
    assert actions.embed(code).shape == (2, actions.features) and actions.features <= choices
    assert torch.equal(actions.encode(actions.decode(code)), code)
    assert torch.allclose(
        policy.entropy(),
        torch.tensor(np.log(1e5) + (actions.parts - 1) * np.log(2), dtype=torch.float32),
    )


def test_more_choices_than_a_code_can_tell_apart_are_refused():
    with pytest.raises(ValueError, match='16,777,216 choices, got 16,777,217'):
        codec(space={'gear': spaces.Discrete(MOST + 1)})


@pytest.mark.parametrize('continuous', CONTINUOUS)
def test_features_of_different_actions_differ_and_have_the_declared_size(continuous):
    actions = codec(continuous)
    codes = actions.uniform(200)
    features = actions.embed(codes)
    assert features.shape == (200, actions.features)
    assert len(features.unique(dim=0)) == len(codes.unique(dim=0))


def test_zero_outputs_are_the_uniform_policy():
    actions = codec(space={'gear': spaces.Discrete(4), 'keys': spaces.MultiDiscrete([2, 5])})
    policy = actions.policy(torch.zeros(actions.outputs))
    assert torch.allclose(
        policy.entropy(), torch.tensor(np.log(4 * 2 * 5), dtype=torch.float32), atol=1e-5
    )
    assert torch.allclose(
        policy.log_prob(torch.tensor([3.0, 1.0, 4.0])),
        -torch.tensor(np.log(4 * 2 * 5), dtype=torch.float32),
        atol=1e-5,
    )


def test_unimix_bounds_log_probabilities_and_gradients_stay_finite():
    actions = codec()
    outputs = (1000 * torch.randn(actions.outputs)).requires_grad_()
    policy = actions.policy(outputs)
    worst = np.log(0.01 / 5) * actions.parts
    assert policy.log_prob(actions.uniform()) > worst
    policy.entropy().backward()
    assert torch.isfinite(outputs.grad).all()


def test_unbounded_boxes_and_unknown_spaces_are_refused_by_name():
    with pytest.raises(ValueError, match="'arm' must have finite bounds"):
        codec(space={'arm': spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    with pytest.raises(ValueError, match="'words' is a Text"):
        codec(space={'words': spaces.Text(5)})


@pytest.mark.parametrize('continuous', CONTINUOUS)
def test_a_number_that_is_always_the_same_is_zero_in_the_code(continuous):
    box = spaces.Box(np.array([0, 2], np.float32), np.array([1, 2], np.float32))
    actions = codec(continuous, {'arm': box})
    stored = torch.tensor([[0.5, 2.0], [1.0, 2.0]])
    code = actions.encode({'arm': stored})
    assert actions.embed(code)[:, 1].tolist() == [0, 0]
    assert torch.equal(actions.decode(code)['arm'], stored)


@pytest.mark.parametrize('continuous', ['bins', 'normal'])
def test_a_box_of_other_bounds_is_mapped_to_the_unit_box_and_back(continuous):
    low, high = np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32)
    made = Actions({'arm': spaces.Box(low, high)}, continuous, 5, 0.0)
    unit = Actions({'arm': spaces.Box(-1, 1, (2,))}, continuous, 5, 0.0)
    arm = torch.tensor([[-2.0, 0.0], [2.0, 10.0], [0.0, 5.0], [1.0, 2.5]])
    scaled = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [0.5, -0.5]])
    code = made.encode({'arm': arm})
    assert torch.equal(code, unit.encode({'arm': scaled}))
    assert torch.allclose(made.decode(code)['arm'], arm)


@pytest.mark.parametrize('continuous', CONTINUOUS)
def test_features_of_a_sampled_code_have_the_gradient_of_what_was_to_be_expected(continuous):
    """The same numbers as embed; categorical parts: the slope of the mean over all choices."""
    torch.manual_seed(0)
    made = codec(continuous)
    outputs = torch.randn(3, made.outputs, requires_grad=True)
    policy = made.policy(outputs)
    code = policy.sample()
    features = made.embed_sampled(code, policy)
    assert torch.allclose(features, made.embed(code))
    weight = torch.randn(3, made.features)
    weight[:, made.width :] = 0  # real values have the gradient of their own sample
    ours = torch.autograd.grad((weight * features).sum(), outputs, retain_graph=True)[0]
    expected, start = 0, 0
    for group in policy.log_probs:
        for part in range(group.shape[-2]):
            count = group.shape[-1]
            for choice in range(count):
                column, value = made.column[start + choice], made.table[start + choice]
                expected = expected + group[:, part, choice].exp() * value * weight[:, column]
            start += count
    theirs = torch.autograd.grad(expected.sum(), outputs)[0]
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_real_values_pass_the_gradient_of_their_sample_where_nothing_clips_it():
    torch.manual_seed(0)
    made = codec('normal', {'arm': spaces.Box(-1, 1, (1,), np.float32)})
    outputs = torch.zeros(64, 2, requires_grad=True)
    policy = made.policy(outputs)
    code = policy.sample()
    slope = torch.autograd.grad(made.embed_sampled(code, policy).sum(), outputs)[0][:, 0]
    inside = code.detach()[:, 0].abs() < 1
    assert 0 < inside.sum() < 64
    assert torch.allclose(slope, inside.float())  # the slope of tanh at zero is one


def test_spaces_of_any_rank_are_described_in_one_line():
    words = codec(space={'grid': spaces.MultiDiscrete([[2, 3], [4, 5]])}).describe()
    assert words == 'grid: MultiDiscrete([[2 3] [4 5]])'
