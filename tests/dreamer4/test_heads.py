"""Heads: targets of multi-token prediction by hand, and the chain world that exposes every
off-by-one in time.
"""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import HEADS, speak

from dreamer4.actions import Actions
from dreamer4.batch import make_batch
from dreamer4.heads import Head, Heads, HeadsConfig, ahead, shifted
from dreamer4.scores import mean
from dreamer4.worlds.dreamer4.dynamics import Dynamics, DynamicsConfig, Given

ACTIONS = Actions({'action': spaces.Discrete(3)}, 'bins', 5, 0.01)


def test_shifted_and_ahead_of_two_episodes_written_out():
    first = torch.tensor([[True, False, True, False]])
    assert shifted(torch.arange(4)[None], 3)[0].tolist() == [
        [0, 1, 2],
        [1, 2, 3],
        [2, 3, 3],
        [3, 3, 3],
    ]
    assert ahead(first, 3)[0].int().tolist() == [[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_the_mean_of_nothing_is_zero():
    assert mean(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 0


def chain_rows(rng, batch=32, length=9):
    """A world whose picture never changes and whose reward is the last action alone: only
    prev_action can tell it.
    """
    action = rng.integers(0, 3, (batch, length)).astype(np.int32)
    reward = np.zeros((batch, length), np.float32)
    reward[:, 1:] = action[:, :-1] - 1
    flag = np.zeros((batch, length), bool)
    return {
        'action': action,
        'reward': reward,
        'is_first': flag,
        'is_last': flag.copy(),
        'is_terminal': flag.copy(),
    }


def test_reward_of_the_last_action_is_learned_exactly_and_random_actions_are_not_predicted():
    """Reward shifted by one could not be learned; an action that leaks into its own frame would
    be cloned perfectly.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    world = Dynamics(
        (2, 2),
        ACTIONS.features,
        1,
        DynamicsConfig(
            width=32,
            depth=2,
            group=1,
            time_every=2,
            registers=1,
            softcap=0.0,
            levels=8,
            moves=False,
            context_signal=1.0,
        ),
        pack=1,
    )
    heads = Heads(32, 4, ACTIONS, HeadsConfig(**HEADS))
    optimizer = torch.optim.Adam([*world.parameters(), *heads.parameters()], 3e-3)
    for _ in range(150):
        batch = make_batch(chain_rows(rng), [], ACTIONS, torch.device('cpu'))
        z = torch.zeros(*batch.shape, 2, 2)
        given = Given(ACTIONS.embed(batch.prev_action), batch.prev_valid)
        context = world.commit(z, given, batch.is_first)
        x = heads.inputs(context.feature, context.view)
        losses = heads.losses(x, batch, torch.ones(batch.shape, dtype=torch.bool))
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    error = (heads.reward(x) - batch.reward).abs().max()
    assert error < 0.05, (
        f'reward head misses the reward of the last action by {error:.2f}: is it shifted in time?'
    )
    entropy = math.log(3)
    cloning = -heads.behaviour(x).log_prob(batch.action).mean()
    assert cloning > 0.9 * entropy, (
        f'random actions are predicted ({cloning:.2f} nats of {entropy:.2f}): their target leaks'
        ' into the input'
    )


@pytest.mark.parametrize(
    'reads, feature, latent',
    [
        ('apart', True, True),
        ('together', True, True),
        ('feature', True, False),
        ('latents', False, True),
    ],
)
def test_a_head_reads_what_the_configuration_says(reads, feature, latent):
    heads = Heads(8, 6, ACTIONS, HeadsConfig(**HEADS | dict(reads=reads)))
    speak(heads.cont_head)
    f, z = torch.randn(5, 8, requires_grad=True), torch.randn(5, 2, 3, requires_grad=True)
    grads = torch.autograd.grad(
        heads.cont(heads.inputs(f, z)).sum(), (f, z), allow_unused=True, materialize_grads=True
    )
    assert [bool(g.abs().sum() > 0) for g in grads] == [feature, latent]


def test_parts_that_are_read_apart_add_their_outputs_and_know_nothing_of_each_other():
    head = Head([8, 6], 16, 2, 3)
    speak(head)
    f, z = torch.randn(5, 8), torch.randn(5, 6)
    torch.testing.assert_close(head(torch.cat([f, z], -1)), head.parts[0](f) + head.parts[1](z))
    moved = head(torch.cat([f + 1, z], -1)) - head(torch.cat([f, z], -1))
    torch.testing.assert_close(
        moved, head(torch.cat([f + 1, 2 * z], -1)) - head(torch.cat([f, 2 * z], -1))
    )


def test_latents_say_nothing_about_later_frames():
    head = Head([8, 6], 16, 2, 3, later=6)
    speak(head)
    f, z = torch.randn(5, 8), torch.randn(5, 6)
    same = head(torch.cat([f, z], -1)) == head(torch.cat([f, z + 1], -1))
    assert same.shape == (5, 9) and same[:, 3:].all() and not same[:, :3].all()


def test_rewards_of_first_frames_and_actions_of_last_frames_are_no_targets():
    rows = {
        'action': np.array([[1, 2, 0, 1, 1]], np.int32),
        'reward': np.array([[0, 1, 1, 0, 1]], np.float32),
        'is_first': np.array([[True, False, False, True, False]]),
        'is_last': np.array([[False, False, True, False, False]]),
        'is_terminal': np.array([[False, False, True, False, False]]),
    }
    batch = make_batch(rows, [], ACTIONS, torch.device('cpu'))
    heads = Heads(4, 0, ACTIONS, HeadsConfig(**HEADS | dict(reads='feature', offsets=0)))
    x = torch.randn(1, 4, 4, requires_grad=True)
    for name in ('reward_head', 'behaviour_head'):
        speak(getattr(heads, name))
    losses = heads.losses(x, batch, torch.ones(1, 4, dtype=torch.bool))
    reach = lambda loss: torch.autograd.grad(loss, x, retain_graph=True)[0].abs().sum(-1)[0] > 0
    assert reach(losses['reward']).tolist() == [True, True, False, True]
    assert reach(losses['behaviour']).tolist() == [True, False, True, True]


@pytest.mark.parametrize('offsets', [0, 2])
@pytest.mark.parametrize(
    'flag, unknown',
    [
        ('unlabeled', ('reward', 'cont', 'behaviour')),
        ('unlabeled_action', ('behaviour',)),
        ('unlabeled_reward', ('reward', 'cont')),
    ],
)
def test_labels_that_are_not_known_are_no_targets_at_any_offset(flag, unknown, offsets):
    torch.manual_seed(0)
    rng, shape = np.random.default_rng(0), (2, 7)
    rows = {
        'action': rng.integers(0, 3, shape).astype(np.int32),
        'reward': rng.normal(size=shape).astype(np.float32),
        'is_first': np.zeros(shape, bool),
        'is_last': np.zeros(shape, bool),
        'is_terminal': np.zeros(shape, bool),
        flag: np.zeros(shape, bool),
    }
    heads = Heads(4, 0, ACTIONS, HeadsConfig(**HEADS | dict(reads='feature', offsets=offsets)))
    for name in ('reward_head', 'behaviour_head', 'cont_head'):
        speak(getattr(heads, name))
    x, everywhere = torch.randn(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    losses = lambda: heads.losses(x, make_batch(rows, [], ACTIONS, torch.device('cpu')), everywhere)
    before = losses()
    rows[flag][0] = True
    labeled = losses()
    rows['action'][0], rows['reward'][0], rows['is_terminal'][0] = 2 - rows['action'][0], 9.0, True
    assert all(losses()[name] == labeled[name] for name in unknown), (
        'what stands there does not matter'
    )
    for name, loss in labeled.items():
        assert (loss != before[name]) == (name in unknown), name
    rows[flag][:] = True
    assert all(losses()[name] == 0 for name in unknown)
