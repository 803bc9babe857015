"""LaProp with adaptive clipping: numbers by hand, and refused steps."""

import math

import pytest
import torch

from dreamer4.laprop import LaProp


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values))


def step(optimizer, p, *grad):
    p.grad = torch.tensor(grad)
    optimizer.step()


def test_two_steps_by_hand():
    p = parameter(1.0)
    optimizer = LaProp([p], (0.5, 0.5), lr=0.1)
    step(optimizer, p, 2.0)
    # v = 2, corrected 4, g / sqrt = 1; m = .5, corrected 1
    assert p.item() == pytest.approx(0.9)
    step(optimizer, p, -1.0)
    # v = (2 + 1) / 2 = 1.5, corrected 2; m = (.5 - 1 / sqrt 2) / 2, corrected by .75
    m = (0.5 - 1 / math.sqrt(2)) / 2 / 0.75
    assert p.item() == pytest.approx(0.9 - 0.1 * m, abs=1e-6)


def test_the_size_of_the_gradient_does_not_matter():
    found = []
    for size in (1.0, 1e-6):
        p = parameter(1.0, -2.0)
        optimizer = LaProp([p], (0.9, 0.999), lr=0.1)
        for grad in ((1.0, -0.5), (0.2, 0.5), (-1.0, 0.1)):
            step(optimizer, p, *(size * g for g in grad))
        found.append(p.detach().clone())
    assert torch.allclose(*found, atol=1e-5)


def test_a_gradient_is_clipped_to_a_share_of_the_norm_of_its_tensor():
    """Without clipping the large second gradient would rule; clipped to 0.1 |p| it is as large as
    the first."""
    p = parameter(3.0, 4.0)
    optimizer = LaProp([p], (0.9, 0.999), clip=0.1, lr=0.0)
    step(optimizer, p, 30.0, 40.0)
    assert torch.allclose(
        optimizer.state[p]['exp_avg_sq'], 0.001 * torch.tensor([0.09, 0.16]), atol=1e-9
    )
    small = parameter(0.0)
    optimizer = LaProp([small], (0.9, 0.999), clip=0.1, lr=0.1)
    step(optimizer, small, 1.0)
    assert small.item() == pytest.approx(-0.1, rel=1e-4)  # a zero parameter moves


def test_a_refused_step_moves_nothing():
    p, q = parameter(1.0), parameter(2.0)
    optimizer = LaProp([p, q], (0.9, 0.999), clip=0.3, lr=0.1)
    for x in (p, q):
        x.grad = torch.ones(1)
    optimizer.step()
    before = [p.item(), q.item()] + [v.clone() for x in (p, q) for v in optimizer.state[x].values()]
    p.grad = torch.tensor([math.nan])
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    after = [p.item(), q.item()] + [v for x in (p, q) for v in optimizer.state[x].values()]
    assert before == after
    optimizer.found_inf = torch.zeros(())
    step(optimizer, p, 1.0)
    assert p.item() < before[0]


def test_weight_decay_is_of_the_groups_that_ask_for_it():
    p, q = parameter(1.0), parameter(1.0)
    optimizer = LaProp(
        [{'params': [p], 'weight_decay': 0.5}, {'params': [q]}], (0.9, 0.999), lr=0.1
    )
    for x in (p, q):
        x.grad = torch.zeros(1)
    optimizer.step()
    assert (p.item(), q.item()) == (pytest.approx(0.95), pytest.approx(1.0))
