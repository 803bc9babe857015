"""How benchmark programs report and store results: user errors in one line, results as JSON."""

import json
import math
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import dreamer4
from embodied.errors import ConfigError, brief


def start(main: Callable[[], None]) -> None:
    """Run a program; a user error is one line on stderr and exit status 2. SIGTERM and Ctrl-C end
    it and the programs that it has started.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except ConfigError as error:
        print(f'{Path(sys.argv[0]).stem}: {brief(error)}', file=sys.stderr)
        sys.exit(2)


def trained(run: 'dreamer4.Experiment') -> 'dreamer4.Experiment':
    """The run after its training. A signal that asks it to end ends the program too: a run that is
    not complete is no result.
    """
    if name := run.train().interrupted:
        print(f'{run.logdir} was asked to end; the same command goes on with it.', file=sys.stderr)
        sys.exit(128 + signal.Signals[name])
    return run


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
