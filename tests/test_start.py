"""The first second of a command: typos, --help, --version, and the first line of a run."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer4 import __version__, parts
from dreamer4 import main as command
from embodied.config import parse

ROOT = Path(__file__).parents[1]
TYPOS = [
    ['--taks', 'pixel_catch'],
    ['--configs', 'pixle', '--task', 'pixel_catch'],
    ['--task', 'pixel_cach'],
    ['--script', 'trian'],
    ['--task', 'gym_CartPole-v9'],
    ['--task', 'pixel_catch', '--run.envs', 'many'],
    ['--task', 'pixel_catch', '--run.envs', '0'],
    ['--task', 'pixel_catch', '--replay.uniform', '3'],
    ['--task', 'dmc_cheetah_run', '--env.dmc.size', '0'],
]
QUESTIONS = [['--help'], ['--version'], ['--configs', 'pixel', '--print_config']]

ANSWERS = """
import contextlib, io, json, sys
from dreamer4.__main__ import main
found = []
for argv in json.loads(sys.argv[1]):
    out, status = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = main(argv)
        except SystemExit as end:
            status = end.code
    loaded = [name for name in ('torch', 'dm_control') if name in sys.modules]
    found.append((argv, status, out.getvalue(), loaded))
print(json.dumps(found))
"""


def test_typos_and_questions_are_answered_before_torch_is_imported(tmp_path):
    asked = [[*flags, '--logdir', str(tmp_path / 'x')] for flags in TYPOS] + QUESTIONS
    command = [sys.executable, '-c', ANSWERS, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for argv, status, out, loaded in json.loads(done.stdout):
        assert loaded == [] and status == (0 if argv in QUESTIONS else 2), (argv, status, out)
        assert out and (argv in QUESTIONS or out.count('\n') == 1), (argv, out)


def test_folders_that_hold_nothing_are_refused_before_torch_is_imported(tmp_path):
    empty, bare = tmp_path / 'empty', tmp_path / 'bare'
    empty.mkdir()
    bare.mkdir()  # a run that was killed before its first checkpoint
    config = parse(['--configs', 'pixel', '--task', 'pixel_catch'], ROOT / 'configs')
    config.save(bare / 'config.yaml')
    train = ['--configs', 'pixel', '--task', 'pixel_catch', '--logdir', f'{tmp_path}/x']
    asked = [
        *[[name, str(run)] for name in ('play', 'report') for run in (empty, bare)],
        *[['--script', name, '--from_checkpoint', str(bare)] for name in ('eval_only', 'compare')],
        ['--script', 'offline', '--replay.directory', str(empty)],
        [*train, '--from_checkpoint', str(bare)],
        [*train, '--replay.demos', str(empty), '--replay.demo_share', '0.5'],
    ]
    command = [sys.executable, '-c', ANSWERS, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for argv, status, out, loaded in json.loads(done.stdout):
        assert loaded == [] and status == 2, (argv, status, out)
        assert ': expected a save' in out or 'holds no' in out, (argv, out)


def test_a_run_says_what_it_is_before_torch_is_imported(tmp_path):
    """Whoever waits for torch, a simulator or eight envs sees that the command was understood."""
    program = """
import sys
class Watch:
    def find_spec(self, name, *_):
        if name == 'torch':
            raise SystemExit('torch is wanted now')
sys.meta_path.insert(0, Watch())
from dreamer4.main import main
main(sys.argv[1:])
"""
    flags = ['--configs', 'pixel', '--task', 'pixel_catch', '--logdir', str(tmp_path / 'x')]
    done = subprocess.run([sys.executable, '-c', program, *flags], capture_output=True, text=True)
    assert done.stderr == 'torch is wanted now\n'
    assert done.stdout == f'dreamer4 {__version__}: train pixel_catch in {tmp_path / "x"}\n'


def test_help_of_an_evaluation_shows_the_values_of_its_run(tmp_path, capsys):
    config = parse(['--task', 'pixel_reach', '--env.pixel.size', '64'], ROOT / 'configs')
    config.save(tmp_path / 'config.yaml')
    asked = ['--script', 'eval_only', '--from_checkpoint', str(tmp_path), '--eval.episodes', '3']
    with pytest.raises(SystemExit):
        command.main([*asked, '--help'])
    text = capsys.readouterr().out
    expectations = (
        '--task pixel_reach ',
        '--env.pixel.size 64  (int; default 32)',
        '--eval.episodes 3 ',
    )
    for expected in expectations:
        assert expected in text, expected


def test_the_version_names_what_results_depend_on(capsys):
    assert command.main(['--version']) == 0
    text = capsys.readouterr().out
    assert text.startswith(f'dreamer4 {__version__}, python 3.')
    assert text.count('\n') == 1
    assert f'torch {torch.__version__}' in text and f'numpy {np.__version__}' in text


COMMANDS = sorted(
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for folder in ('dreamer4', 'embodied', 'benchmarks')
    for path in (ROOT / folder).rglob('*.py')
    if "__name__ == '__main__'" in path.read_text()
)


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


@pytest.mark.parametrize(
    'flags, words',
    [
        (['--replay.max_gb', '6'], 'replay.max_gb 6 may take 6 GB'),
        (['--machine.cache.frames_gb', '7'], 'machine.cache.frames_gb 7 may take 7.5 GB'),
        (['--replay.disk_gb', '1e6'], 'replay.disk_gb is 1e+06 GB'),
        ([], None),
    ],
)
def test_a_run_says_at_its_start_and_in_its_log_what_the_machine_lacks(
    flags, words, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(parts, 'memory_gb', lambda: 5.0)
    logdir, argv = tmp_path / 'run', ['--configs', 'pixel', 'debug', '--task', 'pixel_catch']
    argv += [
        '--run.steps',
        '2',
        '--driver.parallel',
        'false',
        '--logger.outputs',
        'terminal',
        'jsonl',
    ]
    assert command.main([*argv, '--machine.threads', '1', '--logdir', str(logdir), *flags]) == 0
    for text in (capsys.readouterr().out, (logdir / 'events.log').read_text()):
        found = [line for line in text.splitlines() if 'warning: ' in line]
        assert len(found) == (words is not None) and all(words in line for line in found)
