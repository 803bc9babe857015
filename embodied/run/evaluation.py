"""What an evaluation found, of one task or of several, and of the processes that made it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..interval import interval


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
      returns, lengths: sum of rewards and number of decisions of each episode, env by env.
      videos: name -> uint8 (T, H, W, C), one for each recorded episode and image.
      cut: episodes cut after eval.length decisions; their returns are those up to the cut.
      goals: goal -> share of episodes that reached it; goals are log/success and
        log/achievement_...
      tasks: name -> evaluation of each of several tasks, whose episodes these are, as many of each.
    """

    returns: list[float]
    lengths: list[int]
    videos: dict[str, np.ndarray]
    cut: int = 0
    goals: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, 'Evaluation'] = field(default_factory=dict)

    @property
    def mean(self) -> float:
        """Of the returns; of several tasks the mean of their means."""
        if self.tasks:
            return float(np.mean([each.mean for each in self.tasks.values()]))
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation between episodes, of one task where there are several; 0 for a single
        one.
        """
        if self.tasks:
            return float(np.mean([each.std**2 for each in self.tasks.values()]) ** 0.5)
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    @property
    def ci95(self) -> float | None:
        """Half-width of the 95 % interval of the mean (Student's t), None for a single episode;
        with several tasks they are given, and episodes alone are left to chance.
        """
        if self.tasks:
            parts = [each.ci95 for each in self.tasks.values()]
            return None if None in parts else sum(x**2 for x in parts) ** 0.5 / len(parts)
        return interval(self.returns)

    def __str__(self) -> str:
        interval = (
            ''
            if self.ci95 is None
            else (
                f', 95 % interval of the mean {self.mean - self.ci95:.4g} to'
                f' {self.mean + self.ci95:.4g}'
            )
        )
        cut = (
            f', {self.cut} of them cut after {max(self.lengths):,} decisions (eval.length)'
            if self.cut
            else ''
        )
        return (
            f'return {self.mean:.4g}, standard deviation {self.std:.4g}{interval},'
            f' {len(self.returns)} episodes{cut}'
        )


def of_tasks(found: Mapping[str, Evaluation]) -> Evaluation:
    """One evaluation of those of several tasks."""
    parts = found.values()
    return Evaluation(
        returns=[x for part in parts for x in part.returns],
        lengths=[x for part in parts for x in part.lengths],
        videos={
            f'{re.sub("[^A-Za-z0-9_.-]", "-", task)}_{name}': film
            for task, part in found.items()
            for name, film in part.videos.items()
        },
        cut=sum(part.cut for part in parts),
        goals={
            f'{task}/{goal}': x for task, part in found.items() for goal, x in part.goals.items()
        },
        tasks=dict(found),
    )


def joined(parts: list[Evaluation | None]) -> Evaluation | None:
    """One evaluation of what several processes have made of it; None if one was interrupted."""
    if any(part is None for part in parts):
        return None
    if len(parts) == 1:
        return parts[0]
    parts = [part for part in parts if part.returns]  # of fewer episodes than processes
    if parts[0].tasks:
        by_task = {task: [part.tasks[task] for part in parts] for task in parts[0].tasks}
        return of_tasks({task: joined(each) for task, each in by_task.items()})
    total = sum(len(part.returns) for part in parts)
    return Evaluation(
        returns=[x for part in parts for x in part.returns],
        lengths=[x for part in parts for x in part.lengths],
        videos={name: film for part in parts for name, film in part.videos.items()},
        cut=sum(part.cut for part in parts),
        goals={
            goal: sum(part.goals.get(goal, 0.0) * len(part.returns) for part in parts) / total
            for goal in sorted({goal for part in parts for goal in part.goals})
        },
    )


def facts(result: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON, without its videos."""
    return {
        'mean': result.mean,
        'std': result.std,
        'ci95': result.ci95,
        'episodes': len(result.returns),
        'returns': result.returns,
        'lengths': result.lengths,
        'cut': result.cut,
        'goals': dict(result.goals),
    }
