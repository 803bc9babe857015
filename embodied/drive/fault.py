"""What goes wrong in a worker, in words that cross the border of a process."""

import re
import sys
import traceback
from pathlib import Path

import gymnasium

from ..errors import (
    ConfigError,
    EmbodiedError,
    EnvContractError,
    EnvCrashed,
    EnvMissing,
    EnvNonFinite,
)

MISTAKES = (EnvContractError, EnvMissing, ConfigError)  # what a fresh worker would only do again

# Frames of these files at the top of a traceback only lead to the env.
HERE = Path(__file__).resolve().parent
OURS = (
    'drive',
    'wrappers.py',
    'contract.py',
    *(f'envs/{name}.py' for name in ('__init__', 'arguments', 'gymnasium', 'leaves', 'own')),
)
LEAD = (
    *(str(HERE.parent / name) for name in OURS),
    *(str(Path(gymnasium.__file__).parent / name) for name in ('core.py', 'wrappers')),
)
PACKAGE = (str(HERE.parent), *LEAD)
LONGEST = 8000  # characters of a traceback that are told

# an env that imported none of these fails for other reasons
GRAPHICS = ('OpenGL', 'mujoco', 'glfw', 'pyglet', 'moderngl')


class WorkerFault(Exception):
    """What went wrong in a worker, in words.

    Attributes:
      error: the class in embodied.errors that says it: EnvCrashed, EnvTimeout, EnvNonFinite, or one
          of MISTAKES.
      env: index of the env at fault, or None where only the group is known.
      text: one line.
      trace: remote traceback or stack of the main thread, may be empty.
      threads: number of further threads, and dump: the stacks of all, where it is one of several
          that hang.
      graphics: whether something that renders was loaded; None where the process cannot tell any
          more.
    """

    def __init__(
        self,
        error: type[EmbodiedError],
        env: int | None,
        text: str,
        trace: str = '',
        graphics: bool | None = None,
        dump: str = '',
    ):
        super().__init__(text)
        self.error, self.env, self.text, self.trace, self.graphics = (
            error,
            env,
            text,
            trace,
            graphics,
        )
        self.threads, self.dump = dump.count('(most recent call first)') - 1 if dump else 0, dump


def fault_fields(error, env):
    """Everything the caller needs to know, as text: exceptions themselves may not pickle, nor
    their classes import.
    """
    kind = next((kind for kind in (*MISTAKES, EnvNonFinite) if isinstance(error, kind)), EnvCrashed)
    text = type(error).__name__
    try:
        if words := str(error).strip():
            line = shortened(words.splitlines()[0], LONGEST // 8)
            # mistakes are raised anew, by their class
            text = line if kind in MISTAKES else f'{text}: {line}'
    except Exception:  # an exception of theirs that cannot be written
        pass
    return {
        'error': kind,
        'env': env,
        'text': text,
        'trace': told(error),
        'graphics': any(name in sys.modules for name in GRAPHICS),
    }


def told(error: BaseException) -> str:
    """The traceback from where the env's own code begins, all of it where that is nowhere; nothing
    for an error of ours whose text says all.
    """
    frames = [error.__traceback__]
    while frames[-1] is not None:
        frames.append(frames[-1].tb_next)
    files = [frame.tb_frame.f_code.co_filename for frame in frames[:-1]]
    ours = isinstance(error, EmbodiedError) and all(file.startswith(PACKAGE) for file in files)
    if ours or isinstance(error, EnvNonFinite):
        return ''
    begin = next((place for place, file in enumerate(files) if not file.startswith(LEAD)), 0)
    lines = traceback.format_exception(type(error), error, frames[begin])
    return shortened(''.join(lines), LONGEST)


def shortened(text: str, most: int) -> str:
    """A text without its middle, if it is longer than `most`."""
    if len(text) <= most:
        return text
    return f'{text[: most // 2]}\n[... {len(text) - most:,} characters ...]\n{text[-most // 2 :]}'


def place(trace: str) -> str:
    """What a traceback has in common with others of the same place: no messages, no addresses."""
    frames = [line for line in trace.splitlines() if line.lstrip().startswith('File "')]
    return re.sub('0x[0-9a-f]+', '', '\n'.join(frames) or trace)
