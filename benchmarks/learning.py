"""Learning curves over tasks and seeds, with closed-loop evaluation; bounded in time and resumable.

    python -m benchmarks.learning pixel [--tasks pixel_catch ...] [--seeds 0 1 2] [--minutes 10]
        [--flags --agent.actor.entropy 0.03]
    python -m benchmarks.learning dmc --tasks cartpole_balance walker_walk --frames 100000
        --minutes 9 --flags --configs size1m
    python -m benchmarks.learning minigrid --tasks Empty-8x8 --minutes 15 [--preset minigrid]

Every run is the public command line: train until its frames or minutes are over (then it is asked
to end and saves), eval_only on its checkpoint. A run that is done is not repeated; one that was
interrupted goes on. Results: benchmarks/results/<name>.json and .png.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from embodied.config import parse as parse_config
from embodied.errors import ConfigError
from embodied.log.jsonl import read_lines

from .command import start, write

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
PIXEL = ('pixel_catch', 'pixel_reach', 'pixel_memory')
DMC = (
    'cartpole_balance',
    'cartpole_swingup',
    'walker_stand',
    'walker_walk',
    'cheetah_run',
    'ball_in_cup_catch',
    'reacher_easy',
    'finger_spin',
)
PRESETS = {'dmc': 'dmc_vision'}
# Mean returns of uniformly random and of optimal actions; tests/embodied/envs/test_pixel.py holds
# them to it.
BOUNDS = {'pixel_catch': (-0.75, 1.0), 'pixel_reach': (5.75, 47.6), 'pixel_memory': (-1 / 3, 1.0)}
# Published curves by method and task; the file names their source.
PUBLISHED = json.loads((RESULTS / 'published_dmc.json').read_text())['methods']


def main() -> None:
    args = parse()
    tasks = args.tasks or {'pixel': PIXEL, 'dmc': DMC}.get(args.suite)
    if tasks is None:
        raise ConfigError(f'{args.suite}: give --tasks; pixel and dmc alone have some of their own')
    tasks = [
        task if task.startswith(f'{args.suite}_') else f'{args.suite}_{task}' for task in tasks
    ]
    name = args.name or f'learning_{args.suite}'
    path = RESULTS / f'{name}.json'
    RESULTS.mkdir(exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {'machine': machine(), 'runs': []}
    for seed in args.seeds:
        for task in tasks:
            if any(run['task'] == task and run['seed'] == seed for run in results['runs']):
                continue
            results['runs'].append(one_run(task, seed, name, args))
            write(path, results)
            print(line(results['runs'][-1]), flush=True)
    results['runs'].sort(
        key=lambda run: (
            tasks.index(run['task']) if run['task'] in tasks else len(tasks),
            run['seed'],
        )
    )
    draw(results['runs'], path.with_suffix('.png'))
    print(table(results['runs']))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('suite', help='what the names of the tasks begin with')
    parser.add_argument('--tasks', nargs='+', help='if not given: those of pixel, or of dmc')
    parser.add_argument('--preset', help='as the suite is called, of dmc dmc_vision')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--minutes', type=float, default=10, help='of training, per run')
    parser.add_argument('--frames', type=int, default=10**9, help='of training, per run')
    parser.add_argument('--episodes', type=int, default=100, help='of the evaluation')
    parser.add_argument('--name', help='of the result files')
    parser.add_argument(
        '--flags',
        nargs=argparse.REMAINDER,
        default=[],
        help='everything behind goes to dreamer4.main',
    )
    return parser.parse_args()


def one_run(task: str, seed: int, name: str, args: argparse.Namespace) -> dict:
    """Train and evaluate; returns the record that goes into the results."""
    suite = task.split('_')[0]
    preset = args.preset or PRESETS.get(suite, suite)
    logdir = ROOT / 'logdir' / name / f'{task}-{seed}'
    flags = list(args.flags)
    extra = flags[flags.index('--configs') + 1 :][:1] if '--configs' in flags else []
    if extra:
        del flags[flags.index('--configs') : flags.index('--configs') + 2]
    base = [
        sys.executable,
        '-m',
        'dreamer4.main',
        '--configs',
        preset,
        *extra,
        '--task',
        task,
        '--seed',
        str(seed),
        '--logdir',
        str(logdir),
    ]
    config = parse_config(['--configs', preset, *extra, *flags], ROOT / 'configs')
    steps = max(1, args.frames // (config.env.dmc.repeat if suite == 'dmc' else 1))
    left = args.minutes * 60 - seconds_so_far(logdir)
    if left > 1:
        train(base + ['--run.steps', str(steps), *flags], left, logdir)
    subprocess.run(
        base
        + [
            '--script',
            'eval_only',
            '--from_checkpoint',
            str(logdir),
            '--eval.episodes',
            str(args.episodes),
            '--eval.envs',
            '10',
            *flags,
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    evaluation = json.loads((logdir / 'eval' / 'eval.json').read_text())
    return {
        'task': task,
        'seed': seed,
        'commit': commit(),
        'flags': args.flags,
        'curve': curve(logdir),
        'random': before_policy(logdir),
        'eval': {k: evaluation[k] for k in ('mean', 'std', 'ci95', 'episodes')},
        'seconds': seconds_so_far(logdir),
    }


def train(command: list[str], limit: float, logdir: Path) -> None:
    """Train until the run ends or `limit` seconds have passed; then ask it to save and end."""
    logdir.mkdir(parents=True, exist_ok=True)
    with open(logdir / 'stdout.log', 'a') as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limit)
        finally:
            if process.poll() is None:  # its time is over, or this program is asked to end
                process.terminate()
                process.wait(120)
    if process.returncode:
        raise SystemExit(
            f'{" ".join(command)} ended with {process.returncode}; see {logdir / "stdout.log"}'
        )


def seconds_so_far(logdir: Path) -> float:
    return max((row['seconds'] for row in read_lines(logdir / 'metrics.jsonl')), default=0.0)


def curve(logdir: Path, points: int = 40) -> dict[str, list[float]]:
    """Mean training return in equal bins of frames: frames (end of the bin), seconds, score."""
    scores, times = (list(read_lines(logdir / f'{name}.jsonl')) for name in ('scores', 'metrics'))
    if not scores:
        return {'frames': [], 'seconds': [], 'score': []}
    edges = np.linspace(0, scores[-1]['frames'], points + 1)
    frames, values = (
        np.array([row['frames'] for row in scores]),
        np.array([row['score'] for row in scores]),
    )
    means = [
        (high, values[(frames > low) & (frames <= high)])
        for low, high in zip(edges[:-1], edges[1:])
    ]
    means = [(high, inside.mean()) for high, inside in means if len(inside)]
    seconds = np.interp(
        [f for f, _ in means],
        [0] + [row['frames'] for row in times],
        [0] + [row['seconds'] for row in times],
    )
    return {
        'frames': [round(float(f)) for f, _ in means],
        'seconds': np.round(seconds, 1).tolist(),
        'score': [round(float(s), 4) for _, s in means],
    }


def before_policy(logdir: Path) -> dict[str, float]:
    """Mean return and number of the episodes that ended before the policy began to learn: random
    play.
    """
    first = next(
        (row['frames'] for row in read_lines(logdir / 'metrics.jsonl') if 'policy/entropy' in row),
        np.inf,
    )
    scores = [row['score'] for row in read_lines(logdir / 'scores.jsonl') if row['frames'] < first]
    return {'mean': float(np.mean(scores)) if scores else float('nan'), 'episodes': len(scores)}


def share(task: str, score: float) -> float | None:
    """Share of the way from random (0) to optimal (1); None if they are not known."""
    if task not in BOUNDS:
        return None
    low, high = BOUNDS[task]
    return (score - low) / (high - low)


def published(method: str, task: str, frames: float) -> float | None:
    """Mean return of a published run at so many frames; None for tasks without one, and before
    its first point.
    """
    curve = PUBLISHED[method].get(task)
    return (
        float(np.interp(frames, curve['frames'], curve['score']))
        if curve and frames >= curve['frames'][0]
        else None
    )


def published_cell(task: str, frames: float) -> str:
    """DreamerV3's published return at so many frames, as a table cell."""
    score = published('DreamerV3', task, frames)
    return 'not published' if score is None else f'{score:.0f}'


