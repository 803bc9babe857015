"""Recurrence, networks and gradients of the recurrent state-space model."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer4.nets.conv import halvings
from dreamer4.worlds.rssm.forms import FORMS
from dreamer4.worlds.rssm.model import RSSM, RSSMConfig, State
from dreamer4.worlds.rssm.nets import (
    CELLS,
    CONVS,
    BlockGRU,
    BlockLinear,
    Decoder,
    Encoder,
    Style,
    gated,
)

STYLE = Style('silu', 'rms')
CONFIG = RSSMConfig(deter=16, units=8, stoch=3, classes=4, depth=2, conv='strided', free_nats=1.0)


def model(kind='dreamerv3', embed=5, action=2):
    torch.manual_seed(0)
    made = RSSM(embed, action, CONFIG, FORMS[kind])
    # what is compared here is no matter of chance: a sample is the mean of its distribution
    latents, gaussian = made.latents, FORMS[kind].gaussian
    probability = lambda params: latents._log_p(params).exp().flatten(-2)
    latents.sample = latents.mode if gaussian else probability
    return made


def sequences(batch=2, time=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)
    return draw(batch, time, 5), draw(batch, time, 2), torch.zeros(batch, time, dtype=torch.bool)


def test_a_block_linear_layer_is_a_dense_one_with_a_block_diagonal_matrix():
    torch.manual_seed(0)
    layer, x = BlockLinear(6, 4, 2), torch.randn(3, 6)
    torch.nn.init.normal_(layer.bias)
    dense = torch.block_diag(*layer.weight)
    assert torch.allclose(layer(x), x @ dense + layer.bias, atol=1e-6)
    with pytest.raises(ValueError, match='4 blocks must divide 6 inputs and 4 outputs'):
        BlockLinear(6, 4, 4)


def test_gates_by_hand():
    h = torch.tensor([[1.0]])
    none = torch.tensor([[0.0]])
    # update = sigmoid(-1) = .2689, cand = tanh(.5 * 0) = 0
    assert gated(h, none, none, none).item() == pytest.approx(1 - 0.268941, abs=1e-5)
    # an open update gate takes the candidate whole
    assert gated(
        h, torch.tensor([[50.0]]), torch.tensor([[1.0]]), torch.tensor([[50.0]])
    ).item() == (pytest.approx(np.tanh(1), abs=1e-5))


def test_a_block_of_the_gru_reads_its_own_part_of_the_state_alone_beside_the_shared_inputs():
    torch.manual_seed(0)
    cell = BlockGRU(8, 3, 2, 5, 4, Style('silu', 'none'))
    torch.nn.init.zeros_(cell.inward[0][0].weight)  # the shared layer over the state is silenced
    deter = torch.randn(1, 8, requires_grad=True)
    out = cell(deter, torch.randn(1, 3), torch.randn(1, 2))
    for block in range(4):
        own = slice(2 * block, 2 * block + 2)
        grad = torch.autograd.grad(out[:, own].sum(), deter, retain_graph=True)[0][0]
        assert grad[own].abs().min() > 0
        grad[own] = 0
        assert not grad.any()


@pytest.mark.parametrize('cell', CELLS)
def test_every_cell_keeps_the_shape_of_its_state_and_listens_to_all_inputs(cell):
    torch.manual_seed(0)
    made = CELLS[cell](8, 3, 2, 5, 4, STYLE)
    inputs = [torch.randn(7, size, requires_grad=True) for size in (8, 3, 2)]
    out = made(*inputs)
    assert out.shape == (7, 8)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(out.square().sum(), inputs))


@pytest.mark.parametrize('kind', FORMS)
def test_the_future_does_not_reach_the_past(kind):
    made, (embed, action, first) = model(kind), sequences()
    before = made.observe(embed, action, first)
    embed[:, 3:] += 1
    action[:, 3:] += 1
    after = made.observe(embed, action, first)
    for x, y in ((before.state.feature, after.state.feature), (before.post, after.post)):
        assert torch.equal(x[:, :3], y[:, :3])
        assert not torch.equal(x[:, 3:], y[:, 3:])


@pytest.mark.parametrize('kind', FORMS)
def test_a_frame_tells_the_posterior_but_not_its_own_prior(kind):
    made, (embed, action, first) = model(kind), sequences()
    before = made.observe(embed, action, first)
    embed[:, 3] += 1
    after = made.observe(embed, action, first)
    assert torch.equal(before.prior[:, :4], after.prior[:, :4])
    assert not torch.equal(before.post[:, 3], after.post[:, 3])
    assert not torch.equal(before.prior[:, 4], after.prior[:, 4])


@pytest.mark.parametrize('kind', FORMS)
def test_an_action_moves_the_frame_that_it_leads_to(kind):
    made, (embed, action, first) = model(kind), sequences()
    before = made.observe(embed, action, first)
    action[:, 3] += 1
    after = made.observe(embed, action, first)
    assert torch.equal(before.state.deter[:, :3], after.state.deter[:, :3])
    assert not torch.equal(before.state.deter[:, 3], after.state.deter[:, 3])


@pytest.mark.parametrize('kind', FORMS)
def test_an_episode_that_begins_inside_a_sequence_knows_nothing_of_the_one_before(kind):
    made, (embed, action, first) = model(kind), sequences()
    first[:, 2] = True
    whole = made.observe(embed, action, first)
    alone = made.observe(embed[:, 2:], action[:, 2:], first[:, 2:])
    assert torch.allclose(whole.state.feature[:, 2:], alone.state.feature, atol=1e-6)
    embed[:, :2] += 1
    action[:, :3] += 1  # the action that led to a first frame is of the episode before
    other = made.observe(embed, action, first)
    assert torch.equal(whole.state.feature[:, 2:], other.state.feature[:, 2:])
    assert torch.equal(whole.prior[:, 2:], other.prior[:, 2:])


@pytest.mark.parametrize('kind', FORMS)
def test_seeing_step_by_step_is_observing_the_sequence(kind):
    made, (embed, action, first) = model(kind), sequences()
    first[0, 3] = True
    whole = made.observe(embed, action, first).state.feature
    state = made.initial(2, embed.device)
    for t in range(6):
        state, _ = made.see(state, embed[:, t], action[:, t], first[:, t])
        assert torch.allclose(state.feature, whole[:, t], atol=1e-6)


@pytest.mark.parametrize('kind', FORMS)
def test_imagination_is_the_recurrence_under_the_prior(kind):
    made, (embed, action, first) = model(kind), sequences()
    start = made.observe(embed, action, first).state.at(slice(None), -1)
    acts = torch.randn(2, 3, 2)
    states = made.imagine(start, lambda state, t: acts[:, t], 3)
    assert states.feature.shape == (2, 4, made.feature_size)
    assert torch.equal(states.feature[:, 0], start.feature)
    for t in range(3):
        before = states.at(slice(None), t)
        deter = made.cell(before.deter, before.stoch, acts[:, t])
        stoch = made.latents.sample(made.prior(deter))
        assert torch.allclose(states.feature[:, t + 1], State(deter, stoch).feature, atol=1e-6)


@pytest.mark.parametrize('kind', FORMS)
def test_the_gradient_of_an_imagined_state_reaches_every_action_before_it(kind):
    made, (embed, action, first) = model(kind), sequences()
    acts = torch.randn(2, 4, 2, requires_grad=True)
    start = made.observe(embed, action, first).state.at(slice(None), -1).detach()
    states = made.imagine(start, lambda state, t: acts[:, t], 4)
    grad = torch.autograd.grad(states.feature[:, 3].square().sum(), acts)[0].abs().sum((0, 2))
    assert (grad[:3] > 0).all() and grad[3] == 0


OBS = {
    'eye': spaces.Box(0, 255, (16, 16, 3), np.uint8),
    'second eye': spaces.Box(0, 255, (11, 13, 1), np.uint8),
    'joints': spaces.Box(-9, 9, (2, 2), np.float32),
    'gear': spaces.Discrete(3),
    'height': spaces.Box(-9, 9, (), np.float32),
}


def observations(count=5):
    rng = np.random.default_rng(0)
    values = {
        'eye': rng.integers(0, 256, (count, 16, 16, 3), dtype=np.uint8),
        'second eye': rng.integers(0, 256, (count, 11, 13, 1), dtype=np.uint8),
        'joints': rng.normal(size=(count, 2, 2)).astype(np.float32),
        'gear': rng.integers(0, 3, count),
        'height': rng.normal(size=count).astype(np.float32),
    }
    return {k: torch.from_numpy(v) for k, v in values.items()}


@pytest.mark.parametrize('conv', CONVS)
def test_observations_of_several_kinds_pass_encoder_and_decoder(conv):
    torch.manual_seed(0)
    encoder = Encoder(OBS, 4, 8, 2, conv, STYLE)
    decoder = Decoder(OBS, 16, 12, 4, 8, 2, conv, 4, STYLE)
    obs = observations()
    embed = encoder(obs)
    assert embed.shape == (5, encoder.outputs)
    guess = decoder(torch.randn(5, 16), torch.randn(5, 12))
    assert {k: tuple(v.shape[1:]) for k, v in guess.items()} == {
        'eye': (16, 16, 3),
        'second eye': (11, 13, 1),
        'joints': (4,),
        'gear': (3,),
        'height': (1,),
    }
    assert (guess['eye'] == 0.5).all()  # zero at the start
    for key in OBS:  # every key is heard
        other = obs | {key: obs[key].roll(1, 0)}
        assert not torch.equal(encoder(other), embed), key


@pytest.mark.parametrize('conv', CONVS)
def test_an_autoencoder_of_images_overfits_a_few_frames(conv):
    torch.manual_seed(0)
    space = {'eye': spaces.Box(0, 255, (9, 8, 3), np.uint8)}
    encoder = Encoder(space, 4, 8, 1, conv, STYLE)
    decoder = Decoder(space, 16, 16, 4, 16, 1, conv, 4, STYLE)
    inward = torch.nn.Linear(encoder.outputs, 32)
    image = torch.full((4, 9, 8, 3), 20, dtype=torch.uint8)
    for i in range(4):
        image[i, 2 * i : 2 * i + 2, 3:6] = 220
    parts = [*encoder.parameters(), *decoder.parameters(), *inward.parameters()]
    optimizer = torch.optim.Adam(parts, 1e-2)
    truth = image.float() / 255
    for _ in range(80):
        deter, stoch = inward(encoder({'eye': image})).split(16, -1)
        loss = (decoder(deter, stoch)['eye'] - truth).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * (truth - truth.mean(0)).square().mean()


def test_images_are_halved_until_their_smaller_side_is_four():
    assert halvings((64, 64, 3)) == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert halvings((11, 30, 3)) == [(6, 15), (3, 8)]
    assert halvings((2, 2, 3)) == [(1, 1)]


def test_nothing_to_observe_is_refused():
    with pytest.raises(ValueError, match='at least one key, got none'):
        Encoder({}, 4, 8, 2, 'strided', STYLE)
