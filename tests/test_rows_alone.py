"""What an offline run takes from its replay folder, and that what it leaves evaluates, loads and
acts by itself.
"""

import json
import shutil

import numpy as np
import pytest

from dreamer4 import main as command
from dreamer4.load import load, load_policy, play
from embodied.config import Config
from embodied.errors import ConfigError
from embodied.replay import meta
from embodied.replay.infer import infer_spaces

HERE = [
    '--driver.parallel',
    'false',
    '--logger.outputs',
    'terminal',
    'jsonl',
    '--machine.threads',
    '1',
]
OFFLINE = ['--configs', 'debug', '--agent.tokenizer.patch', '8', '--script', 'offline', *HERE]


def call(*flags):
    return command.main([str(flag) for flag in flags])


@pytest.fixture(scope='module')
def learned(collected, tmp_path_factory):
    """An offline run that was told nothing but a logdir, one level above its replay."""
    logdir = tmp_path_factory.mktemp('learned') / 'run'
    flags = ['--replay.directory', collected, '--run.updates', 3]
    assert call(*OFFLINE, *flags, '--logdir', logdir) == 0
    return logdir


def test_task_and_env_settings_are_those_of_the_rows(learned):
    config = Config.load(learned / 'config.yaml')
    assert config.task == 'pixel_reach' and config.env.pixel.size == 16


def test_an_offline_run_evaluates_and_loads_by_itself(learned):
    flags = ['--script', 'eval_only', '--from_checkpoint', learned, '--eval.episodes', 1]
    assert call(*flags, *HERE) == 0
    assert json.loads((learned / 'eval' / 'eval.json').read_text())['task'] == 'pixel_reach'
    agent, env = load(learned)
    assert len(list(play(agent, env, 3))) == 3 and env.obs_space['image'].shape == (16, 16, 3)


def test_a_policy_loads_without_an_env_and_acts_as_the_agent_does(learned, monkeypatch):
    agent, env = load(learned)
    expected = list(play(agent, env, 6))
    monkeypatch.setattr('embodied.envs.make', None)
    policy = load_policy(learned)
    for row in expected:
        obs = {key: row[key] for key in ('image', 'is_first')}
        action = policy.act(obs)['action']
        assert np.array_equal(action, row['action']) and action.dtype == np.float32


def test_the_memory_of_a_policy_is_inside_and_reset_forgets_it(learned):
    policy = load_policy(learned, mode='mode')
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), np.uint8)
    first = [policy.act({'image': frame})['action'] for frame in frames]
    policy.reset()
    assert np.array_equal(first, [policy.act({'image': frame})['action'] for frame in frames])


@pytest.mark.parametrize(
    'obs, text',
    [
        ({}, "lacks 'image'"),
        (np.zeros((16, 16, 3)), 'expected a dict of image, got ndarray'),
        ({'image': np.zeros((3, 3, 3))}, 'must have shape'),
        ({'image': None}, 'must be numbers, got None'),
        ({'image': np.full((16, 16, 3), 0.5)}, 'uint8.*got float64 from 0.5 to 0.5'),
        ({'image': np.full((16, 16, 3), -1)}, 'uint8.*from -1 to -1'),
        ({'image': np.full((16, 16, 3), np.nan)}, "'image' is not finite"),
    ],
)
def test_an_observation_that_does_not_fit_is_named_and_not_remembered(learned, obs, text):
    policy = load_policy(learned, mode='mode')
    frame = {'image': np.full((16, 16, 3), 7)}
    first = policy.act(frame)['action']
    policy.reset()
    with pytest.raises(ValueError, match=text):
        policy.act(obs)
    assert np.array_equal(policy.act(frame)['action'], first)


def test_a_folder_without_a_run_names_those_in_it(learned):
    with pytest.raises(ConfigError, match='no config.yaml, thus no run; it holds the runs run'):
        load_policy(learned.parent)


@pytest.fixture
def bare(collected, tmp_path):
    """The chunks alone, as DreamerV3 leaves them."""
    folder = shutil.copytree(collected / 'replay', tmp_path / 'bare')
    (folder / meta.FILENAME).unlink()
    return folder


@pytest.mark.parametrize(
    'flags',
    [
        [],
        ['--run.actions', 'action=-2:2'],
        ['--task', 'pixel_reach', '--env.pixel.size', '16'],
    ],
    ids=' '.join,
)
def test_a_folder_without_meta_is_learned_from(bare, flags, tmp_path):
    logdir = tmp_path / 'run'
    flags = ['--replay.directory', bare, '--run.updates', 2, *flags]
    assert call(*OFFLINE, *flags, '--logdir', logdir) == 0
    action = load_policy(logdir).act_space['action']
    assert action.high.max() == (2 if 'action=-2:2' in flags else 1)


def test_actions_beyond_what_they_are_said_to_span_are_named_with_the_remedy(
    bare, tmp_path, capsys
):
    flags = ['--replay.directory', bare, '--run.actions', 'action=-0.1:0.1']
    assert call(*OFFLINE, *flags, '--logdir', tmp_path / 'run') == 2
    error = capsys.readouterr().err
    assert "'action' spans [-0.1, 0.1]" in error and '--run.actions action=LOW:HIGH' in error


@pytest.mark.parametrize(
    'said, text',
    [
        ('action=2:1', 'neither a range nor a number'),
        ('action', 'neither a range nor a number'),
        ('move=3', 'have no move'),
        ('action=3', 'wants a range'),
    ],
)
def test_what_is_said_of_actions_is_checked(bare, said, text):
    with pytest.raises(ConfigError, match=text):
        infer_spaces(bare, [said])
