"""Output distributions against values worked by hand."""

import math

import pytest
import torch

from dreamer4.nets.outputs import Policy, TwoHot, symexp, symlog


def test_symexp_inverts_symlog():
    x = torch.tensor([-1000.0, -1.0, 0.0, 0.5, 20.0])
    assert torch.allclose(symexp(symlog(x)), x, rtol=1e-4)


def test_two_hot_bins_of_a_small_grid():
    values = TwoHot(5, math.log(3.0)).values  # symexp(+-ln 3) = +-2, symexp(+-ln 3 / 2) = +-(sqrt 3 - 1)
    assert torch.allclose(values, torch.tensor([-2.0, 1 - math.sqrt(3), 0.0, math.sqrt(3) - 1, 2.0]), atol=1e-6)


def test_two_hot_loss_splits_the_target_between_its_neighbours():
    head = TwoHot(3, math.log(2.0))  # bins -1, 0, 1
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    loss = head.loss(logits[None], torch.tensor([0.25]))
    assert torch.allclose(loss, torch.tensor([-(0.75 * math.log(0.2) + 0.25 * math.log(0.7))]), atol=1e-6)


@pytest.mark.parametrize('target', [-1.0, 0.0, 1.0, 5.0, -5.0])
def test_two_hot_loss_at_bins_and_beyond_the_range(target):
    head = TwoHot(3, math.log(2.0))
    logits = torch.tensor([0.1, 0.2, 0.7]).log()
    expected = -logits[int(max(-1, min(1, target))) + 1]
    assert torch.allclose(head.loss(logits[None], torch.tensor([target])), expected[None], atol=1e-6)


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



def test_log_prob_entropy_and_kl_of_two_parts_by_hand():
    p = Policy(torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log(), torch.tensor([1.0]), torch.tensor([0.5]))
    q = Policy(torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log(), torch.tensor([0.0]), torch.tensor([0.5]))
    normal = -0.5 * math.log(2 * math.pi * 0.25)
    assert torch.allclose(p.log_prob(torch.tensor([1.0, 0.0, 1.0])), torch.tensor(math.log(0.75) + math.log(0.5) + normal))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) + math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.25)
    assert torch.allclose(p.entropy(), torch.tensor(entropy))
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5) + 0.5 * (1.0 / 0.25)
    assert torch.allclose(p.kl(q), torch.tensor(kl))


def test_absent_choices_are_never_drawn_and_carry_no_nan():
    logits = torch.zeros(1, 3, requires_grad=True)
    log_probs = torch.cat([logits[:, :2].log_softmax(-1), torch.full((1, 1), -math.inf)], -1)
    p = Policy(log_probs, torch.zeros(0), torch.zeros(0))
    draws = torch.stack([p.sample() for _ in range(200)])
    assert draws.max() <= 1
    (p.entropy() + p.kl(p) + p.log_prob(draws[0])).backward()
    assert torch.isfinite(logits.grad).all()


def test_sampling_follows_the_probabilities():
    torch.manual_seed(0)
    p = Policy(torch.tensor([0.2, 0.8]).log().expand(20000, 1, 2), torch.zeros(20000, 1), torch.ones(20000, 1))
    draws = p.sample()
    assert abs(draws[:, 0].mean() - 0.8) < 0.01
    assert abs(draws[:, 1].std() - 1.0) < 0.02
