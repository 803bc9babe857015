"""Norms: value and gradient of the CPU's own kernels against torch's, and precision."""

import pytest
import torch
import torch.nn.functional as F

from dreamer4.nets.layers import EPS, QKNorm, RMSNorm, normalize


@pytest.mark.parametrize('shape', [(8,), (3, 8)])
def test_normalize_equals_torch_in_value_and_gradient(shape):
    x = torch.randn(2, 5, *shape, dtype=torch.float64, requires_grad=True)
    gain = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    want = F.rms_norm(x, shape[-1:], None, EPS) * gain
    have = normalize(x, gain)
    weight = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad((have * weight).sum(), (x, gain)),
        torch.autograd.grad((want * weight).sum(), (x, gain)),
    ):
        assert torch.allclose(a, b, atol=1e-12)
    assert torch.allclose(have, want, atol=1e-12)
    with torch.no_grad():
        assert torch.allclose(normalize(x, gain), want, atol=1e-12)


@pytest.mark.parametrize('shape', [(4,), (2, 4)])
def test_normalize_has_the_gradient_of_its_differences(shape):
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    gain = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normalize, (x, gain))
    assert torch.autograd.gradcheck(lambda x: normalize(x, gain.detach()), (x,))
    assert torch.autograd.gradcheck(lambda gain: normalize(x.detach(), gain), (gain,))


def test_a_row_of_zeros_stays_zero_with_a_finite_gradient():
    x = torch.zeros(1, 4, requires_grad=True)
    RMSNorm(4)(x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_normalised_in_single(dtype):
    x = (torch.randn(6, 2, 16) * 300).to(dtype)  # squares overflow float16
    norm = RMSNorm(16)
    assert norm(x).dtype == dtype
    assert torch.equal(norm(x), norm(x.float()).to(dtype))


def test_norm_of_some_heads_is_theirs_among_all():
    norm = QKNorm(2, 1, 8)
    torch.nn.init.normal_(norm.gain)
    x = torch.randn(2, 3, 8)
    assert torch.allclose(norm(x)[:, 1:], norm(x[:, 1:], slice(1, 3)))
