"""The preset `paper` trains through its phases: what is frozen stays as it is, and the policy
begins as the behaviour clone.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import CONFIGS, SMALL, feed

from dreamer4.agent import Agent
from dreamer4.schedule import MODEL
from embodied.base import FLAG, OUTCOME
from embodied.config import parse

OBS = {'image': spaces.Box(0, 255, (32, 32, 3), np.uint8), **OUTCOME}
ACT = {'action': spaces.Discrete(3), 'reset': FLAG}
SHORT = {
    'schedule.tokenizer_updates': 3,
    'schedule.dynamics_updates': 3,
    'schedule.agent_updates': 3,
    'dynamics.levels': 4,
    'batch.long_length': 16,
}
SIZES = ('width', 'size', 'length', 'latents', 'channels', 'bins', 'frames', 'starts', 'horizon')


def rows(sequences, length):
    """Noise with episodes of eight rows."""
    rng = np.random.default_rng(0)
    shape, place = (sequences, length), np.arange(length)[None].repeat(sequences, 0) % 8
    return {
        'image': rng.integers(0, 256, (*shape, 32, 32, 3), dtype=np.uint8),
        'action': rng.integers(0, 3, shape),
        'reward': (place == 7).astype(np.float32),
        'is_first': place == 0,
        'is_last': place == 7,
        'is_terminal': place == 7,
    }


def small_agent(**changes):
    """Fresh, in the sizes of the other tests and with the paper's choices."""
    config = parse(['--configs', 'pixel', 'paper'], CONFIGS)
    small = {k: v for k, v in SMALL.items() if k.rpartition('.')[2] in SIZES} | SHORT | changes
    config = config.update({f'agent.{key}': value for key, value in small.items()})
    config = config.update({'machine.device': 'cpu', 'agent.tokenizer.lpips': 0.0})
    return Agent.from_config(config, OBS, ACT)


@pytest.fixture(scope='module')
def agent():
    return small_agent()


def copied(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def same(module, before):
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), before))


def test_every_phase_freezes_what_was_learned_before(agent):
    world, critic, found = agent.world, agent.actor_critic, feed(agent, rows)
    tokenizer = copied(world.tokenizer)
    seen = []
    while agent.status().stage == 'tokenizer':
        seen.append(agent.train(found.next()))
    assert not same(world.tokenizer, tokenizer) and len(seen) == 3
    tokenizer, dynamics = copied(world.tokenizer), copied(world.dynamics)
    while agent.status().stage == 'dynamics':
        seen.append(agent.train(found.next()))
    assert same(world.tokenizer, tokenizer) and not same(world.dynamics, dynamics)
    assert {'loss/flow', 'loss/bootstrap'} <= seen[-1].keys() and 'loss/reward' not in seen[-1]
    assert len(seen) == 3 + 3 + 1, 'the last of them long'
    heads, dynamics = copied(world.heads), copied(world.dynamics)
    while agent.status().stage == 'agent':
        seen.append(agent.train(found.next()))
    assert not same(world.heads, heads) and not same(world.dynamics, dynamics)
    assert {'loss/flow', 'loss/reward', 'loss/behaviour'} <= seen[-1].keys()
    clone = world.clone.parts[0].output.weight[: len(critic.policy_head.parts[0].output.weight)]
    assert torch.equal(critic.policy_head.parts[0].output.weight, clone)
    policy = copied(critic.policy_head)
    while agent.updates < 14:
        seen.append(agent.train(found.next()))
    assert agent.status().stage == 'policy' and not same(critic.policy_head, policy)
    assert 'loss/flow' not in seen[-1] and 'policy/entropy' in seen[-1]
    assert all(np.isfinite(value) for metrics in seen for value in metrics.values())


def test_a_frozen_model_is_not_trained_any_more(agent):
    assert agent.status().stage == 'policy'
    before = copied(agent.world.dynamics), copied(agent.world.heads)
    agent.train(feed(agent, rows).next())
    assert same(agent.world.dynamics, before[0]) and same(agent.world.heads, before[1])


def test_behaviour_is_learned_of_imitated_frames_and_video_of_the_others(agent):
    """Of a batch that is all of one kind the other loss is zero, and leads nowhere."""
    world, batch = agent.world, agent.batch(rows(4, 9))
    flags = torch.zeros(4, 8, dtype=torch.bool)
    for imitated in (False, True):
        part = replace(batch, imitated=flags | imitated, predicted=flags | (not imitated))
        torch.manual_seed(0)
        _, parts = world.model_loss(part, world.commit(part), 2, heads=True)
        assert (parts['behaviour'] > 0) == imitated
        assert (parts['flow'] > 0) == (parts['bootstrap'] > 0) == (not imitated)
        assert parts['reward'] > 0, 'rewards are learned of both'
    torch.manual_seed(0)
    _, whole = world.model_loss(batch, world.commit(batch), 2, heads=True)
    assert whole['behaviour'] > 0 and whole['flow'] > 0


def test_a_held_out_measure_is_the_same_each_time_and_falls_as_a_stage_learns():
    changes = {'schedule.plateau': 3, 'schedule.gate_every': 1, 'schedule.tokenizer_updates': 40}
    made = small_agent(**changes)
    seen = [made.train(feed(made, rows).next()) for _ in range(12)]
    scores = [metrics['held_out/tokenizer'] for metrics in seen[1:]]
    assert scores[-1] < scores[0]
    assert made.schedule.best == pytest.approx(min(scores), rel=1e-3)
    batch = made.batch(rows(4, 9))
    for stage in ('tokenizer', 'dynamics', 'agent', 'policy'):
        made.schedule.stage, state = stage, torch.get_rng_state()
        first, again = (made.gate.measure(batch)[f'held_out/{stage}'] for _ in range(2))
        assert first == again and np.isfinite(first)
        same_numbers = torch.equal(state, torch.get_rng_state())
        assert same_numbers or stage in MODEL, 'whose open-loop measure draws, as online'


def test_it_looks_back_in_time_at_noisy_frames(agent):
    config = agent.config
    assert config.tokenizer.time_every and config.shortcut.history == 'forcing'
    assert any(block.time is not None for block in agent.world.tokenizer.encoder.blocks)
