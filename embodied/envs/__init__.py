"""Environments by name: a table of suites, and package.module:Class for an env of the user's own;
several of them joined as one (many.py, sets.py).
The module of a suite, and the packages it needs, are imported only when one of its tasks is made,
so a suite that is not installed breaks no other.
"""

import dataclasses
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import wrappers
from ..base import Env
from ..errors import ConfigError, nearest
from ..seeds import derive
from ..tasks import TaskId
from . import imports
from .many import InTurn, OneOf, Prober, TasksConfig, dealt
from .sets import SETS, members

# suite -> its module, maker and config class. Maker(name, config, seed) returns an env; name is the
# task without 'suite_'.
SUITES = {
    'pixel': ('pixel', 'make', 'PixelConfig'),
    'dummy': ('dummy', 'Dummy', 'DummyConfig'),
    'dmc': ('dmc', 'make', 'DMCConfig'),
    'gym': ('gymnasium', 'make', 'GymConfig'),
    'atari': ('atari', 'make', 'AtariConfig'),
    'crafter': ('crafter', 'make', 'CrafterConfig'),
    'procgen': ('procgen', 'make', 'ProcgenConfig'),
    'minigrid': ('minigrid', 'make', 'MiniGridConfig'),
    'memmaze': ('memmaze', 'make', 'MemMazeConfig'),
    'metaworld': ('metaworld', 'make', 'MetaWorldConfig'),
    'mujoco': ('mujoco', 'make', 'MuJoCoConfig'),
    'vizdoom': ('vizdoom', 'make', 'VizDoomConfig'),
    'retro': ('retro', 'make', 'RetroConfig'),
    'craftax': ('craftax', 'make', 'CraftaxConfig'),
    'brax': ('brax', 'make', 'BraxConfig'),
    'dmlab': ('dmlab', 'make', 'DMLabConfig'),
    'unity': ('unity', 'make', 'UnityConfig'),
    'remote': ('remote', 'make', 'RemoteConfig'),
}
OWN = ('own', 'make', 'GymConfig')  # for package.module:Class, configured by env.gym
FORMS = (
    'A task is <suite>_<name>, gym_<module>:<Id>, or package.module:Class for an env of your own.'
)


@dataclasses.dataclass(frozen=True)
class Maker:
    """Constructor of one env for the driver; arguments as in make()."""

    task: str
    config: Mapping
    seed: int

    def __call__(self) -> Env:
        return make(self.task, self.config, self.seed)

    @property
    def together(self) -> bool:
        """Whether all envs of a driver are to be in one worker: lanes of a vectorised env."""
        settings = self.config.get(block(self.task), {})
        return split(self.task)[0] == 'gym' and bool(settings.get('vector', False))

    def renewed(self, count: int) -> 'Maker':
        """Constructor of replacement number `count` after a crash: the same task with a new random
        stream.
        """
        return dataclasses.replace(self, seed=derive(self.seed, 'renewed', count))


def make(task: str, config: Mapping, seed: int, space: TaskId | None = None) -> Env:
    """The environment of a task, wrapped by wrappers.wrap(); of several tasks, one that takes turns
    in them.

    Args:
      task: suite and name, such as 'pixel_catch', 'dmc_cheetah_run', 'gym_CartPole-v1', 'dummy'; or
          'package.module:Class'; or several with commas between them, or the name of a set.
      config: suite -> its values, the `env` block of the config; only the entry of the task's suite
          is read.
      seed: of this env, >= 0; envs with equal task, config and seed behave alike.
      space: the tasks that this one is of, or these are; None has several tasks joined by
        themselves.

    Raises:
      ConfigError: unknown suite, task or config key. EnvMissing: a package is not installed.
    """
    tasks = members(task)
    if space is not None or len(tasks) > 1:
        return deal(task, config, space or prober(tasks, config).space(), 0, 1, seed)()
    maker, name, values = make_config(task, config)
    return wrappers.wrap(maker(name, values, seed))


def prober(tasks: tuple[str, ...], config: Mapping) -> Prober:
    """What finds the spaces of several tasks. Raises ConfigError."""
    settings = build_config(TasksConfig, config['tasks'], 'env.tasks')
    return Prober(tasks, tuple(Maker(each, config, 0) for each in tasks), settings)


def deal(
    task: str, config: Mapping, space: TaskId, index: int, count: int, seed: int
) -> OneOf | InTurn:
    """Constructor of env `index` of `count` that tasks are dealt over; see many.dealt().

    Raises:
      ConfigError: one is none of the space.
    """
    parts = []
    for number, each in enumerate(members(task)):
        if each not in space.names:
            raise ConfigError(unknown('task', each, space.names, ' of an agent of other tasks'))
        maker = Maker(each, config, derive(seed, 'task', number))
        parts.append(OneOf(maker, space, space.names.index(each)))
    return dealt(parts, index, count)


def make_config(task: str, config: Mapping) -> tuple:
    """(maker, name, suite config) of a task, without making it: cheap enough for a command line.

    Raises:
      ConfigError: unknown suite or config key.
    """
    suite, name = split(task)
    if suite not in SUITES and suite != 'own':
        raise ConfigError(f'{unknown_suite(task)} {FORMS}')
    where = block(task)
    if where not in config:
        raise ConfigError(
            f'The task {task!r} needs the config block env.{where}; env has {sorted(config)}.'
        )
    module, maker, config_class = OWN if suite == 'own' else SUITES[suite]
    module = importlib.import_module(f'.{module}', __name__)
    return (
        getattr(module, maker),
        name,
        build_config(getattr(module, config_class), config[where], f'env.{where}'),
    )


