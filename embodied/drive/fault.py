"""What goes wrong in a worker, in words that cross the border of a process."""

import sys
import traceback

from ..errors import (
    ConfigError,
    EmbodiedError,
    EnvContractError,
    EnvCrashed,
    EnvMissing,
    EnvNonFinite,
)

MISTAKES = (EnvContractError, EnvMissing, ConfigError)  # what a fresh worker would only do again

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
    try:
        text = f'{type(error).__name__}: {error}'
    except Exception:
        text = type(error).__name__
    # its text says all; the traceback would show our own check
    told = isinstance(error, EnvNonFinite)
    return {
        'error': next(
            (kind for kind in (*MISTAKES, EnvNonFinite) if isinstance(error, kind)), EnvCrashed
        ),
        'env': env,
        'text': text,
        'trace': '' if told else ''.join(traceback.format_exception(error)),
        'graphics': any(name in sys.modules for name in GRAPHICS),
    }
