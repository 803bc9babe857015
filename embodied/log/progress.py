"""How far, how fast and how well a run goes: its live line, and the words at its end."""

import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..base import Status
from ..errors import CheckpointError

RECENT = 20  # episodes that a mean return is taken over
SPEED_SECONDS = 30.0  # speeds are means over so long
PACE_SECONDS = 600.0  # the time left follows from the stage's pace over so long, pauses included
LEAST_SECONDS = 5.0  # of a stage before its pace tells anything
SAMPLE_SECONDS = 0.2  # samples are no closer
LONGEST = 8.64e6  # seconds, a hundred days: times beyond are not told in figures


class Pace:
    """How fast counters rise, and how long the rest takes at the pace of the present stage."""

    def __init__(self):
        self._speeds, self._pace, self._stage = deque(), deque(), None

    def add(self, now: float, counters: Mapping[str, int], share: float, stage: str = '') -> None:
        """One sample.

        Args:
          now: seconds. counters: updates and frames. share: of the run that is done, in [0, 1].
          stage: of the agent; decisions of another one may cost more or less.
        """
        if stage != self._stage:
            self._pace.clear()
            self._stage = stage
        _push(self._speeds, (now, counters['updates'], counters['frames']), SPEED_SECONDS)
        _push(self._pace, (now, share), PACE_SECONDS)

    def speeds(self) -> tuple[float, float]:
        """Updates and frames per second."""
        first, last = self._speeds[0], self._speeds[-1]
        seconds = max(last[0] - first[0], 1e-6)
        return (last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds

    def left(self) -> float | None:
        """Seconds that the rest takes; infinite if nothing moves, None if it is too early."""
        (begin, before), (now, share) = self._pace[0], self._pace[-1]
        if share >= 1:
            return 0.0
        if now - begin < LEAST_SECONDS:
            return None
        return (1 - share) * (now - begin) / (share - before) if share > before else math.inf


class Returns:
    """Returns of the newest episodes.

    Attributes:
      last: the newest one, None before the first.
      best: the highest mean over RECENT episodes in a row, None before so many.
      best_frames: frames of the run when it was reached.
    """

    def __init__(self):
        self.last, self.best, self.best_frames = None, None, 0
        self._recent = deque(maxlen=RECENT)

    def add(self, score: float, frames: int) -> None:
        """One finished episode, and the frames of the run at its end.

        A score that is not finite has no part in means.
        """
        self.last = score
        if not math.isfinite(score):
            return
        self._recent.append(score)
        if len(self._recent) == RECENT and (self.best is None or self.mean > self.best):
            self.best, self.best_frames = self.mean, frames

    @property
    def mean(self) -> float | None:
        """Over the newest episodes, RECENT at most."""
        return sum(self._recent) / len(self._recent) if self._recent else None

    def __str__(self) -> str:
        if self.mean is None:
            return ''
        return f'{self.mean:.4g} (mean of {len(self._recent)}; last {self.last:.4g})'

    def save(self) -> dict[str, Any]:
        return {
            'last': self.last,
            'recent': list(self._recent),
            'best': self.best,
            'best_frames': self.best_frames,
        }

    def load(self, tree: Mapping[str, Any]) -> None:
        """Continue from what save() returned."""
        try:
            recent, self.last = deque(tree['recent'], RECENT), tree['last']
            self.best, self.best_frames, self._recent = tree['best'], tree['best_frames'], recent
        except (KeyError, TypeError) as error:
            raise CheckpointError(f'The returns are not such as were saved: {error!r}') from error


def live_line(
    counters: Mapping[str, int],
    share: float,
    status: Status,
    metrics: Mapping[str, float],
    pace: Pace,
    returns: Returns,
) -> str:
    """One line about a run, what matters most first: a terminal cuts what is too long.

    Args:
      counters: step, frames, updates, episodes. share: of the run that is done, in [0, 1].
      status: of the agent. metrics: name -> present value; those that status names are shown.
      pace, returns: of the run.
    """
    parts = [f'{status.stage} {status.waits}'.strip()] if status.stage else []
    parts += [f'return {returns}'] if str(returns) else []
    name = 'step' if counters['step'] else 'updates'
    parts.append(f'{name} {counters[name]:,} ({share:.0%})')
    known = status.settled or counters['updates']
    parts.append(f'left {left(status, pace.left() if known else None)}')
    watched = [f'{key} {metrics[key]:.3g}' for key in status.metrics if key in metrics]
    parts += [' '.join(watched)] if watched else []
    updates, frames = pace.speeds()
    speeds = [(updates, 'updates/s')] + [(frames, 'frames/s')] * (counters['frames'] > 0)
    parts.append(', '.join(f'{speed:,.{1 if speed < 10 else 0}f} {unit}' for speed, unit in speeds))
    others = ['frames'] * (counters['frames'] != counters['step']) + ['episodes', 'updates']
    others = [key for key in others if key != name and counters[key]]
    parts.append(', '.join(f'{counters[key]:,} {key}' for key in others))
    return ' | '.join(filter(None, parts))


def left(status: Status, seconds: float | None) -> str:
    """Words for the time left: a bound where a later stage costs more, '?' if it is not known."""
    if seconds is None or seconds == math.inf:
        return '?'
    bound = '> ' if seconds < LONGEST and not status.settled else ''
    return bound + duration(seconds)


def done(counters: Mapping[str, int]) -> str:
    """What a run has done: '1,150 steps, 60 updates, 164 episodes', without those that are 0, or
    'no step'.
    """
    names = {'step': 'steps', 'updates': 'updates', 'episodes': 'episodes'}
    found = (f'{counters[key]:,} {name}' for key, name in names.items() if counters[key])
    return ', '.join(found) or 'no step'


def ending(
    counters: Mapping[str, int],
    seconds: float,
    complete: bool,
    total: str,
    returns: Returns,
    logdir: Path,
    status: Status = Status(),
    ratio: float = 0.0,
) -> list[str]:
    """What a person should know when a run has ended and is saved, line by line.

    Args:
      counters: as in live_line(). seconds: that the run has taken over all its processes.
      complete: nothing is left to do; otherwise it was interrupted.
      total: the key of the config that says how long the run is.
      returns: of the run. logdir: its folder.
      status: of the agent. ratio: updates that follow from a step, 0 where no step is made.
    """
    after = f'Saved after {duration(seconds)}: {done(counters)}'
    with_more = f'complete; the same command with a larger --{total} goes on'
    lines = [f'{after}; {with_more if complete else "the same command goes on"}.']
    if str(returns):
        best = (
            ''
            if returns.best is None
            else (
                f'; best mean of {RECENT} in a row {returns.best:.4g}, '
                f'at {returns.best_frames:,} frames'
            )
        )
        lines.append(f'Return {returns}{best}.')
    if status.before:
        steps = f', {math.ceil(status.before / ratio):,} steps' if ratio else ''
        lines.append(
            f'Stage {status.stage}: the policy has learned nothing yet; it begins after'
            f' {status.before:,} more updates{steps}, or later.'
        )
    return [*lines, f'Files in {logdir}: {", ".join(contents(logdir))}.']


def contents(logdir: Path) -> list[str]:
    """What a person may look for in the folder of a run; the files of TensorBoard as one."""
    paths = [path for path in logdir.iterdir() if not path.name.startswith(('.', 'lock'))]
    ours = [path for path in paths if not path.name.startswith('events.out.')]
    names = sorted(path.name + '/' * path.is_dir() for path in ours)
    return [*names, *['TensorBoard events'] * (len(ours) < len(paths))]


def duration(seconds: float) -> str:
    """3723 -> '1:02:03'; more than a hundred days in words, infinite as '?'."""
    if seconds == math.inf:
        return '?'
    if not seconds < LONGEST:
        return 'more than 100 days'
    hours, rest = divmod(int(seconds), 3600)
    return f'{hours}:{rest // 60:02d}:{rest % 60:02d}'


def _push(samples: deque, sample: tuple, seconds: float) -> None:
    """Append a sample in place of the newest if that is too close; forget those that are old."""
    if len(samples) > 1 and sample[0] - samples[-2][0] < SAMPLE_SECONDS:
        samples.pop()
    samples.append(sample)
    while len(samples) > 2 and sample[0] - samples[1][0] >= seconds:
        samples.popleft()
