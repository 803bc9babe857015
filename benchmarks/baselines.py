"""What a task pays without learning: no action at all, and uniform play.

    python -m benchmarks.baselines dmc_cartpole_swingup --configs dmc_proprio [--episodes 20]

A score means something only above both: doing nothing balances a pole for a while. Zero actions
exist in tasks whose actions are all continuous. Adds to benchmarks/results/baselines.json.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
from gymnasium import spaces

from embodied import envs
from embodied.base import Env, Spaces, sample
from embodied.config import parse as parse_config
from embodied.run.evaluation import Evaluation
from embodied.seeds import derive

from .command import start, write
from .learning import RESULTS, ROOT, machine

PATH = RESULTS / 'baselines.json'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('tasks', nargs='+')
    parser.add_argument('--configs', nargs='+', default=[], help='presets that make the env')
    parser.add_argument('--episodes', type=int, default=20, help='of each player')
    parser.add_argument('--seed', type=int, default=0, help='of env and actions')
    args = parser.parse_args()
    config = parse_config(['--configs', *args.configs] if args.configs else [], ROOT / 'configs')
    found = json.loads(PATH.read_text()) if PATH.exists() else {'machine': machine(), 'tasks': {}}
    for task in args.tasks:
        env = envs.make(task, config.env.to_dict(), args.seed)
        try:
            found['tasks'][task] = measure(env, args.episodes, args.seed)
        finally:
            env.close()
        print(task, json.dumps(found['tasks'][task]))
    write(PATH, found)


def measure(env: Env, episodes: int, seed: int) -> dict[str, dict]:
    """Player -> mean, std, ci95 and number of its returns; 'zero' only where the task has it."""
    actions = {key: space for key, space in env.act_space.items() if key != 'reset'}
    rng = np.random.default_rng(derive(seed, 'baselines'))
    players = {'uniform': lambda: {key: sample(s, rng, 1)[0] for key, s in actions.items()}}
    if (zero := zeros(actions)) is not None:
        players['zero'] = lambda: zero
    return {name: summary(returns(env, act, episodes)) for name, act in players.items()}


def zeros(actions: Spaces) -> dict[str, np.ndarray] | None:
    """Zeros for every action; None where one is no Box, or a Box that does not hold zero."""
    zero = {key: np.zeros(space.shape, space.dtype) for key, space in actions.items()}
    fits = all(isinstance(s, spaces.Box) and s.contains(zero[k]) for k, s in actions.items())
    return zero if fits else None


def returns(env: Env, act: Callable[[], dict], episodes: int) -> list[float]:
    """Sum of rewards of so many whole episodes, played by `act`."""
    scores = []
    for _ in range(episodes):
        row, score = env.step(act() | {'reset': np.bool_(True)}), 0.0
        while not row['is_last']:
            row = env.step(act() | {'reset': np.bool_(False)})
            score += float(row['reward'])
        scores.append(score)
    return scores


def summary(scores: list[float]) -> dict:
    found = Evaluation(scores, [], {})
    return {'mean': found.mean, 'std': found.std, 'ci95': found.ci95, 'episodes': len(scores)}


if __name__ == '__main__':
    start(main)
