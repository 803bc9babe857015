"""Attention: grouped heads, masks and rotary positions against definitions written out by hand."""

import math
import shutil

import pytest
import torch

from dreamer4.nets.attention import MASKED, Attention, SpaceAttention, _flex, attend
from dreamer4.nets.layers import QKNorm, rotary_angles, rotate

needs_compiler = pytest.mark.skipif(
    not shutil.which('g++'), reason='FlexAttention is compiled: it needs a C++ compiler on the CPU'
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
KERNELS = pytest.mark.parametrize('kernel', ['fused', 'explicit'])


@KERNELS
def test_attend_equals_the_softmax_average_written_out(kernel):
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    out = attend(q, k, v, None, kernel=kernel)
    for i in range(2):
        weights = torch.stack(
            [(q[0, 0, i] * k[0, 0, j]).sum() / math.sqrt(4) for j in range(3)]
        ).softmax(0)
        assert torch.allclose(
            out[0, 0, i], sum(w * v[0, 0, j] for j, w in enumerate(weights)), atol=1e-6
        )


@KERNELS
def test_grouped_heads_equal_repeated_key_value_heads(kernel):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    full = torch.stack(
        [
            attend(q[:, i : i + 1], k[:, i // 2 : i // 2 + 1], v[:, i // 2 : i // 2 + 1], None)[
                :, 0
            ]
            for i in range(4)
        ],
        1,
    )
    assert torch.allclose(attend(q, k, v, None, kernel=kernel), full, atol=1e-6)


@KERNELS
def test_masked_keys_have_exactly_no_influence(kernel):
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4)
    v = torch.randn(1, 1, 3, 4, requires_grad=True)
    bias = torch.tensor([[0, 0, MASKED], [0, 0, MASKED]])
    attend(q, k, v, bias, kernel=kernel).sum().backward()
    assert v.grad[0, 0, 2].abs().max() == 0


def test_soft_cap_bounds_the_logits_and_a_large_cap_changes_nothing():
    q, k, v = (
        100 * torch.ones(1, 1, 1, 4),
        torch.tensor([[[[100.0] * 4, [-100.0] * 4]]]),
        torch.eye(2)[None, None],
    )
    capped = attend(q, k, v, None, 1.0)[0, 0, 0]
    # tanh(+-huge) = +-1
    assert torch.allclose(capped, torch.tensor([2.0, 0.0]).sub(1).softmax(0), atol=1e-6)
    q, k, v = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    assert torch.allclose(attend(q, k, v, None, 1e4), attend(q, k, v, None, 0.0), atol=1e-5)


def test_kernels_agree_in_value_and_gradient_with_masks_and_groups():
    torch.manual_seed(0)
    bias = torch.where(torch.rand(3, 1, 5, 7) < 0.4, MASKED, 0.0)
    bias[..., 0] = 0  # every query sees something, as everywhere in the networks
    results = []
    for kernel in ('fused', 'explicit'):
        torch.manual_seed(1)
        q, k, v = (torch.randn(3, n, t, 8, requires_grad=True) for n, t in ((4, 5), (2, 7), (2, 7)))
        out = attend(q, k, v, bias, kernel=kernel)
        out.square().sum().backward()
        results.append((out, q.grad, k.grad, v.grad))
    for one, other in zip(*results):
        assert torch.isfinite(one).all() and torch.allclose(one, other, atol=1e-5)


@pytest.fixture
def uncompiled(monkeypatch):
    """FlexAttention as torch interprets it: a compiler takes minutes for its first kernels."""
    _flex.cache_clear()
    monkeypatch.setattr(torch, 'compile', lambda function, **_: function)
    yield
    _flex.cache_clear()


@pytest.mark.filterwarnings('ignore:flex_attention called without torch.compile')
@pytest.mark.parametrize('softcap', [0.0, 5.0])
def test_the_flex_kernel_agrees_with_masks_groups_and_a_soft_cap(softcap, uncompiled):
    agrees('cpu', softcap)


@needs_compiler
@pytest.mark.parametrize(
    'device',
    [pytest.param('cpu', marks=pytest.mark.slow), pytest.param('cuda', marks=needs_gpu)],
)
def test_the_compiled_flex_kernel_agrees_too_and_on_a_gpu_in_gradient(device):
    agrees(device, 5.0)


def agrees(device, softcap):
    """Flex and explicit attention, for rows that share a mask and rows that do not."""
    torch.manual_seed(0)
    for rows in (1, 3):
        bias = torch.where(torch.rand(rows, 1, 5, 7, device=device) < 0.4, MASKED, 0.0)
        bias[..., 0] = 0
        results = []
        for kernel in ('flex', 'explicit'):
            torch.manual_seed(1)
            q, k, v = (
                torch.randn(3, n, t, 16, device=device, requires_grad=device != 'cpu')
                for n, t in ((4, 5), (2, 7), (2, 7))
            )
            out = attend(q, k, v, bias, softcap, kernel)
            results.append(
                [
                    out,
                    *(
                        torch.autograd.grad(out.square().sum(), (q, k, v))
                        if device != 'cpu'
                        else ()
                    ),
                ]
            )
        for one, other in zip(*results):
            assert torch.allclose(one, other, atol=1e-5 if device == 'cpu' else 1e-2)


def test_the_flex_kernel_says_that_it_cannot_learn_on_a_cpu():
    x = torch.zeros(1, 1, 1, 16, requires_grad=True)
    with pytest.raises(ValueError, match='no gradient on a CPU'):
        attend(x, x, x, None, kernel='flex')


def test_the_fused_kernel_refuses_a_soft_cap_instead_of_leaving_it_out():
    x = torch.zeros(1, 1, 1, 2)
    with pytest.raises(ValueError, match='no soft cap'):
        attend(x, x, x, None, 5.0, 'fused')


def test_queries_of_some_tokens_get_what_they_get_among_all():
    torch.manual_seed(0)
    layer, x, bias = SpaceAttention(16, 4, 2, 0.0), torch.randn(2, 3, 5, 16), torch.zeros(5, 5)
    bias[3, :2] = MASKED
    assert torch.allclose(layer(x, bias[2:4], slice(2, 4)), layer(x, bias)[:, :, 2:4], atol=1e-6)


def test_norm_makes_products_of_queries_and_keys_cosines_times_channels():
    torch.manual_seed(0)
    norm, q, k = QKNorm(1, 1, 16), torch.randn(16), torch.randn(16)
    a, b = norm(torch.stack([q, k]))
    assert torch.allclose(a @ b, torch.cosine_similarity(q, k, dim=0) * 16, atol=1e-3)


def test_rotary_products_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(8), torch.randn(8)
    at = lambda x, p: rotate(x[None, None, None, None], *rotary_angles(torch.tensor([[p]]), 8))
    near = (at(q, 3) * at(k, 1)).sum()
    assert torch.allclose(near, (at(q, 13) * at(k, 11)).sum(), atol=1e-5)
    assert not torch.allclose(near, (at(q, 4) * at(k, 1)).sum(), atol=1e-3)


def test_rotation_turns_pairs_of_channels_by_the_angle():
    cos, sin = rotary_angles(torch.tensor([[2]]), 4)
    x = rotate(torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 1, 1, 1, 4), cos, sin).flatten()
    assert torch.allclose(x, torch.tensor([math.cos(2), 0, math.sin(2), 0]), atol=1e-6)


def test_widths_that_do_not_divide_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match='width 10 .* heads 4'):
        Attention(10, 4, 4, 0.0)


def test_the_kernel_of_choice_on_a_cpu_is_the_one_that_was_measured_to_be_fastest(monkeypatch):
    """Explicit, but fused for one query of few channels or of keys that stand apart in memory
    (docs/speed.md).
    """
    taken = []
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional,
        'scaled_dot_product_attention',
        lambda *parts: taken.append('fused') or fused(*parts),
    )
    wide = torch.randn(2, 5, 6, 32)
    for queries, channels, keys, expected in (
        (3, 16, wide[..., :16].contiguous(), []),
        (1, 16, wide[..., :16].contiguous(), ['fused']),
        (1, 32, wide, []),
        (1, 32, wide[:, :4], ['fused']),
    ):
        taken.clear()
        attend(torch.randn(2, keys.shape[1], queries, channels), keys, keys, None)
        assert taken == expected, (queries, channels)