def line(run: dict) -> str:
    part = share(run['task'], run['eval']['mean'])
    words = '' if part is None else f', {part:.0%} of the way from random to optimal'
    return (
        f'{run["task"]} seed {run["seed"]}: eval {run["eval"]["mean"]:.3g} +-'
        f' {run["eval"]["ci95"]:.2g}{words}, {(run["curve"]["frames"] or [0])[-1]:,} frames,'
        f' {run["seconds"]:.0f} s'
    )


def table(runs: list[dict]) -> str:
    """Markdown, a row per task."""
    lines = [
        (
            '| task | eval return per seed | random to optimal | frames | seconds | DreamerV3 at'
            ' these frames |'
        ),
        '|---|---|---|---|---|---|',
    ]
    for task in dict.fromkeys(run['task'] for run in runs):
        mine = [run for run in runs if run['task'] == task]
        parts = [share(task, run['eval']['mean']) for run in mine]
        lines.append(
            f'| {task} | '
            + ', '.join(f'{run["eval"]["mean"]:.3g}' for run in mine)
            + ' | '
            + (', '.join(f'{part:.0%}' for part in parts) if parts[0] is not None else '')
            + ' | '
            + ', '.join(f'{(run["curve"]["frames"] or [0])[-1]:,}' for run in mine)
            + ' | '
            + ', '.join(f'{run["seconds"]:.0f}' for run in mine)
            + ' | '
            + (
                ', '.join(published_cell(task, (run['curve']['frames'] or [0])[-1]) for run in mine)
                if parts[0] is None
                else ''
            )
            + ' |'
        )
    return '\n'.join(lines)


