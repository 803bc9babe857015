"""The one place where the name of a task makes Python import a module: that of gym_<module>:<Id>,
or of package.module:Class.

Whatever such a module does when it is imported happens here, in the process that runs the envs.
"""

import importlib
import importlib.util
import os
import sys
from types import ModuleType

from ..errors import ConfigError


def load_module(name: str, task: str) -> ModuleType:
    """Import a module that a task names; the present folder is searched after everything else.

    Args:
      name: dotted name of the module.
      task: as the user wrote it, for messages.

    Raises:
      ConfigError: there is no such module, or importing it failed; says which and why.
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
    except Exception as error:  # it may do anything, and whoever wrote it wants to know what
        place = (
            f' ({error.filename}, line {error.lineno})' if isinstance(error, SyntaxError) else ''
        )
        raise ConfigError(
            f'--task {task}: importing {name!r} raised {type(error).__name__}: {error}{place}'
        ) from error


def demand(name: str, task: str) -> None:
    """Refuse a task whose module does not exist, as far as that shows without importing anything.

    Raises:
      ConfigError: there is no module of this name.
    """
    if os.getcwd() not in sys.path and '' not in sys.path:
        # a console script has the folder of its own in the place of the present one
        sys.path.append(os.getcwd())
    top = name.partition('.')[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise ConfigError(
            f'--task {task}: there is no module {top!r}; install the package that holds it, or'
            ' start in the folder that does.'
        )
