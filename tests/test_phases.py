"""Offline learning phase by phase, by the command line, and on from there online."""

import json

import pytest
from test_rows_alone import HERE, call

from dreamer4 import main as command
from dreamer4.load import load_policy
from embodied.config import Config

SMALL = ['--configs', 'pixel', 'paper', 'debug', '--agent.tokenizer.patch', '8']
SMALL += ['--agent.batch.long_length', '32']
COUNTS = [
    f'--agent.schedule.{stage}_updates={count}'
    for stage, count in dict(tokenizer=2, dynamics=2, agent=2, value=1, policy=2).items()
]
SHORT = ['--run.log_every', 1, '--replay.held_out', 0.2]
OFFLINE = [*SMALL, *COUNTS, *SHORT, *HERE, '--script', 'offline']


@pytest.fixture(scope='module')
def more_rows(tmp_path_factory):
    logdir = tmp_path_factory.mktemp('more') / 'more'
    flags = ['--task', 'pixel_reach', '--env.pixel.size', 16, '--run.steps', 300, '--run.envs', 2]
    assert call('--script', 'collect', *flags, *HERE, '--logdir', logdir) == 0
    return logdir


def updates(logdir):
    """Of the last line of metrics.jsonl."""
    return json.loads((logdir / 'metrics.jsonl').read_text().splitlines()[-1])['updates']


def stages(logdir):
    """In the order in which a run has told of them."""
    lines = (logdir / 'events.log').read_text().splitlines()
    return [line.split('Stage ')[1].split(',')[0] for line in lines if 'Stage ' in line]


@pytest.fixture(scope='module')
def first(collected, tmp_path_factory):
    """The run of phases 1a and 1b."""
    logdir = tmp_path_factory.mktemp('first') / 'run'
    flags = ['--replay.directory', collected, '--logdir', logdir]
    assert call(*OFFLINE, *flags, '--phases', '1a', '1b') == 0
    return logdir


def test_the_phases_that_are_asked_for_are_made_and_no_more(first):
    assert stages(first)[:2] == ['tokenizer', 'dynamics'] and updates(first) == 2 + 2 + 1
    assert 'held out' in (first / 'events.log').read_text()


@pytest.fixture(scope='module')
def second(collected, more_rows, first, tmp_path_factory):
    """The run of phases 2 and 3, which learns from two folders and from video, and its command."""
    logdir = tmp_path_factory.mktemp('second') / 'run'
    flags = ['--replay.directory', collected, more_rows, '--replay.shares', 0.25, 0.75]
    flags += ['--replay.video', more_rows, '--replay.video_share', 0.25]
    flags += ['--logdir', logdir, '--from_checkpoint', first]
    command = [*OFFLINE, *flags, '--phases', 2, 3]
    assert call(*command) == 0
    return logdir, command


def test_the_next_phases_begin_with_a_checkpoint_and_end(second):
    logdir, command = second
    assert stages(logdir)[0] == 'agent' and updates(logdir) == 2 + 1 + 1 + 2
    assert call(*command) == 0 and updates(logdir) == 6, 'it is over'
    policy = load_policy(logdir)
    assert policy.act({'image': policy.obs_space['image'].sample()})


def test_several_folders_are_said_and_kept(second, collected, more_rows):
    logdir, command = second
    stored = Config.load(logdir / 'config.yaml').replay
    assert stored.directory == (str(collected), str(more_rows)) and stored.shares == (0.25, 0.75)
    assert f'2 replay folders: {collected}/replay: 4' in (logdir / 'events.log').read_text()
    assert call(*command, '--replay.shares', 0.5, 0.5) == 2, 'other shares are another run'


def test_the_agent_goes_on_online_with_demonstrations(second, collected, tmp_path):
    presets = ['--configs', 'pixel', 'paper', 'paper_online', 'debug', *SMALL[4:], *COUNTS]
    online = [*presets, *SHORT[:2], *HERE, '--script', 'train', '--task', 'pixel_reach']
    online += ['--env.pixel.size', 16, '--run.steps', 240, '--run.envs', 2, '--logdir', tmp_path]
    demos = [
        '--replay.demos',
        collected,
        '--replay.demo_share',
        0.5,
        '--from_checkpoint',
        second[0],
    ]
    assert call(*online, *demos, '--run.log_every', 100) == 0
    assert stages(tmp_path) == ['prefill', 'policy'] and updates(tmp_path) > 0
    lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
    assert any('loss/flow' in line and 'policy/entropy' in line for line in lines), 'all learn'


def test_a_run_is_compared_and_reported(second):
    logdir, _ = second
    look = [*HERE, '--from_checkpoint', logdir, '--script']
    assert call(*look, 'compare', '--eval.episodes', 3, '--eval.envs', 2) == 0
    found = json.loads((logdir / 'compare' / 'compare.json').read_text())
    assert list(found['players']) == ['policy', 'clone', 'random']
    assert all(len(player['returns']) == 3 for player in found['players'].values())
    assert found['differences'].keys() == {
        'policy - clone',
        'policy - random',
        'clone - random',
    }
    assert call(*look, 'report') == 0
    numbers = json.loads((logdir / 'report' / 'report.json').read_text())
    assert 'more/replay that nothing learned from' in numbers['about'][1]
    offsets = len(numbers['heads']['behaviour']['nll'])
    assert offsets == len(numbers['heads']['reward']['correlation']) == 2 + 1
    assert list(numbers['dynamics']['denoising_steps']) == ['1', '2', '4', '8']
    assert 0 < numbers['tokenizer']['image']['ssim'] <= 1
    assert {'players', 'differences'} <= numbers['compare'].keys()
    names = {path.name for path in (logdir / 'report').iterdir()}
    assert {'report.html', 'dynamics-horizon.png', 'openloop-image.gif', 'compare.png'} <= names
    config = (logdir / 'config.yaml').read_text()
    assert 'script: offline' in config, 'looking at a run does not change it'


def test_phases_that_cannot_be_are_one_line(first, collected, tmp_path, capsys):
    cases = (
        (['--phases', 3, '--from_checkpoint', first], 'has only come to agent'),
        (['--phases', '1a', 2], 'in succession'),
        (['--agent.schedule.plateau', 2, '--replay.held_out', 0], '--replay.held_out 0.05'),
        (['--replay.relevance', 'good'], 'replay.relevance must be'),
        (['--replay.directory', collected, collected], 'is named twice'),
    )
    for number, (more, words) in enumerate(cases):
        flags = ['--replay.directory', collected, '--logdir', tmp_path / str(number)]
        assert command.main([str(flag) for flag in [*OFFLINE, *flags, *more]]) == 2
        assert words in capsys.readouterr().err
    play = [*SMALL, '--task', 'pixel_reach', '--logdir', tmp_path]
    assert call(*play, '--phases', '1a') == 2
    assert call(*play, '--replay.directory', collected, first) == 2
    assert 'train writes to one' in capsys.readouterr().err
