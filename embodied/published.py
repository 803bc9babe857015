"""Scores that suites publish, and ours on their scale:

    python -m embodied.published LOGDIR [LOGDIR ...] [--last 100]

prints a line per run and, where tasks have references, mean, median and interquartile mean of the
normalised scores. A run is judged by its evaluation (eval/eval.json), else by its newest episodes
(scores.jsonl). Success rates and the Crafter score are those of all its training episodes, as the
Crafter benchmark has them, or of its evaluation.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .errors import ConfigError
from .log.jsonl import read_lines
from .yaml_tree import read_yaml

# suite -> task -> (score that counts as 0, score that counts as 1)
REFERENCES: dict[str, dict[str, tuple[float, float]]] = {
    # Random play and a human tester: Mnih et al. 2015 and Wang et al. 2016, as used by Kaiser et
    # al. 2020 (Atari 100k: these 26 games, 400,000 frames).
    'atari': {
        'alien': (227.8, 7127.7),
        'amidar': (5.8, 1719.5),
        'assault': (222.4, 742.0),
        'asterix': (210.0, 8503.3),
        'bank_heist': (14.2, 753.1),
        'battle_zone': (2360.0, 37187.5),
        'boxing': (0.1, 12.1),
        'breakout': (1.7, 30.5),
        'chopper_command': (811.0, 7387.8),
        'crazy_climber': (10780.5, 35829.4),
        'demon_attack': (152.1, 1971.0),
        'freeway': (0.0, 29.6),
        'frostbite': (65.2, 4334.7),
        'gopher': (257.6, 2412.5),
        'hero': (1027.0, 30826.4),
        'jamesbond': (29.0, 302.8),
        'kangaroo': (52.0, 3035.0),
        'krull': (1598.0, 2665.5),
        'kung_fu_master': (258.5, 22736.3),
        'ms_pacman': (307.3, 6951.6),
        'pong': (-20.7, 14.6),
        'private_eye': (24.9, 69571.3),
        'qbert': (163.9, 13455.0),
        'road_runner': (11.5, 7845.0),
        'seaquest': (68.4, 42054.7),
        'up_n_down': (533.4, 11693.2),
    },
    # Least and largest reward of the hard mode: Cobbe et al. 2020, Appendix C.
    'procgen': {
        'coinrun': (5.0, 10.0),
        'starpilot': (1.5, 35.0),
        'caveflyer': (2.0, 13.4),
        'dodgeball': (1.5, 19.0),
        'fruitbot': (-0.5, 27.2),
        'chaser': (0.5, 14.2),
        'miner': (1.5, 20.0),
        'jumper': (1.0, 10.0),
        'leaper': (1.5, 10.0),
        'maze': (4.0, 10.0),
        'bigfish': (0.0, 40.0),
        'heist': (2.0, 10.0),
        'climber': (1.0, 12.6),
        'plunder': (3.0, 30.0),
        'ninja': (2.0, 10.0),
        'bossfight': (0.5, 13.0),
    },
    # Random play and human experts: Hafner 2022.
    'crafter': {'reward': (2.1, 14.3)},
    # Random policy and expert of D4RL: Fu et al. 2020.
    'mujoco': {
        'half_cheetah': (-280.2, 12135.0),
        'hopper': (-20.3, 3234.3),
        'walker2d': (1.6, 4592.3),
        'ant': (-325.6, 3879.7),
    },
}
SAMPLES = 2000  # of the bootstrap


def normalised(task: str, score: float) -> float | None:
    """A score on its suite's scale, 0 the low and 1 the high reference; None where there is none.

    Args:
      task: as in --task, such as 'atari_pong'.
    """
    suite, _, name = task.partition('_')
    if name not in REFERENCES.get(suite, {}):
        return None
    low, high = REFERENCES[suite][name]
    return (score - low) / (high - low)


def iqm(scores: Sequence[float]) -> float:
    """Interquartile mean: that of the middle half (Agarwal et al. 2021)."""
    ordered = np.sort(np.asarray(scores, float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def iqm_interval(by_task: Mapping[str, Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the interquartile mean: runs are drawn again within each task."""
    rng = np.random.default_rng(seed)
    groups = [np.asarray(scores, float) for scores in by_task.values()]
    draws = [
        iqm(np.concatenate([rng.choice(group, len(group)) for group in groups]))
        for _ in range(SAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def crafter_score(rates: Iterable[float]) -> float:
    """Geometric mean of success rates, in percent (Hafner 2022, Eq. 1). Args: rates in [0, 1]."""
    percent = [100 * rate for rate in rates]
    return math.exp(sum(math.log1p(each) for each in percent) / len(percent)) - 1


def goal_rates(episodes: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Share of episodes that reached each goal.

    Args:
      episodes: goal -> 1 or 0, of each.
    """
    episodes = list(episodes)
    names = sorted({name for goals in episodes for name in goals})
    return {name: float(np.mean([goals[name] for goals in episodes])) for name in names}


def summary(logdir: Path, last: int) -> dict:
    """What a run scored: 'task', 'score', 'episodes', 'goals' (name -> rate), 'source'.

    Raises:
      ConfigError: the folder holds no finished episode.
    """
    path = logdir / 'eval' / 'eval.json'
    lines = list(read_lines(logdir / 'scores.jsonl'))
    goals = goal_rates(line['goals'] for line in lines if 'goals' in line)
    if path.exists():
        found = json.loads(path.read_text())
        return {
            'task': found['task'],
            'score': found['mean'],
            'episodes': found['episodes'],
            'goals': goals or found.get('goals', {}),
            'source': 'evaluation',
        }
    newest = [line['score'] for line in lines if line['score'] is not None][-last:]
    if not newest:
        raise ConfigError(f'{logdir} holds no finished episode (scores.jsonl, eval/eval.json).')
    return {
        'task': read_yaml(logdir / 'config.yaml').values['task'],
        'score': float(np.mean(newest)),
        'episodes': len(newest),
        'goals': goals,
        'source': 'training',
    }


def summaries(logdir: Path, last: int) -> list[dict]:
    """What a run scored in each of its tasks; as summary() where it has one. Raises ConfigError."""
    path, found = logdir / 'eval' / 'eval.json', {}
    if path.exists():
        found = json.loads(path.read_text()).get('tasks', {})
        return [
            {
                'task': task,
                'score': each['mean'],
                'episodes': each['episodes'],
                'goals': each['goals'],
                'source': 'evaluation',
            }
            for task, each in found.items()
        ] or [summary(logdir, last)]
    lines = [line for line in read_lines(logdir / 'scores.jsonl') if line['score'] is not None]
    for line in lines:
        if 'task' in line:
            found.setdefault(line['task'], []).append(line)
    return [
        {
            'task': task,
            'score': float(np.mean([line['score'] for line in own[-last:]])),
            'episodes': len(own[-last:]),
            'goals': goal_rates(line['goals'] for line in own if 'goals' in line),
            'source': 'training',
        }
        for task, own in found.items()
    ] or [summary(logdir, last)]


def report(runs: Sequence[Mapping]) -> list[str]:
    """Lines about runs, as summary() has them."""
    lines, by_task = [], {}
    for run in runs:
        words = f'{run["task"]}: {run["score"]:.4g} ({run["episodes"]} episodes of {run["source"]})'
        share = normalised(run['task'], run['score'])
        if share is not None:
            by_task.setdefault(run['task'], []).append(share)
            words += f', normalised {share:.3f}'
        if 'success' in run['goals']:
            words += f', success rate {run["goals"]["success"]:.1%}'
        reached = {k: v for k, v in run['goals'].items() if k.startswith('achievement_')}
        if reached:
            words += f', Crafter score {crafter_score(reached.values()):.2f} %'
        lines.append(words)
        lines += [f'  {k.removeprefix("achievement_")}: {v:.1%}' for k, v in reached.items()]
    if by_task:
        scores = [score for group in by_task.values() for score in group]
        means = [np.mean(group) for group in by_task.values()]
        low, high = iqm_interval(by_task)
        lines.append(
            f'{len(by_task)} tasks, {len(scores)} runs, normalised: mean {np.mean(means):.3f},'
            f' median {np.median(means):.3f}, IQM {iqm(scores):.3f} (95 % interval {low:.3f} to'
            f' {high:.3f})'
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog='python -m embodied.published', description='Scores of runs on their published scale.'
    )
    parser.add_argument('logdirs', nargs='+', type=Path, metavar='LOGDIR')
    parser.add_argument('--last', type=int, default=100, help='newest training episodes that count')
    args = parser.parse_args(argv)
    try:
        runs = [run for logdir in args.logdirs for run in summaries(logdir, args.last)]
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print('\n'.join(report(runs)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
