"""Every command and snippet of the README runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied import checks

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'README.md').read_text()
BLOCKS = {kind: re.findall(rf'```{kind}\n(.*?)```', TEXT, re.S) for kind in ('sh', 'python')}
SHORT = ['--agent.threads', '1', '--agent.schedule.gate_sequences', '4']
FEWER = {'--run.steps': '300', '--run.updates': '10', '--eval.episodes': '2'}


def commands():
    """The lines that call a module of ours, without their comments."""
    lines = [line for block in BLOCKS['sh'] for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith('python -m ')]


def shortened(words, home):
    """The same command, small and in another folder."""
    words = [word.replace('logdir/', f'{home}/') for word in words]
    for flag, value in FEWER.items():
        if flag in words:
            words[words.index(flag) + 1] = value
    if '--configs' in words:
        words.insert(words.index('--configs') + 2, 'debug')
        words += SHORT
    return words


def test_the_first_ten_minutes_run_in_their_order(tmp_path):
    assert len(commands()) >= 6
    for words in commands():
        done = subprocess.run([sys.executable, *shortened(words, tmp_path)], capture_output=True, text=True, timeout=200, cwd=ROOT)
        allowed = (0, 1) if 'dreamer4.diagnose' in words else (0,)  # a run this short is not healthy
        assert done.returncode in allowed, f'{words}: {done.stdout[-1000:]} {done.stderr[-2000:]}'


def test_the_custom_environment_keeps_the_contract():
    names = {}
    exec(next(block for block in BLOCKS['python'] if 'class Coin' in block), names)

    def make(seed):
        env = names['Coin']()
        env.rng = np.random.default_rng(seed)
        return env
    assert checks.check_env(make, 50) == []


def test_the_snippet_that_acts_with_a_checkpoint_runs(tmp_path):
    logdir = tmp_path / 'catch'
    flags = ['--configs', 'pixel', 'debug', '--task', 'pixel_catch', '--logdir', str(logdir), '--run.steps', '60', *SHORT]
    subprocess.run([sys.executable, '-m', 'dreamer4.main', *flags], check=True, capture_output=True, timeout=200)
    snippet = next(block for block in BLOCKS['python'] if 'import load' in block)
    done = subprocess.run(
        [sys.executable, '-c', snippet.replace('logdir/catch', str(logdir))], capture_output=True, text=True, timeout=200, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 100


def test_the_make_targets_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make (\w+)', BLOCKS['sh'][0], re.M):
        assert re.search(rf'^{target}:', makefile, re.M), target


@pytest.mark.parametrize('path', re.findall(r'^  ([\w/]+\.py) ', TEXT, re.M))
def test_every_file_of_the_tree_exists(path):
    assert (ROOT / 'dreamer4' / path).exists() or (ROOT / 'embodied' / path).exists()
