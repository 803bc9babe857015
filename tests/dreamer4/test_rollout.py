"""Imagination: the cache against a full pass, the start's own history, and the time alignment of
what comes out.
"""

import pytest
import torch
from gymnasium import spaces
from tiny import HEADS

from dreamer4.actions import Actions
from dreamer4.batch import draw_starts
from dreamer4.heads import Heads, HeadsConfig
from dreamer4.worlds.dreamer4.dynamics import Dynamics, DynamicsConfig, Given
from dreamer4.worlds.dreamer4.rollout import imagine, predict

ACTIONS = Actions({'action': spaces.Discrete(4)}, 'bins', 5, 0.01)
WORLD = dict(
    width=32,
    depth=3,
    group=2,
    time_every=2,
    registers=1,
    softcap=0.0,
    levels=8,
    moves=False,
    context_signal=1.0,
)
B, T, H = 3, 5, 4


def world_and_heads(tasks=1, reads='together', **changes):
    torch.manual_seed(0)
    world = Dynamics((4, 3), ACTIONS.features, tasks, DynamicsConfig(**WORLD | changes))
    for linear in (world.latent_out, world.task):
        torch.nn.init.normal_(linear.weight, std=0.3)
    heads = Heads(
        32,
        2 * world.coordinates.viewed,
        ACTIONS,
        HeadsConfig(**HEADS | dict(width=16, offsets=0, reads=reads)),
    )
    return world, heads


def given(code, valid):
    return Given(ACTIONS.embed(code), valid)


def real(world):
    torch.manual_seed(1)
    z, code = torch.rand(B, T, 2, 6) * 2 - 1, ACTIONS.uniform(B, T)
    first = torch.zeros(B, T, dtype=torch.bool)
    first[1, 2] = True
    world.coordinates.measure(z, first)
    return z, code, ~first, first, world.commit(z, given(code, ~first), first)


@pytest.mark.parametrize('reads', ['together', 'latents'])
@pytest.mark.parametrize('moves', [False, True])
def test_imagined_frames_are_read_as_a_full_pass_over_the_same_frames_shows_them(moves, reads):
    """The rollout with its cache and a single uncached pass over context + dream must agree,
    episode borders included.
    """
    world, heads = world_and_heads(moves=moves, reads=reads)
    z, code, valid, first, context = real(world)
    rows, frames = torch.tensor([0, 1, 2]), torch.tensor([4, 4, 2])
    dream = imagine(world, heads, context, rows, frames, H, 2, lambda x, t: ACTIONS.uniform(len(x)))
    for w, (row, frame) in enumerate(zip(rows.tolist(), frames.tolist())):
        known = slice(0, frame + 1)
        z_all = torch.cat([z[row, known], dream.latent[w, 1:]])[None]
        code_all = torch.cat([code[row, known], dream.action[w]])[None]
        first_all = torch.cat([first[row, known], torch.zeros(H, dtype=torch.bool)])[None]
        full = world.commit(z_all, given(code_all, ~first_all), first_all)
        expected = heads.inputs(full.feature, full.view)[0, frame:]
        assert torch.allclose(dream.inputs[w], expected, atol=1e-5), f'start {w}'


@pytest.mark.parametrize('reads, passes', [('together', 3 * H), ('latents', 2 * H)])
def test_a_frame_whose_feature_nobody_reads_costs_a_pass_less(reads, passes):
    world, heads = world_and_heads(reads=reads)
    *_, context = real(world)
    calls = []
    world.register_forward_hook(lambda *_: calls.append(1))
    start = torch.tensor([0]), torch.tensor([2])
    imagine(world, heads, context, *start, H, 2, lambda x, t: torch.zeros(1, 1))
    assert len(calls) == passes


def test_a_start_sees_nothing_that_comes_after_it_in_the_batch():
    world, heads = world_and_heads()
    z, code, valid, first, context = real(world)
    start = torch.tensor([0]), torch.tensor([2])
    act = lambda x, t: torch.zeros(1, 1)
    torch.manual_seed(3)
    before = imagine(world, heads, context, *start, H, 1, act)
    z[0, 3:] = 0.9
    torch.manual_seed(3)
    after = imagine(world, heads, world.commit(z, given(code, valid), first), *start, H, 1, act)
    assert torch.equal(before.inputs, after.inputs)


def test_the_action_at_a_frame_changes_the_next_frame_and_none_before():
    world, heads = world_and_heads()
    *_, context = real(world)
    start = torch.tensor([0]), torch.tensor([2])

    def dream(codes):
        torch.manual_seed(3)
        return imagine(
            world, heads, context, *start, H, 1, lambda x, t: torch.tensor([[float(codes[t])]])
        )

    a, b = dream([0, 1, 2, 3]), dream([0, 1, 0, 3])
    assert a.action.flatten().tolist() == [0, 1, 2, 3]
    assert torch.equal(a.inputs[:, :3], b.inputs[:, :3])
    assert not torch.allclose(a.inputs[:, 3], b.inputs[:, 3])


def test_starts_are_usable_frames_each_as_likely_and_without_repeats_while_there_are_enough():
    torch.manual_seed(0)
    usable = torch.tensor([[True, False, True], [False, False, True]])
    seen = torch.zeros(2, 3)
    for _ in range(300):
        rows, frames = draw_starts(usable, 2)
        assert usable[rows, frames].all() and len({*zip(rows.tolist(), frames.tolist())}) == 2
        seen[rows, frames] += 1
    assert (seen[usable] / 300 - 2 / 3).abs().max() < 0.1


def test_more_starts_than_usable_frames_repeat_them():
    rows, frames = draw_starts(torch.tensor([[True, False]]), 5)
    assert rows.tolist() == [0] * 5 and frames.tolist() == [0] * 5


@pytest.mark.parametrize('moves', [False, True])
def test_known_actions_lead_to_the_latents_that_imagination_makes_of_the_same_random_numbers(moves):
    """One pass less a frame: committing a frame beside the first look at the next must change
    nothing, with noise on committed frames too.
    """
    for signal in (1.0, 0.875):
        world, heads = world_and_heads(context_signal=signal, moves=moves)
        *_, context = real(world)
        start = torch.tensor([0, 1, 2, 1]), torch.tensor([4, 4, 2, 1])
        code = ACTIONS.uniform(4, H)
        torch.manual_seed(3)
        dream = imagine(world, heads, context, *start, H, 2, lambda x, t: code[:, t])
        torch.manual_seed(3)
        seen = predict(world, context, *start, ACTIONS.embed(code), 2)
        assert torch.allclose(seen, dream.latent[:, 1:], atol=1e-5)
        assert not torch.allclose(
            seen, predict(world, context, *start, ACTIONS.embed(code), 2), atol=1e-3
        ), 'frames are drawn'


def test_a_context_without_features_leads_to_the_same_predictions():
    world, heads = world_and_heads()
    z, code, valid, first, context = real(world)
    bare = world.commit(z, given(code, valid), first, wanted=slice(0))
    assert bare.feature.shape == (B, 0, 32)
    newest = world.commit(z, given(code, valid), first, wanted=slice(-1, None))
    assert torch.allclose(newest.feature, context.feature[:, -1:], atol=1e-6)
    rows = torch.arange(B)
    made = []
    for known in (context, bare, newest):
        torch.manual_seed(3)
        made.append(predict(world, known, rows, rows * 0 + T - 1, ACTIONS.embed(code), 2))
    assert torch.allclose(made[0], made[1], atol=1e-6) and torch.allclose(
        made[0], made[2], atol=1e-6
    )
