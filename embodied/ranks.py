"""What the processes of one run tell each other. Most runs have one process, which is Ranks itself.

A launcher (torchrun) starts as many as it likes; each has envs, a driver and a replay of its own,
and only number 0 writes what people read. All of them come to the same calls in the same order.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .errors import CheckpointError


def named(number: int) -> str:
    """As in rank003."""
    return f'rank{number:03d}'


class Ranks:
    """One process alone.

    Attributes:
      number: of this process, from 0. count: how many there are.
    """

    number = 0
    count = 1

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the ranks, number by number."""
        return list(numbers)

    def gather(self, value: Any) -> list[Any]:
        """What every rank has given, in their order; on every rank."""
        return [value]

    def collect(self, value: Any) -> list[Any]:
        """What every rank has given, in their order; on rank 0, and nothing elsewhere."""
        return [value]

    def first(self, value: Any) -> Any:
        """What rank 0 has given."""
        return value

    def decide(self, make: Callable[[], Any]) -> Any:
        """What make() returns on rank 0, which alone calls it.

        Raises:
          EmbodiedError: what it raised, on every rank.
        """
        return make()

    def check(self, failed: str) -> None:
        """Tell the others whether this rank has failed, in words, or '' if it has not.

        Raises:
          CheckpointError: one has, on every rank; says which.
        """
        told = [
            f'{named(number)}: {text}' for number, text in enumerate(self.gather(failed)) if text
        ]
        if told:
            raise CheckpointError('; '.join(told))

    def folder(self, logdir: Path) -> Path:
        """Where this rank writes what nobody else reads: rank 0 in the logdir itself."""
        return logdir / 'ranks' / named(self.number) if self.number else logdir
