"""Where scalars, pictures and texts go beside the files of a run: which outputs there are, and that
none of them ends a run.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from ..errors import ConfigError
from .mlflow import MLflow
from .tensorboard import Events
from .wandb import WandB

# the terminal line and the lines of JSON are the logger's own
OWN = ('terminal', 'jsonl')
SERVICES = {'tensorboard': Events, 'wandb': WandB, 'mlflow': MLflow}


class Output(Protocol):
    """One place. The x-axis of everything is frames, or updates in a run without an env and for
    names that begin with pretrain/.
    """

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Args: name -> finite number; frames."""

    def image(self, name: str, content: bytes, shape: tuple[int, ...], step: int) -> None:
        """Args: name; PNG, or GIF for a video; its (H, W, C); frames."""

    def text(self, name: str, text: str, step: int) -> None:
        """Args: name; Markdown; frames."""

    def resume(self, step: int) -> None:
        """The run goes on after `step`: points beyond it are void."""

    def close(self) -> None:
        """Hand over what waits. May be called more than once."""


def check(outputs: tuple[str, ...]) -> None:
    """Refuse outputs that do not exist.

    Raises:
      ConfigError: names them. Lines of JSON are always written: resuming reads them.
    """
    known = (*OWN, *SERVICES)
    if unknown := [name for name in outputs if name not in known]:
        raise ConfigError(
            f'logger.outputs may hold {", ".join(known)}; got {", ".join(map(str, unknown))}.'
        )
    if 'jsonl' not in outputs:
        raise ConfigError('logger.outputs must hold jsonl, which resume and diagnose read.')


def make(
    outputs: tuple[str, ...], logdir: Path, on_event: Callable[[str], None]
) -> dict[str, Output]:
    """The services among the outputs, by name.

    Raises:
      EnvMissing: the package of one is not installed.
    """
    found = {}
    for name in dict.fromkeys(outputs):
        if name in SERVICES:
            made = SERVICES[name](logdir, on_event)
            found[name] = made if name == 'tensorboard' else Patient(name, made, on_event)
    return found


class Patient:
    """An output that may fail, as services behind a network do: it is said once, and the run goes
    on.
    """

    def __init__(self, name: str, output: Output, on_event: Callable[[str], None]):
        self._name, self._output, self._on_event, self._failed = name, output, on_event, False

    def __getattr__(self, method):
        if method.startswith('_'):
            raise AttributeError(method)
        call = getattr(self._output, method)

        def attempt(*args):
            try:
                call(*args)
            except Exception as error:  # whatever a service or its client raises
                if not self._failed:
                    self._on_event(
                        f'{self._name} takes no more, some of it is lost:'
                        f' {type(error).__name__}: {error}'
                    )
                self._failed = True
            else:
                self._failed = False

        return attempt
