"""Where numbers and pictures go: metrics.jsonl, scores.jsonl, GIFs, a terminal line that lives, and
the services of outputs.py.

Every line of metrics.jsonl holds the counters step (decisions), frames, updates and episodes, the
seconds that the run has taken over all its processes, then all scalars since the last line.
scores.jsonl holds one line per episode: frames, step, score, length, and goals where the env has
any. Both are strict JSON: what is not finite is null and is named under 'nonfinite'. A resumed run
removes the lines that were written after the save it resumes from. A disk that is full or away ends
no run: lines wait in memory, and pictures are dropped, until it is back.
"""

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base import Status
from ..console import is_terminal
from ..errors import ConfigError
from ..files import whole
from ..media import UNSHOWABLE, gif, png
from ..pictures import displayable
from ..tree_spec import COUNT, NUMBER, REAL, Each, demand
from . import outputs
from .jsonl import COUNTERS, JsonLines
from .progress import Pace, Returns, live_line

RESERVED = (*COUNTERS, 'seconds', 'nonfinite')  # keys of every line
LIVE_SECONDS = 0.2  # the terminal line is redrawn no more often
STATE = {  # of a logger, as it is saved; beside it what is only for eyes
    'scalars': Each(REAL),
    'counters': dict.fromkeys(COUNTERS, COUNT),
    'seconds': NUMBER,
    'bytes': {'metrics': COUNT, 'scores': COUNT},
}


@dataclass(frozen=True)
class LoggerConfig:
    """Block `logger` of the config.

    Attributes:
      outputs: of terminal, jsonl, tensorboard, wandb, mlflow; jsonl is always one of them.
      videos: newest GIFs to keep in logdir/videos; 0 for none.
      fps: frames per second of videos.
    """

    outputs: tuple[str, ...]
    videos: int
    fps: int

    def __post_init__(self):
        outputs.check(self.outputs)
        if self.videos < 0:
            raise ConfigError(f'logger.videos must not be negative, got {self.videos}.')
        if self.fps < 1:
            raise ConfigError(f'logger.fps must be at least 1, got {self.fps}.')


def position(counters: Mapping[str, int]) -> int:
    """Where points and pictures stand: frames or, in a run without an env, updates."""
    return counters['frames'] or counters['updates']


