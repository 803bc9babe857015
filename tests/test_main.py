"""The command line in this process: what it refuses and how, and that an agent is evaluated as it was trained."""

import json
import shutil
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer4 import __version__
from dreamer4 import main as command
from dreamer4.load import load
from embodied.errors import EnvCrashed
from embodied.replay_tool import main as replay_tool

ROOT = Path(__file__).parents[1]
TINY = ['--run.steps', '80', '--run.prefill', '60', '--driver.parallel', 'false', '--agent.threads', '1', '--logger.tensorboard', 'false']


def call(*flags):
    return command.main([str(flag) for flag in flags])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A few updates on pixel_reach at a size that no preset has."""
    logdir = tmp_path_factory.mktemp('main') / 'run'
    assert call('--configs', 'pixel', 'debug', '--task', 'pixel_reach', '--env.pixel.size', 64, '--logdir', logdir, *TINY) == 0
    return logdir


@pytest.mark.parametrize('flags, words', [
    (['--task', 'pixel_catch', '--agent.device', 'gpu'], 'agent.device must be auto, cpu, cuda'),
    (['--task', 'pixel_catch', '--agent.threads', '-2'], 'agent.threads'),
    (['--task', 'pixel_catch', '--run.envs', '0'], 'run.envs must be at least 1'),
    (['--task', 'pixel_catch', '--seed', '-1'], 'seed'),
    (['--task', 'pixel_catch', '--replay.uniform', '0.9'], 'replay'),
    (['--task', 'pixel_catch', '--eval.mode', 'best'], 'eval.mode'),
    (['--task', 'pixel_catch', '--driver.parallel', 'perhaps'], 'driver.parallel'),
    (['--task', 'pixels_catch'], "did you mean 'pixel'"),
    (['--task', 'dummy_boxes'], "did you mean 'box'"),
    (['--task', 'pixel_catch', '--agent.tokenizer.kind', 'patch'], 'agent.tokenizer.kind must be one of patches, conv'),
    (['--script', 'offline', '--replay.directory', '/nowhere'], '/nowhere is no folder')])
def test_mistakes_are_one_line_and_status_two(flags, words, tmp_path, capsys):
    assert call('--configs', 'pixel', '--logdir', tmp_path / 'x', '--driver.parallel', 'false', *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith('dreamer4: ') and error.count('\n') == 1 and words in error
    assert not (tmp_path / 'x' / 'config.yaml').exists()


def test_a_failure_of_the_run_is_status_one(monkeypatch, tmp_path, capsys):
    def fail(*_, **__):
        raise EnvCrashed('env 3 (pixel_catch) step 9: it is gone')
    monkeypatch.setattr(command, 'train', fail)
    assert call('--task', 'pixel_catch', '--logdir', tmp_path) == 1
    assert 'env 3 (pixel_catch) step 9' in capsys.readouterr().err


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    def fail(*_, **__):
        raise ValueError('shapes (3,) and (4,) do not match')
    monkeypatch.setattr(command, 'train', fail)
    with pytest.raises(ValueError, match='shapes'):
        call('--task', 'pixel_catch', '--logdir', tmp_path)


def test_ctrl_c_where_nothing_runs_ends_without_a_traceback(monkeypatch, tmp_path, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.setattr(command, 'train', interrupt)
    assert call('--task', 'pixel_catch', '--logdir', tmp_path) == 130
    assert not capsys.readouterr().err


@pytest.mark.parametrize('place', ['.', 'ckpt', 'save'])
def test_a_checkpoint_is_evaluated_as_its_run_was_configured(trained, place, tmp_path):
    source = next(trained.glob('ckpt/*')) if place == 'save' else trained / place
    assert call('--script', 'eval_only', '--from_checkpoint', source, '--eval.episodes', 2, '--driver.parallel', 'false',
                '--logdir', tmp_path) == 0
    result = json.loads((tmp_path / 'eval' / 'eval.json').read_text())
    assert result['task'] == 'pixel_reach' and result['episodes'] == 2 and set(result['lengths']) == {50}


def test_a_checkpoint_collects_as_its_run_was_configured(trained, tmp_path):
    assert call('--script', 'collect', '--from_checkpoint', trained, '--run.steps', 20, '--run.envs', 2, '--driver.parallel', 'false',
                '--logdir', tmp_path / 'rows') == 0
    rows = [np.load(path) for path in (tmp_path / 'rows' / 'replay').glob('*.npz')]
    assert all(columns['image'].shape[1:] == (64, 64, 3) for columns in rows) and len(rows) == 2


def test_flags_override_what_a_checkpoint_brings(trained, tmp_path, capsys):
    assert call('--script', 'eval_only', '--from_checkpoint', trained, '--agent.dynamics.width', 48, '--driver.parallel', 'false',
                '--logdir', tmp_path) == 2
    assert 'made for another agent' in capsys.readouterr().err


def test_an_agent_that_only_acts_needs_no_weights_of_a_loss(trained, tmp_path, monkeypatch):
    """A run that learned with LPIPS is evaluated, and loaded, where the package is not installed."""
    monkeypatch.setitem(sys.modules, 'lpips', None)
    shutil.copytree(trained, tmp_path / 'run')
    config = (tmp_path / 'run' / 'config.yaml').read_text()
    (tmp_path / 'run' / 'config.yaml').write_text(config.replace('lpips: 0.0', 'lpips: 0.2'))
    flags = ['--script', 'eval_only', '--from_checkpoint', tmp_path / 'run', '--logdir', tmp_path / 'eval', '--eval.episodes', 1]
    assert call(*flags, '--driver.parallel', 'false', '--agent.threads', 1) == 0
    assert load(tmp_path / 'run')[0].perceptual is None


def test_videos_are_imported_and_learned_from_beside_labeled_rows(trained, tmp_path, capsys):
    """Rows of the run become videos, the videos demonstrations without actions and rewards; gates and reports are made on the mixture."""
    for number in range(2):
        assert replay_tool(['export', str(trained / 'replay'), '--episode', str(number), '--out', str(tmp_path / f'{number}.gif')]) == 0
    files = [str(tmp_path / f'{number}.gif') for number in range(2)]
    assert replay_tool(['import', *files, '--out', str(tmp_path / 'videos')]) == 0
    assert replay_tool(['inspect', str(tmp_path / 'videos')]) == 0
    assert 'unlabeled' in capsys.readouterr().out
    flags = ['--replay.demos', tmp_path / 'videos', '--replay.demo_share', '0.5', '--run.report_every', '40', '--run.log_every', '40']
    run = ['--configs', 'pixel', 'debug', '--task', 'pixel_reach', '--env.pixel.size', 64, '--logdir', tmp_path / 'run', *flags, *TINY]
    assert call(*run, '--run.steps', '200', '--run.pretrain', '60') == 0
    assert 'videos: the demonstrations are unlabeled, their rows hold no action and no reward.' in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert rows[-1]['updates'] > 40 and any('report/error' in row for row in rows) and not any('nonfinite' in row for row in rows)


TYPOS = [
    ['--taks', 'pixel_catch'], ['--configs', 'pixle', '--task', 'pixel_catch'],
    ['--task', 'pixel_cach'], ['--script', 'trian'], ['--task', 'gym_CartPole-v9'],
    ['--task', 'pixel_catch', '--run.envs', 'many'], ['--task', 'pixel_catch', '--run.envs', '0'],
    ['--task', 'pixel_catch', '--replay.uniform', '3'],
    ['--task', 'dmc_cheetah_run', '--env.dmc.size', '0']]
QUESTIONS = [['--help'], ['--version'], ['--configs', 'pixel', '--print_config']]

ANSWERS = '''
import contextlib, io, json, sys
from dreamer4 import main
found = []
for argv in json.loads(sys.argv[1]):
    out, status = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main.main(argv)
        except SystemExit as end:
            status = end.code
    loaded = [name for name in ('torch', 'dm_control') if name in sys.modules]
    found.append((argv, status, out.getvalue(), loaded))
print(json.dumps(found))
'''


def test_typos_and_questions_are_answered_before_torch_is_imported(tmp_path):
    asked = [[*flags, '--logdir', str(tmp_path / 'x')] for flags in TYPOS] + QUESTIONS
    command = [sys.executable, '-c', ANSWERS, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for argv, status, out, loaded in json.loads(done.stdout):
        assert loaded == [] and status == (0 if argv in QUESTIONS else 2), (argv, status, out)
        assert out and (argv in QUESTIONS or out.count('\n') == 1), (argv, out)


def test_a_run_says_what_it_is_before_torch_is_imported(tmp_path):
    """Whoever waits for torch, a simulator or eight envs sees that the command was understood."""
    program = '''
import sys
class Watch:
    def find_spec(self, name, *_):
        if name == 'torch':
            raise SystemExit('torch is wanted now')
sys.meta_path.insert(0, Watch())
from dreamer4.main import main
main(sys.argv[1:])
'''
    flags = ['--configs', 'pixel', '--task', 'pixel_catch', '--logdir', str(tmp_path / 'x')]
    done = subprocess.run([sys.executable, '-c', program, *flags], capture_output=True, text=True)
    assert done.stderr == 'torch is wanted now\n'
    assert done.stdout == f'dreamer4 {__version__}: train pixel_catch in {tmp_path / "x"}\n'


def test_help_of_an_evaluation_shows_the_values_of_its_run(trained, capsys):
    with pytest.raises(SystemExit):
        call('--script', 'eval_only', '--from_checkpoint', trained, '--eval.episodes', 3, '--help')
    text = capsys.readouterr().out
    expectations = (
        '--task pixel_reach ', '--env.pixel.size 64  (int; default 32)', '--eval.episodes 3 ')
    for expected in expectations:
        assert expected in text, expected


def test_the_version_names_what_results_depend_on(capsys):
    assert call('--version') == 0
    text = capsys.readouterr().out
    assert text.startswith(f'dreamer4 {__version__}, python 3.')
    assert text.count('\n') == 1
    assert f'torch {torch.__version__}' in text and f'numpy {np.__version__}' in text


COMMANDS = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for folder in ('dreamer4', 'embodied', 'benchmarks') for path in (ROOT / folder).rglob('*.py')
    if "__name__ == '__main__'" in path.read_text())


@pytest.mark.parametrize('module', COMMANDS)
def test_every_command_answers_help_with_its_usage(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [module, '--help'])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name='__main__')
    text = capsys.readouterr().out
    assert not end.value.code and 'usage:' in text.lower() and '--help' in text


def test_commands_are_found():
    assert {'dreamer4.main', 'dreamer4.diagnose', 'embodied.checks'} <= {*COMMANDS}
