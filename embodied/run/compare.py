"""Several players in the same environments: each plays the same episodes, so that what differs is
the player.

Every episode has an env of its own, whose seed is the number of the episode; differences are taken
in pairs.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base import Agent
from ..drive import DriverConfig
from ..files import whole
from ..interval import interval
from .evaluate import EvalConfig, evaluate
from .setup import MakeEnv


def compare(
    players: Mapping[str, Agent],
    make_env: MakeEnv,
    config: EvalConfig,
    driver: DriverConfig,
    tasks: Sequence[str] = (),
) -> dict[str, Any]:
    """Let every player play eval.episodes episodes, eval.envs of them at a time.

    Args:
      players: name -> who acts, in config.mode. make_env: make_env('eval', i) is the constructor of
          the env of episode i, make_env('eval', i, task) that of one of several tasks.
      config, driver: blocks of the config. tasks: names of several, each of which is played so
          often.

    Returns:
      'players': name -> 'mean', 'ci95' (half-width of the 95 % interval, None for one episode),
      'std', 'returns', 'lengths'; 'differences': 'A - B' -> 'mean' and 'ci95' of the difference of
      pairs, of the first player to every other and of neighbours; 'episodes', 'mode'. Of several
      tasks 'tasks': name -> all this, and means over the tasks at the top.
    """
    if tasks:
        parts = {}
        for task in tasks:
            make = lambda kind, index, task=task: make_env(kind, index, task)
            parts[task] = compare(players, make, config, driver)
        return together(parts)
    found = {name: played(agent, make_env, config, driver) for name, agent in players.items()}
    names = list(players)
    pairs = [(names[0], other) for other in names[1:]] + list(zip(names[1:], names[2:]))
    differences = {}
    for one, other in pairs:
        gaps = np.subtract(found[one]['returns'], found[other]['returns'])
        differences[f'{one} - {other}'] = {'mean': float(gaps.mean()), 'ci95': interval(gaps)}
    numbers = {'episodes': config.episodes, 'mode': config.mode}
    return {'players': found, 'differences': differences} | numbers


def together(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What compare() has found in several tasks, and the means over them."""
    found = list(parts.values())
    pooled = {
        group: {name: over_tasks([part[group][name] for part in found]) for name in found[0][group]}
        for group in ('players', 'differences')
    }
    return pooled | {key: found[0][key] for key in ('episodes', 'mode')} | {'tasks': dict(parts)}


def over_tasks(parts: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean of the means of several tasks; its interval follows from theirs, as their episodes are
    independent.
    """
    halves = [part['ci95'] for part in parts]
    known = None not in halves
    half = float(np.sqrt(np.sum(np.square(halves))) / len(halves)) if known else None
    return {'mean': float(np.mean([part['mean'] for part in parts])), 'ci95': half}


def played(
    agent: Agent, make_env: MakeEnv, config: EvalConfig, driver: DriverConfig
) -> dict[str, Any]:
    """Returns of one player, episode by episode."""
    returns, lengths = [], []
    for first in range(0, config.episodes, config.envs):
        count = min(config.envs, config.episodes - first)
        part = dataclasses.replace(config, episodes=count, envs=count)
        numbered = lambda kind, index, first=first: make_env(kind, first + index)
        result = evaluate(agent, numbered, part, driver, notes=False)
        returns += result.returns
        lengths += result.lengths
    spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    mean = {'mean': float(np.mean(returns)), 'ci95': interval(returns), 'std': spread}
    return mean | {'returns': returns, 'lengths': lengths}


def table(found: Mapping[str, Any]) -> str:
    """What compare() has found, a line for each player and each difference."""
    rows = [*found['players'].items(), *found['differences'].items()]
    width = max(len(name) for name, _ in rows)
    lines = [f'{task}: {table(part)}' for task, part in found.get('tasks', {}).items()]
    what = 'mean over tasks' if lines else 'mean return'
    lines.append(f'{found["episodes"]} episodes each, {what} and its 95 % interval:')
    for name, numbers in rows:
        mean, half = numbers['mean'], numbers['ci95']
        words = '' if half is None else f'  {mean - half:.4g} to {mean + half:.4g}'
        lines.append(f'  {name:<{width}}  {mean:>9.4g}{words}')
    return '\n'.join(lines)


def store(found: Mapping[str, Any], facts: Mapping[str, Any], logdir: Path) -> Path:
    """Write logdir/compare/compare.json; returns its path."""
    folder = logdir / 'compare'
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / 'compare.json') as file:
        file.write(json.dumps({**facts, **found}, indent=1).encode() + b'\n')
    return folder / 'compare.json'
