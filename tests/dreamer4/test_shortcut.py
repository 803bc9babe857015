"""Shortcut forcing: schedule, targets and sampler, each against its definition, and a
distribution it must recover.
"""

import pytest
import torch

from dreamer4.nets.memory import Beside, Cache
from dreamer4.nets.transformer import View
from dreamer4.worlds.dreamer4 import shortcut
from dreamer4.worlds.dreamer4.dynamics import Dynamics, DynamicsConfig, Frames, Given
from dreamer4.worlds.dreamer4.shortcut import ShortcutConfig

WORLD = dict(
    width=32,
    depth=2,
    group=4,
    time_every=1,
    registers=1,
    softcap=0.0,
    levels=8,
    moves=False,
    context_signal=1.0,
)
SHORTCUT = dict(
    history='commit',
    steps=4,
    bootstrap=0.25,
    anchor=0.0,
)


def dynamics(shortcut=True, **changes):
    torch.manual_seed(0)
    return Dynamics((2, 3), 2, 1, DynamicsConfig(**WORLD | changes), shortcut, pack=1)


def settings(**changes):
    return ShortcutConfig(**SHORTCUT | changes)


def alone(rows, layers):
    """The view of one frame with nothing before it."""
    mask, where = torch.ones(rows, 1, 1, dtype=torch.bool), torch.zeros(rows, 1, dtype=torch.long)
    return View(mask, where, Cache(layers, 1))


def draw(rows, **changes):
    torch.manual_seed(0)
    return shortcut.draw_schedule(4000, 3, rows, dynamics(), settings(**changes), 'cpu')


def test_flow_frames_have_the_smallest_step_and_every_level_below_clean():
    level, size = draw(0)
    assert (size == 0).all()
    counts = level.flatten().bincount()
    assert len(counts) == 8 and counts.min() > 0.9 * level.numel() / 8


def test_bootstrap_frames_have_larger_steps_on_their_own_grid():
    level, size = draw(4000)
    assert sorted(size.unique().tolist()) == [1, 2, 3]
    for e in (1, 2, 3):
        levels = level[size == e].unique().tolist()
        assert levels == list(range(0, 8, 2**e)), f'd = 2^{e}/8'


def test_the_anchor_puts_its_share_of_flow_frames_on_pure_noise():
    level, _ = draw(0, anchor=0.4)
    assert abs((level == 0).float().mean() - (0.4 + 0.6 / 8)) < 0.02


def test_noise_and_data_are_mixed_by_the_signal_level():
    world, z = dynamics(), torch.ones(2000, 1, 2, 3)
    level = torch.full((2000, 1), 2)
    x = world.noised(z, level)
    assert abs(x.mean() - 0.25) < 0.02 and abs(x.std() - 0.75) < 0.02
    assert torch.equal(world.noised(z, level * 0 + 8), z)


def test_bootstrap_target_is_where_two_half_steps_lead():
    teach = lambda z, level, size: (
        0.5 * z + 0.1 * size[..., None, None] + 0.01 * level[..., None, None]
    )
    # tau = 1/2, d = 1/2, K_max = 8
    z, level, size = torch.full((1, 1, 2, 3), 0.4), torch.tensor([[4]]), torch.tensor([[2]])
    b1 = (teach(z, level, size - 1) - z) / 0.5
    z2 = z + 0.25 * b1
    b2 = (teach(z2, level + 2, size - 1) - z2) / 0.25
    after_two = z + 0.25 * b1 + 0.25 * b2
    target = shortcut.bootstrap_target(teach, z, level, size, 8)
    # a student that predicts the target and takes the whole step ...
    student_step = z + 0.5 * (target - z) / 0.5
    # ... lands where the teacher's two half steps land
    assert torch.allclose(student_step, after_two, atol=1e-6)


