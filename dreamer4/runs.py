"""The folder of a run: its stored configuration, and which of its settings bind whom.

One rule for resuming, evaluating, collecting with and loading a run: what the agent is, and where
it acts, binds all of them (settings of suites that its task is none of are nobody's); what decides
what is learned binds a resumption as well; everything else, the whole block `machine` included, may
differ. What a run of an older version lacks of it is made up for, see versions.py.
"""

import contextlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from embodied import envs
from embodied.base import Spaces
from embodied.checkpoint import saves_of
from embodied.config import Config, Value, configs_dir, diff, parse
from embodied.errors import ConfigError, listed
from embodied.files import whole
from embodied.pictures import readings
from embodied.replay import meta as metas
from embodied.replay.infer import folder_of as folder_of_rows
from embodied.replay.schema import Schema
from embodied.tasks import KEY, TaskId

from . import versions

FILENAME = 'config.yaml'
# what a run holds beside its configuration
PARTS = ('ckpt', 'eval', 'films', 'replay', 'report', 'spaces', 'stacks', 'videos')
SPACES = 'spaces'  # folder that holds the spaces an agent was built for, as a replay keeps them
ACTING = r'task|env\..*|agent\..*'
STORED = r'replay\.(?!max_gb|disk_gb|chunk_rows|resume|prefetch).*'
LEARNING = rf'{ACTING}|seed|run\.train_ratio|{STORED}'
T = TypeVar('T')


def folder_of(place: str | Path) -> Path:
    """The logdir of a checkpoint: of itself, of a part of it such as ckpt or replay, or of one
    save.
    """
    place = Path(place).expanduser()
    if place.name == 'ckpt':
        return place.parent
    if place.parent.name == 'ckpt':
        return place.parent.parent
    inside = place.name in PARTS and not (place / FILENAME).exists()
    return place.parent if inside and (place.parent / FILENAME).exists() else place


def saved(place: str | Path) -> Path:
    """The logdir of a run that can be looked at, known without torch, which takes seconds.

    Raises:
      ConfigError: it holds no configuration, or a damaged one. CheckpointError: no save.
    """
    logdir = folder_of(place)
    read(logdir)
    saves_of(logdir)
    return logdir


def none_in(place: Path) -> str:
    """Words for a folder that holds no run, with those that it may have been meant to hold."""
    found = sorted(path.parent.name for path in place.glob(f'*/{FILENAME}'))
    more = f' and {len(found) - 5} more' if len(found) > 5 else ''
    held = f'; it holds the runs {", ".join(found[:5])}{more}' if found else ''
    return f'{place} holds no {FILENAME}, thus no run{held}'


def unlike(logdir: Path, config: Config, obs_space: Spaces, act_space: Spaces) -> str:
    """How an agent of these settings and spaces differs from that of a run, a line for each
    difference; '' where none is known.
    """
    changes = binding(diff(read(logdir), config), r'agent\..*', config.task)
    words = [
        f'{key} is {told(old)} in the run, {told(new)} here'
        for key, (old, new) in changes.items()
        if None not in (old, new) and key != 'agent.tokenizer.lpips'
    ]
    with contextlib.suppress(ConfigError):
        there, here = readings(*read_spaces(logdir)), readings(obs_space, act_space)
        words += [f'it {old}, the task here {new}' for old, new in zip(there, here) if old != new]
    return listed(words)


def told(value: Value) -> str:
    """A value as a command line has it."""
    if isinstance(value, tuple):
        return ' '.join(map(str, value)) or 'none'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def read(logdir: Path) -> Config:
    """The configuration that a run was started with, in the names of this version.

    Raises:
      ConfigError: the folder holds none, or a damaged one.
    """
    if not (logdir / FILENAME).exists():
        raise ConfigError(none_in(logdir))
    return Config(versions.renamed(Config.load(logdir / FILENAME).to_dict()))


def completed(logdir: Path) -> Config:
    """As read(), with what its version lacked, and without what this one does not know."""
    today, stored = defaults(), read(logdir).flat
    known = {key: value for key, value in stored.items() if key in today}
    folder = configs_dir(Path(__file__).parent)
    return parse([], folder, known | versions.lacking(stored, today))


def binding(values: Mapping[str, T], pattern: str, task: str) -> dict[str, T]:
    """Those of some keys that match a pattern; env settings only of the suites of the task, if
    there is one.
    """
    own = tuple(f'env.{block}.' for block in envs.blocks(task)) if task else 'env.'
    return {
        key: value
        for key, value in values.items()
        if re.fullmatch(pattern, key) and (key.startswith(own) or not key.startswith('env.'))
    }


