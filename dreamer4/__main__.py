"""The commands of the program by their names.

    python -m dreamer4 COMMAND ...      dreamer4 COMMAND ...

Each is a module, imported when it is asked for; torch takes seconds, so none is imported for help.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import NamedTuple

from . import __version__

MAIN = 'dreamer4.main'


class Command(NamedTuple):
    """A command.

    Attributes:
        module: whose main(argv) runs it. words: what stands before the arguments. place: flag that
            a first word without dashes is the value of, '' where the module takes it as it is.
        about: one line. keys: of the configuration that matter most, of commands that have one.
        usage: what follows the name.
    """

    module: str
    words: tuple[str, ...]
    place: str
    about: str
    usage: str
    keys: tuple[str, ...] = ()


COMMON = ('seed', 'machine.device', 'machine.threads')
COMMANDS = {
    'train': Command(
        MAIN,
        ('--script', 'train'),
        '--task',
        'learn a task online: collect, replay, imagine',
        'TASK [--configs PRESET ...] [--logdir DIR]',
        (
            'logdir',
            'run.steps',
            'run.envs',
            'run.train_ratio',
            'run.save_every',
            'run.log_every',
            'replay.max_gb',
            'replay.demos',
            'machine.precision',
            *COMMON,
        ),
    ),
    'eval': Command(
        MAIN,
        ('--script', 'eval_only'),
        '--from_checkpoint',
        'evaluate the newest checkpoint of a run',
        'LOGDIR [--eval.episodes N]',
        ('task', 'logdir', 'eval.episodes', 'eval.envs', 'eval.videos', *COMMON),
    ),
    'offline': Command(
        MAIN,
        ('--script', 'offline'),
        '--replay.directory',
        'learn from a replay folder, without an env',
        'DIR [DIR2 ...] [--configs PRESET ...] [--logdir DIR]',
        (
            'phases',
            'from_checkpoint',
            'logdir',
            'run.updates',
            'run.actions',
            'run.save_every',
            'replay.shares',
            'replay.video',
            'replay.held_out',
            'replay.relevant',
            'replay.relevance',
            'replay.max_gb',
            *COMMON,
        ),
    ),
    'collect': Command(
        MAIN,
        ('--script', 'collect'),
        '--task',
        'fill a replay folder with a random policy or that of a run',
        'TASK [--from_checkpoint LOGDIR] [--replay.directory DIR]',
        ('from_checkpoint', 'logdir', 'run.steps', 'run.envs', 'replay.directory', *COMMON),
    ),
    'compare': Command(
        MAIN,
        ('--script', 'compare'),
        '--from_checkpoint',
        'policy, behaviour clone and random play on the same seeds',
        'LOGDIR [--eval.episodes N]',
        ('task', 'logdir', 'eval.episodes', 'eval.envs', 'eval.mode', *COMMON),
    ),
    'play': Command(
        'dreamer4.play.__main__', (), '', 'play in the dream of a run, in a browser', 'LOGDIR'
    ),
    'report': Command(
        'dreamer4.report', (), '', 'how good the parts of a run are, as one page', 'LOGDIR'
    ),
    'diagnose': Command(
        'dreamer4.diagnose', (), '', 'the first part of a run that does not work', 'LOGDIR'
    ),
    'doctor': Command(
        'dreamer4.doctor.__main__',
        (),
        '',
        'what this machine can do, and what mends it',
        '[--json]',
    ),
    'inspect': Command(
        'embodied.replay.tool', ('inspect',), '', 'look into a replay folder', 'DIR [--json]'
    ),
    'checks': Command(
        'embodied.checks', (), '--task', 'check an env against the contract', 'TASK [--steps N]'
    ),
    'convert': Command(
        'dreamer4.convert', (), '', 'data and models of others', '... (see convert --help)'
    ),
    'plan': Command(
        'dreamer4.plan', (), '', 'memory, GPUs and hours that a run takes', '[--configs PRESET ...]'
    ),
    'remote': Command(
        'embodied.remote.__main__', (), '--task', 'serve envs of a task over a socket', 'TASK'
    ),
    'published': Command(
        'embodied.published', (), '', 'scores of runs on their published scale', 'LOGDIR ...'
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit status, 2 for one that there is not."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ('-h', '--help', 'help'):
        print(overview())
        return 0
    name, rest = argv[0], argv[1:]
    if name.startswith('-'):  # the flags of main, as before there were commands
        return importlib.import_module(MAIN).main(argv)
    if name not in present():
        print(f'dreamer4: there is no command {name!r}; {nearest_of(name)}', file=sys.stderr)
        return 2
    command = COMMANDS[name]
    if command.keys and rest in (['--help'], ['-h']):
        print(short_help(name, command))
        return 0
    rest = ['--help' if word == '--help-all' else word for word in rest]
    if command.place and rest and not rest[0].startswith('-'):
        rest = [command.place, *rest]
    return importlib.import_module(command.module).main([*command.words, *rest])


def present() -> dict[str, Command]:
    """The commands whose modules are installed."""
    found = lambda module: importlib.util.find_spec(module) is not None
    return {name: command for name, command in COMMANDS.items() if found(command.module)}


def overview() -> str:
    """All commands, a line each."""
    lines = [f'  {name:<9} {command.about}' for name, command in present().items()]
    return '\n'.join(
        [
            f'dreamer4 {__version__} learns control from pixels or vectors.',
            '',
            'Usage: dreamer4 COMMAND ...    (or: python -m dreamer4 COMMAND ...)',
            '',
            *lines,
            '',
            'First:  dreamer4 train pixel_catch --configs pixel --logdir logdir/catch',
            'Then:   dreamer4 play logdir/catch',
            'COMMAND --help says more; of train, eval, offline, collect --help-all says every key.',
        ]
    )


def short_help(name: str, command: Command) -> str:
    """The flags that matter most, from the configuration's own words."""
    from embodied.config import configs_dir
    from embodied.config.command import help_text, read_folder, with_kinds

    defaults, presets = read_folder(configs_dir(Path(__file__).parent))
    keys = help_text(with_kinds(defaults), defaults, {}, '', command.keys).strip('\n')
    return '\n'.join(
        [
            f'Usage: dreamer4 {name} {command.usage}',
            '',
            f'{command.about[0].upper()}{command.about[1:]}.',
            '',
            f'  --configs name ...    presets: {" ".join(sorted(presets))}',
            keys,
            '',
            f'dreamer4 {name} --help-all shows every key, --help run agent.optim some of them.',
        ]
    )


def nearest_of(name: str) -> str:
    """What may have been meant."""
    from embodied.errors import nearest

    return nearest(name, present())


if __name__ == '__main__':
    sys.exit(main())
