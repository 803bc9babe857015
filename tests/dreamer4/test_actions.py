"""The action codec: every kind of space, there and back, and its distribution."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer4.actions import Actions

EVERY_KIND = {
        'arm': spaces.Box(-1, 1, (2,), np.float32),
        'buttons': spaces.MultiBinary(3),
        'gear': spaces.Discrete(4),
        'keys': spaces.MultiDiscrete([2, 5])}


def codec(continuous='bins', space=EVERY_KIND):
    return Actions(space, continuous, bins=5, unimix=0.01)


@pytest.mark.parametrize('continuous', ['bins', 'normal'])
def test_decode_inverts_encode_for_every_kind_at_once(continuous):
    actions = codec(continuous)
    action = {
            'arm': torch.tensor([[[-1.0, 0.5]]]), 'buttons': torch.tensor([[[True, False, True]]]),
            'gear': torch.tensor([[3]]), 'keys': torch.tensor([[[1, 4]]])}
    code = actions.encode(action)
    assert code.shape == (1, 1, actions.code_size)
    back = actions.decode(code)
    for key, value in action.items():
        assert torch.equal(back[key].float(), value.float()), key


def test_decoded_actions_lie_in_their_spaces_with_their_dtypes():
    actions = codec()
    for _ in range(20):
        for key, value in actions.decode(actions.uniform()).items():
            space = EVERY_KIND[key]
            assert space.contains(value.numpy().astype(space.dtype)), (key, value)


def test_continuous_values_go_to_the_nearest_bin():
    actions = codec(space={'arm': spaces.Box(-1, 1, (4,), np.float32)})
    code = actions.encode({'arm': torch.tensor([-0.8, -0.7, 0.1, 3.0])})
    assert actions.decode(code)['arm'].tolist() == [-1.0, -0.5, 0.0, 1.0]


def test_features_of_different_actions_differ_and_have_the_declared_size():
    actions = codec()
    codes = actions.uniform(200)
    features = actions.embed(codes)
    assert features.shape == (200, actions.features)
    assert len(features.unique(dim=0)) == len(codes.unique(dim=0))


def test_zero_outputs_are_the_uniform_policy():
    actions = codec(space={'gear': spaces.Discrete(4), 'keys': spaces.MultiDiscrete([2, 5])})
    policy = actions.policy(torch.zeros(actions.outputs))
    assert torch.allclose(policy.entropy(), torch.tensor(np.log(4 * 2 * 5), dtype=torch.float32), atol=1e-5)
    assert torch.allclose(policy.log_prob(torch.tensor([3.0, 1.0, 4.0])), -torch.tensor(np.log(4 * 2 * 5), dtype=torch.float32), atol=1e-5)


def test_unimix_bounds_log_probabilities_and_gradients_stay_finite():
    actions = codec()
    outputs = (1000 * torch.randn(actions.outputs)).requires_grad_()
    policy = actions.policy(outputs)
    worst = np.log(0.01 / 5) * actions.parts
    assert policy.log_prob(actions.uniform()) > worst
    policy.entropy().backward()
    assert torch.isfinite(outputs.grad).all()


def test_unbounded_boxes_and_unknown_spaces_are_refused_by_name():
    with pytest.raises(ValueError, match="'arm' must span"):
        codec(space={'arm': spaces.Box(-2, 2, (1,), np.float32)})
    with pytest.raises(ValueError, match="'words' is a Text"):
        codec(space={'words': spaces.Text(5)})
