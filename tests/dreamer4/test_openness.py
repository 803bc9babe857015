"""The entropy bonus that is steered: towards its goal, whatever advantages are worth."""

import math

import pytest
import torch
from test_agent import agent, sampler
from tiny import train

from dreamer4.agent_config import check
from dreamer4.openness import LEAST, MOST, Openness


@pytest.mark.parametrize('worth', [0.01, 0.1, 1.0])
def test_a_policy_ends_as_open_as_it_is_to_be_whatever_an_action_is_worth(worth):
    """Five actions, one of which pays. A fixed bonus of .05 leaves it at 1, .7 and 0."""
    logits, openness = torch.zeros(5, requires_grad=True), Openness(0.05, (0.6, 0.6))
    optimizer = torch.optim.Adam([logits], 0.05)
    for _ in range(1500):
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p).sum()
        loss = -worth * log_p[0].exp() - openness.bonus * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        openness.follow(entropy.detach() / math.log(5))
    assert entropy.item() / math.log(5) == pytest.approx(0.6, abs=0.03)


def test_the_goal_moves_from_the_first_share_to_the_second_as_the_rates_fall():
    openness = Openness(0.01, (0.8, 0.4))
    goals = []
    for pace in (1.0, 0.5, 0.1):
        openness.aim(pace)
        goals.append(openness.goal.item())
    assert goals == pytest.approx([0.8, 0.6, 0.44])


def test_the_bonus_has_bounds_and_one_without_a_goal_stays():
    high, low, fixed = Openness(0.01, (0.9, 0.9)), Openness(0.01, (0.1, 0.1)), Openness(0.01, ())
    for _ in range(3000):
        for openness, share in ((high, 0.0), (low, 1.0), (fixed, 0.0)):
            openness.follow(torch.tensor(share))
    assert high.bonus.item() == pytest.approx(MOST) and low.bonus.item() == pytest.approx(LEAST)
    assert fixed.bonus.item() == pytest.approx(0.01)
    low.follow(torch.tensor(math.nan))
    assert low.bonus.item() == pytest.approx(LEAST), 'the step of such a batch is refused'


def test_each_task_has_a_bonus_of_its_own_and_one_that_is_not_met_keeps_it():
    openness, task = Openness(0.01, (0.5, 0.5), tasks=3), torch.tensor([[0], [2]])
    share, weight = torch.tensor([[0.1, 0.1], [0.9, 0.1]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    for _ in range(20):
        openness.follow(share, weight, task)
    assert openness.bonus[0] > 0.015 and openness.bonus[2] < 0.007
    assert openness.bonus[1].item() == pytest.approx(0.01)
    worth = openness.worth(torch.ones(2, 2), task)
    assert torch.equal(worth, openness.bonus[[0, 2]][:, None].expand(2, 2))
    old = Openness(0.3, (0.5, 0.5))
    openness.load_state_dict(old.state_dict())
    assert openness.bonus.tolist() == pytest.approx([0.3] * 3), 'a run of an older version'


def test_the_bonus_of_an_agent_is_in_the_policys_loss_and_goes_on_where_it_was():
    made = agent('policy', **{'actor.entropy': 0.5, 'actor.openness': (0.5, 0.2)})
    critic, batch = made.actor_critic, made.batch(sampler()(4, 9))
    dream = made.world.imagine(made.world.commit(batch), batch, made.updater.choose)
    targets, losses = critic.score(dream), []
    for bonus in (0.5, 0.1):
        critic.openness.bonus.fill_(bonus)
        parts, metrics, _ = critic.losses(dream, targets)
        losses.append(parts['policy'].item())
    more = 0.4 * metrics['policy/entropy'].item()
    assert losses[1] - losses[0] == pytest.approx(more, rel=1e-4)
    assert metrics['policy/openness'].item() == pytest.approx(1.0, abs=1e-3), 'a fresh policy'
    metrics = train(made, sampler())
    assert critic.openness.bonus.item() < 0.1 == pytest.approx(metrics['policy/bonus'])
    again = agent('policy', **{'actor.entropy': 0.5, 'actor.openness': (0.5, 0.2)})
    again.load(made.save())
    assert torch.equal(again.actor_critic.openness.bonus, critic.openness.bonus)


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'actor.openness': (0.5,)}, 'two shares between 0 and 1'),
        ({'actor.openness': (0.5, 1.2)}, 'two shares between 0 and 1'),
        ({'actor.openness': (0.8, 0.4), 'heads.continuous': 'normal'}, 'actions in bins'),
    ],
)
def test_a_goal_that_cannot_be_is_refused_by_name(changes, words):
    with pytest.raises(ValueError, match=words):
        check(agent('policy', **changes).config)
