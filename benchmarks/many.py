"""One agent for several tasks beside an agent for each: per-task returns, bounded in time.

    python -m benchmarks.many [--tasks pixel3] [--minutes 25] [--own-minutes 10] [--seeds 0]
        [--flags --run.envs 9]
    python -m benchmarks.many --tasks pixel_cameras pixel_above --configs pixel cameras
        --minutes 15 --apart                       # two cameras, of which both are needed

Every run is the public command line: train until its minutes are over (then it is asked to end and
saves), eval_only on its checkpoint. A run that is done is not repeated; one that was interrupted
goes on. Results: benchmarks/results/<name>.json, and a table.
"""

import argparse
import json
import subprocess
import sys

from embodied.envs.sets import members
from embodied.log.jsonl import read_lines

from .command import start, write
from .learning import BOUNDS, RESULTS, ROOT, commit, machine, seconds_so_far, train

NAMES = {'pixel3': 'many_pixel'}


def main() -> None:
    args = parse()
    name = args.name or NAMES.get(','.join(args.tasks), 'many')
    path = RESULTS / f'{name}.json'
    results = json.loads(path.read_text()) if path.exists() else {'machine': machine(), 'runs': []}
    apart = [task for entry in args.tasks for task in members(entry)]
    jobs = [(','.join(args.tasks), args.minutes)] * (not args.apart)
    jobs += [(task, args.minutes if args.apart else args.own_minutes) for task in apart]
    for seed in args.seeds:
        for task, minutes in jobs:
            if any(run['tasks'] == task and run['seed'] == seed for run in results['runs']):
                continue
            results['runs'].append(one_run(task, seed, minutes, name, args))
            write(path, results)
    print(table(results['runs']))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tasks', nargs='+', default=['pixel3'])
    parser.add_argument('--configs', nargs='+', default=['pixel'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument('--minutes', type=float, default=25, help='of the agent of all tasks')
    parser.add_argument('--own-minutes', type=float, default=10, help='of the agent of each')
    parser.add_argument('--apart', action='store_true', help='an agent of each alone')
    parser.add_argument('--episodes', type=int, default=100, help='of the evaluation, per task')
    parser.add_argument('--name', help='of the result file')
    parser.add_argument('--flags', nargs=argparse.REMAINDER, default=[], help='for dreamer4.main')
    return parser.parse_args()


def one_run(task: str, seed: int, minutes: float, name: str, args: argparse.Namespace) -> dict:
    """Train and evaluate; returns the record that goes into the results."""
    logdir = ROOT / 'logdir' / name / f'{task.replace(",", "+")}-{seed}'
    base = [sys.executable, '-m', 'dreamer4.main', '--configs', *args.configs, '--task', task]
    base += ['--seed', str(seed), *args.flags]
    base += ['--logdir', str(logdir)]
    left = minutes * 60 - seconds_so_far(logdir)
    if left > 1:
        train(base, left, logdir)
    judge = ['--script', 'eval_only', '--from_checkpoint', str(logdir), '--eval.envs', '10']
    judge += ['--eval.episodes', str(args.episodes)]
    subprocess.run(base + judge, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    found = json.loads((logdir / 'eval' / 'eval.json').read_text())
    by_task = found.get('tasks') or {task: found}
    *_, counters = read_lines(logdir / 'metrics.jsonl')
    return {
        'tasks': task,
        'seed': seed,
        'commit': commit(),
        'flags': args.flags,
        'minutes': round(seconds_so_far(logdir) / 60, 1),
        'frames': counters['frames'],
        'updates': counters['updates'],
        'returns': {
            each: {'mean': told['mean'], 'ci95': told['ci95'], 'episodes': told['episodes']}
            for each, told in by_task.items()
        },
    }


def share(task: str, score: float, own: float) -> float | None:
    """How far a return is on the way from random play to that of the task's own agent."""
    low, _ = BOUNDS.get(task, (None, None))
    return None if low is None or own <= low else (score - low) / (own - low)


def table(runs: list[dict]) -> str:
    """A line for each task of each run."""
    alone = {(run['tasks'], run['seed']): run['returns'] for run in runs}
    lines = [
        '| agent of | seed | task | return (95 %) | share of its own agent | frames | minutes |'
    ]
    lines.append('|---|---|---|---|---|---|---|')
    for run in runs:
        for task, told in run['returns'].items():
            own = alone.get((task, run['seed']), {}).get(task)
            part = share(task, told['mean'], own['mean']) if own and run['tasks'] != task else None
            spread = '' if told['ci95'] is None else f' +- {told["ci95"]:.2g}'
            lines.append(
                f'| {run["tasks"]} | {run["seed"]} | {task} | {told["mean"]:.3g}{spread} |'
                f' {"" if part is None else f"{part:.0%}"} | {run["frames"]:,} | {run["minutes"]} |'
            )
    return '\n'.join(lines)


if __name__ == '__main__':
    start(main)
