"""Moves: units, first frames, the way there and back, and that small moves are learned where
whole latents are not.
"""

import pytest
import torch

from dreamer4.worlds.dreamer4 import shortcut
from dreamer4.worlds.dreamer4.dynamics import Dynamics, DynamicsConfig, Given
from dreamer4.worlds.dreamer4.moves import LINEAR, Moves, Origin, Whole
from dreamer4.worlds.dreamer4.rollout import predict
from dreamer4.worlds.dreamer4.shortcut import ShortcutConfig

B, T = 3, 5


def sequence(first_at=2):
    torch.manual_seed(0)
    z = 0.5 + 0.01 * torch.randn(B, T, 2, 3).cumsum(1)
    first = torch.zeros(B, T, dtype=torch.bool)
    first[1, first_at] = True
    return z, first


def test_units_are_the_root_mean_square_of_moves_within_episodes_for_every_channel():
    moves = Moves(1, 2)
    z = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.9, 0.9], [0.8, 0.9]])[None, :, None]
    moves.measure(z, torch.tensor([[True, False, True, False]]))
    assert torch.allclose(moves.usual, torch.tensor([[0.1, 1e-4]]), atol=1e-6)


def test_batches_without_a_move_leave_the_units_alone():
    moves, (z, first) = Moves(2, 3), sequence()
    moves.measure(z, first)
    before = moves.usual.clone()
    moves.measure(z, torch.ones_like(first))
    assert torch.equal(before, moves.usual) and moves.count == 1


@pytest.mark.parametrize('kind', [Moves, Whole])
def test_decoding_restores_what_was_encoded_however_far_it_moved(kind):
    coordinates, (z, first) = kind(2, 3), sequence()
    coordinates.measure(z, first)
    z[0, 3] = -0.9  # a hundred usual moves away
    origin = coordinates.origin(z, first)
    code = coordinates.encode(z, origin)
    assert torch.allclose(coordinates.decode(code, origin), z, atol=1e-5)
    assert code.abs().max() < coordinates.bound
    assert coordinates.tell(code, origin).shape[-1] == coordinates.told
    assert coordinates.view(z, code).shape[-1] == coordinates.viewed


def test_a_move_is_the_plain_quotient_up_to_its_linear_range_and_grows_slowly_beyond():
    moves = Moves(1, 1)
    origin = Origin(torch.zeros(1), torch.ones(1))
    x = torch.tensor([-2.0, 0.5, LINEAR, LINEAR * 2.718281828])
    assert torch.allclose(moves.encode(x, origin), torch.tensor([-2.0, 0.5, LINEAR, 2 * LINEAR]))


def test_the_first_frame_of_an_episode_is_a_move_from_nothing_in_units_of_one():
    moves, (z, first) = Moves(2, 3), sequence()
    moves.measure(z, first)
    code = moves.encode(z, moves.origin(z, first))
    assert torch.equal(code[1, 2], z[1, 2])
    assert torch.allclose(code[0, 2], (z[0, 2] - z[0, 1]) / moves.usual)
    assert moves.known(first).tolist() == [[False] + [True] * 4] * 3, (
        'a cut sequence has no frame before its first'
    )
    first[0, 0] = True
    assert moves.known(first)[0, 0]


def test_frames_after_a_seen_one_have_the_origin_that_the_sequence_would_give_them():
    moves, (z, first) = Moves(2, 3), sequence()
    moves.measure(z, first)
    inside, after = moves.origin(z, first), moves.after(z[:, 3:4])
    assert torch.equal(inside.before[:, 4:], after.before) and torch.allclose(
        inside.unit[:, 4:], after.unit
    )


def test_noise_on_history_is_a_share_of_the_usual_move():
    moves, (z, first) = Moves(2, 3), sequence()
    moves.measure(z, first)
    still = torch.zeros(4000, 1, 2, 3)
    noise = moves.blur(still, 0.75).std((0, 1))
    assert torch.allclose(noise, 0.25 * moves.usual, rtol=0.1)
    assert moves.blur(still, 1.0) is still


def world(moves):
    torch.manual_seed(0)
    return Dynamics(
        (1, 2),
        1,
        1,
        DynamicsConfig(
            width=32,
            depth=2,
            group=1,
            time_every=1,
            registers=0,
            softcap=0.0,
            levels=8,
            moves=moves,
            context_signal=1.0,
        ),
        shortcut=False,
        pack=1,
    )


def cart(rows, time=6):
    """A cart at -.9 .. .9 that an action pushes by .01: latents (position, 0), action that led
    to each frame.
    """
    push = torch.randint(0, 2, (rows, time, 1)) * 2.0 - 1
    place = torch.rand(rows, 1) * 1.8 - 0.9 + 0.01 * push[..., 0].cumsum(1)
    return torch.stack([place, place * 0], -1)[:, :, None], push


def error_over_copy(moves):
    model = world(moves)
    config = ShortcutConfig(
        history='commit',
        steps=1,
        bootstrap=0.0,
        anchor=0.5,
    )
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    first = torch.zeros(16, 6, dtype=torch.bool)
    for _ in range(60):
        z, push = cart(16)
        model.coordinates.measure(z, first)
        context = model.commit(z, Given(push, ~first), first)
        optimizer.zero_grad()
        flow = shortcut.loss(model, context, Given(push, ~first), first, config, 0).losses['flow']
        flow.mean().backward()
        optimizer.step()
    z, push = cart(16)
    context = model.commit(z, Given(push, ~first), first)
    rows = torch.arange(16)
    guess = predict(model, context, rows, rows * 0 + 2, push[:, 3:4], 1)[:, 0]
    return ((guess - z[:, 3]).square().mean() / (z[:, 2] - z[:, 3]).square().mean()).item()


def test_small_moves_are_learned_where_whole_latents_end_up_worse_than_copying():
    moves, whole = error_over_copy(True), error_over_copy(False)
    assert moves < 0.2, f'one imagined step errs {moves:.2f} times as much as copying the frame'
    assert whole > 1, (
        f'whole latents err {whole:.2f} times as much: then nothing speaks for moves here'
    )


def test_a_batch_that_is_not_finite_leaves_the_units_as_they_were():
    moves, (z, first) = Moves(2, 3), sequence()
    moves.measure(z, first)
    before = moves.usual.clone()
    broken = z.clone()
    broken[0, 1, 0, 0] = float('nan')
    moves.measure(broken, first)
    assert torch.equal(moves.usual, before) and moves.count == 1
