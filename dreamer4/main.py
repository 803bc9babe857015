"""The command line: parse, and hand over to the parts of a run. Nobody imports it.

    python -m dreamer4.main --configs dmc_vision --task dmc_cheetah_run

Exit status: 0 the run ended or was asked to end; 1 it failed; 2 something that was asked for makes
no sense; 130 Ctrl-C, where there was nothing to save. A checkpoint is evaluated, and collected
with, as its run was configured; presets and flags override.
"""

import platform
import sys
from importlib import metadata
from pathlib import Path

from embodied import envs
from embodied.config import Config, Value, configs_dir, parse
from embodied.console import steady
from embodied.errors import CheckpointError, ConfigError, EmbodiedError, EnvMissing, brief

from . import __version__, launch, parts, runs
from .versions import flags_of_today

ABOUT = f"""\
dreamer4 {__version__} learns control from pixels or vectors, online or from a replay folder.

  python -m dreamer4.main --configs pixel --task pixel_catch --logdir logdir/catch
  python -m dreamer4.main --script eval_only --from_checkpoint logdir/catch
  python -m dreamer4.main --configs dmc_vision --help

Tasks are a suite and a name: {', '.join(envs.available())}, as in gym_CartPole-v1.
--version names the versions of all that computes."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    with steady(patience=None):
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    if '--version' in argv:
        print(versions())
        return 0
    try:
        config = configure(argv)
        with launch.joined(config) as ranks:
            parts.run(config, ranks)
        return 0
    except ConfigError as error:
        # an env worker's ConfigError brings its traceback along
        print(f'dreamer4: {brief(error)}', file=sys.stderr)
        return 2
    except EnvMissing as error:
        print(f'dreamer4: {brief(error)}', file=sys.stderr)
        return 1
    except (EmbodiedError, ImportError) as error:
        print(f'dreamer4: {type(error).__name__}: {error}', file=sys.stderr)
        return 2 if isinstance(error, CheckpointError) else 1
    except KeyboardInterrupt:
        return 130


def versions() -> str:
    """This program, Python, and the packages that results depend on, in one line."""
    packages = [f'{name} {metadata.version(name)}' for name in ('torch', 'numpy', 'gymnasium')]
    return ', '.join([f'dreamer4 {__version__}', f'python {platform.python_version()}', *packages])


def configure(argv: list[str]) -> Config:
    """The config of a command line; where an agent is only to act, its run's config.yaml says
    what it is and where it acts.
    """
    argv, told = flags_of_today(argv)
    for words in told:
        print(f'dreamer4: {words}', file=sys.stderr)
    folder = configs_dir(Path(__file__).parent)
    said = parse(argv, folder, answer=False)
    base = run_config(said)
    config = parse(argv, folder, base, ABOUT)
    if base and not said.task:
        envs.check_stored(config.task, said.trust, runs.folder_of(said.from_checkpoint))
    return config


def run_config(config: Config) -> dict[str, Value] | None:
    """What the run that `config` acts with says of its agent and where it acts; None for no such
    run.
    """
    if config.script not in (*parts.LOOKS, 'collect') or not config.from_checkpoint:
        return None
    logdir = runs.folder_of(config.from_checkpoint)
    return runs.acting(logdir) if (logdir / runs.FILENAME).exists() else None


if __name__ == '__main__':
    sys.exit(main())
