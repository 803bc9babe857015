"""Latents of a recurrent state-space model: numbers by hand, and where their gradients go."""

import math

import pytest
import torch

from dreamer4.worlds.rssm.latents import (
    MIN_STD,
    Categoricals,
    Gaussians,
    kl_terms,
    straight_through,
    uniform_mix,
)


def test_unimix_leaves_every_class_its_share_of_the_uniform_distribution():
    p = uniform_mix(torch.tensor([0.0, -1e9, -1e9, -1e9]), 0.01).exp()
    assert torch.allclose(p, torch.tensor([0.9925, 0.0025, 0.0025, 0.0025]), atol=1e-6)
    assert torch.allclose(uniform_mix(torch.zeros(4), 0.0).exp(), torch.full((4,), 0.25))


def test_a_straight_through_sample_is_one_hot_and_has_the_gradient_of_the_probabilities():
    torch.manual_seed(0)
    logits = torch.randn(5, 3, requires_grad=True)
    weight = torch.randn(5, 3)
    sample = straight_through(logits.log_softmax(-1))
    assert torch.equal(sample.detach().round(), sample.detach().round().clamp(0, 1))
    assert torch.allclose(sample.sum(-1), torch.ones(5)) and (sample.detach().amax(-1) > 0.99).all()
    ours = torch.autograd.grad((weight * sample).sum(), logits)[0]
    theirs = torch.autograd.grad((weight * logits.softmax(-1)).sum(), logits)[0]
    assert torch.allclose(ours, theirs)


def test_samples_come_as_often_as_their_probability_says():
    torch.manual_seed(0)
    log_p = torch.tensor([0.7, 0.2, 0.1]).log().expand(20000, 3)
    assert torch.allclose(
        straight_through(log_p).mean(0), torch.tensor([0.7, 0.2, 0.1]), atol=0.015
    )


def test_kl_of_categoricals_by_hand():
    latents = Categoricals(2, 2, 0.0)
    # variable 1: (1/2, 1/2) against (1/4, 3/4); variable 2: equal
    p = torch.tensor([0.5, 0.5, 0.9, 0.1]).log()
    q = torch.tensor([0.25, 0.75, 0.9, 0.1]).log()
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert latents.kl(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert latents.kl(p, p).item() == pytest.approx(0, abs=1e-6)
    entropy = math.log(2) - 0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    assert latents.entropy(p).item() == pytest.approx(entropy, abs=1e-6)


def raw(std: float) -> float:
    """The parameter whose standard deviation is `std`."""
    return math.log(math.expm1(std - MIN_STD))


def test_kl_of_gaussians_by_hand():
    latents = Gaussians(1)
    p, q = torch.tensor([1.0, raw(1.0)]), torch.tensor([0.0, raw(2.0)])
    expected = math.log(2) + (1 + 1) / 8 - 0.5
    assert latents.kl(p, q).item() == pytest.approx(expected, abs=1e-6)
    assert latents.kl(p, p).item() == pytest.approx(0, abs=1e-6)
    assert latents.entropy(p).item() == pytest.approx(0.5 * math.log(2 * math.pi * math.e))


def test_a_gaussian_sample_passes_its_gradient_to_mean_and_spread():
    torch.manual_seed(0)
    params = torch.tensor([0.5, raw(1.0)], requires_grad=True)
    sample = Gaussians(1).sample(params)
    mean, spread = torch.autograd.grad(sample.sum(), params)[0]
    eps = sample.item() - 0.5
    assert mean == 1 and spread.item() == pytest.approx(
        eps * torch.sigmoid(torch.tensor(raw(1.0))).item(), abs=1e-5
    )


def both(free: float, free_of: str = 'frame'):
    torch.manual_seed(0)
    post, prior = (torch.randn(2, 3, 8, requires_grad=True) for _ in range(2))
    return post, prior, kl_terms(Categoricals(2, 4, 0.01), post, prior, free, free_of)


def test_each_half_of_the_kl_balance_moves_one_side_alone():
    post, prior, (dyn, rep) = both(free=0.0)
    assert torch.allclose(dyn, rep)
    grads = [
        torch.autograd.grad(x.sum(), (post, prior), allow_unused=True, retain_graph=True)
        for x in (dyn, rep)
    ]
    assert grads[0][0] is None and grads[0][1].abs().sum() > 0
    assert grads[1][1] is None and grads[1][0].abs().sum() > 0


def test_the_kl_balance_weighs_the_gradients_of_the_plain_kl():
    """0.8 dyn + 0.2 rep: 0.8 of the gradient reaches the prior and 0.2 the posterior."""
    post, prior, (dyn, rep) = both(free=0.0)
    plain = Categoricals(2, 4, 0.01).kl(post, prior)
    assert torch.allclose(0.8 * dyn + 0.2 * rep, plain)
    whole = torch.autograd.grad(plain.sum(), (post, prior), retain_graph=True)
    ours = torch.autograd.grad((0.8 * dyn + 0.2 * rep).sum(), (post, prior))
    assert torch.allclose(ours[0], 0.2 * whole[0], atol=1e-6)
    assert torch.allclose(ours[1], 0.8 * whole[1], atol=1e-6)


def test_free_bits_stop_the_gradient_of_frames_that_are_below_them():
    post, prior, (dyn, _) = both(free=0.0)
    free = dyn.flatten().median().item() + 1e-4
    post, prior, (dyn, _) = both(free)
    grad = torch.autograd.grad(dyn.sum(), prior)[0].abs().sum(-1)
    clipped = dyn == torch.tensor(free)
    assert 0 < clipped.sum() < 6
    assert ((grad == 0) == clipped).all()


def test_free_nats_of_the_batch_look_at_the_mean():
    _, _, (frame, _) = both(free=0.0)
    mean = frame.mean().item()
    post, prior, (dyn, _) = both(free=mean - 0.01, free_of='batch')
    assert torch.allclose(dyn, torch.full((2, 3), mean))
    assert torch.autograd.grad(dyn.mean(), prior)[0].abs().sum() > 0
    post, prior, (dyn, _) = both(free=mean + 0.01, free_of='batch')
    assert torch.allclose(dyn, torch.full((2, 3), mean + 0.01))
    assert torch.autograd.grad(dyn.mean(), prior)[0].abs().sum() == 0


def test_an_unknown_way_of_clipping_is_refused():
    with pytest.raises(ValueError, match="free_of must be 'frame' or 'batch', got 'sequence'"):
        kl_terms(Gaussians(1), torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), 1.0, 'sequence')
