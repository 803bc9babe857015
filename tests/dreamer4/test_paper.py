"""The preset `paper` trains through its three phases: what is frozen stays as it is, and the policy
begins as the behaviour clone.
"""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import CONFIGS, SMALL, feed

from dreamer4.agent import Agent
from embodied.base import FLAG, OUTCOME
from embodied.config import parse

OBS = {'image': spaces.Box(0, 255, (32, 32, 3), np.uint8), **OUTCOME}
ACT = {'action': spaces.Discrete(3), 'reset': FLAG}
SHORT = {
    'schedule.tokenizer_updates': 3,
    'schedule.dynamics_updates': 4,
    'dynamics.levels': 4,
    'shortcut.bootstrap_start': 1,
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


@pytest.fixture(scope='module')
def agent():
    """Fresh, in the sizes of the other tests and with the paper's choices."""
    config = parse(['--configs', 'pixel', 'paper'], CONFIGS)
    small = {k: v for k, v in SMALL.items() if k.rpartition('.')[2] in SIZES} | SHORT
    config = config.update({f'agent.{key}': value for key, value in small.items()})
    config = config.update({'machine.device': 'cpu', 'agent.tokenizer.lpips': 0.0})
    return Agent.from_config(config, OBS, ACT)


def copied(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def same(module, before):
    return all(torch.equal(a, b) for a, b in zip(module.parameters(), before))


def test_three_phases_freeze_what_was_learned_before(agent):
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
    assert {'loss/flow', 'loss/bootstrap', 'loss/reward', 'loss/behaviour'} <= seen[-1].keys()
    clone = world.clone.parts[0].output.weight[: len(critic.policy_head.parts[0].output.weight)]
    assert torch.equal(critic.policy_head.parts[0].output.weight, clone)
    policy = copied(critic.policy_head)
    while agent.updates < 12:
        seen.append(agent.train(found.next()))
    assert agent.status().stage == 'policy' and not same(critic.policy_head, policy)
    assert 'loss/flow' not in seen[-1] and 'policy/entropy' in seen[-1]
    assert all(np.isfinite(value) for metrics in seen for value in metrics.values())


def test_a_frozen_model_is_not_trained_any_more(agent):
    assert agent.status().stage == 'policy'
    before = copied(agent.world.dynamics), copied(agent.world.heads)
    agent.train(feed(agent, rows).next())
    assert same(agent.world.dynamics, before[0]) and same(agent.world.heads, before[1])


def test_it_looks_back_in_time_at_noisy_frames(agent):
    config = agent.config
    assert config.tokenizer.time_every and config.shortcut.history == 'forcing'
    assert any(block.time is not None for block in agent.world.tokenizer.encoder.blocks)
