"""Evaluation: an exact number of episodes in separate envs, never mixed with training data.

The episodes that count are the first few of each env, fixed in advance: stopping at the first N to
finish would favour short ones. Every evaluation of a run uses fresh envs with the same seeds, so
two of them differ only by the policy. An endless episode is cut, and the cut is counted, so every
evaluation ends.
"""

import contextlib
import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base import Agent, Env, Values, is_image
from ..drive import Driver, DriverConfig
from ..errors import ConfigError
from ..files import whole
from ..log.metrics import is_goal
from ..media import UNSHOWABLE, gif
from ..published import goal_rates
from ..wrappers import TimeLimit
from .evaluation import Evaluation, facts, of_tasks
from .film import Film

MODES = ('sample', 'mode')
# between two progress lines, on a terminal and elsewhere
LIVE_SECONDS, PLAIN_SECONDS = 0.2, 10.0


@dataclass(frozen=True)
class EvalConfig:
    """Block `eval` of the config; units and meanings are in configs/defaults.yaml."""

    every: int
    episodes: int
    envs: int
    mode: str
    videos: int
    length: int

    def __post_init__(self):
        for name in ('every', 'episodes', 'envs', 'length'):
            if getattr(self, name) < 1:
                raise ConfigError(f'eval.{name} must be at least 1, got {getattr(self, name)}.')
        if self.videos < 0:
            raise ConfigError(f'eval.videos must not be negative, got {self.videos}.')
        if self.mode not in MODES:
            raise ConfigError(f"eval.mode must be 'sample' or 'mode', got {self.mode!r}.")


@dataclass(frozen=True)
class Limited:
    """Constructor of an env whose episodes are cut after `length` decisions."""

    make: Callable[[], Env]
    length: int

    def __call__(self) -> Env:
        return TimeLimit(self.make(), self.length)

    @property
    def task(self) -> str:
        return getattr(self.make, 'task', '')

    @property
    def together(self) -> bool:
        return getattr(self.make, 'together', False)

    def renewed(self, count: int) -> 'Limited':
        """The constructor of replacement number `count`, as in envs.Maker."""
        renew = getattr(self.make, 'renewed', None)
        return dataclasses.replace(self, make=renew(count)) if renew else self


class FirstEpisodes:
    """A listener of rows that keeps the first `quotas[i]` whole episodes of env i. An episode cut
    by a failing env does not count; the next one replaces it.
    """

    def __init__(self, quotas: list[int], videos: int, length: float = math.inf):
        """Args: quotas per env; videos: number of episodes whose images are recorded, env by env;
        length: decisions after which episodes are cut.
        """
        self._quotas, self._videos, self._length = (
            quotas,
            spread(min(videos, sum(quotas)), len(quotas)),
            length,
        )
        self.decisions = 0
        self._done = [[] for _ in quotas]
        self._open = [None for _ in quotas]

    @property
    def complete(self) -> bool:
        return all(len(done) >= quota for done, quota in zip(self._done, self._quotas))

    @property
    def count(self) -> int:
        return sum(map(len, self._done))

    def __call__(self, row: Values, worker: int) -> None:
        if len(self._done[worker]) >= self._quotas[worker]:
            return
        if row['is_first']:
            self._open[worker] = {'score': 0.0, 'length': -1, 'frames': {}, 'goals': {}}
        episode = self._open[worker]
        episode['score'] += float(row['reward'])
        episode['length'] += 1
        self.decisions += not row['is_first']
        for key in filter(is_goal, row):
            name = key.removeprefix('log/')
            if np.isnan(row[key]):
                continue  # a goal of another task
            episode['goals'][name] = int(episode['goals'].get(name, 0) or row[key] > 0)
        if len(self._done[worker]) < self._videos[worker]:
            for key, value in row.items():
                if is_image(value) and not key.startswith('log/'):
                    episode['frames'].setdefault(key, Film()).add(value)
        if row['is_last']:
            episode['cut'] = episode['length'] >= self._length and not row['is_terminal']
            self._done[worker].append(episode)

    def result(self) -> Evaluation:
        episodes = [episode for done in self._done for episode in done]
        videos = {
            f'{key.replace("/", "-")}_{number}': film.frames()
            for number, episode in enumerate(episodes)
            for key, film in episode['frames'].items()
        }
        return Evaluation(
            [e['score'] for e in episodes],
            [e['length'] for e in episodes],
            videos,
            sum(e['cut'] for e in episodes),
            goal_rates(e['goals'] for e in episodes),
        )


