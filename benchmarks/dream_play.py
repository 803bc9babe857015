"""How long a dream and the real env stay together while somebody plays, and how fast it goes.

    python -m dreamer4.main --configs pixel --task pixel_reach --logdir LOGDIR     # for minutes
    python -m benchmarks.dream_play LOGDIR [--starts 32] [--steps 30]

Both begin at the same reset and follow the same actions: `keys`, of which every component is held
at an end or at rest for 2 to 6 steps, as a person holds keys; `policy`, sampled by what it sees of
the real env. The dream is never told another real frame. `reconstruction` is what the tokenizer
makes of the real frames, the most that a dream can reach; `copying` is the first frame, for ever.
Then a game is timed as the server plays it: a step of dream and env, and the frame for the page.
Writes benchmarks/results/dream_play.json. Letters: N starts, T steps.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from dreamer4.dream import Dream
from dreamer4.load import load
from dreamer4.play import controls, frames
from dreamer4.play.game import Game, Settings, one
from dreamer4.play.tree import pictures
from embodied.base import Env, Spaces, Values, sample
from embodied.interval import interval

from .command import start, write
from .dream_ppo import counters
from .learning import RESULTS, commit, machine

HELD = (2, 7)  # steps that a key is held, from the first to below the second
AT = (1, 5, 10, 20, 30)  # steps that are told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('logdir', type=Path, help='folder of a run on a task with images')
    parser.add_argument('--starts', type=int, default=32, help='N')
    parser.add_argument('--steps', type=int, default=30, help='T')
    parser.add_argument('--timed', type=int, default=200, help='steps that are timed')
    parser.add_argument('--name', default='dream_play', help='of the file of results')
    args = parser.parse_args()
    torch.set_num_threads(1)
    agent, first = load(args.logdir, device='cpu', threads=1)
    envs = [first, *(load(args.logdir, seed=n, device='cpu')[1] for n in range(1, args.starts))]
    dream = Dream(agent, first.obs_space, first.act_space)
    found = {'run': counters(args.logdir), 'starts': args.starts, 'together': {}}
    for who in ('keys', 'policy'):
        found['together'][who] = told = together(dream, envs, who, args.steps)
        for name, row in told.items():
            print(f'{who:<8}{name:<16}', *(f'{n}: {x["mean"]:.3f}' for n, x in row.items()))
    game = Game(dream, first, None)
    found['timed'] = {f'{n} samples': timed(game, n, args.timed) for n in (0, 4)}
    for name, row in found['timed'].items():
        print(f'{name}:', ', '.join(f'{key} {value}' for key, value in row.items()))
    write(RESULTS / f'{args.name}.json', found | {'machine': machine(), 'commit': commit()})


def keys(act_space: Spaces, count: int, steps: int) -> list[Values]:
    """Actions (N, ...) of every step, each component held for a while."""
    rng, out = np.random.default_rng(0), {}
    for key, space in act_space.items():
        drawn = sample(space, rng, steps * count).reshape(steps, count, *space.shape)
        if isinstance(space, spaces.Box):
            ends = np.stack([space.low, np.reshape(controls.rest(space), space.shape), space.high])
            index = rng.integers(3, size=drawn.shape)
            drawn = np.take_along_axis(ends[:, None, None], index[None], 0)[0].astype(space.dtype)
        for n in range(count):
            at = 0
            while at < steps:
                until = at + int(rng.integers(*HELD))
                drawn[at:until, n], at = drawn[at, n], until
        out[key] = drawn
    return [{key: value[t] for key, value in out.items()} for t in range(steps)]


def together(dream: Dream, envs: list[Env], who: str, steps: int) -> dict:
    """Correlation of the pixels after some steps, by what is compared with the real frames."""
    count = len(envs)
    rest = [controls.resting(dream.act_space) | {'reset': np.bool_(True)} for _ in envs]
    row = stacked([env.step(action) for env, action in zip(envs, rest)])
    begun = row | {k: stacked(rest)[k] for k in dream.act_space}
    dreamt = dream.begin({k: v[:, None] for k, v in begun.items()})
    seen, begin, found = dreamt, row, {}
    chosen = keys(dream.act_space, count, steps)
    for t in range(steps):
        action = dream.act(seen) if who == 'policy' else chosen[t]
        each = [{k: v[n] for k, v in action.items()} for n in range(count)]
        row = stacked([e.step(a | {'reset': np.bool_(False)}) for e, a in zip(envs, each)])
        dreamt, seen = dream.step(dreamt, action), dream.see(seen, action, row)
        if t + 1 in AT:
            compared = {'dream': dreamt.obs, 'reconstruction': dream.shown(seen), 'copying': begin}
            for name, frame in compared.items():
                found.setdefault(name, {})[t + 1] = summary(correlation(frame, row))
        if row['is_last'].any():
            break
    return found


def stacked(rows: list[Values]) -> Values:
    """Rows of N envs as one of (N, ...)."""
    return {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}


def correlation(ours: Values, theirs: Values) -> np.ndarray:
    """(N,) of all pixels of frames (N, ...)."""
    names = pictures(one(theirs)).keys() & ours.keys()
    flat = lambda frame: np.concatenate(
        [frame[k].reshape(len(frame[k]), -1) / 255.0 for k in sorted(names)], 1
    )
    a, b = (x - x.mean(1, keepdims=True) for x in (flat(ours), flat(theirs)))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)).clip(1e-12)


def summary(values: np.ndarray) -> dict[str, float | None]:
    return {'mean': float(values.mean()), 'ci95': interval(values.tolist())}


def timed(game: Game, samples: int, steps: int) -> dict[str, float]:
    """frames/s, p50 and p95 of a step in ms, and the CPU time that it takes, in ms."""
    game.set(Settings(samples=samples))
    took, used = [], time.process_time()
    for _ in range(steps):
        begun = time.perf_counter()
        game.step('sample')
        frames.frame(game, {})
        took.append(time.perf_counter() - begun)
    used, (p50, p95) = time.process_time() - used, np.percentile(took, (50, 95))
    numbers = {'p50': 1000 * p50, 'p95': 1000 * p95, 'cpu': 1000 * used / steps}
    return {k: round(float(v), 1) for k, v in ({'fps': steps / sum(took)} | numbers).items()}


if __name__ == '__main__':
    start(main)
