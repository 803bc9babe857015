"""Measures of the world model, on cases whose answer is known."""

import torch

from dreamer4.report import balanced_skill, correlation

YES = torch.ones(100, dtype=torch.bool)


def rare():
    """Ten rewards of +1 among ninety of -1."""
    return torch.cat([torch.ones(10), -torch.ones(90)])


def test_perfect_prediction_has_skill_one():
    assert torch.allclose(balanced_skill(rare(), rare(), YES), torch.tensor(1.0))


def test_always_predicting_the_common_reward_has_no_skill():
    assert balanced_skill(-torch.ones(100), rare(), YES) < 0.01
    plain = (rare() == -1).float().mean()
    assert plain == 0.9, 'accuracy would have called that good'


def test_finding_three_of_four_rare_rewards_passes_one_half():
    guess = rare()
    guess[:3] = -1
    assert 0.3 < balanced_skill(guess, rare(), YES) < 0.5 < balanced_skill(torch.where(torch.arange(100) < 1, -1.0, rare()), rare(), YES)


def test_constant_rewards_count_as_known_when_they_are_met():
    zeros = torch.zeros(100)
    assert balanced_skill(zeros, zeros, YES) == 1
    assert balanced_skill(zeros + 1, zeros, YES) < 0


def test_masked_frames_do_not_count():
    guess = rare().clone()
    guess[:10] = -1
    assert torch.allclose(balanced_skill(guess, rare(), torch.arange(100) >= 10), torch.tensor(1.0))


def test_correlation_of_lines_and_constants():
    x = torch.arange(10.0)
    assert torch.allclose(correlation(x, 3 - 2 * x), torch.tensor(-1.0))
    assert correlation(x, torch.ones(10)) == 0
