"""Output distributions against values worked by hand."""

import math
from unittest import mock

import pytest
import torch

from dreamer4.nets.outputs import (
    ClippedNormal,
    Plain,
    Policy,
    TruncatedNormal,
    TwoHot,
    symexp,
    symlog,
)


def test_symexp_inverts_symlog():
    x = torch.tensor([-1000.0, -1.0, 0.0, 0.5, 20.0])
    assert torch.allclose(symexp(symlog(x)), x, rtol=1e-4)


def test_two_hot_bins_of_a_small_grid():
    # symexp(+-ln 3) = +-2, symexp(+-ln 3 / 2) = +-(sqrt 3 - 1)
    values = TwoHot(5, math.log(3.0)).values
    assert torch.allclose(
        values, torch.tensor([-2.0, 1 - math.sqrt(3), 0.0, math.sqrt(3) - 1, 2.0]), atol=1e-6
    )


def test_two_hot_loss_splits_the_target_between_its_neighbours():
    head = TwoHot(3, math.log(2.0))  # bins -1, 0, 1
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    loss = head.loss(logits[None], torch.tensor([0.25]))
    assert torch.allclose(
        loss, torch.tensor([-(0.75 * math.log(0.2) + 0.25 * math.log(0.7))]), atol=1e-6
    )


@pytest.mark.parametrize('target', [-1.0, 0.0, 1.0, 5.0, -5.0])
def test_two_hot_loss_at_bins_and_beyond_the_range(target):
    head = TwoHot(3, math.log(2.0))
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    expected = -logits[int(max(-1, min(1, target))) + 1]
    assert torch.allclose(
        head.loss(logits[None], torch.tensor([target])), expected[None], atol=1e-6
    )


def test_targets_beyond_the_outermost_bin_are_told_apart_from_those_on_it():
    head = TwoHot(3, math.log(2.0))
    targets = torch.tensor([0.0, -1.0, 1.0, 1.001, -5.0, math.inf])
    assert head.beyond(targets).tolist() == [False, False, False, True, True, True]
    assert head.clip(targets).tolist() == [0.0, -1.0, 1.0, 1.0, -1.0, 1.0]


def test_a_plain_number_has_the_squared_error_of_a_normal():
    plain, logits = Plain(), torch.tensor([[3.0], [-1.0]])
    assert plain.outputs == 1 and plain.mean(logits).tolist() == [3, -1]
    assert plain.loss(logits, torch.tensor([1.0, -1.0])).tolist() == [2, 0]
    huge = torch.tensor([1e9])
    assert plain.clip(huge) == huge and not plain.beyond(huge)


def test_two_hot_of_uniform_logits_is_exactly_zero():
    assert TwoHot(255, 20.0).mean(torch.zeros(255)) == 0


def test_minimising_the_two_hot_loss_recovers_the_mean_of_random_targets():
    head, logits = TwoHot(41, 3.0), torch.zeros(41, requires_grad=True)
    targets = torch.tensor([1.0, 3.0]).repeat(50)
    optimizer = torch.optim.Adam([logits], 0.3)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(logits.expand(100, -1), targets).mean().backward()
        optimizer.step()
    assert abs(head.mean(logits.detach()) - 2.0) < 0.02


def normal(mean, std, kind=ClippedNormal):
    return kind(torch.tensor(mean), torch.tensor(std))


NOTHING = ClippedNormal(torch.zeros(0), torch.zeros(0))


def test_log_prob_entropy_and_kl_of_two_groups_of_parts_by_hand():
    """A part of two choices and one of three."""
    p = Policy(
        [torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[0.5, 0.25, 0.25]]).log()], NOTHING
    )
    q = Policy([torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.5, 0.25, 0.25]]).log()], NOTHING)
    assert torch.allclose(
        p.log_prob(torch.tensor([1.0, 2.0])), torch.tensor(math.log(0.75) + math.log(0.25))
    )
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) + 1.5 * math.log(2)
    assert torch.allclose(p.entropy(), torch.tensor(entropy))
    assert torch.allclose(p.kl(q), torch.tensor(0.25 * math.log(0.5) + 0.75 * math.log(1.5)))


def test_sampling_follows_the_probabilities():
    torch.manual_seed(0)
    log_probs = [
        torch.tensor([0.2, 0.8]).log().expand(20000, 1, 2),
        torch.tensor([0.1, 0.3, 0.6]).log().expand(20000, 2, 3),
    ]
    draws = Policy(
        log_probs, ClippedNormal(torch.zeros(20000, 1), torch.full((20000, 1), 0.2))
    ).sample()
    assert draws.shape == (20000, 4)
    assert abs(draws[:, 0].mean() - 0.8) < 0.01
    for part in (1, 2):
        assert torch.allclose(
            draws[:, part].long().bincount() / 20000, torch.tensor([0.1, 0.3, 0.6]), atol=0.015
        )
    assert abs(draws[:, 3].std() - 0.2) < 0.005


