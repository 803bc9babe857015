"""The actor-critic in the true physics: its dreams are true, and the product's learners learn."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import command, oracle
from benchmarks.batched import Batched
from benchmarks.oracle import Oracle, Play, evaluate
from dreamer4.actor_critic import LAM
from dreamer4.agent_config import AgentConfig
from dreamer4.machine import MachineConfig
from dreamer4.returns import lambda_return

SMALL = [
    *('--agent.heads.width', '32', '--agent.heads.bins', '31', '--agent.imagination.starts', '32'),
    *('--agent.imagination.horizon', '3', '--agent.schedule.value_updates', '10'),
    *('--run.prefill', '64'),
]


class Track:
    """A physics in which the best action is the state itself, and no action moves it."""

    actions, repeat = 1, 2

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def resets(self, count):
        return self.rng.uniform(-1, 1, (count, 1))

    def observe(self, states):
        return np.concatenate([states, states**2], 1).astype(np.float32)

    def step(self, states, actions):
        return -states * 0.9, 1 - np.abs(actions[:, 0] - states[:, 0])


def make(physics, *flags):
    config = oracle.configure('dmc_pendulum_swingup', [*SMALL, *flags])
    torch.manual_seed(0)
    return Oracle(
        physics, config.agent.build(AgentConfig), config.machine.build(MachineConfig), seed=0
    )


def test_value_and_policy_learn_what_is_best(monkeypatch):
    monkeypatch.setattr('dreamer4.actor_critic.ACTING', 0.1)
    agent = make(Track(), '--agent.value.slow', '0.2')
    play, tests = Play(agent, 4, 200), np.linspace(-1, 1, 16)[:, None]
    before = evaluate(agent, tests, True, 20)
    for _ in range(150):
        play.step()
        agent.learn()
    after = evaluate(agent, tests, True, 20)
    assert before['score'] < 8 and after['score'] > 16, (before, after)
    assert agent.schedule.stage == 'policy'


def test_the_value_is_judged_by_the_returns_that_came():
    agent = make(Track(), '--agent.value.gamma', '0.5')
    agent.choose = lambda states, mode: torch.full((len(states), 1), 5.0)  # the action 0
    agent.actor_critic.value = lambda x: torch.zeros(len(x))
    found = evaluate(agent, np.zeros((3, 1)), True, 10)
    assert found['score'] == pytest.approx(10) and found['std'] < 1e-6
    np.testing.assert_allclose(found['return'], np.mean(2 - 2.0 ** -np.arange(2, 10)), rtol=1e-6)
    agent.actor_critic.value = lambda x: x[:, 0]
    assert evaluate(agent, np.linspace(-1, 1, 8)[:, None], True, 10)['explained'] < 0


@pytest.mark.dmc
def test_a_dream_is_what_the_physics_does_with_the_actions_dreamed():
    agent = make(Batched('dmc_reacher_easy', 2))
    agent.remember(agent.physics.resets(50))
    agent.measure()
    dream = agent.dream()
    seen = dream.features[:, :, :6] * agent.std + agent.mean
    known = torch.from_numpy(agent.physics.observe(agent.known))
    states = agent.known[
        ((known.sign() * known.abs().log1p())[None] - seen[:, :1]).abs().sum(-1).argmin(1)
    ]
    rewards = []
    for t in range(3):
        np.testing.assert_array_equal(dream.features[:, t], agent.inputs(states))
        states, reward = agent.physics.step(states, agent.decode(dream.action[:, t]))
        rewards.append(reward)
    np.testing.assert_allclose(dream.reward[:, 1:], np.stack(rewards, 1), rtol=1e-6)
    c, zeros = agent.config.value, torch.zeros(32, 4)
    # a fresh value is zero
    expected = lambda_return(dream.reward, zeros + 1, zeros, c.gamma, LAM)
    torch.testing.assert_close(agent.actor_critic.score(dream).value, expected)


@pytest.mark.dmc
def test_a_run_of_two_seeds_prints_a_table_and_writes_json(tmp_path, monkeypatch, capsys):
    path = tmp_path / 'new' / 'found.json'
    words = ['--task', 'dmc_pendulum_swingup', '--updates', '2', '--every', '2', *SMALL]
    monkeypatch.setattr(oracle, 'FRAMES', 40)
    monkeypatch.setattr(sys, 'argv', ['oracle', *words, '--seeds', '0', '1', '--json', str(path)])
    oracle.main()
    found = json.loads(path.read_text())
    first, second = (run['curve'] for run in found['runs'])
    assert first['updates'] == [0, 2] and first['entropy'][0] is None and first['entropy'][1] > 2
    assert first['return'] != second['return'], 'other seeds, other episodes'
    assert first['frames'][1] - first['frames'][0] == 2 * 8 * 2
    assert 'explained' in capsys.readouterr().out


def test_a_mistake_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['bench/oracle.py', '--task', 'dmc_walker_walk'])
    with pytest.raises(SystemExit) as ended:
        command.start(oracle.main)
    told = capsys.readouterr().err
    assert ended.value.code == 2 and told.count('\n') == 1 and told.startswith('oracle: --task')
