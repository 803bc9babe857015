"""The only place where the name of a task makes Python import a module: gym_<module>:<Id> or
package.module:Class.

Whatever the module does on import happens here, in the process that runs the envs. A task named
only by a stored run imports nothing unless the user trusts the run.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from ..errors import ConfigError
from ..extras import install_hint

# module that registers ids of Gymnasium -> the extra that brings it
EXTRAS = {'ale_py': 'atari', 'minigrid': 'minigrid', 'crafter': 'crafter', 'metaworld': 'metaworld'}


def load_module(name: str, task: str) -> ModuleType:
    """Import a module named by a task; the current folder is searched last.

    Args:
      name: dotted name of the module.
      task: as the user wrote it, for messages.

    Raises:
      ConfigError: unknown module, or its import failed; says which and why.
    """
    demand(name, task)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f'{error.name}.')):
            raise ConfigError(f'--task {task}: there is no module {error.name!r}.') from error
        raise ConfigError(
            f'--task {task}: the module {name!r} imports {error.name!r}, which is not installed.'
        ) from error
    except (
        Exception,
        SystemExit,
    ) as error:  # user code may raise anything, and its author needs the cause
        place = (
            f' ({error.filename}, line {error.lineno})' if isinstance(error, SyntaxError) else ''
        )
        raise ConfigError(
            f'--task {task}: importing {name!r} raised {type(error).__name__}: {error}{place}'
        ) from error


def demand(name: str, task: str) -> None:
    """Refuse a task whose module does not exist, as far as possible without importing anything.

    Raises:
      ConfigError: there is no module of this name.
    """
    if os.getcwd() not in sys.path and '' not in sys.path:
        # for a console script, sys.path begins with the script's folder instead of the current one
        sys.path.append(os.getcwd())
    top = name.partition('.')[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        how = (
            f'the package is not installed; {install_hint(EXTRAS[top])}'
            if top in EXTRAS
            else 'install the package that holds it, or start in the folder that does.'
        )
        raise ConfigError(f'--task {task}: there is no module {top!r}; {how}')


def refuse_unnamed(module: str, task: str, trusted: bool, logdir: Path) -> None:
    """Refuse a module that only the run in `logdir` names: whoever wrote the run would choose what
    is executed here.

    Args:
      module, task: what would be imported, and the task that asks for it.
      trusted: the user vouches for the run. Even so the module has to be an installed one: neither
          the run's folder nor the present one is searched.

    Raises:
      ConfigError: it may not be imported; says how to allow it. Nothing was imported.
    """
    if not trusted:
        raise ConfigError(
            f'{logdir} names the task {task}, which imports the module {module!r}: a run of others'
            f' may choose no code. Say --task {task} to name it yourself, or --trust true where it'
            ' is an installed package.'
        )
    top = module.partition('.')[0]
    spec = importlib.util.find_spec(top)
    found = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin or '']
    here, run = Path.cwd().resolve(), logdir.resolve()
    paths = [_import_path(Path(place), top) for place in found if place]
    if any(path == here or path.is_relative_to(run) for path in paths):
        raise ConfigError(
            f'{logdir} names the task {task}, and {top!r} is no installed package but a file of'
            f' this folder or of the run; say --task {task} to name it yourself.'
        )


def _import_path(place: Path, top: str) -> Path:
    """The entry of sys.path that a module was found on, from its file or folder. Links are followed
    from there on only: one in the present folder is a file of the present folder.
    """
    inside = place.name.startswith('__init__.') and place.parent.name == top
    return (place.parent.parent if inside else place.parent).resolve()