def test_sampler_equals_its_euler_steps_written_out():
    world = dynamics()
    torch.nn.init.normal_(world.latent_out.weight, std=0.3)
    action, valid = torch.randn(2, 1, 2), torch.ones(2, 1, dtype=torch.bool)
    mask, where = torch.ones(2, 1, 1, dtype=torch.bool), torch.zeros(2, 1, dtype=torch.long)
    empty = lambda: Cache([(torch.zeros(2, world.layout.size, 0, 8),) * 2] * 2, 1)
    torch.manual_seed(7)
    given, view = Given(action, valid), lambda: View(mask, where, empty())
    got = shortcut.sample(world, None, given, view(), 4)
    torch.manual_seed(7)
    z = torch.randn(2, 1, 2, 3)
    for k in range(4):
        tau, d = k / 4, 1 / 4
        level, size = torch.full((2, 1), 2 * k), torch.full((2, 1), 1)
        clean, _ = world(Frames(z, level, size, given), view())
        z = z + d * (clean - z) / (1 - tau)
    assert torch.allclose(got, z.clamp(-1, 1), atol=1e-6)


@pytest.mark.parametrize('history,moves', [('commit', False), ('forcing', False), ('commit', True)])
def test_the_loss_reaches_only_what_it_should(history, moves):
    world, z = dynamics(moves=moves), torch.randn(4, 3, 2, 3)
    action, valid = torch.randn(4, 3, 2), torch.ones(4, 3, dtype=torch.bool)
    first = torch.zeros(4, 3, dtype=torch.bool)
    given, config = Given(action, valid), settings(history=history)
    context = world.commit(z, given, first)
    out = shortcut.loss(world, context, given, first, config, 1).losses
    assert out['flow'].shape == (3, 3) and out['bootstrap'].shape == (1, 3)
    without = shortcut.loss(world, context, given, first, config, 0).losses
    assert set(without) == {'flow'} and without['flow'].shape == (4, 3)
    alone = shortcut.loss(world, context, given, first, config, 4).losses
    assert set(alone) == {'bootstrap'} and alone['bootstrap'].shape == (
        4,
        3,
    ), 'there is no mean of nothing'


def test_latents_that_learn_come_nearer_to_what_follows_them_and_not_the_other_way_round():
    world, first = dynamics(moves=True), torch.zeros(4, 3, dtype=torch.bool)
    z = (torch.rand(4, 3, 2, 3) - 0.5).requires_grad_()
    world.coordinates.measure(z.detach(), first)
    given = Given(torch.randn(4, 3, 2), ~first)
    context = world.commit(z, given, first)  # whose guess is no move as yet
    shortcut.loss(world, context, given, first, settings(anchor=1.0), 0).losses[
        'flow'
    ].sum().backward()
    assert (z.grad[:, -1] == 0).all(), 'nothing is told that it is to be predicted'
    move = z.detach().diff(dim=1)
    assert (-z.grad[:, :-1] * move > 0).all()


@pytest.mark.parametrize('moves', [False, True])
def test_what_is_guessed_of_frames_of_which_nothing_was_told_is_read_with_gradient(moves):
    world, z = dynamics(moves=moves), torch.rand(4, 3, 2, 3) - 0.5
    first = torch.zeros(4, 3, dtype=torch.bool)
    first[0, 1] = True
    given = Given(torch.randn(4, 3, 2), ~first)
    world.coordinates.measure(z, first)
    context = world.commit(z, given, first)
    forced = shortcut.loss(world, context, given, first, settings(anchor=1.0), 1)
    assert forced.blind[1:].equal(world.coordinates.known(first)[1:]), 'every frame is an anchor'
    assert not forced.blind[0].any(), 'large steps are not asked for the mean'
    assert forced.view(world.coordinates).shape == context.view.shape
    torch.nn.init.zeros_(world.latent_out.weight)
    world.latent_out.bias.data.fill_(0.5)
    forced = shortcut.loss(world, context, given, first, settings(anchor=1.0), 0)
    origin = world.coordinates.origin(context.seen, first)
    guess = torch.full_like(z, 0.5)
    expected = world.coordinates.view(world.coordinates.decode(guess, origin).clamp(-1, 1), guess)
    assert torch.allclose(forced.view(world.coordinates), expected, atol=1e-6)
    forced.view(world.coordinates).sum().backward()
    assert world.latent_out.bias.grad.abs().sum() > 0
    none = shortcut.loss(world, context, given, first, settings(anchor=0.0), 0).blind
    assert none.sum() < none.numel() / 2


