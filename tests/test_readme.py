"""Every command and snippet of the README runs, in this process: what each has to import is the
same.
"""

import contextlib
import io
import json
import re
import runpy
import shlex
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


@pytest.fixture
def python(monkeypatch):
    """Call with the words behind `python -m` and the present folder: exit status and output."""

    def call(words, home=ROOT):
        monkeypatch.chdir(home)
        monkeypatch.syspath_prepend(str(home))
        monkeypatch.setattr(sys, 'argv', list(words))
        # runpy warns of a module that is imported already; a package it would import a second time
        if not hasattr(sys.modules.get(words[0]), '__path__'):
            monkeypatch.delitem(sys.modules, words[0], raising=False)
        out, status = io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                runpy.run_module(words[0], run_name='__main__', alter_sys=True)
            except SystemExit as end:
                status = end.code or 0
        return status, out.getvalue()

    return call


def printed(program, home, monkeypatch):
    """What a program prints that runs in a folder."""
    monkeypatch.chdir(home)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(program, {'__name__': 'program'})
    return out.getvalue()


def test_the_first_ten_minutes_run_in_their_order(tmp_path, python):
    assert len(commands()) >= 6
    for words in commands():
        status, out = python(shortened(words, tmp_path)[1:])
        # a run this short is not healthy
        allowed = (0, 1) if 'dreamer4.diagnose' in words else (0,)
        assert status in allowed, f'{words}: {out[-3000:]}'


def test_the_custom_environment_is_checked_trained_evaluated_and_loaded(
    tmp_path, python, monkeypatch
):
    def own(line, *more):
        """A line about the environment of one's own, run in the folder that holds it."""
        words = shlex.split(line)[1:]
        words = shortened(words, tmp_path) if '--configs' in words else words
        status, out = python([*words[1:], *more], tmp_path)
        assert status == 0, f'{words}: {out[-3000:]}'
        return out

    (tmp_path / 'coin.py').write_text(
        next(block for block in BLOCKS['python'] if 'class Coin' in block)
    )
    check, learn = re.findall(r'^    (python -m .* --task coin:Coin.*)$', TEXT, re.M)
    assert 'coin:Coin keeps the contract' in own(check, '--steps', '50')
    out = own(learn, '--run.steps', '150')
    assert 'observes image: image 16x16x3' in out and 'acts by action: classes 2' in out
    source = ['--from_checkpoint', str(tmp_path / 'coin'), '--logdir', str(tmp_path / 'evaluated')]
    evaluate = 'python -m dreamer4.main --script eval_only --eval.episodes 3 --task coin:Coin'
    own(evaluate, *source)
    result = json.loads((tmp_path / 'evaluated' / 'eval' / 'eval.json').read_text())
    assert result['lengths'] == [1, 1, 1] and set(result['returns']) <= {0.0, 1.0}
    program = (
        'from dreamer4.load import load, play\n'
        f'agent, env = load({str(tmp_path / "coin")!r}, task="coin:Coin")\n'
        'print(sum(row["is_last"] for row in play(agent, env, 10)))'
    )
    assert printed(program, tmp_path, monkeypatch).split() == ['5']


def test_the_snippet_that_acts_with_a_checkpoint_runs(tmp_path, python, monkeypatch):
    flags = '--configs pixel debug --task pixel_catch --run.steps 30 --logger.outputs jsonl'.split()
    status, out = python(
        ['dreamer4.main', *flags, '--logdir', str(tmp_path / 'logdir' / 'catch'), *SHORT]
    )
    assert status == 0, out
    snippet = next(block for block in BLOCKS['python'] if 'import load' in block)
    assert len(printed(snippet, tmp_path, monkeypatch).splitlines()) == 100


def test_the_snippet_that_trains_evaluates_and_saves_runs(tmp_path, monkeypatch):
    snippet = next(block for block in BLOCKS['python'] if 'dreamer4.create' in block)
    short = "configs=['pixel', 'debug'], run={'steps': 60}, driver={'parallel': False}"
    snippet = snippet.replace("configs=['pixel']", short).replace('episodes=100', 'episodes=1')
    assert 'return' in printed(snippet, tmp_path, monkeypatch)
    assert (tmp_path / 'catch' / 'README.md').exists()


def test_the_make_targets_exist():
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'^make (\w+)', BLOCKS['sh'][0], re.M):
        assert re.search(rf'^{target}:', makefile, re.M), target


@pytest.mark.parametrize('path', re.findall(r'^  ([\w/]+\.py) ', TEXT, re.M))
def test_every_file_of_the_tree_exists(path):
    assert any((ROOT / folder / path).exists() for folder in ('dreamer4', 'embodied', 'benchmarks'))
