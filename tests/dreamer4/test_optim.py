"""Optimizer, slow copies and loss normalisation."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dreamer4.optim import (
    NonFiniteLoss,
    OptimConfig,
    Optimizer,
    RateConfig,
    Rule,
    RunningRMS,
    SlowCopy,
    frozen,
)


def settings(warmup=0):
    rate = RateConfig(0.1)
    return OptimConfig(warmup, tokenizer=rate, model=rate, policy=rate, value=rate)


ADAM, LAPROP = Rule(False, 0.99, 0.0, 1.0), Rule(True, 0.999, 0.0, 0.3)


def test_warm_up_grows_the_learning_rate_linearly():
    net = nn.Linear(1, 1, bias=False)
    optimizer = Optimizer('model', [net], settings(warmup=4), ADAM)
    moves = []
    for _ in range(5):
        before = net.weight.detach().clone()
        optimizer.begin()
        optimizer.step(net.weight.sum())
        moves.append((before - net.weight).item())
    assert torch.allclose(
        torch.tensor(moves), 0.1 * torch.tensor([0.25, 0.5, 0.75, 1, 1]), atol=1e-5
    )


def test_weight_decay_touches_matrices_only():
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    nn.init.ones_(net[0].bias)
    optimizer = Optimizer('model', [net], settings(), Rule(False, 0.99, 0.5, 1.0))
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.begin()
    optimizer.step(sum(p.sum() * 0 for p in net.parameters()))
    changed = [not torch.equal(a, b) for a, b in zip(before, net.parameters())]
    assert changed == [True, False, False, False]


def test_steps_that_are_announced_together_share_a_rate_and_are_all_counted():
    net = nn.Linear(1, 1, bias=False)
    optimizer = Optimizer('model', [net], settings(warmup=4), ADAM)
    rates = []
    for steps, scale in ((2, 1.0), (3, 0.5), (1, 0.5)):
        optimizer.begin(steps, scale)
        rates.append(optimizer.rate.item())
    assert rates == pytest.approx([0.025, 0.0375, 0.05]) and optimizer.updates == 6


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_non_finite_loss_changes_nothing_and_is_told_with_what_is_not_finite(value):
    net = nn.Linear(2, 1)
    optimizer = Optimizer('model', [net], settings(), ADAM)
    before = net.weight.detach().clone()
    good, bad = net.weight.sum(), net.bias.sum() * value
    optimizer.begin()
    metrics = optimizer.step(good + bad) | {'loss/good': good.detach(), 'loss/bad': bad.detach()}
    with pytest.raises(NonFiniteLoss, match=r"model: a step was refused.*'loss/bad'") as caught:
        optimizer.check({k: float(v) for k, v in metrics.items()})
    assert 'loss/good' not in str(caught.value)
    assert torch.equal(net.weight, before)
    assert not any(entry['step'] for entry in optimizer.adam.state.values()), (
        'the moments count a step that was none'
    )
    optimizer.begin()
    optimizer.check({k: float(v) for k, v in optimizer.step(net.weight.sum()).items()})
    assert not torch.equal(net.weight, before), 'the next sound step is made'


@pytest.mark.parametrize('rule', [ADAM, LAPROP])
def test_a_restored_optimizer_goes_on_bitwise(rule):
    def run(reload):
        torch.manual_seed(0)
        net = nn.Linear(3, 3)
        optimizer = Optimizer('model', [net], settings(), rule)
        for i in range(6):
            if reload and i == 3:
                saved, fresh = (
                    optimizer.state_dict(),
                    Optimizer('model', [net], settings(), rule),
                )
                fresh.load_state_dict(saved)
                optimizer = fresh
            optimizer.begin()
            optimizer.step(net(torch.full((2, 3), float(i))).square().mean())
        return net.weight

    assert torch.equal(run(False), run(True))


@pytest.mark.parametrize('rule', [ADAM, LAPROP])
def test_a_clip_of_zero_clips_nothing(rule):
    net = nn.Linear(1, 1, bias=False)
    optimizer = Optimizer('model', [net], settings(), replace(rule, clip=0.0))
    optimizer.begin()
    metrics = optimizer.step(50 * net.weight.sum())
    assert metrics['model/grad_norm'] == 50 and net.weight.grad.item() == 50


def test_what_is_frozen_passes_gradients_and_gets_none_even_where_the_work_fails():
    net, x = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    net.bias.requires_grad_(False)
    with pytest.raises(KeyError), frozen(net):
        net(x).sum().backward()
        raise KeyError
    assert net.weight.grad is None and torch.equal(x.grad, net.weight.detach())
    assert net.weight.requires_grad and not net.bias.requires_grad


def test_slow_copy_as_average_and_as_twin():
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average, twin = SlowCopy(net, 0.25), SlowCopy(net, 1.0)
    nn.init.ones_(net.weight)
    for expected in (0.25, 0.4375):
        average.follow()
        twin.follow()
        assert average.module.weight.item() == expected and twin.module.weight.item() == 1.0
    assert not average.module.weight.requires_grad
    average.follow(1.0)
    assert average.module.weight.item() == 1.0


def test_slow_copy_takes_measured_buffers_whole():
    net = nn.BatchNorm1d(2)
    average = SlowCopy(net, 0.25)
    net.running_mean.fill_(3)
    average.follow()
    assert average.module.running_mean.tolist() == [3, 3]


def test_running_rms_brings_a_loss_to_one_and_never_blows_it_up():
    rms = RunningRMS({'big': 0.0, 'tiny': 0.1}, 0.9)
    for _ in range(50):
        big, tiny = rms('big', torch.tensor(30.0)), rms('tiny', torch.tensor(1e-6))
    assert abs(big - 1) < 1e-4 and tiny < 1e-4


def test_running_rms_passes_the_gradient_of_the_loss_and_none_of_the_divisor():
    rms, x = RunningRMS({'loss': 0.0}, 0.0), torch.tensor(4.0, requires_grad=True)
    rms('loss', x).backward()
    assert torch.allclose(x.grad, torch.tensor(0.25))


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 1e30])
@pytest.mark.parametrize('before', [0, 3])
def test_running_rms_forgets_a_loss_that_is_refused(bad, before):
    """1e30 is finite, but its square is not: the mean would be infinite, and every later loss
    zero.
    """
    rms, same = (
        RunningRMS({'loss': 0.0, 'other': 0.0}, 0.9),
        RunningRMS({'loss': 0.0, 'other': 0.0}, 0.9),
    )
    for each in (rms, same):
        for _ in range(before):
            each('loss', torch.tensor(3.0))
    rms('loss', torch.tensor(bad))
    assert (
        rms('loss', torch.tensor(2.0)) == same('loss', torch.tensor(2.0))
        and rms('other', torch.tensor(5.0)) == 1
    )
