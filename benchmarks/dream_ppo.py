"""A learner of others that has never met the env: PPO of Stable-Baselines3 in the dream of a run.

    python -m dreamer4.main --configs pixel --task pixel_catch --run.steps 48000 --logdir LOGDIR
    python -m benchmarks.dream_ppo LOGDIR [--steps 50000] [--seeds 0 1 2]

It learns from what the world model dreams alone, from the first frames of recorded episodes on, and
is then tested in the real env beside uniformly random actions. What it scores there is what the
dream is worth to a stranger. Prints a table and writes benchmarks/results/dream_ppo.json.
Letters: N dreams.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from dreamer4.dream_env import Dreams, named, single, unnamed
from dreamer4.load import stored
from embodied import envs
from embodied.base import Env, Spaces, sample
from embodied.log.jsonl import COUNTERS, read_lines
from embodied.seeds import derive

from .baselines import measure, summary
from .command import start, write
from .learning import BOUNDS, RESULTS, commit, machine

# of PPO; what is not named is the library's own
SETTINGS = {'n_steps': 128, 'batch_size': 256, 'n_epochs': 6, 'gamma': 0.95, 'ent_coef': 0.01}


class Lanes(VecEnv):
    """N dreams as Stable-Baselines3 wants them: one that has ended begins anew within the step.

    Args:
        dreams: of one checkpoint. seed: of the frames that they begin at.
    """

    def __init__(self, dreams: Dreams, seed: int):
        self.dreams, self._rng, self._chosen = dreams, np.random.default_rng(seed), None
        super().__init__(
            dreams.num_envs, single(dreams.dream.obs_space), single(dreams.dream.act_space)
        )

    def reset(self):
        self.dreams.reset(self._rng)
        return self._seen()

    def step_async(self, actions: np.ndarray) -> None:
        self._chosen = actions

    def step_wait(self):
        action = named(self.dreams.dream.act_space, self._chosen)
        reward, terminated, truncated = self.dreams.step(action)
        over, seen = terminated | truncated, self._seen()
        infos: list[dict[str, Any]] = [{} for _ in over]
        for lane in np.flatnonzero(over):
            infos[lane] = {
                'terminal_observation': at(seen, lane),
                'TimeLimit.truncated': bool(truncated[lane]),
            }
        if over.any():
            self.dreams.reset(self._rng, over)
            seen = self._seen()
        return seen, reward.astype(np.float32), over, infos

    def _seen(self):
        return unnamed(self.dreams.dream.obs_space, self.dreams.moment.obs)

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name, indices=None):
        return [getattr(self.dreams, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError('dreams have no settings of their own')

    def env_method(self, method_name, *args, indices=None, **kwargs):
        raise NotImplementedError('dreams have no methods of their own')

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False for _ in self._get_indices(indices)]


def at(seen, lane: int):
    """What one of the lanes saw."""
    return {k: v[lane] for k, v in seen.items()} if isinstance(seen, dict) else seen[lane]


def main() -> None:
    args = parse()
    torch.set_num_threads(1)
    config = stored(args.logdir, {'device': args.device})
    make = lambda seed: envs.make(config.task, config.env.to_dict(), derive(seed, 'tested'))
    found = {
        'task': config.task,
        'world': config.agent.world,
        'run': counters(args.logdir),
        'ppo': SETTINGS | {'steps': args.steps, 'dreams': args.dreams, 'horizon': args.horizon},
        'uniform': measure(make(0), args.episodes, 0)['uniform'],
        'bounds': BOUNDS.get(config.task),
        'seeds': [],
        'machine': machine(),
        'commit': commit(),
    }
    print(f'{config.task}: uniformly random play scores {words(found["uniform"])}', flush=True)
    for seed in args.seeds:
        begun, ppo = time.perf_counter(), learn(args, seed)
        minutes = (time.perf_counter() - begun) / 60
        real = summary(scores(make(seed), ppo, ppo.env.dreams.dream.obs_space, args.episodes))
        found['seeds'].append({'seed': seed, 'minutes': round(minutes, 1)} | real)
        print(f'seed {seed}: {words(real)} in the real env, {minutes:.1f} minutes', flush=True)
        write(RESULTS / f'{args.name}.json', found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('logdir', type=Path, help='folder of a run')
    parser.add_argument('--steps', type=int, default=50_000, help='dreamt, of all dreams together')
    parser.add_argument('--dreams', type=int, default=64, help='at once')
    parser.add_argument('--horizon', type=int, default=50, help='steps after which one is cut')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--episodes', type=int, default=200, help='real ones, of each player')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--name', default='dream_ppo', help='of the file of results')
    return parser.parse_args()


def learn(args: argparse.Namespace, seed: int) -> PPO:
    """PPO that has learned in the dream."""
    settings = dict(horizon=args.horizon, first=True, device=args.device, threads=1)
    dreams = Dreams(args.logdir, args.dreams, **settings)
    dreams.dream.reseed(derive(seed, 'dream'))
    lanes = Lanes(dreams, seed)
    several = isinstance(lanes.observation_space, spaces.Dict)
    kind = 'MultiInputPolicy' if several else 'MlpPolicy'
    ppo = PPO(kind, lanes, seed=seed, device=args.device, verbose=0, **SETTINGS)
    return ppo.learn(args.steps)


def scores(env: Env, ppo: PPO, seen: Spaces, episodes: int) -> list[float]:
    """Returns of its most likely actions in an env, of which it observes the keys of `seen`."""
    done = {key: space for key, space in env.act_space.items() if key != 'reset'}
    rest, found = {key: sample(s, np.random.default_rng(0), 1)[0] for key, s in done.items()}, []
    for _ in range(episodes):
        row, score = env.step(rest | {'reset': np.bool_(True)}), 0.0
        while not row['is_last']:
            chosen = ppo.predict(unnamed(seen, {k: row[k] for k in seen}), deterministic=True)[0]
            action = {k: np.asarray(v, done[k].dtype) for k, v in named(done, chosen).items()}
            row = env.step(action | {'reset': np.bool_(False)})
            score += float(row['reward'])
        found.append(score)
    return found


def counters(logdir: Path) -> dict[str, int]:
    """How far the run had come."""
    *_, last = read_lines(logdir / 'metrics.jsonl')
    return {key: last[key] for key in COUNTERS}


def words(found: dict) -> str:
    return f'{found["mean"]:.3g} +- {found["ci95"]:.2g} ({found["episodes"]} episodes)'


if __name__ == '__main__':
    start(main)
