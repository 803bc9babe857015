"""Offline learning phase by phase, by the command line, and on from there online."""

import json

import pytest
from test_rows_alone import HERE, call

from dreamer4 import main as command
from dreamer4.load import load_policy

SMALL = ['--configs', 'pixel', 'paper', 'debug', '--agent.tokenizer.patch', '8']
COUNTS = [
    f'--agent.schedule.{stage}_updates={count}'
    for stage, count in dict(tokenizer=2, dynamics=2, agent=2, value=1, policy=2).items()
]
SHORT = ['--agent.batch.long_last', 1, '--run.log_every', 1, '--replay.held_out', 0.2]
OFFLINE = [*SMALL, *COUNTS, *SHORT, *HERE, '--script', 'offline']


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    logdir = tmp_path_factory.mktemp('rows') / 'rows'
    flags = ['--task', 'pixel_reach', '--env.pixel.size', 16, '--run.steps', 400, '--run.envs', 2]
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
def first(rows, tmp_path_factory):
    """The run of phases 1a and 1b."""
    logdir = tmp_path_factory.mktemp('first') / 'run'
    flags = ['--replay.directory', rows, '--logdir', logdir]
    assert call(*OFFLINE, *flags, '--phases', '1a', '1b') == 0
    return logdir


def test_the_phases_that_are_asked_for_are_made_and_no_more(first):
    assert stages(first)[:2] == ['tokenizer', 'dynamics'] and updates(first) == 2 + 2 + 1
    assert 'held out' in (first / 'events.log').read_text()


def test_the_next_phases_begin_with_a_checkpoint_and_the_agent_goes_on_online(
    first, rows, tmp_path
):
    second, third = tmp_path / 'second', tmp_path / 'third'
    flags = ['--replay.directory', rows, '--logdir', second, '--from_checkpoint', first]
    assert call(*OFFLINE, *flags, '--phases', 2, 3) == 0
    assert stages(second)[0] == 'agent' and updates(second) == 2 + 1 + 1 + 2
    assert call(*OFFLINE, *flags, '--phases', 2, 3) == 0 and updates(second) == 6, 'it is over'
    assert load_policy(second).act({'image': load_policy(second).obs_space['image'].sample()})
    online = [*SMALL, *COUNTS, *SHORT, *HERE, '--script', 'train', '--task', 'pixel_reach']
    online += ['--env.pixel.size', 16, '--run.steps', 240, '--run.envs', 2, '--logdir', third]
    demos = ['--replay.demos', rows, '--replay.demo_share', 0.5, '--from_checkpoint', second]
    assert call(*online, *demos) == 0
    assert stages(third) == ['prefill', 'policy'] and updates(third) > 0


def test_phases_that_cannot_be_are_one_line(first, rows, tmp_path, capsys):
    cases = (
        (['--phases', 3, '--from_checkpoint', first], 'has only come to agent'),
        (['--phases', '1a', 2], 'in succession'),
        (['--agent.schedule.plateau', 2, '--replay.held_out', 0], '--replay.held_out 0.05'),
        (['--replay.relevance', 'good'], 'replay.relevance must be'),
    )
    for number, (more, words) in enumerate(cases):
        flags = ['--replay.directory', rows, '--logdir', tmp_path / str(number)]
        assert command.main([str(flag) for flag in [*OFFLINE, *flags, *more]]) == 2
        assert words in capsys.readouterr().err
    assert call(*SMALL, '--task', 'pixel_reach', '--phases', '1a', '--logdir', tmp_path) == 2
