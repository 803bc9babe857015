"""The command line in this process: what it refuses and how, and that an agent is evaluated as
it was trained.
"""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dreamer4 import main as command
from dreamer4 import parts
from dreamer4.load import load
from embodied.errors import EnvCrashed
from embodied.replay.tool import main as replay_tool

TINY = [
    '--run.steps',
    '80',
    '--run.prefill',
    '60',
    '--driver.parallel',
    'false',
    '--machine.threads',
    '1',
    '--logger.outputs',
    'terminal',
    'jsonl',
]


def call(*flags):
    return command.main([str(flag) for flag in flags])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A few updates on pixel_reach at a size that no preset has."""
    logdir = tmp_path_factory.mktemp('main') / 'run'
    assert (
        call(
            '--configs',
            'pixel',
            'debug',
            '--task',
            'pixel_reach',
            '--env.pixel.size',
            64,
            '--logdir',
            logdir,
            *TINY,
        )
        == 0
    )
    return logdir


@pytest.mark.parametrize(
    'flags, words',
    [
        (
            ['--task', 'pixel_catch', '--machine.device', 'gpu'],
            'machine.device must be auto, cpu, cuda',
        ),
        (['--task', 'pixel_catch', '--machine.threads', '-2'], 'machine.threads'),
        (['--task', 'pixel_catch', '--run.envs', '0'], 'run.envs must be at least 1'),
        (['--task', 'pixel_catch', '--seed', '-1'], 'seed'),
        (['--task', 'pixel_catch', '--logdir', ''], '--logdir is empty'),
        (['--task', 'pixel_catch', '--logdir', '/proc/nowhere'], 'cannot be written'),
        (['--config', 'pixel'], 'did you mean --configs?'),
        (['--script', 'eval_only'], '--from_checkpoint is missing'),
        (['--script', 'compare'], '--from_checkpoint is missing'),
        (['--script', 'eval_only', '--from_checkpoint', '/proc/self'], 'holds no config.yaml'),
        (['--script', 'eval_only', '--from_checkpoint', '/nowhere'], '/nowhere is no folder'),
        (['--task', 'pixel_catch', '--agent.batch.length', '1'], 'agent.batch.length'),
        (['--task', 'pixel_catch', '--replay.uniform', '0.9'], 'replay'),
        (['--task', 'pixel_catch', '--eval.mode', 'best'], 'eval.mode'),
        (['--task', 'pixel_catch', '--driver.parallel', 'perhaps'], 'driver.parallel'),
        (['--task', 'pixels_catch'], 'nearest: pixel'),
        (['--task', 'dummy_boxes'], 'nearest: box'),
        (
            ['--task', 'pixel_catch', '--agent.tokenizer.kind', 'patch'],
            'agent.tokenizer.kind: expected patches or conv',
        ),
        (['--script', 'offline', '--replay.directory', '/nowhere'], '/nowhere is no folder'),
    ],
)
def test_mistakes_are_one_line_and_status_two(flags, words, tmp_path, capsys):
    assert (
        call('--configs', 'pixel', '--logdir', tmp_path / 'x', '--driver.parallel', 'false', *flags)
        == 2
    )
    error = capsys.readouterr().err
    assert error.startswith('dreamer4: ') and error.count('\n') == 1 and words in error
    assert not (tmp_path / 'x' / 'config.yaml').exists()


def test_a_failure_of_the_run_is_status_one(monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise EnvCrashed('env 3 (pixel_catch) step 9: it is gone')

    monkeypatch.setattr(parts, 'train', fail)
    assert call('--task', 'pixel_catch', '--logdir', tmp_path) == 1
    assert 'env 3 (pixel_catch) step 9' in capsys.readouterr().err


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError('shapes (3,) and (4,) do not match')

    monkeypatch.setattr(parts, 'train', fail)
    with pytest.raises(ValueError, match='shapes'):
        call('--task', 'pixel_catch', '--logdir', tmp_path)


def test_ctrl_c_where_nothing_runs_ends_without_a_traceback(monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, 'train', interrupt)
    assert call('--task', 'pixel_catch', '--logdir', tmp_path) == 130
    assert not capsys.readouterr().err


@pytest.mark.parametrize('place', ['.', 'ckpt', 'save'])
def test_a_checkpoint_is_evaluated_as_its_run_was_configured(trained, place, tmp_path):
    source = next(trained.glob('ckpt/*')) if place == 'save' else trained / place
    assert (
        call(
            '--script',
            'eval_only',
            '--from_checkpoint',
            source,
            '--eval.episodes',
            2,
            '--driver.parallel',
            'false',
            '--logdir',
            tmp_path,
        )
        == 0
    )
    result = json.loads((tmp_path / 'eval' / 'eval.json').read_text())
    assert (
        result['task'] == 'pixel_reach'
        and result['episodes'] == 2
        and set(result['lengths']) == {50}
    )


def test_a_checkpoint_collects_as_its_run_was_configured(trained, tmp_path):
    assert (
        call(
            '--script',
            'collect',
            '--from_checkpoint',
            trained,
            '--run.steps',
            20,
            '--run.envs',
            2,
            '--driver.parallel',
            'false',
            '--logdir',
            tmp_path / 'rows',
        )
        == 0
    )
    rows = [np.load(path) for path in (tmp_path / 'rows' / 'replay').glob('*.npz')]
    assert all(columns['image'].shape[1:] == (64, 64, 3) for columns in rows) and len(rows) == 2


def test_flags_override_what_a_checkpoint_brings(trained, tmp_path, capsys):
    assert (
        call(
            '--script',
            'eval_only',
            '--from_checkpoint',
            trained,
            '--agent.dynamics.width',
            48,
            '--driver.parallel',
            'false',
            '--logdir',
            tmp_path,
        )
        == 2
    )
    error = capsys.readouterr().err
    assert 'made for another agent:\n  agent.dynamics.width is 32 in the run, 48 here' in error
    assert error.count('\n') == 2


ANOTHER = ['--script', 'eval_only', '--driver.parallel', 'false']


def test_an_agent_of_another_env_is_told_by_what_it_observes_and_chooses(trained, tmp_path, capsys):
    flags = ['--from_checkpoint', trained, '--logdir', tmp_path, '--task', 'gym_CartPole-v1']
    assert call(*ANOTHER, *flags) == 2
    error = capsys.readouterr().err
    assert 'it observes image: image 64x64x3, the task here observes state: vector 4' in error
    assert 'it acts by action: vector 2, the task here acts by action: classes 2' in error


def test_a_folder_beside_the_one_that_was_meant_is_understood_or_told(trained, tmp_path, capsys):
    flags = ['--logdir', tmp_path / 'x', '--eval.episodes', 1, '--eval.envs', 1, *ANOTHER]
    assert call(*flags, '--from_checkpoint', trained / 'replay') == 0
    assert call(*flags, '--from_checkpoint', trained.parent) == 2
    assert f'it holds the runs {trained.name}; give the folder' in capsys.readouterr().err
    learns = ['--configs', 'pixel', 'debug', '--task', 'pixel_catch', '--run.steps', 9]
    assert call(*learns, '--logdir', trained / 'ckpt') == 2
    assert f'lies inside of the run {trained}' in capsys.readouterr().err
    offline = ['--script', 'offline', '--logdir', tmp_path / 'y', '--replay.directory']
    assert call(*offline, trained.parent) == 2
    assert f'there are some in {trained}.' in capsys.readouterr().err


def test_an_agent_that_only_acts_needs_no_weights_of_a_loss(trained, tmp_path, monkeypatch):
    """A run that learned with LPIPS is evaluated, and loaded, where the package is not
    installed.
    """
    monkeypatch.setitem(sys.modules, 'lpips', None)
    shutil.copytree(trained, tmp_path / 'run')
    config = (tmp_path / 'run' / 'config.yaml').read_text()
    (tmp_path / 'run' / 'config.yaml').write_text(config.replace('lpips: 0.0', 'lpips: 0.2'))
    flags = [
        '--script',
        'eval_only',
        '--from_checkpoint',
        tmp_path / 'run',
        '--logdir',
        tmp_path / 'eval',
        '--eval.episodes',
        1,
    ]
    assert call(*flags, '--driver.parallel', 'false', '--machine.threads', 1) == 0
    assert load(tmp_path / 'run')[0].world.perceptual is None


def test_videos_are_imported_and_learned_from_beside_labeled_rows(trained, tmp_path, capsys):
    """Rows of the run become videos, the videos demonstrations without actions and rewards;
    gates and reports are made on the mixture.
    """
    for number in range(2):
        assert (
            replay_tool(
                [
                    'export',
                    str(trained / 'replay'),
                    '--episode',
                    str(number),
                    '--out',
                    str(tmp_path / f'{number}.gif'),
                ]
            )
            == 0
        )
    files = [str(tmp_path / f'{number}.gif') for number in range(2)]
    assert replay_tool(['import', *files, '--out', str(tmp_path / 'videos')]) == 0
    assert replay_tool(['inspect', str(tmp_path / 'videos')]) == 0
    assert 'unlabeled' in capsys.readouterr().out
    flags = [
        '--replay.demos',
        tmp_path / 'videos',
        '--replay.demo_share',
        '0.5',
        '--run.report_every',
        '40',
        '--run.log_every',
        '40',
    ]
    run = [
        '--configs',
        'pixel',
        'debug',
        '--task',
        'pixel_reach',
        '--env.pixel.size',
        64,
        '--logdir',
        tmp_path / 'run',
        *flags,
        *TINY,
    ]
    assert call(*run, '--run.steps', '200', '--run.pretrain', '60') == 0
    assert (
        'videos: the demonstrations are unlabeled, their rows hold no action and no reward.'
        in capsys.readouterr().out
    )
    rows = [
        json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    ]
    assert (
        rows[-1]['updates'] > 40
        and any('report/error' in row for row in rows)
        and not any('nonfinite' in row for row in rows)
    )


def test_a_mistake_that_nobody_can_be_told_keeps_its_status():
    done = subprocess.run(
        [
            'sh',
            '-c',
            'exec "$@" >&- 2>&-',
            '-',
            sys.executable,
            '-m',
            'dreamer4.main',
            '--tsk',
            'x',
        ],
        timeout=600,
    )
    assert done.returncode == 2
