"""Finding one's way: the names of the commands, short help, and what each hands over."""

import subprocess
import sys

import pytest

from dreamer4 import __main__ as program
from dreamer4 import main as command
from embodied.errors import ConfigError

NAMES = (
    'train eval offline collect compare play report diagnose doctor inspect checks convert plan'
    ' remote published'
).split()


@pytest.fixture
def handed(monkeypatch):
    """What is handed to modules, as (module, argv)."""
    found = []

    class Module:
        def __init__(self, name):
            self.main = lambda argv: found.append((name, argv)) or 0

    monkeypatch.setattr(program.importlib, 'import_module', Module)
    return found


def test_every_command_is_there_with_a_line_about_it(capsys):
    assert program.main([]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0] for line in out.splitlines() if line.startswith('  ')}
    assert lines == set(NAMES) == set(program.COMMANDS)
    assert program.main(['--help']) == 0 and capsys.readouterr().out == out


def test_a_command_that_does_not_exist_is_told_with_the_nearest(capsys):
    assert program.main(['trian']) == 2
    assert "there is no command 'trian'; " in (err := capsys.readouterr().err) and 'train' in err


def test_a_command_whose_module_is_missing_is_not_offered(monkeypatch, capsys):
    other = program.COMMANDS['convert']._replace(module='dreamer4.nowhere')
    monkeypatch.setitem(program.COMMANDS, 'convert', other)
    program.main([])
    assert 'convert' not in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    'argv, module, expected',
    [
        (
            ['train', 'pixel_catch', '--configs', 'pixel'],
            'dreamer4.main',
            ['--script', 'train', '--task', 'pixel_catch', '--configs', 'pixel'],
        ),
        (['eval', 'run'], 'dreamer4.main', ['--script', 'eval_only', '--from_checkpoint', 'run']),
        (
            ['offline', 'rows', '--seed', '1'],
            'dreamer4.main',
            ['--script', 'offline', '--replay.directory', 'rows', '--seed', '1'],
        ),
        (['collect', '--task', 'x'], 'dreamer4.main', ['--script', 'collect', '--task', 'x']),
        (['train', '--help-all'], 'dreamer4.main', ['--script', 'train', '--help']),
        (['train', '--help', 'run'], 'dreamer4.main', ['--script', 'train', '--help', 'run']),
        (['play', 'run'], 'dreamer4.play.__main__', ['run']),
        (['inspect', 'run', '--json'], 'embodied.replay.tool', ['inspect', 'run', '--json']),
        (['checks', 'pixel_catch'], 'embodied.checks', ['--task', 'pixel_catch']),
        (['remote', 'pixel_catch'], 'embodied.remote.__main__', ['--task', 'pixel_catch']),
        (['plan', '--gpus', '2'], 'dreamer4.plan', ['--gpus', '2']),
        (['published', 'a', 'b'], 'embodied.published', ['a', 'b']),
        (['--task', 'pixel_catch'], 'dreamer4.main', ['--task', 'pixel_catch']),
    ],
)
def test_arguments_are_handed_to_the_module(argv, module, expected, handed):
    assert program.main(argv) == 0 and handed == [(module, expected)]


@pytest.mark.parametrize('name', [n for n, c in program.COMMANDS.items() if c.keys])
def test_short_help_shows_the_flags_that_matter_and_how_to_see_all(name, capsys):
    assert program.main([name, '--help']) == 0
    out = capsys.readouterr().out
    for key in program.COMMANDS[name].keys:
        assert f'  --{key} ' in out
    assert out.count('\n  --') <= 16 and '--help-all' in out and 'agent.optim.model' not in out


def test_help_all_shows_every_key(capsys):
    with pytest.raises(SystemExit):
        program.main(['train', '--help-all'])
    assert 'agent.optim.model.lr' in capsys.readouterr().out


def test_neither_the_list_nor_short_help_imports_torch():
    code = 'import sys\nfrom dreamer4.__main__ import main\n'
    code += "main([]); main(['train', '--help'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith('False\n')


def test_a_report_says_and_writes_how_well_a_run_predicts(played, tmp_path, capsys):
    argv = ['report', str(played()), '--batches', '1', '--out', str(tmp_path / 'r')]
    assert program.main(argv) == 0
    out = capsys.readouterr().out
    assert 'reward_skill' in out and 'error_step/1' in out
    assert (tmp_path / 'r' / 'report.json').exists() and list((tmp_path / 'r').glob('*.gif'))
    assert program.main(['report', str(tmp_path)]) == 2


def test_a_typo_of_a_flag_is_still_one_line(capsys):
    assert program.main(['train', 'pixel_catch', '--sede', '1']) == 2
    assert capsys.readouterr().err.count('\n') == 1
    with pytest.raises(ConfigError):
        command.configure(['--sede', '1'])
