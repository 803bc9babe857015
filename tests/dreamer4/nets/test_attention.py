"""Attention: grouped heads, masks and rotary positions against definitions written out by hand."""

import math

import pytest
import torch

from dreamer4.nets.attention import MASKED, Attention, attend
from dreamer4.nets.layers import rotary


def test_attend_equals_the_softmax_average_written_out():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    out = attend(q, k, v, None, 0.0)
    for i in range(2):
        weights = torch.stack([(q[0, 0, i] * k[0, 0, j]).sum() / math.sqrt(4) for j in range(3)]).softmax(0)
        assert torch.allclose(out[0, 0, i], sum(w * v[0, 0, j] for j, w in enumerate(weights)), atol=1e-6)


def test_grouped_heads_equal_repeated_key_value_heads():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    full = torch.stack([attend(q[:, i:i + 1], k[:, i // 2:i // 2 + 1], v[:, i // 2:i // 2 + 1], None, 0.0)[:, 0] for i in range(4)], 1)
    assert torch.allclose(attend(q, k, v, None, 0.0), full, atol=1e-6)


def test_masked_keys_have_exactly_no_influence():
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4)
    v = torch.randn(1, 1, 3, 4, requires_grad=True)
    bias = torch.tensor([[0, 0, MASKED], [0, 0, MASKED]])
    attend(q, k, v, bias, 0.0).sum().backward()
    assert v.grad[0, 0, 2].abs().max() == 0


def test_soft_cap_bounds_the_logits_and_a_large_cap_changes_nothing():
    q, k, v = 100 * torch.ones(1, 1, 1, 4), torch.tensor([[[[100.0] * 4, [-100.0] * 4]]]), torch.eye(2)[None, None]
    capped = attend(q, k, v, None, 1.0)[0, 0, 0]
    assert torch.allclose(capped, torch.tensor([2.0, 0.0]).sub(1).softmax(0), atol=1e-6)  # tanh(+-huge) = +-1
    q, k, v = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    assert torch.allclose(attend(q, k, v, None, 1e4), attend(q, k, v, None, 0.0), atol=1e-5)


def test_rotary_products_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 8), torch.randn(1, 8)
    at = lambda x, p: rotary(x, torch.tensor([p]))
    near = (at(q, 3) * at(k, 1)).sum()
    assert torch.allclose(near, (at(q, 13) * at(k, 11)).sum(), atol=1e-5)
    assert not torch.allclose(near, (at(q, 4) * at(k, 1)).sum(), atol=1e-3)


def test_widths_that_do_not_divide_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match='width 10 .* heads 4'):
        Attention(10, 4, 4, 0.0)
