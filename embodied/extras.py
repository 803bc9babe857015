"""Optional packages: whether one is there, and the command that installs it for this Python."""

import importlib.util
import os
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path

from .errors import EnvMissing

ROOT = Path(__file__).parents[1]


def require(module: str, extra: str) -> None:
    """Refuse to go on without a module that an extra brings.

    Raises:
      EnvMissing: it cannot be found; the text holds the command that installs it.
    """
    if importlib.util.find_spec(module) is None:
        raise EnvMissing(f'the package {module} is not installed; {install_hint(extra)}')


def install_hint(extra: str) -> str:
    """'install it with ...', a command for a shell in the present folder.

    In a checkout it installs an extra of the checkout, in the versions that its tests ran with. A
    wheel may have come from anywhere, so there it names the packages that the extra asks for.
    """
    python = shlex.quote(short(sys.executable))
    if (ROOT / 'pyproject.toml').is_file():
        pins, target = short(ROOT / 'constraints.txt'), f'{short(ROOT)}[{extra}]'
        words = ['-c', pins, '-e', target]
    else:
        words = requirements(extra)
    return f'install it with: {python} -m pip install {shlex.join(words)}'


def requirements(extra: str) -> list[str]:
    """What the installed distribution of this package asks for in an extra, as pip takes it."""
    names = metadata.packages_distributions().get(__package__, [])
    lines = [line for name in names for line in metadata.requires(name) or ()]
    wanted = re.compile(rf'extra\s*==\s*["\']{re.escape(extra)}["\']')
    return [line.partition(';')[0].strip() for line in lines if wanted.search(line)]


def short(path: str | os.PathLike) -> str:
    """A path below the present folder as seen from there, another one in full."""
    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith(os.pardir) else relative