CASES = [([0.0], [0.89]), ([0.7], [0.1]), ([-0.99], [0.3]), ([0.3], [1.0]), ([1.0], [0.1])]
KINDS = [ClippedNormal, TruncatedNormal]


def integral(of, distribution):
    """Expectation of `of`, (n, 1) -> (n,), by sums: at places between the bounds and, where they
    have a probability, at the bounds.
    """
    edges = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    x = ((edges[1:] + edges[:-1]) / 2)[:, None]
    total = (distribution.log_prob(x).exp() * of(x)).sum() * 1e-5
    if isinstance(distribution, ClippedNormal):
        bounds = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
        total = total + (distribution.log_prob(bounds).exp() * of(bounds)).sum()
    return total


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('mean, std', CASES)
def test_probabilities_of_executed_actions_sum_to_one_and_give_entropy_and_kl(kind, mean, std):
    make = lambda m, s: kind(
        torch.tensor(m, dtype=torch.float64), torch.tensor(s, dtype=torch.float64)
    )
    p, q = make(mean, std), make([0.2], [0.5])
    close = lambda a, b: torch.allclose(a, b, atol=2e-4)
    assert close(
        integral(lambda x: torch.ones_like(x[:, 0]), p), torch.ones((), dtype=torch.float64)
    )
    assert close(p.entropy(), integral(lambda x: -p.log_prob(x), p))
    assert close(p.kl(q), integral(lambda x: p.log_prob(x) - q.log_prob(x), p))
    single = (
        kind(torch.tensor(mean), torch.tensor(std)),
        kind(torch.tensor([0.2]), torch.tensor([0.5])),
    )
    assert torch.allclose(single[0].kl(single[1]).double(), p.kl(q), atol=1e-4, rtol=1e-4), (
        'as exact in float32'
    )
    assert abs(single[0].kl(single[0])) < 1e-6


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('mean, std', CASES)
def test_draws_stay_within_the_bounds_and_follow_their_log_probabilities(kind, mean, std):
    torch.manual_seed(0)
    p = kind(torch.tensor(mean).expand(200_000, 1), torch.tensor(std).expand(200_000, 1))
    draws = p.sample()
    assert draws.abs().max() <= 1 and p.mode().abs().max() <= 1
    exact = kind(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
    expected = integral(lambda x: x[:, 0], exact)
    if kind is ClippedNormal:
        assert abs((draws == 1).float().mean() - exact.log_prob(torch.ones(1)).exp()) < 0.005
    else:
        assert (draws.abs() == 1).float().mean() < 1e-4
    assert abs(draws.mean() - expected) < 0.005
    assert abs(-p.log_prob(draws).mean() - p.entropy()[0]) < 0.01


@pytest.mark.parametrize('kind', KINDS)
def test_gradients_at_and_beyond_the_bounds_are_those_of_differences(kind):
    """log_ndtr and where() have gradients of their own, which must not be NaN for a value at a
    bound that lies far away.
    """
    values = torch.tensor([[-1.0], [1.0], [0.3], [0.999], [5.0]], dtype=torch.float64)
    parameters = (
        torch.tensor([[-0.95, 0.1]], dtype=torch.float64).expand(5, 2).clone().requires_grad_()
    )
    log_prob = lambda x: kind(x[:, :1], x[:, 1:]).log_prob(values)
    assert torch.autograd.gradcheck(log_prob, parameters)
    assert torch.autograd.gradcheck(lambda x: kind(x[:, :1], x[:, 1:]).entropy(), parameters)
    single = parameters.detach().float().requires_grad_()
    log_prob(single).sum().backward()
    assert torch.isfinite(single.grad).all()


@pytest.mark.parametrize('drawn', [0.0, 1 - 2**-24])
@pytest.mark.parametrize('mean, std', [(-1.0, 0.1), (0.0, 0.1), (1.0, 0.1), (0.0, 1.0)])
def test_the_outermost_random_numbers_have_a_gradient_that_is_finite(mean, std, drawn):
    """They are one draw in 2^24, of which a run makes some thousands at every update."""
    parameters = torch.tensor([mean, std]).requires_grad_()
    with mock.patch('torch.rand_like', lambda x: torch.full_like(x, drawn)):
        draw = TruncatedNormal(*parameters.split(1)).sample()
    draw.sum().backward()
    assert draw.abs() <= 1 and torch.isfinite(parameters.grad).all(), (draw, parameters.grad)


def test_all_draws_beyond_a_bound_are_the_same_action():
    p = normal([0.5], [0.5])
    assert p.log_prob(torch.tensor([[1.0], [1.5], [40.0]])).unique().numel() == 1
    assert torch.allclose(
        p.log_prob(torch.tensor([1.0])).exp(), torch.tensor(0.158655), atol=1e-5
    ), 'one standard deviation away'
