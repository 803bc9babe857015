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


def test_a_rare_reward_that_is_missed_costs_three_times_a_common_one():
    """One level is nine times as common as the other: sqrt(9)."""
    rare_missed, common_missed = rare(), rare()
    rare_missed[:3], common_missed[10:13] = -1, 1
    lost = [1 - balanced_skill(guess, rare(), YES) for guess in (rare_missed, common_missed)]
    assert torch.allclose(lost[0], torch.tensor(0.4)) and torch.allclose(lost[0], 3 * lost[1])


def test_a_level_that_occurred_once_does_not_decide():
    truth = torch.cat([torch.linspace(0, 0.5, 99), torch.ones(1)])
    guess = truth.clone()
    guess[-1] = 0.2
    assert balanced_skill(guess, truth, YES) > 0.3, 'equal weights would say about zero'


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
