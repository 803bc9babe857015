"""Sentences that a person should read, each once."""

from collections.abc import Iterable, Mapping

from .heads import beyond_bins


class Notices:
    """Sentences that wait to be read.

    Args:
        first: those that wait from the start.

    Attributes:
        told: topics that are told once and for all, part of a checkpoint.
    """

    def __init__(self, first: Iterable[str]):
        self._waiting, self.told = list(first), []

    def add(self, sentences: Iterable[str]) -> None:
        """Further sentences."""
        self._waiting += sentences

    def take(self) -> list[str]:
        """Those since the last call."""
        taken, self._waiting = self._waiting, []
        return taken

    def beyond(self, metrics: Mapping[str, float], limit: float, gamma: float) -> None:
        """Say once of rewards, and once of returns, that there are some beyond the outermost bin.

        Args: metrics of an update; see heads.beyond_bins.
        """
        for name in ('reward', 'value'):
            if metrics.get(f'{name}/beyond') and name not in self.told:
                self.told.append(name)
                self._waiting.append(beyond_bins(name, metrics, limit, gamma))