def acting(logdir: Path) -> dict[str, Value]:
    """Key -> value of what whoever lets the agent of a run act has to take from it. A warning says
    what it lacks.

    Raises:
      ConfigError: as read(); or the run is of a version whose settings this one does not know.
    """
    flat, today = read(logdir).flat, defaults()
    task = str(flat.get('task', ''))
    flat = binding(flat, ACTING, task)
    unknown = sorted(flat.keys() - today.keys())
    if unknown:
        raise ConfigError(
            f'{logdir} is a run of another version of dreamer4: this one does not know'
            f' {", ".join(unknown[:5])}'
            + (f' and {len(unknown) - 5} more' if len(unknown) > 5 else '')
            + f' of its {FILENAME}'
        )
    lacks = versions.lacking(flat, binding(today, ACTING, task))
    if lacks:
        warnings.warn(versions.words(lacks, logdir), stacklevel=2)
    return flat | lacks


def resumed(config: Config, logdir: Path) -> tuple[Config, str]:
    """The configuration by which the run in `logdir`, if there is one, goes on: the given one, with
    what its older version lacked as it was then; and a line about that, else ''.

    Raises:
      ConfigError: it learned by other settings; lists the keys that differ, with old and new
          values.
    """
    if not (logdir / FILENAME).exists():
        return config, ''
    stored = read(logdir)
    lacks = versions.lacking(stored.flat, binding(defaults(), LEARNING, config.task))
    config = config.update(lacks)
    changes = binding(diff(stored, config), LEARNING, config.task)
    changes = {key: change for key, change in changes.items() if key not in lacks}
    if changes:
        words = [f'{key}: {told(old)} -> {told(new)}' for key, (old, new) in changes.items()]
        raise ConfigError(
            f'{logdir} holds a run with other settings; choose another --logdir, or the old values'
            f' again:{listed(words)}'
        )
    return config, versions.words(lacks, logdir)


def defaults() -> dict[str, Value]:
    """Dotted key -> default of every key of this version."""
    return parse([], configs_dir(Path(__file__).parent)).flat


def as_stored(config: Config) -> tuple[Config, str]:
    """The configuration of an offline run, with task and env settings of those who made the rows;
    and a line where the command names another task, else ''.

    They are those of the meta.json of the first folder that names any, unless the command names
    another task.

    Raises:
      ConfigError: the folder names settings that this version does not know.
    """
    stored, folder = {}, ''
    for folder in config.replay.directory:
        known = metas.read(folder_of_rows(folder))
        if known and known[3].get('task'):
            stored = known[3]
            break
    task, settings = stored.get('task', ''), stored.get('env', {})
    if not isinstance(task, str) or not task:
        return config, ''
    if config.task not in ('', task):
        return config, f'The rows are those of {task}, this run is to act in {config.task}.'
    config = config.update({'task': task})
    if not isinstance(settings, dict) or not settings:
        return config, ''
    return config.update({'env': settings}, source=f'{folder}: its meta.json'), ''


def write_spaces(logdir: Path, obs_space: Spaces, act_space: Spaces) -> None:
    """Keep the spaces of an agent in its run, so that it is built again without an env."""
    schema = Schema.from_spaces(obs_space, act_space)
    (logdir / SPACES).mkdir(exist_ok=True)
    with whole(logdir / SPACES / metas.FILENAME) as file:
        file.write(metas.encode(schema, obs_space, act_space, {}))


def read_tasks(logdir: Path) -> TaskId | None:
    """The tasks of a run of several; None for another run, or none."""
    known = metas.read(logdir / SPACES)
    space = known[1].get(KEY) if known and known[1] else None
    return space if isinstance(space, TaskId) else None


def read_spaces(logdir: Path) -> tuple[Spaces, Spaces]:
    """Observation and action spaces of a run's agent; of its replay, for an older run.

    Raises:
      ConfigError: the run keeps none.
    """
    for folder in (logdir / SPACES, logdir / 'replay'):
        known = metas.read(folder)
        if known and known[1] and known[2]:
            return known[1], known[2]
    raise ConfigError(
        f'{logdir} keeps no spaces of its env, neither in {SPACES}/ nor in replay/; load() builds'
        ' the env to know them'
    )
