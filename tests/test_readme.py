"""Every command and snippet of the README runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'README.md').read_text()
BLOCKS = {kind: re.findall(rf'```{kind}\n(.*?)```', TEXT, re.S) for kind in ('sh', 'python')}
SHORT = ['--machine.threads', '1', '--agent.schedule.gate_sequences', '4']
FEWER = {'--run.steps': '300', '--run.updates': '10', '--eval.episodes': '2'}


def commands():
    """The lines that call a module of ours, without their comments."""
    lines = [line for block in BLOCKS['sh'] for line in block.replace('\\\n', '').splitlines()]
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
        done = subprocess.run(
            [sys.executable, *shortened(words, tmp_path)],
            capture_output=True,
            text=True,
            timeout=200,
            cwd=ROOT,
        )
        # a run this short is not healthy
        allowed = (0, 1) if 'dreamer4.diagnose' in words else (0,)
        assert done.returncode in allowed, f'{words}: {done.stdout[-1000:]} {done.stderr[-2000:]}'


def own(line, home, *more):
    """A line of the README about the environment of one's own, run in the folder that holds it."""
    words = shlex.split(line)[1:]
    words = shortened(words, home) if '--configs' in words else words
    done = subprocess.run(
        [sys.executable, *words, *more], capture_output=True, text=True, timeout=200, cwd=home
    )
    assert done.returncode == 0, f'{words}: {done.stdout[-1000:]} {done.stderr[-2000:]}'
    return done.stdout


def test_the_custom_environment_is_checked_trained_evaluated_and_loaded(tmp_path):
    (tmp_path / 'coin.py').write_text(
        next(block for block in BLOCKS['python'] if 'class Coin' in block)
    )
    check, learn = re.findall(r'^    (python -m .* --task coin:Coin.*)$', TEXT, re.M)
    assert 'coin:Coin keeps the contract' in own(check, tmp_path, '--steps', '50')
    out = own(learn, tmp_path, '--run.steps', '150')
    assert 'observes image: image 16x16x3' in out and 'acts by action: classes 2' in out
    source = ['--from_checkpoint', str(tmp_path / 'coin'), '--logdir', str(tmp_path / 'evaluated')]
    own(
        'python -m dreamer4.main --script eval_only --eval.episodes 3 --task coin:Coin',
        tmp_path,
        *source,
    )
    result = json.loads((tmp_path / 'evaluated' / 'eval' / 'eval.json').read_text())
    assert result['lengths'] == [1, 1, 1] and set(result['returns']) <= {0.0, 1.0}
    program = (
        'from dreamer4.load import load, play\n'
        f'agent, env = load({str(tmp_path / "coin")!r}, task="coin:Coin")\n'
        'print(sum(row["is_last"] for row in play(agent, env, 10)))'
    )
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert done.stdout.split() == ['5'], done.stderr


def test_the_snippet_that_acts_with_a_checkpoint_runs(tmp_path):
    logdir = tmp_path / 'catch'
    flags = [
        '--configs',
        'pixel',
        'debug',
        '--task',
        'pixel_catch',
        '--logdir',
        str(logdir),
        '--run.steps',
        '60',
        *SHORT,
    ]
    subprocess.run(
        [sys.executable, '-m', 'dreamer4.main', *flags],
        check=True,
        capture_output=True,
        timeout=200,
    )
    snippet = next(block for block in BLOCKS['python'] if 'import load' in block)
    done = subprocess.run(
        [sys.executable, '-c', snippet.replace('logdir/catch', str(logdir))],
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 100


def test_the_snippet_that_trains_evaluates_and_saves_runs(tmp_path):
    snippet = next(block for block in BLOCKS['python'] if 'dreamer4.create' in block)
    short = "configs=['pixel', 'debug'], run={'steps': 60}, driver={'parallel': False}"
    snippet = snippet.replace("configs=['pixel']", short).replace('episodes=100', 'episodes=1')
    done = subprocess.run(
        [sys.executable, '-c', snippet], capture_output=True, text=True, timeout=200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert 'return' in done.stdout and (tmp_path / 'catch' / 'README.md').exists()


def test_the_make_targets_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make (\w+)', BLOCKS['sh'][0], re.M):
        assert re.search(rf'^{target}:', makefile, re.M), target


@pytest.mark.parametrize('path', re.findall(r'^  ([\w/]+\.py) ', TEXT, re.M))
def test_every_file_of_the_tree_exists(path):
    assert any((ROOT / folder / path).exists() for folder in ('dreamer4', 'embodied', 'benchmarks'))