def split(task: str) -> tuple[str, str]:
    """Suite and name of a task; ('own', task) if it names a class or function of a module.

    Raises:
      ConfigError: it names a file.
    """
    suite, _, name = task.partition('_')
    module, colon, attribute = task.partition(':')
    if colon and (module.endswith('.py') or '/' in module) and attribute.isidentifier():
        path = Path(module.removesuffix('.py'))
        dotted = '.'.join(path.parts)
        far = path.is_absolute() or '..' in path.parts
        how = f'as seen from its folder {path.parent}, started there: {path.name}'
        how = how if far else f'as seen from the present folder: {dotted}'
        raise ConfigError(f'--task {task} names a file; name the module, {how}:{attribute}')
    parts = [*module.split('.'), *attribute.split('.')]
    if colon and all(part.isidentifier() for part in parts):
        # gym_minigrid:Id is a Gymnasium id, unless a module has exactly this name.
        if suite not in SUITES or importlib.util.find_spec(parts[0]) is not None:
            return 'own', task
    return suite, name


def check(task: str, config: Mapping) -> None:
    """Refuse a task that make() would refuse, as far as possible without importing a simulator.

    Raises:
      ConfigError, EnvMissing: as in make().
    """
    tasks = members(task)
    if len(tasks) > 1:
        build_config(TasksConfig, config['tasks'], 'env.tasks')
    for each in tasks:
        maker, name, values = make_config(each, config)
        sys.modules[maker.__module__].check(name, values)


def block(task: str) -> str:
    """The block of `env` that configures a single task."""
    suite, _ = split(task)
    return 'gym' if suite == 'own' else suite


def blocks(task: str) -> list[str]:
    """The blocks of `env` that configure a task or several."""
    tasks = members(task)
    return list(dict.fromkeys([block(each) for each in tasks] + ['tasks'] * (len(tasks) > 1)))


def named_module(task: str) -> str:
    """The module whose name in a single task makes Python import it; '' for a task of a suite."""
    suite, name = split(task)
    if suite == 'own':
        return task.partition(':')[0]
    return name.rpartition(':')[0] if suite == 'gym' else ''


def check_stored(task: str, trusted: bool, logdir: Path) -> None:
    """Refuse the task of a stored run if it would import code that the user neither named nor
    trusts.

    Raises:
      ConfigError: as imports.refuse_unnamed().
    """
    for each in members(task):
        if module := named_module(each):
            imports.refuse_unnamed(module, task, trusted, logdir)


def available() -> list[str]:
    """Names of the suites; a task is a suite, '_' and a name the suite knows."""
    return list(SUITES)


def build_config(config_class: type, values: Mapping, where: str):
    """`values` as the suite's config dataclass; ConfigError for missing or unknown keys."""
    names = {field.name for field in dataclasses.fields(config_class)}
    for key in values:
        if key not in names:
            raise ConfigError(unknown('key', key, names, f' in {where}'))
    if missing := sorted(names - set(values)):
        raise ConfigError(f'{where} lacks {", ".join(missing)}.')
    return config_class(**values)


def unknown(what: str, given: str, known, where: str = '') -> str:
    """One sentence about an unknown name, with the nearest known one."""
    return f'Unknown {what} {given!r}{where}; {nearest(given, known)}.'


def unknown_suite(task: str) -> str:
    """A sentence about a task of no suite: what was meant, where it is an id of Gymnasium or the
    name of a task without its suite, else the nearest suite.
    """
    plain = re.sub(r'[\W_]+', '_', task).lower()
    called = re.sub(r'\(.*\)$', '', task.strip())  # as in coin:Coin()
    suite, _, name = task.partition('_')
    if ':' in called and called != task:
        meant = [called]
    elif re.fullmatch(r'[\w/.~-]+\.py', task):
        path = Path(task.removesuffix('.py'))
        far = path.is_absolute() or path.parts[0] in ('..', '~')
        meant = [f'{path.name if far else ".".join(path.parts)}:<Class>']
    elif suite.lower() in SUITES and name:
        meant = [f'{suite.lower()}_{name}']
    elif re.fullmatch(r'\w+(\.\w+)+', task):
        meant = [':'.join(task.rsplit('.', 1))]
    elif re.search(r'-v[0-9]+$', task):
        from .ids import spelt

        meant = [spelt(task)]
    else:
        known = [name for names in SETS.values() for name in names]
        meant = [name for name in known if plain in (name, name.partition('_')[2])]
    if meant:
        return f'Unknown task {task!r}; did you mean {meant[0]}?'
    return unknown('suite', task.partition('_')[0], SUITES, f' in the task {task!r}')


def unknown_task(suite: str, name: str, names: Iterable[str]) -> ConfigError:
    """What to raise where a suite has tasks of these names and none of that name."""
    return ConfigError(unknown('task', f'{suite}_{name}', [f'{suite}_{each}' for each in names]))
