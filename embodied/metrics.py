"""Means of metrics between two lines of a log, and the scores of episodes as a listener of rows."""

import math
from collections.abc import Callable, Mapping

import numpy as np

from .base import Values


class Window:
    """Means of metrics since they were last taken. Non-finite values are counted by name, never averaged away."""

    def __init__(self):
        self._sums, self._counts, self._broken = {}, {}, {}

    def add(self, metrics: Mapping[str, float], prefix: str = '') -> None:
        """Fold in one value of each metric; names become prefix/name."""
        for name, value in metrics.items():
            name, value = f'{prefix}/{name}' if prefix else name, float(value)
            if not math.isfinite(value):
                self._broken[name] = self._broken.get(name, 0) + 1
                continue
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """Means, and 'nonfinite/<name>' counts; begins anew."""
        means = {k: total / self._counts[k] for k, total in self._sums.items()}
        means |= {f'nonfinite/{k}': float(n) for k, n in self._broken.items()}
        self.__init__()
        return means

    def save(self) -> dict:
        return {'sums': dict(self._sums), 'counts': dict(self._counts), 'broken': dict(self._broken)}

    def load(self, tree: dict) -> None:
        self._sums, self._counts, self._broken = dict(tree['sums']), dict(tree['counts']), dict(tree['broken'])


class EpisodeStats:
    """A listener of rows that adds up the episodes of every env.

    Args:
      on_episode: called with (score, length, metrics) at the end of an episode: the sum of its rewards, its decisions, and for every
        'log/x' key its mean, maximum and sum as 'log/x/avg', '/max', '/sum'.

    Attributes:
      cut: episodes that were cut because their env was replaced; they have no score.
    """

    def __init__(self, on_episode: Callable[[float, int, dict[str, float]], None]):
        self._on_episode = on_episode
        self._open = {}
        self.cut = 0

    def __call__(self, row: Values, worker: int) -> None:
        """Take one row of env `worker`."""
        if row['is_first']:
            self.cut += worker in self._open
            self._open[worker] = {'score': 0.0, 'length': -1, 'log': {}}
        episode = self._open.get(worker)
        if episode is None:
            return  # the episode began before anybody listened
        episode['score'] += float(row['reward'])
        episode['length'] += 1
        for key, value in row.items():
            if key.startswith('log/') and np.ndim(value) == 0:
                total, most, count = episode['log'].get(key, (0.0, -math.inf, 0))
                episode['log'][key] = [total + float(value), max(most, float(value)), count + 1]
        if row['is_last']:
            del self._open[worker]
            logs = {}
            for key, (total, most, count) in episode['log'].items():
                logs |= {f'{key}/avg': total / count, f'{key}/max': most, f'{key}/sum': total}
            self._on_episode(episode['score'], episode['length'], logs)

    def save(self) -> dict:
        return {'open': {str(worker): episode for worker, episode in self._open.items()}, 'cut': self.cut}

    def load(self, tree: dict) -> None:
        self._open = {int(worker): dict(episode) for worker, episode in tree['open'].items()}
        self.cut = tree['cut']
