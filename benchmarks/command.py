"""How benchmark programs report and store results: user errors in one line, results as JSON."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

from embodied.errors import ConfigError


def start(main: Callable[[], None]) -> None:
    """Run a program; a user error is one line on stderr and exit status 2."""
    try:
        main()
    except ConfigError as error:
        print(f'{Path(sys.argv[0]).stem}: {str(error).splitlines()[0]}', file=sys.stderr)
        sys.exit(2)


def write(path: Path, found: dict) -> None:
    """Write a result, creating its folder if needed; non-finite numbers become null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(found), indent=1, allow_nan=False) + '\n')


def plain(x):
    """The same tree with None in place of numbers JSON cannot hold."""
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