def test_with_committed_history_a_frame_is_denoised_from_clean_past_and_its_own_noise_alone():
    """The prediction of frame 2 may depend on the clean frames 0 and 1, on its own noisy self,
    and on nothing else.
    """
    world = dynamics()
    torch.nn.init.normal_(world.latent_out.weight)
    z = torch.randn(1, 4, 2, 3, requires_grad=True)
    action, valid, first = (
        torch.randn(1, 4, 2),
        torch.ones(1, 4, dtype=torch.bool),
        torch.zeros(1, 4, dtype=torch.bool),
    )
    given = Given(action, valid)
    context = world.commit(z, given, first)
    noisy = torch.randn(1, 4, 2, 3, requires_grad=True)
    eye = torch.eye(4, dtype=torch.bool)[None]
    mask = torch.cat([context.mask & ~eye, eye], -1)
    level = torch.zeros(1, 4, dtype=torch.long)
    view = View(mask, torch.arange(4)[None], Beside(context.present))
    clean, _ = world(Frames(noisy, level, level, given), view)
    clean[:, 2].sum().backward()
    assert z.grad[:, 2:].abs().max() == 0 and z.grad[:, :2].abs().amax((0, 2, 3)).min() > 0
    assert noisy.grad[:, [0, 1, 3]].abs().max() == 0 and noisy.grad[:, 2].abs().max() > 0


@pytest.fixture(scope='module')
def coin():
    """A world trained on two equally likely latents, (.7, -.7) and (-.7, .7), as first frames."""
    torch.manual_seed(0)
    world = Dynamics((1, 2), 2, 1, DynamicsConfig(**WORLD | dict(width=64, depth=1)), pack=1)
    config = settings(bootstrap=0.5, anchor=0.2)
    optimizer, updates = torch.optim.Adam(world.parameters()), 400
    rows = 96
    action, valid = torch.zeros(rows, 1, 2), torch.zeros(rows, 1, dtype=torch.bool)
    first = torch.ones(rows, 1, dtype=torch.bool)
    for update in range(updates):
        optimizer.param_groups[0]['lr'] = 6e-3 * (1 - update / updates)
        side = (torch.rand(rows, 1, 1, 1) < 0.5).float() * 2 - 1
        given = Given(action, valid)
        context = world.commit(0.7 * torch.cat([side, -side], -1), given, first)
        large = rows // 2 if update > 100 else 0
        parts = shortcut.loss(world, context, given, first, config, large).losses
        optimizer.zero_grad()
        sum(v.mean() for v in parts.values()).backward()
        optimizer.step()
    return world


@pytest.mark.parametrize('steps,share', [(1, 0.6), (4, 0.8)])
def test_the_sampler_recovers_a_distribution_it_was_trained_on(coin, steps, share):
    """Samples must fall near both latents, half and half, and not on their mean. Over seeds of
    training one look brings .81 to .91 of them near a mode, four looks .95 to .99, and a model that
    predicts the mean none.
    """
    torch.manual_seed(0)
    layers = [(torch.zeros(512, coin.layout.size, 0, 16),) * 2]
    draws = shortcut.sample(
        coin,
        None,
        Given(torch.zeros(512, 1, 2), torch.zeros(512, 1, dtype=torch.bool)),
        alone(512, layers),
        steps,
    )[:, 0, 0]
    near = (draws.abs() - 0.7).abs().amax(-1) < 0.25
    right = (draws[:, 0] > 0).float().mean()
    assert near.float().mean() > share, f'{near.float().mean():.2f} of the samples lie near a mode'
    assert (draws[near, 0] * draws[near, 1] < 0).all(), 'both coordinates belong to the same mode'
    assert 0.35 < right < 0.65, f'{right:.2f} of the samples at one of two equal modes'


@pytest.mark.parametrize('steps', [1, 2, 4])
def test_without_shortcuts_every_step_is_labelled_with_the_only_size_that_is_trained(steps):
    world = dynamics(shortcut=False)
    seen = []
    world.register_forward_pre_hook(
        lambda _, args: seen.append((args[0].level[0, 0].item(), args[0].size.unique().tolist()))
    )
    layers = [(torch.zeros(3, world.layout.size, 0, 8),) * 2] * 2
    shortcut.sample(
        world,
        None,
        Given(torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.bool)),
        alone(3, layers),
        steps,
    )
    assert world.step_size.num_embeddings == 1 and seen == [
        (k * 8 // steps, [0]) for k in range(steps)
    ]


def test_numbers_of_steps_that_do_not_fit_the_levels_are_refused():
    with pytest.raises(ValueError, match='power of two'):
        shortcut.check(settings(steps=3), 8)
