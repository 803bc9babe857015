"""The checks find what is broken and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from embodied import checks, envs
from embodied.base import FLAG, Env
from embodied.config import configs_dir, parse
from embodied.wrappers import Wrapper

CONFIG = parse([], configs_dir(Path(__file__).parents[2])).env.to_dict()
OWN = ['pixel_catch', 'pixel_reach', 'pixel_memory', 'dummy', 'gym_CartPole-v1', 'gym_Pendulum-v1']


@pytest.mark.parametrize('task', OWN)
def test_our_environments_keep_the_contract(task):
    assert checks.check_env(lambda seed: envs.make(task, CONFIG, seed), 120) == []


@pytest.mark.dmc
@pytest.mark.parametrize('task', ['dmc_cheetah_run', 'dmc_ball_in_cup_catch'])
def test_dm_control_keeps_the_contract(task):
    assert checks.check_env(lambda seed: envs.make(task, CONFIG, seed), 20) == []


class Broken(Wrapper):
    """A catch env with one fault."""

    fault = ''
    rng = np.random.default_rng()

    def step(self, action):
        obs = dict(
            super().step(action if self.fault != 'deaf' else {**action, 'reset': np.bool_(False)})
        )
        match self.fault:
            case 'reward':
                obs['reward'] = np.float32(1)
            case 'terminal':
                obs['is_last'] = np.bool_(False)
            case 'dtype':
                obs['image'] = obs['image'].astype(np.float32)
            case 'missing':
                del obs['image']
            case 'random':
                obs['image'] = self.rng.integers(0, 255, obs['image'].shape, dtype=np.uint8)
            case 'alias':
                self.buffer = getattr(self, 'buffer', obs['image'])
                self.buffer[:] = obs['image']
                obs['image'] = self.buffer
            case 'crash':
                raise RuntimeError('broken on purpose')
            case 'exit':
                raise SystemExit(3)
            case 'flood':
                raise ValueError('many words\n' * 9000)
        return obs

    def close(self):
        super().close()
        if self.fault == 'close':
            raise RuntimeError('broken at the end')

    def save(self):
        state = super().save()
        return (
            {**state, 'world': {**state['world'], 'row': 0}}
            if self.fault == 'state' and state['world']
            else state
        )


def broken(fault):
    def make(seed):
        env = Broken(envs.make('pixel_catch', CONFIG, seed))
        env.fault = fault
        return env

    return make


@pytest.mark.parametrize(
    'fault,words',
    [
        ('reward', 'the reward of a first row must be 0'),
        ('terminal', 'is_terminal without is_last'),
        ('dtype', 'expected uint8'),
        ('missing', "returned no ['image']"),
        ('random', 'differs between two environments of the same seed'),
        ('alias', 'changed afterwards'),
        ('crash', 'raised RuntimeError: broken on purpose'),
        ('exit', 'raised SystemExit: 3'),
        ('flood', 'raised ValueError: many words'),
        ('close', 'close() raised RuntimeError: broken at the end'),
        ('deaf', 'in the middle of an episode'),
        ('state', 'misses a part of the state'),
    ],
)
def test_every_fault_is_found_and_named(fault, words):
    findings = checks.check_env(broken(fault), 60)
    assert findings and any(words in finding for finding in findings), findings
    assert max(map(len, findings)) < 1000


def test_an_env_without_its_outcome_keys_is_refused_at_its_spaces():
    class Bare(Env):
        obs_space, act_space = {}, {'reset': FLAG}

    findings = checks.check_env(lambda seed: Bare(), 5)
    assert any("obs_space['reward']" in finding for finding in findings) and any(
        'no action' in finding for finding in findings
    )


@pytest.mark.parametrize(
    'task,status,words',
    [('pixel_catch', 0, 'keeps the contract'), ('pixel_ctch', 2, 'nearest: pixel_catch')],
)
def test_the_command_says_it_in_words(task, status, words, capsys):
    assert checks.main(['--task', task, '--steps', '20']) == status
    output = capsys.readouterr()
    assert words in output.out + output.err


def test_an_env_that_cannot_be_made_is_told_with_the_place_that_raised(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / 'quitting_worlds.py').write_text('raise SystemExit(4)')
    text = 'class Walk:\n    def __init__(self):\n        assert 1 > 2, "of two joints"\n'
    (tmp_path / 'breaking_worlds.py').write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert checks.main(['--task', 'breaking_worlds:Walk']) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert checks.main(['--task', 'quitting_worlds:Walk']) == 2
    assert "importing 'quitting_worlds' raised SystemExit: 4" in capsys.readouterr().err
    assert last.startswith('- breaking_worlds:Walk cannot be made: ') and last.endswith(
        'breaking_worlds.py, line 3, raised AssertionError: of two joints'
    )
