"""Whether what a model says that actions change does happen."""

import pytest
import torch

from dreamer4.openloop import OpenLoop, action_effect

B, H, S, W = 400, 3, 2, 4


def rollouts(strength=1.0, noise=0.0, blur=0.0):
    """(loop, mixed): the truth is the sum of what no model knows, `blur`, and of the actions; a
    model says `strength` times the latter, and `noise` of its own.
    """
    rng = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=rng)
    mine, start = normal(B, H, S, W).cumsum(1), torch.zeros(B, 1, S, W)
    others, valid = mine.roll(1, 0), torch.ones(B, H, dtype=torch.bool)
    truth = mine + blur * normal(B, H, S, W)
    said = lambda action: strength * action + noise * normal(B, H, S, W)
    make = lambda action: OpenLoop(start, said(action), truth, valid, None)
    return make(mine), make(others)


def test_a_model_that_knows_what_actions_change_has_one_at_every_step():
    assert action_effect(*rollouts()) == pytest.approx([1.0] * H)


def test_what_the_model_cannot_know_takes_nothing_from_it():
    assert action_effect(*rollouts(blur=3.0)) == pytest.approx([1.0] * H, abs=0.2)


def test_noise_is_no_effect():
    effect = action_effect(*rollouts(strength=0.0, noise=1.0))
    assert effect == pytest.approx([0.0] * H, abs=0.15)


def test_a_model_that_says_too_much_has_less_and_one_that_says_too_little_more():
    assert action_effect(*rollouts(strength=2.0)) == pytest.approx([0.5] * H, abs=0.1)
    assert action_effect(*rollouts(strength=0.5)) == pytest.approx([2.0] * H, abs=0.3)


def test_the_wrong_sign_is_less_than_nothing():
    assert (action_effect(*rollouts(strength=-1.0)) < -0.5).all()


def test_a_model_that_ignores_actions_has_none():
    loop, _ = rollouts()
    assert action_effect(loop, loop).tolist() == [0.0] * H


def test_steps_behind_the_end_of_an_episode_do_not_count():
    loop, mixed = rollouts()
    loop.valid[: B // 2, 1:] = False
    mixed.valid[B // 2 :, 2:] = False
    loop.latent[: B // 2, 1:] = 100.0
    assert action_effect(loop, mixed) == pytest.approx([1.0, 1.0, 0.0], abs=0.1)