def draw(runs: list[dict], path: Path) -> None:
    """A panel per task, returns over minutes above and over frames below."""
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    tasks = list(dict.fromkeys(run['task'] for run in runs))
    figure, axes = pyplot.subplots(2, len(tasks), figsize=(4 * len(tasks), 6), squeeze=False)
    for column, task in enumerate(tasks):
        for axis, key, unit, scale in (
            (axes[0][column], 'seconds', 'minutes', 60),
            (axes[1][column], 'frames', 'thousand frames', 1000),
        ):
            for run in (run for run in runs if run['task'] == task):
                axis.plot(
                    np.array(run['curve'][key]) / scale,
                    run['curve']['score'],
                    label=run_name(run, runs),
                )
            for value, label in zip(bounds(task, runs), ('random', 'optimal')):
                axis.axhline(
                    value, color='gray', linestyle='--' if label == 'optimal' else ':', label=label
                )
            for method, style in zip(PUBLISHED, ('--', ':')):
                if task in PUBLISHED[method] and key == 'frames':
                    known = PUBLISHED[method][task]
                    last = max(
                        (run['curve']['frames'] or [0])[-1] for run in runs if run['task'] == task
                    )
                    shown = np.array(known['frames']) <= 1.2 * last + 50000
                    axis.plot(
                        np.array(known['frames'])[shown] / scale,
                        np.array(known['score'])[shown],
                        'k' + style,
                        label=f'{method}, published',
                    )
            axis.set_xlabel(unit)
            axis.set_ylabel('training return')
        axes[0][column].set_title(task)
        axes[1][column].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def run_name(run: dict, runs: list[dict]) -> str:
    """Name of a run in a legend: its seed, and its commit if another run has the same seed."""
    alike = [one for one in runs if (one['task'], one['seed']) == (run['task'], run['seed'])]
    return f'seed {run["seed"]}' + (f' ({run["commit"]})' if len(alike) > 1 else '')


def bounds(task: str, runs: list[dict]) -> tuple[float, ...]:
    """Random and optimal return; if the optimum is not known, only the random play before the
    policy began.
    """
    played = [run['random'] for run in runs if run['task'] == task and 'random' in run]
    measured = [random['mean'] for random in played if random['episodes']]
    return BOUNDS.get(task) or ((float(np.mean(measured)),) if measured else ())


def machine() -> dict[str, str | int]:
    import torch

    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )
    return {
        'device': device,
        'cpus': os.cpu_count() or 0,
        'torch': torch.__version__,
        'python': platform.python_version(),
    }


def commit() -> str:
    return (
        subprocess.run(
            ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip()
        or 'unknown'
    )


if __name__ == '__main__':
    start(main)
