"""Measures of the world model, on cases whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_agent import agent, sampler
from test_rollout import ACTIONS, B, T, given, real, world_and_heads
from tiny import speak

from dreamer4 import openloop, scores
from dreamer4.batch import Batch
from dreamer4.scores import balanced_skill, correlation
from dreamer4.worlds.dreamer4 import report
from dreamer4.worlds.dreamer4.dynamics import Given
from dreamer4.worlds.dreamer4.report import open_loop

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


@pytest.mark.parametrize('unit', [1e-6, 0.001, 1.0, 1000.0, 1e6])
def test_skill_and_correlation_are_the_same_in_every_unit(unit):
    torch.manual_seed(0)
    truth = rare() + torch.where(torch.rand(100) < 0.3, 0.5, 0.0)
    for guess in (truth + 0.4 * torch.randn(100), torch.zeros(100) - 1, torch.randn(100)):
        assert torch.allclose(
            balanced_skill(unit * guess, unit * truth, YES),
            balanced_skill(guess, truth, YES),
            atol=1e-3,
        )
        assert torch.allclose(
            correlation(unit * guess, unit * truth), correlation(guess, truth), atol=1e-4
        )
    assert balanced_skill(-unit * torch.ones(100), unit * rare(), YES) < 0.01, (
        'the common reward, always'
    )


@pytest.mark.parametrize('level', [1.0, -0.001, 1000.0])
def test_constant_rewards_are_met_to_a_share_of_their_size(level):
    constant = torch.full((100,), level)
    assert balanced_skill(constant, constant, YES) == 1
    assert balanced_skill(1.001 * constant, constant, YES) > 0.9
    assert balanced_skill(0.0 * constant, constant, YES) == -1


def test_skill_is_bounded():
    assert balanced_skill(torch.full((100,), 1e4), rare(), YES) == -1


def test_masked_frames_do_not_count():
    guess = rare().clone()
    guess[:10] = -1
    assert torch.allclose(balanced_skill(guess, rare(), torch.arange(100) >= 10), torch.tensor(1.0))


def test_correlation_of_lines_and_constants():
    x = torch.arange(10.0)
    assert torch.allclose(correlation(x, 3 - 2 * x), torch.tensor(-1.0))
    assert correlation(x, torch.ones(10)) == 0


def committed(tasks=1):
    """A world, its heads, sequences and what the world made of them."""
    world, heads = world_and_heads(tasks)
    speak(heads.reward_head)
    z, code, valid, first, context = real(world)
    nothing = torch.zeros(B, T, dtype=torch.bool)
    # chosen at a frame: what led to the next one
    following = torch.cat([code[:, 1:], ACTIONS.uniform(B, 1)], 1)
    batch = Batch(
        {}, code, valid, following, ~nothing, torch.zeros(B, T), ~nothing, first, nothing, nothing
    )
    return world, heads, context, batch


@pytest.mark.parametrize('shuffle', [False, True])
def test_open_loop_takes_the_actions_that_led_to_the_frames_it_predicts(monkeypatch, shuffle):
    """Its own, or all of another sequence; with rewards and without, the same latents from the
    same random numbers.
    """
    world, heads, context, batch = committed()
    start, latents = 1, []
    for rewards, name in ((True, 'imagine'), (False, 'predict')):
        given, inner = [], getattr(report, name)

        def spy(*args, **kw):
            if name == 'imagine':
                act = args[7]
                args = (
                    *args[:7],
                    lambda x, t: given.append(ACTIONS.embed(act(x, t))) or act(x, t),
                    *args[8:],
                )
            else:
                given.extend(args[4].unbind(1))
            return inner(*args, **kw)

        monkeypatch.setattr(report, name, spy)
        torch.manual_seed(3)
        loop = open_loop(world, heads, context, batch, start, 2, shuffle, rewards)
        led = batch.prev_action[:, start + 1 :]
        assert torch.equal(torch.stack(given, 1), ACTIONS.embed(led.roll(1, 0) if shuffle else led))
        assert loop.latent.shape == loop.truth.shape == (B, T - 1 - start, 2, 6) and (
            loop.reward is None
        ) == (not rewards)
        assert torch.equal(loop.truth, context.latent[:, start + 1 :]) and torch.equal(
            loop.start[:, 0], context.latent[:, start]
        )
        latents.append(loop.latent)
    assert torch.allclose(*latents, atol=1e-5)


def test_open_loop_starts_from_the_frame_it_is_told_and_stops_counting_where_an_episode_ends():
    world, heads, context, batch = committed()
    loop = open_loop(world, heads, context, batch, 0, 1)
    assert loop.valid.tolist() == [
        [True] * 4,
        [True, False, False, False],
        [True] * 4,
    ], 'the second sequence begins anew at frame 2'
    changed = world.commit(
        torch.cat([context.latent[:, :3], -context.latent[:, 3:]], 1),
        given(batch.prev_action, batch.prev_valid),
        batch.is_first,
    )
    for start, same in ((2, True), (3, False)):
        torch.manual_seed(3)
        one = open_loop(world, heads, context, batch, start, 1)
        torch.manual_seed(3)
        assert (
            torch.equal(one.latent, open_loop(world, heads, changed, batch, start, 1).latent)
            == same
        ), 'frames after the start must not be seen, the start must'


def measured(reward=None, obs=None, action=None):
    """model_metrics of a batch with these rewards, observations and actions."""
    world, heads, context, batch = committed()
    batch = replace(
        batch,
        reward=torch.randn(B, T) if reward is None else reward,
        obs={'x': torch.randn(B, T, 2)} if obs is None else obs,
        action=batch.action if action is None else action,
    )
    torch.manual_seed(0)
    return report.model_metrics(world, heads, context, batch, 1, 1, 0.9)


def test_what_gives_nothing_to_measure_is_told_apart_from_what_is_badly_predicted():
    flags = lambda metrics: [
        metrics[key].item() for key in ('frames_move', 'actions_vary', 'rewards_vary')
    ]
    assert flags(measured()) == [1, 1, 1]
    assert flags(measured(reward=torch.full((B, T), 0.3))) == [1, 1, 0]
    assert flags(measured(reward=torch.full((B, T), 1e-5))) == [1, 1, 0]
    assert flags(measured(reward=1e-5 * torch.randn(B, T))) == [1, 1, 1]
    still = torch.randn(B, 1, 2).expand(B, T, 2)
    assert flags(measured(obs={'x': still, 'y': torch.zeros(B, T, dtype=torch.uint8)})) == [
        0,
        1,
        1,
    ], 'every episode a picture of its own'
    moving = still.clone()
    moving[0, -1, 0] += 1e-3
    assert flags(measured(obs={'y': torch.zeros(B, T), 'x': moving})) == [
        1,
        1,
        1,
    ], 'one number of one frame is enough'
    assert flags(measured(action=ACTIONS.uniform(1, 1).expand(B, T, -1))) == [1, 0, 1]


def test_what_is_not_known_is_left_out_of_all_measures():
    """Unlabeled sequences hold garbage: measures are those of the labeled ones."""
    world, heads, context, batch = committed()
    torch.manual_seed(2)
    batch = replace(
        batch,
        reward=torch.randn(B, T),
        obs={'x': torch.randn(B, T, 2)},
        is_first=torch.zeros(B, T, dtype=torch.bool),
    )
    only = lambda flags, row: torch.where(torch.arange(B)[:, None] == row, False, flags)
    measure = lambda changed: report.model_metrics(world, heads, context, changed, 1, 1, 0.9)

    def seeded(changed):
        torch.manual_seed(0)
        return measure(changed)

    unknown = replace(
        batch, action_valid=only(batch.action_valid, 2), reward_valid=only(batch.reward_valid, 2)
    )
    garbage = replace(unknown, reward=torch.where(only(batch.action_valid, 2), batch.reward, 1e3))
    found, again = seeded(unknown), seeded(garbage)
    assert all(torch.equal(found[key], again[key]) for key in found)
    rewards = batch.reward[:2]
    assert torch.allclose(found['reward_real'], rewards[:, 2:].mean())
    discount = 0.9 ** torch.arange(T - 2)
    assert torch.allclose(found['return_real'], (rewards[:, 2:] * discount).sum(1).mean())
    torch.manual_seed(0)
    loop = open_loop(world, heads, context, unknown, 1, 1, rewards=True)
    assert loop.valid[:2].all() and not loop.valid[2].any()
    assert torch.allclose(found['error'], loop.error[:2].mean() / loop.copy_error[:2].mean())
    nothing = seeded(
        replace(batch, action_valid=~batch.action_valid, reward_valid=~batch.reward_valid)
    )
    assert [nothing[key] for key in ('frames_move', 'actions_vary', 'rewards_vary')] == [0, 0, 0]
    assert all(value.isfinite() for value in nothing.values())


def test_actions_are_known_up_to_the_first_that_is_not():
    world, heads, context, batch = committed()
    known = torch.ones(B, T, dtype=torch.bool)
    known[0, 2] = False
    batch = replace(batch, action_valid=known, is_first=torch.zeros(B, T, dtype=torch.bool))
    assert open_loop(world, heads, context, batch, 0, 1).valid.tolist() == [
        [True, True, False, False],
        [True] * 4,
        [True] * 4,
    ]
    assert open_loop(world, heads, context, batch, 0, 1, shuffle=True).valid.tolist() == [
        [True] * 4,
        [True, True, False, False],
        [True] * 4,
    ]


def test_videos_show_sequences_whose_actions_are_known_first(monkeypatch):
    made = agent('policy')
    rows = sampler()(4, 9)
    rows['is_first'][:] = rows['is_last'][:] = False
    rows['unlabeled_action'] = np.arange(4)[:, None].repeat(9, 1) < 3
    rows['image'][:] = np.arange(4, dtype=np.uint8)[:, None, None, None, None] * 10
    batch = made.batch(rows)
    context = made.world.commit(batch)
    loop = open_loop(made.world.dynamics, made.world.heads, context, batch, 3, 1)
    drawn = []
    monkeypatch.setattr(openloop, 'open_loop_video', lambda *args: drawn.append(args))
    for count, shown in ((1, [30]), (3, [30, 0, 10]), (9, [30, 0, 10, 20])):
        report.video(made.world.tokenizer, made.world.dynamics, loop, batch, 3, count)
        _, truth, _, start, valid = drawn.pop()
        assert truth[:, 0, 0, 0, 0].tolist() == shown and start == 3
        assert (
            valid
            == np.concatenate(
                [np.ones((len(shown), 4), bool), loop.valid[np.array(shown) // 10]], 1
            )
        ).all()


def test_errors_where_hardly_anything_moves_are_large_and_bounded():
    metrics = measured()
    world, heads, context, batch = committed()
    still = replace(context, latent=context.latent[:, :1].expand_as(context.latent))
    found = report.model_metrics(world, heads, still, replace(batch, obs={}), 1, 1, 0.9)
    assert found['error'] == found['error_1'] == scores.WORST and metrics['error'] < scores.WORST


def test_the_reward_skill_asks_for_rewards_as_far_as_the_bins_can_say_them():
    world, heads, context, batch = committed()
    reward = 1e6 * (torch.arange(B * T).reshape(B, T) % 2)
    found = []
    for received in (reward, reward.clamp(max=heads.scalar.values[-1])):
        torch.manual_seed(1)
        found.append(
            report.model_metrics(world, heads, context, replace(batch, reward=received), 1, 1, 0.9)
        )
    assert all(found[0][key] == found[1][key] != 0 for key in ('reward_skill', 'reward_skill_real'))
    assert found[0]['reward_real'] > 1e5, 'what was received is told as it is'


def test_open_loop_rewards_are_those_of_the_frames_arrived_at_and_of_the_task():
    world, heads, context, batch = committed(tasks=2)
    found = []
    for task in (0, 1):
        torch.manual_seed(3)
        told = replace(batch, obs=batch.obs | {'task_id': torch.full((B, T), task)})
        loop = open_loop(world, heads, context, told, 1, 1, rewards=True)
        again = world.commit(
            torch.cat([context.latent[:, :2], loop.latent], 1)[:1],
            Given(
                ACTIONS.embed(batch.prev_action[:1]),
                batch.prev_valid[:1],
                torch.tensor([[0, 0] + [task] * (T - 2)]),
            ),
            batch.is_first[:1],
        )
        assert torch.allclose(
            loop.reward[:1], heads.reward(heads.inputs(again.feature, again.view))[:, 2:], atol=1e-4
        )
        found.append(loop.reward)
    assert not torch.allclose(*found, atol=1e-3)