def evaluate(
    agent: Agent,
    make_env: Callable[..., Callable[[], Env]],
    config: EvalConfig,
    driver: DriverConfig,
    videos: int = 0,
    on_event: Callable[[str], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
    notes: bool = True,
    tasks: Sequence[str] = (),
) -> Evaluation | None:
    """Run config.episodes episodes of at most config.length decisions, of each of several tasks one
    after another, and show progress.

    Args:
      agent: its policy acts in config.mode.
      make_env: make_env('eval', i) is the constructor of env i, make_env('eval', i, task) that of
        one of several tasks.
      config, driver: blocks of the config; there are never more envs than episodes.
      videos: episodes to record, of each task.
      on_event, notes: as in Driver.
      interrupted: asked once per driver step.
      tasks: names of several tasks, none for one.

    Returns:
      the evaluation, or None if it was interrupted.

    Raises:
      EnvError: the envs fail more often than the driver's config allows.
    """
    common = config, driver, videos, on_event, interrupted, notes
    if not tasks:
        return one_task(agent, functools.partial(make_env, 'eval'), *common)
    found = {}
    for task in tasks:
        make = lambda index, task=task: make_env('eval', index, task)
        part = one_task(agent, make, *common, about=f'{task}: ')
        if part is None:
            return None
        found[task] = part
    return of_tasks(found)


def one_task(
    agent: Agent,
    make_env: Callable[[int], Callable[[], Env]],
    config: EvalConfig,
    driver: DriverConfig,
    videos: int,
    on_event: Callable[[str], None] | None,
    interrupted: Callable[[], bool],
    notes: bool,
    about: str = '',
) -> Evaluation | None:
    """The episodes of one task; make_env(i) is the constructor of env i, the rest is as in
    evaluate().
    """
    quotas = spread(config.episodes, min(config.envs, config.episodes))
    episodes, progress = FirstEpisodes(quotas, videos, config.length), Progress()
    makers = [Limited(make_env(index), config.length) for index in range(len(quotas))]
    envs = Driver(makers, driver, on_event, notes)
    with contextlib.closing(envs), contextlib.closing(progress):
        envs.on_row(episodes)
        envs.reset(agent.init_policy)
        while not episodes.complete:
            if interrupted():
                return None
            envs(functools.partial(agent.policy, mode=config.mode), steps=1)
            progress(
                f'evaluating: {about}{episodes.count} of {config.episodes} episodes,'
                f' {episodes.decisions:,} decisions'
            )
    return episodes.result()


class Progress:
    """A status line: redrawn on a terminal, written from time to time elsewhere."""

    def __init__(self):
        self._live = sys.stdout.isatty()
        self._seconds = LIVE_SECONDS if self._live else PLAIN_SECONDS
        self._last = time.monotonic()
        self._drawn = False

    def __call__(self, text: str) -> None:
        """Show progress, if it is time."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last, self._drawn = now, True
        print(f'\r\x1b[K{text}' if self._live else text, end='' if self._live else '\n', flush=True)

    def close(self) -> None:
        """Clear the status line."""
        if self._live and self._drawn:
            print('\r\x1b[K', end='', flush=True)


def spread(total: int, parts: int) -> list[int]:
    """Split `total` into `parts` integers that differ by at most one, larger ones first."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def store(result: Evaluation, setup: Any, save: Path) -> None:
    """Write logdir/eval/eval.json. Args: as in train(), and the checkpoint that was evaluated."""
    folder = setup.logdir / 'eval'
    folder.mkdir(parents=True, exist_ok=True)
    content = facts(result) | {
        'task': setup.task,
        'checkpoint': str(save),
        'seed': setup.seed,
        'mode': setup.eval.mode,
    }
    if result.tasks:
        content['tasks'] = {task: facts(each) for task, each in result.tasks.items()}
    with whole(folder / 'eval.json') as file:
        file.write(json.dumps(content, indent=1).encode() + b'\n')


def eval_only(
    make_agent: Callable[[Any, Any], Agent],
    make_env: Callable[[str, int], Callable[[], Env]],
    setup: Any,
    load_agent: Callable[[Agent], Path],
    fps: int,
) -> Evaluation | None:
    """Evaluate the agent of a checkpoint: exactly eval.episodes episodes; prints and writes the
    result.

    Args:
      make_agent, make_env, setup: as in train().
      load_agent: loads the checkpoint into the agent and returns its path.
      fps: frames per second of the videos.

    Returns:
      the evaluation; also in logdir/eval: eval.json and one GIF per recorded episode and image.
    """
    probe = Driver(
        [make_env('eval', 0)], dataclasses.replace(setup.driver, parallel=True), notes=False
    )
    with contextlib.closing(probe):
        agent = make_agent(probe.obs_space, probe.act_space)
    save = load_agent(agent)
    result = evaluate(
        agent, make_env, setup.eval, setup.driver, setup.eval.videos, tasks=setup.tasks
    )
    folder = setup.logdir / 'eval'
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in result.videos.items():
        try:
            content = gif(frames, fps)
            with whole(folder / f'{name}.gif') as file:
                file.write(content)
        except UNSHOWABLE as error:  # a video is worth less than the numbers
            print(f'The video {name} cannot be written: {type(error).__name__}: {error}')
    store(result, setup, save)
    for task, each in result.tasks.items():
        print(f'  {task}: {each}')
    print(f'{setup.task}: {result}. Written to {folder}.')
    return result
