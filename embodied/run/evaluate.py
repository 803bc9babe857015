"""Evaluation: exactly so many episodes in envs of their own, never mixed with what is collected for training.

The episodes that count are the first few of each env, fixed in advance. Whoever stops at the first N to finish, counts the short
ones. Every evaluation of a run uses fresh envs with the same seeds, so that two of them differ by the policy alone.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embodied.base import Agent, Env, Values, is_image
from embodied.driver import Driver, DriverConfig
from embodied.errors import ConfigError
from embodied.logger import gif

MODES = ('sample', 'mode')

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond the table 1.96 + 2.4 / df is right to 0.002.
STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


@dataclass(frozen=True)
class EvalConfig:
    """Block `eval` of the config; units and meanings stand in configs/defaults.yaml."""

    every: int
    episodes: int
    envs: int
    mode: str
    videos: int

    def __post_init__(self):
        for name in ('every', 'episodes', 'envs'):
            if getattr(self, name) < 1:
                raise ConfigError(f'eval.{name} must be at least 1, got {getattr(self, name)}.')
        if self.videos < 0:
            raise ConfigError(f'eval.videos must not be negative, got {self.videos}.')
        if self.mode not in MODES:
            raise ConfigError(f"eval.mode must be 'sample' or 'mode', got {self.mode!r}.")


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
      returns, lengths: sum of rewards and number of decisions of each episode, env by env.
      videos: name -> uint8 (T, H, W, C), one for each recorded episode and image.
    """

    returns: list[float]
    lengths: list[int]
    videos: dict[str, np.ndarray]

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation between episodes, 0 for a single one."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    @property
    def ci95(self) -> float | None:
        """Half the width of the 95 % interval of the mean (Student's t), None for a single episode."""
        degrees = len(self.returns) - 1
        if degrees < 1:
            return None
        quantile = STUDENT_T[degrees - 1] if degrees <= len(STUDENT_T) else 1.96 + 2.4 / degrees
        return quantile * self.std / math.sqrt(len(self.returns))

    def __str__(self) -> str:
        interval = '' if self.ci95 is None else f', 95 % interval of the mean {self.mean - self.ci95:.4g} to {self.mean + self.ci95:.4g}'
        return f'return {self.mean:.4g}, standard deviation {self.std:.4g}{interval}, {len(self.returns)} episodes'


class FirstEpisodes:
    """A listener of rows that keeps the first `quotas[i]` whole episodes of env i.

    An episode that was cut because its env failed does not count; the next one takes its place.
    """

    def __init__(self, quotas: list[int], videos: int):
        """Args: quotas per env; videos: of how many episodes to record the images, one env after the other."""
        self._quotas, self._videos = quotas, spread(min(videos, sum(quotas)), len(quotas))
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
            self._open[worker] = {'score': 0.0, 'length': -1, 'frames': {}}
        episode = self._open[worker]
        episode['score'] += float(row['reward'])
        episode['length'] += 1
        if len(self._done[worker]) < self._videos[worker]:
            for key, value in row.items():
                if is_image(value) and not key.startswith('log/'):
                    episode['frames'].setdefault(key, []).append(value)
        if row['is_last']:
            self._done[worker].append(episode)

    def result(self) -> Evaluation:
        episodes = [episode for done in self._done for episode in done]
        videos = {
            f'{key.replace("/", "-")}_{number}': np.stack(frames)
            for number, episode in enumerate(episodes) for key, frames in episode['frames'].items()}
        return Evaluation([e['score'] for e in episodes], [e['length'] for e in episodes], videos)


def evaluate(
        agent: Agent, make_env: Callable[[str, int], Callable[[], Env]], config: EvalConfig, driver: DriverConfig,
        videos: int = 0, on_event: Callable[[str], None] | None = None,
        interrupted: Callable[[], bool] = lambda: False) -> Evaluation | None:
    """Run config.episodes episodes.

    Args:
      agent: its policy acts in config.mode.
      make_env: make_env('eval', i) is the constructor of env i.
      config, driver: blocks of the config; no more envs are made than there are episodes.
      videos: episodes to record.
      on_event: as in Driver.
      interrupted: asked once per driver step.

    Returns:
      the evaluation, or None if it was interrupted.

    Raises:
      EnvError: the envs fail more often than the driver's config allows.
    """
    quotas = spread(config.episodes, min(config.envs, config.episodes))
    episodes = FirstEpisodes(quotas, videos)
    envs = Driver([make_env('eval', index) for index in range(len(quotas))], driver, on_event)
    with contextlib.closing(envs):
        envs.on_row(episodes)
        envs.reset(agent.init_policy)
        while not episodes.complete:
            if interrupted():
                return None
            envs(functools.partial(agent.policy, mode=config.mode), steps=1)
    return episodes.result()


def spread(total: int, parts: int) -> list[int]:
    """`total` as a sum of `parts` numbers that differ by at most one, larger ones first."""
    return [total // parts + (index < total % parts) for index in range(parts)]


def eval_only(
        make_agent: Callable[[Any, Any], Agent], make_env: Callable[[str, int], Callable[[], Env]], setup: Any,
        load_agent: Callable[[Agent], Path], fps: int) -> Evaluation | None:
    """Evaluate the agent of a checkpoint: exactly eval.episodes episodes; prints and writes what came out, and ends.

    Args:
      make_agent, make_env, setup: as in train().
      load_agent: loads the checkpoint into the agent and returns the save it took.
      fps: frames per second of the videos.

    Returns:
      the evaluation; also in logdir/eval: eval.json and one GIF per recorded episode and image.
    """
    probe = Driver([make_env('eval', 0)], dataclasses.replace(setup.driver, parallel=True))
    with contextlib.closing(probe):
        agent = make_agent(probe.obs_space, probe.act_space)
    save = load_agent(agent)
    result = evaluate(agent, make_env, setup.eval, setup.driver, setup.eval.videos)
    folder = setup.logdir / 'eval'
    folder.mkdir(parents=True, exist_ok=True)
    for name, frames in result.videos.items():
        (folder / f'{name}.gif').write_bytes(gif(frames, fps))
    content = {
        'mean': result.mean, 'std': result.std, 'ci95': result.ci95, 'episodes': len(result.returns), 'returns': result.returns,
        'lengths': result.lengths, 'task': setup.task, 'checkpoint': str(save), 'seed': setup.seed, 'mode': setup.eval.mode}
    partial = folder / 'eval.json.partial'
    partial.write_text(json.dumps(content, indent=1) + '\n')
    os.replace(partial, folder / 'eval.json')
    print(f'{setup.task}: {result}. Written to {folder}.')
    return result
