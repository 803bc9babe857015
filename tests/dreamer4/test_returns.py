"""Returns and objectives against numbers worked by hand."""

import math

import torch

from dreamer4 import returns


def test_lambda_return_of_three_steps_by_hand():
    # the first belongs to the real frame and must not enter
    reward = torch.tensor([[9.0, 1.0, 2.0, 3.0]])
    cont = torch.tensor([[9.0, 1.0, 0.5, 1.0]])
    value = torch.tensor([[9.0, 4.0, 5.0, 6.0]])
    gamma, lam = 0.9, 0.8
    r2 = 3 + 0.9 * 1.0 * 6
    r1 = 2 + 0.9 * 0.5 * (0.2 * 5 + 0.8 * r2)
    r0 = 1 + 0.9 * 1.0 * (0.2 * 4 + 0.8 * r1)
    assert torch.allclose(
        returns.lambda_return(reward, cont, value, gamma, lam), torch.tensor([[r0, r1, r2]])
    )


def test_a_terminal_frame_cuts_the_return():
    reward, cont = torch.tensor([[0.0, 1.0, 100.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    found = returns.lambda_return(reward, cont, torch.full((1, 3), 50.0), 0.9, 0.95)
    assert found[0, 0] == 1.0


def test_alive_weighs_a_decision_by_the_chance_to_reach_it():
    cont = torch.tensor([[1.0, 0.5, 0.5, 0.0]])
    assert torch.equal(returns.alive(cont), torch.tensor([[1.0, 0.5, 0.25]]))


def test_pmpo_by_hand():
    log_prob = torch.tensor([[-1.0, -2.0, -3.0, -4.0]], requires_grad=True)
    advantage = torch.tensor([[2.0, -0.1, 0.0, -7.0]])  # zero counts as good
    weight = torch.tensor([[1.0, 1.0, 1.0, 0.5]])
    loss = returns.pmpo(log_prob, advantage, weight, alpha=0.5, floor=0.0)
    bad, good = (-2.0 - 0.5 * 4.0) / 1.5, (-1.0 - 3.0) / 2.0
    assert torch.allclose(loss, torch.tensor(0.5 * bad - 0.5 * good))
    loss.backward()
    assert (log_prob.grad[0, [0, 2]] < 0).all(), (
        'descending must raise the probability of good actions'
    )
    assert (log_prob.grad[0, [1, 3]] > 0).all()


def test_pmpo_depends_on_signs_alone():
    log_prob, weight = torch.randn(4, 5), torch.rand(4, 5)
    advantage = torch.randn(4, 5)
    assert returns.pmpo(log_prob, advantage, weight, 0.5, 0.0) == returns.pmpo(
        log_prob, 100 * advantage, weight, 0.5, 0.0
    )


def test_pmpo_floor_tames_a_set_of_one():
    log_prob, weight = torch.full((1, 100), -1.0, requires_grad=True), torch.ones(1, 100)
    advantage = torch.full((1, 100), -1.0)
    advantage[0, 0] = 1.0
    returns.pmpo(log_prob, advantage, weight, 0.5, 0.0).backward()
    paper = log_prob.grad[0, 0].item()
    log_prob.grad = None
    returns.pmpo(log_prob, advantage, weight, 0.5, 0.1).backward()
    assert math.isclose(paper, -0.5, rel_tol=1e-5)
    assert math.isclose(log_prob.grad[0, 0].item(), -0.05, rel_tol=1e-5)


def test_an_empty_set_gives_zero_and_no_nan():
    log_prob = torch.full((1, 3), -1.0, requires_grad=True)
    loss = returns.pmpo(log_prob, torch.ones(1, 3), torch.ones(1, 3), 0.5, 0.0)
    loss.backward()
    assert torch.allclose(loss.detach(), torch.tensor(0.5)) and torch.isfinite(log_prob.grad).all()


def test_reinforce_by_hand():
    loss = returns.reinforce(
        torch.tensor([[-1.0, -2.0]]),
        torch.tensor([[4.0, -2.0]]),
        torch.tensor([[1.0, 0.5]]),
        torch.tensor(2.0),
    )
    assert torch.allclose(loss, torch.tensor(-(-1.0 * 2.0 + 0.5 * -2.0 * -1.0) / 1.5))


def test_late_decisions_of_a_discounted_dream_weigh_less():
    cont = torch.tensor([[1.0, 0.5, 1.0, 0.0]])
    assert torch.allclose(returns.alive(cont), torch.tensor([[1.0, 0.5, 0.5]]))
    assert torch.allclose(returns.alive(cont, 0.9), torch.tensor([[1.0, 0.45, 0.405]]))


def test_replay_returns_by_hand():
    """Frame 2 ends an episode by a time limit: its own value counts and what follows does not.
    Frame 4 is terminal: neither does.
    """
    row = lambda *values: torch.tensor([values])
    reward, value = row(9.0, 1.0, 2.0, 0.0, 3.0), row(7.0, 10.0, 20.0, 30.0, 40.0)
    last = row(False, False, True, False, True)
    terminal = row(False, False, False, False, True)
    found = returns.replay_return(reward, terminal, last, value, 0.5, 0.8)
    one = 2 + 0.5 * 20
    assert torch.allclose(found[0, :2], torch.tensor([1 + 0.5 * (0.2 * 10 + 0.8 * one), one]))
    assert found[0, 3] == 3
    still = returns.replay_return(reward, terminal & False, last & False, value, 0.5, 0.8)
    assert still[0, 3] == 3 + 0.5 * 40


def test_replay_returns_are_lambda_returns_where_no_episode_ends():
    torch.manual_seed(0)
    reward, value = torch.randn(2, 5), torch.randn(2, 5)
    none = torch.zeros(2, 5, dtype=torch.bool)
    assert torch.allclose(
        returns.replay_return(reward, none, none, value, 0.9, 0.7),
        returns.lambda_return(reward, torch.ones(2, 5), value, 0.9, 0.7),
        atol=1e-6,
    )
