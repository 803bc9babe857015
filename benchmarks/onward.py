"""From offline to online: how many env frames an agent that has learned from a fixed replay saves.

    python -m benchmarks.onward --task pixel_reach --name offline_reach [--seeds 0 1 2]

Of each seed two runs: an agent that learns online from the first frame on (`--scratch`), and the
agent that `benchmarks.offline` of the same name has trained on its replay of mixed quality, which
goes on online (`--after`, the data kept in the mix at `--demo-share`). Both play and learn in the
same ratio. Compared: the frames until the mean return of the last EPISODES training episodes has
come a share of the way from random play to the score of the first run, the mean of its last tenth.
A run that is done is not repeated, one that was interrupted goes on; what is missing of
`benchmarks.offline` is made. Results: benchmarks/results/<name>_onward.json and .png.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import dreamer4
from embodied.log.jsonl import read_lines

from . import offline
from .command import start, trained, write
from .learning import BOUNDS, RESULTS, commit, machine

EPISODES = 40  # that a point of a curve is the mean of
WAYS = (0.9, 0.95, 1.0)  # shares of the way from random play to the score
POINTS = 200  # of a curve that is kept


def main() -> None:
    args = parse()
    path = RESULTS / f'{args.name}_onward.json'
    results = json.loads(path.read_text()) if path.exists() else {'machine': machine(), 'runs': []}
    for seed in args.seeds:
        if not any(run['seed'] == seed for run in results['runs']):
            results['runs'].append(one_run(args, seed))
            write(path, results)
        draw(results['runs'], path.with_suffix('.png'))
    print(table(results['runs']))


def parse() -> argparse.Namespace:
    parser = offline.options(__doc__)
    parser.add_argument('--frames', type=int, default=138000, help='of the run from scratch')
    parser.add_argument(
        '--share', type=float, default=0.6, help='of them, for the one that goes on'
    )
    parser.add_argument('--scratch', nargs='+', default=['pixel'], help='presets from scratch')
    parser.add_argument('--after', nargs='+', default=['paper_online'], help='presets on top')
    parser.add_argument('--demo-share', type=float, default=0.5, help='of the data in a batch')
    parser.add_argument('--name', default='offline', help='of the result files')
    parser.add_argument('--flags', nargs=argparse.REMAINDER, default=offline.FLAGS, help='offline')
    return parser.parse_args()


def one_run(args: argparse.Namespace, seed: int) -> dict:
    """The record of one seed."""
    folder = offline.folder_of(args, seed)
    before = folder / 'offline.json'
    if not before.exists():
        write(before, offline.one_run(args, seed))
    common = {'seed': seed, 'run': {'steps': args.frames}}
    scratch = trained(dreamer4.create(args.task, args.scratch, folder / 'scratch', **common))
    ratio, steps = scratch.config.run.train_ratio, int(args.frames * args.share)
    onward = dreamer4.create(
        args.task,
        [*args.configs, *args.after],
        folder / 'onward',
        seed=seed,
        run={'steps': steps, 'train_ratio': ratio, 'prefill': min(200, steps // 4)},
        replay={'demos': str(folder / 'data'), 'demo_share': args.demo_share},
        from_checkpoint=str(folder / 'run'),
    )
    flags = offline.told(args.flags)
    counts = {f'agent.schedule.{key}_updates': getattr(args, key) for key in offline.STAGES[:-1]}
    onward = trained(dreamer4.Experiment(onward.config.update(counts | flags)))
    return {
        'task': args.task,
        'seed': seed,
        'commit': commit(),
        'presets': {'offline': args.configs, 'after': args.after, 'scratch': args.scratch},
        'flags': args.flags,
        'demo_share': args.demo_share,
        'train_ratio': ratio,
        'offline': json.loads(before.read_text()),
        'scratch': told(scratch, args.episodes),
        'onward': told(onward, args.episodes),
    }


def told(run: dreamer4.Experiment, episodes: int) -> dict:
    """Curve, seconds and evaluation of a run."""
    frames, scores = curve(run.logdir)
    *_, last = read_lines(run.logdir / 'metrics.jsonl')
    kept = np.unique(np.linspace(0, len(frames) - 1, POINTS).astype(int)) if len(frames) else []
    tail = scores[-max(1, len(scores) // 10) :]
    return {
        'frames': frames[kept].tolist(),
        'score': [round(float(x), 3) for x in smooth(scores)[kept]],
        'final': float(tail.mean()) if len(tail) else None,
        'all': {'frames': frames.tolist(), 'score': [round(float(x), 3) for x in scores]},
        'seconds': last['seconds'],
        'eval': offline.summary(run.evaluate(episodes=episodes)),
    }


def curve(logdir: Path) -> tuple[np.ndarray, np.ndarray]:
    """Frames at which the training episodes of a run ended, and their returns."""
    rows = list(read_lines(logdir / 'scores.jsonl'))
    return np.array([x['frames'] for x in rows], int), np.array([x['score'] for x in rows], float)


def smooth(scores: np.ndarray) -> np.ndarray:
    """Of every episode the mean return of the EPISODES that end with it, fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    ends = np.arange(1, len(scores) + 1)
    begins = np.maximum(ends - EPISODES, 0)
    return (sums[ends] - sums[begins]) / (ends - begins)


