"""Means of metrics between two lines of a log, and the scores of episodes as a listener of rows."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..base import Values
from ..errors import CheckpointError
from ..tasks import KEY
from ..tree_spec import COUNT, NUMBER, REAL, Each, demand

# one under way, as it is saved
EPISODE = {'score': REAL, 'length': COUNT, 'log': Each(Each(REAL, list))}

LARGEST = '/largest'  # ends the name of a metric of which the largest value counts, not the mean
SMOOTHING = 0.9  # decay of running means


class Window:
    """Means of metrics since they were last taken, and the largest values of those that end in
    LARGEST. Non-finite values are counted, never averaged.

    Attributes:
      smooth: running mean of each metric, for eyes; it is no part of the state.
    """

    def __init__(self):
        self.smooth = {}
        self._sums, self._counts, self._broken = {}, {}, {}

    def add(self, metrics: Mapping[str, float], prefix: str = '') -> None:
        """Fold in one value of each metric; names become prefix/name."""
        for name, value in metrics.items():
            name, value = f'{prefix}/{name}' if prefix else name, float(value)
            if not math.isfinite(value):
                self._broken[name] = self._broken.get(name, 0) + 1
                continue
            self.smooth[name] = SMOOTHING * self.smooth.get(name, value) + (1 - SMOOTHING) * value
            if name.endswith(LARGEST):
                self._sums[name], self._counts[name] = max(self._sums.get(name, value), value), 1
                continue
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The mean of each metric over its finite values, and 'nonfinite/<name>', the number of
        others; begins anew.
        """
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        means |= {f'nonfinite/{name}': float(count) for name, count in self._broken.items()}
        self._sums, self._counts, self._broken = {}, {}, {}
        return means

    def save(self) -> dict[str, Any]:
        return {
            'sums': dict(self._sums),
            'counts': dict(self._counts),
            'broken': dict(self._broken),
        }

    def load(self, tree: Mapping[str, Any]) -> None:
        """Continue from what save() returned."""
        demand(
            tree,
            {'sums': Each(NUMBER), 'counts': Each(COUNT), 'broken': Each(COUNT)},
            'The state of the metrics',
        )
        if any(not tree['counts'].get(name) for name in tree['sums']):
            raise CheckpointError(
                'The state of the metrics is not one that they saved: it has sums without counts'
            )
        self._sums, self._counts, self._broken = (
            dict(tree[key]) for key in ('sums', 'counts', 'broken')
        )


class EpisodeStats:
    """A listener of rows that adds up the episodes of every env.

    Attributes:
      cut: episodes that were cut because their env was replaced; they have no score.
    """

    def __init__(
        self, on_episode: Callable[[float, int, dict[str, float]], None], tasks: Sequence[str] = ()
    ):
        """Args: on_episode is called with (score, length, logs) at the end of an episode: the sum
        of its rewards, its decisions, and for each number 'log/x' of its rows the mean, maximum and
        sum as 'log/x/avg', 'log/x/max', 'log/x/sum'; of several tasks, whose names these are, with
        that of the episode as well.
        """
        self._on_episode, self._tasks = on_episode, tuple(tasks)
        self._open = {}
        self.cut = 0

    def __call__(self, row: Values, worker: int) -> None:
        """Take one row of env `worker`; rows of an episode whose beginning was not seen do not
        count.
        """
        if row['is_first']:
            self.cut += worker in self._open
            self._open[worker] = {'score': 0.0, 'length': -1, 'log': {}}
        episode = self._open.get(worker)
        if episode is None:
            return
        episode['score'] += float(row['reward'])
        episode['length'] += 1
        for key, value in row.items():
            if key.startswith('log/') and np.ndim(value) == 0:
                value = float(value)
                if self._tasks and math.isnan(value):
                    continue  # a number that another task has
                total, most, count = episode['log'].get(key, (0.0, value, 0))
                episode['log'][key] = (total + value, max(most, value), count + 1)
        if row['is_last']:
            del self._open[worker]
            found = episode['score'], episode['length'], _summary(episode['log'])
            task = [self._tasks[int(row[KEY])]] if self._tasks else []
            self._on_episode(*found, *task)

    def save(self) -> dict[str, Any]:
        """The episodes that are under way."""
        return {
            'open': {
                str(worker): episode | {'log': dict(episode['log'])}
                for worker, episode in self._open.items()
            },
            'cut': self.cut,
        }

    def load(self, tree: Mapping[str, Any]) -> None:
        """Continue from what save() returned."""
        demand(tree, {'open': Each(EPISODE), 'cut': COUNT}, 'The state of the episodes')
        triples = all(
            len(values) == 3
            for episode in tree['open'].values()
            for values in episode['log'].values()
        )
        if not triples or not all(worker.isdecimal() for worker in tree['open']):
            raise CheckpointError('The state of the episodes is not one that they saved')
        self._open = {
            int(worker): {
                'score': episode['score'],
                'length': episode['length'],
                'log': dict(episode['log']),
            }
            for worker, episode in tree['open'].items()
        }
        self.cut = tree['cut']


def goals_of(logs: Mapping[str, float]) -> dict[str, int]:
    """Goal -> 1 where an episode reached it, else 0. Goals are log/success and log/achievement_...,
    reached where they were above 0 in some row.

    Args:
      logs: of the episode, as EpisodeStats hands them out.
    """
    most = {
        key.removeprefix('log/').removesuffix('/max'): value
        for key, value in logs.items()
        if is_goal(key) and key.endswith('/max')
    }
    return {name: int(value > 0) for name, value in most.items()}


def is_goal(key: str) -> bool:
    """Whether a log tells that something was achieved."""
    return key.startswith(('log/success', 'log/achievement_'))


def _summary(log: Mapping[str, tuple[float, float, int]]) -> dict[str, float]:
    result = {}
    for key, (total, most, count) in log.items():
        result |= {f'{key}/avg': total / count, f'{key}/max': most, f'{key}/sum': total}
    return result
