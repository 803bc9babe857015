"""Every error that this package raises on purpose. All of them but a Ctrl-C derive from
EmbodiedError, are built from one string and can be pickled, so that a worker process can send them
home. Their text names what was expected, what came, and where.
"""

import difflib
from collections.abc import Iterable, Sequence
from itertools import takewhile

LISTED = 8  # lines of a list in a text; the rest is counted
WIDEST = 160  # characters of such a line
INDENT = '  '  # by which a list is known from what follows the text


class EmbodiedError(Exception):
    """Root of all errors raised on purpose; catching it catches nothing else."""


class ConfigError(EmbodiedError):
    """A key, preset, task, script or value that the user gave is unknown, missing or of the
    wrong type.
    """


class EnvError(EmbodiedError):
    """An environment cannot be made or cannot go on."""


class EnvCrashed(EnvError):
    """An environment raised, or its process ended, while it was stepped."""


class EnvTimeout(EnvError):
    """An environment did not answer within the time it is given."""


class EnvContractError(EnvError):
    """An environment returned, or was given, something that its spaces or the row table do not
    allow.
    """


class EnvNonFinite(EnvError):
    """An environment returned NaN or an infinity: what it simulates has come apart, and a fresh one
    goes on in its place.
    """


class EnvInterrupted(KeyboardInterrupt):
    """Ctrl-C reached code of an environment in this process, which let it pass: the episode of that
    environment is cut, and nothing else is lost.
    """


class EnvMissing(EnvError):
    """A package or library that a suite needs is not installed; the text says how to install it."""


class MessageError(EnvError):
    """What came over a connection is no message of ours, is too large, or proves no token."""


class ReplayError(EmbodiedError):
    """The replay store cannot do what it was asked."""


class ReplayEmptyError(ReplayError):
    """There are not yet enough rows to sample the sequences asked for."""


class ReplaySchemaError(ReplayError):
    """Rows have other keys, dtypes or shapes than the store holds."""


class ReplayNonFinite(ReplayError):
    """A row holds NaN or an infinity, which nobody could learn from."""


class ReplayWriteError(ReplayError):
    """A chunk could not be written to disk."""


class ChunkError(ReplayError):
    """A chunk file is damaged, truncated or not a chunk."""


class ChunkUnreadable(ReplayError):
    """A chunk file cannot be read whole here and now, which says nothing about its content."""


class OutOfResources(EmbodiedError):
    """File descriptors or memory ran out; the file that was to be read is not at fault."""


class CheckpointError(EmbodiedError):
    """A checkpoint is missing, incomplete, damaged or made for something else."""


class FolderInUse(EmbodiedError):
    """Another process writes to the folder that a run is to write to."""


def listed(lines: Sequence[str]) -> str:
    """The lines of a list in the text of an error, each below the other: LISTED at most, of WIDEST
    characters.
    """
    shown = [line if len(line) <= WIDEST else f'{line[: WIDEST - 3]}...' for line in lines[:LISTED]]
    more = [f'and {len(lines) - LISTED} more'] if len(lines) > LISTED else []
    return ''.join(f'\n{INDENT}{line}' for line in [*shown, *more])


def brief(error: BaseException) -> str:
    """What a person reads of an error: its first line and the list below it, without the traceback
    that a worker has sent along.
    """
    first, *rest = str(error).splitlines() or ['']
    return '\n'.join([first, *takewhile(lambda line: line.startswith(INDENT), rest)])


def nearest(name: str, known: Iterable[str]) -> str:
    """'nearest: ...', the known names that are most like one that is not, for errors."""
    known = list(known)
    name = name[:200]
    tail = name.rpartition('.')[2]
    same = [key for key in known if tail and key.rpartition('.')[2] == tail]
    close = difflib.get_close_matches(name, same, 2, 0)  # a key that moved to another block
    near = difflib.get_close_matches(name, known, 3, 0.6)
    close += [key for key in near if key not in close]
    if not close:
        tails = {key.rpartition('.')[2]: key for key in reversed(known)}
        close = [tails[key] for key in difflib.get_close_matches(tail, tails, 1, 0.6)]
    close = close or difflib.get_close_matches(name, known, 1, 0)
    return (
        f'nearest: {", ".join(close[:3])}' if close else f'known: {", ".join(known[:8]) or "none"}'
    )