def reached(frames: list, scores: list, target: float) -> int | None:
    """Frames after which the running mean of EPISODES whole episodes is at the target first."""
    means = smooth(np.array(scores, float))[EPISODES - 1 :]
    there = np.flatnonzero(means >= target)
    return int(frames[there[0] + EPISODES - 1]) if len(there) else None


def compared(run: dict) -> list[dict]:
    """For each of WAYS: the target, and the frames of both runs until they are there."""
    low = BOUNDS[run['task']][0] if run['task'] in BOUNDS else 0.0
    out = []
    for way in WAYS:
        target = low + way * (run['scratch']['final'] - low)
        first, second = (reached(**names(run[key]), target=target) for key in ('scratch', 'onward'))
        ratio = second / first if first and second else None
        out.append(
            {'way': way, 'target': target, 'scratch': first, 'onward': second, 'ratio': ratio}
        )
    return out


def names(part: dict) -> dict:
    return {'frames': part['all']['frames'], 'scores': part['all']['score']}


def table(runs: list[dict]) -> str:
    """Markdown: a row per seed and share of the way."""
    lines = [
        '| seed | way to the online score | return | frames from scratch | frames after offline |'
        ' ratio |',
        '|---|---|---|---|---|---|',
    ]
    count = lambda x: 'not reached' if x is None else f'{x:,}'
    for run in runs:
        for row in compared(run):
            part = '' if row['ratio'] is None else f'{row["ratio"]:.2f}'
            cells = [run['seed'], f'{row["way"]:.0%}', f'{row["target"]:.3g}']
            cells += [count(row['scratch']), count(row['onward']), part]
            lines.append(f'| {" | ".join(map(str, cells))} |')
    return '\n'.join(lines)


def draw(runs: list[dict], path: Path) -> None:
    """Training returns of both runs over env frames, a panel per seed."""
    words = 'env frames, thousands', f'training return, mean of {EPISODES} episodes'
    with offline.panels(runs, 4, words, path) as axes:
        for axis, run in zip(axes, runs):
            for key, name in (
                ('scratch', 'online from scratch'),
                ('onward', 'offline, then online'),
            ):
                axis.plot(np.array(run[key]['frames']) / 1000, run[key]['score'], label=name)
            before = run['offline']['imagination']['mean']
            axis.axhline(before, color='tab:orange', linestyle=':', label='offline alone')
            if run['scratch']['final'] is not None:
                axis.axhline(
                    run['scratch']['final'], color='gray', linestyle='--', label='online score'
                )


if __name__ == '__main__':
    start(main)