class Logger:
    """The outputs of one run."""

    def __init__(
        self,
        logdir: str | Path,
        config: LoggerConfig,
        counters: Callable[[], dict[str, int]],
        on_event: Callable[[str], None] = print,
    ):
        """Open the outputs; last lines that a killed run left unfinished are removed.

        Args:
          logdir: folder of the run; made if it is not there.
          config: see LoggerConfig.
          counters: returns step, frames, updates and episodes.
          on_event: receives a text when an output fails and when it works again.
        """
        self.logdir, self._config, self._counters = Path(logdir), config, counters
        self.logdir.mkdir(parents=True, exist_ok=True)
        self._on_event = on_event
        self._metrics = JsonLines(self.logdir / 'metrics.jsonl', on_event)
        self._scores = JsonLines(self.logdir / 'scores.jsonl', on_event)
        self._services = outputs.make(config.outputs, self.logdir, on_event)
        self._scalars, self._unshown = {}, set()
        self.returns = Returns()
        self._by_task: dict[str, Returns] = {}
        self._start = time.monotonic()
        self._told = 'terminal' in config.outputs
        self._live = self._told and is_terminal(sys.stdout)
        self._drawn = -math.inf
        self._pace = Pace()

    def add(self, metrics: Mapping[str, float | np.ndarray], prefix: str = '') -> None:
        """Take scalars for the next line; hand images to the services, and videos to them and to
        a GIF, at once.

        Args:
          metrics: name -> number, uint8 image (H, W, C) or uint8 video (T, H, W, C); what cannot be
              shown is left out and said once.
          prefix: names become prefix/name.

        Raises:
          ValueError: a name is a key of every line.
        """
        axis = position(self._counters())
        for name, value in metrics.items():
            name = f'{prefix}/{name}' if prefix else name
            if name in RESERVED:
                raise ValueError(
                    f'A metric cannot be named {name!r}, which is a key of every line.'
                )
            if np.ndim(value) == 0:
                self._scalars[name] = float(value)
                continue
            try:
                self._show(name, np.asarray(value), axis)
            except UNSHOWABLE as error:  # no picture may end a run
                if name not in self._unshown:
                    self._unshown.add(name)
                    self._on_event(f'{name} cannot be shown: {type(error).__name__}: {error}')

    def score(
        self, score: float, length: int, goals: Mapping[str, int] = {}, task: str = ''
    ) -> None:
        """One finished episode, sum of rewards and decisions: its line in scores.jsonl, at once.

        Args:
          goals: goal -> 1 where it was reached, 0 where not; see metrics.goals_of().
          task: its name, of several.
        """
        now = self._counters()
        self.returns.add(float(score), now['frames'])
        if task:
            self._by_task.setdefault(task, Returns()).add(float(score), now['frames'])
        self._scores.append(
            {
                'frames': now['frames'],
                'step': now['step'],
                'score': float(score),
                'length': int(length),
            }
            | ({'task': task} if task else {})
            | ({'goals': dict(goals)} if goals else {})
        )

    def text(self, name: str, text: str) -> None:
        """Markdown for the page of texts of the services, where it replaces what `name` was."""
        for service in self._services.values():
            service.text(name, text, position(self._counters()))

    def write(self, pretraining: bool = False) -> None:
        """One line of metrics.jsonl with all scalars since the last; no line if there are none.

        Args:
          pretraining: updates are made while no env moves, so that all of them would stand at one
              number of frames: for the services they are pretrain/<name>, over updates.
        """
        if not self._scalars:
            return
        means = [each.mean for each in self._by_task.values() if each.mean is not None]
        if means:  # over the newest episodes of each of several tasks, every task weighs alike
            self._scalars['episode/score_of_tasks'] = sum(means) / len(means)
        now = self._counters()
        head = {name: now[name] for name in COUNTERS} | {'seconds': round(self.seconds, 1)}
        self._metrics.append(head | self._scalars)
        finite = {name: value for name, value in self._scalars.items() if math.isfinite(value)}
        axis = position(now)
        if pretraining:
            finite, axis = {f'pretrain/{k}': v for k, v in finite.items()}, now['updates']
        for service in self._services.values():
            service.scalars(finite, axis)
        self._scalars = {}

    def line(
        self,
        share: float,
        status: Status = Status(),
        metrics: Mapping[str, float] = {},
        force: bool = False,
    ) -> None:
        """Draw the terminal line, over the last one on a terminal.

        Args:
          share: of the run that is done, in [0, 1].
          status: of the agent.
          metrics: present values, of which the line shows those that status names.
          force: also where output is no terminal, and however short ago the last one was drawn.
        """
        now = time.monotonic()
        self._pace.add(now, self._counters(), share, status.stage)
        if not self._told or not (force or self._live and now - self._drawn >= LIVE_SECONDS):
            return
        self._drawn = now
        text = live_line(self._counters(), share, status, metrics, self._pace, self.returns)
        if self._live:
            width = max(shutil.get_terminal_size().columns - 1, 1)
            print(f'\r{text[:width]:<{width}}', end='', flush=True)
        else:
            print(text, flush=True)

    def save(self) -> dict[str, Any]:
        """What is not yet written, and how far the files were."""
        return {
            'scalars': dict(self._scalars),
            'returns': self.returns.save(),
            'tasks': {task: returns.save() for task, returns in self._by_task.items()},
            'counters': dict(self._counters()),
            'seconds': self.seconds,
            'bytes': {'metrics': self._metrics.bytes, 'scores': self._scores.bytes},
        }

    def load(self, tree: Mapping[str, Any]) -> None:
        """Take up a saved run: lines that were written after it was saved are removed, TensorBoard
        hides such events.

        Raises:
          CheckpointError: the tree is not one of save().
        """
        demand(tree, STATE, 'The state of the logger')
        scalars, counters, sizes = (tree[key] for key in ('scalars', 'counters', 'bytes'))
        if 'returns' in tree:  # they are for eyes, and older saves have none
            self.returns.load(tree['returns'])
        for task, saved in tree.get('tasks', {}).items():
            self._by_task[task] = Returns()
            self._by_task[task].load(saved)
        self._start = time.monotonic() - tree['seconds']
        self._metrics.cut(sizes['metrics'], counters)
        self._scores.cut(sizes['scores'], counters)
        self._scalars = dict(scalars)
        for service in self._services.values():
            service.resume(position(counters))

    def close(self) -> None:
        """End the terminal line and flush all outputs. May be called more than once."""
        if self._live and self._drawn > 0:
            print(flush=True)
            self._drawn = -math.inf
        for lines in (self._metrics, self._scores):
            lines.flush()
        for service in self._services.values():
            service.close()

    @property
    def seconds(self) -> float:
        """That the run has taken, over all its processes."""
        return time.monotonic() - self._start

    def _show(self, name: str, value: np.ndarray, frames: int) -> None:
        """Write an image or a video."""
        if value.dtype != np.uint8 or value.ndim not in (3, 4) or 0 in value.shape:
            raise ValueError(
                'expected a number, or a uint8 image (H, W, C) or video (T, H, W, C), got'
                f' {value.dtype} {value.shape}.'
            )
        value = displayable(value)
        if value.ndim == 4:
            self._video(name, value, frames)
        elif self._services:
            self._send(name, png(value), value.shape, frames)

    def _send(self, name: str, content: bytes, shape: tuple[int, ...], frames: int) -> None:
        for service in self._services.values():
            service.image(name, content, shape, frames)

    def _video(self, name: str, frames: np.ndarray, step: int) -> None:
        content = gif(frames, self._config.fps)
        self._send(name, content, frames.shape[1:], step)
        if not self._config.videos:
            return
        target = self.logdir / 'videos' / f'{step:012d}-{name.replace("/", "-")}.gif'
        try:
            target.parent.mkdir(exist_ok=True)
            with whole(target) as file:
                file.write(content)
            for old in sorted(target.parent.glob('*.gif'))[: -self._config.videos]:
                old.unlink()
        except OSError as error:
            self._on_event(f'The video {target} could not be written: {error}')
