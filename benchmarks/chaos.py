"""Break a run again and again and check that nothing is lost; results go to
benchmarks/results/chaos.json.

    python -m benchmarks.chaos [--kills 100] [--faults 200] [--steps 48000] [--seed 0]

Kills: the process tree of a run of the pixel preset on pixel_catch that saves every two seconds
gets SIGKILL at random moments. After each kill the newest checkpoint reads, every chunk that it
names is on disk and whole, and the restarted run goes on from its counters. At the end the run
finishes in order, its logs hold every step once, the replay every decision once, and no logged
number is non-finite.
Faults: another such run whose envs raise an unpicklable exception, exit, are killed or hang
(chaos_faults.py) must finish by itself, having replaced every one. Both are then evaluated over 100
episodes: what happened to them must not show in the return.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from embodied.checkpoint import Checkpoint

from .command import start, write
from .learning import RESULTS, ROOT, commit, machine, rows

TASK = ['--configs', 'pixel', '--task', 'pixel_catch']
FLAGS = [*TASK, '--run.save_every', '2', '--driver.parallel', 'true', '--run.report_every', '0']
PATIENT = [
    '--driver.timeout',
    '2',
    '--driver.start_timeout',
    '10',
    '--driver.max_restarts',
    '1000000',
]
# return of pixel_catch; undisturbed runs reach .98 to 1.00 in some 40,000 decisions, .86 to 1.00 in
# 30,000
UNHURT = 0.85


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--faults', type=int, default=200)
    parser.add_argument('--steps', type=int, default=48000, help='decisions of each run')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    path = RESULTS / 'chaos.json'
    RESULTS.mkdir(exist_ok=True)
    result = {'machine': machine(), 'commit': commit(), 'seed': args.seed}
    for name, part, count in (('kills', kills, args.kills), ('faults', faults, args.faults)):
        if count:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.monotonic()
                result[name] = {
                    **part(Path(folder) / 'run', count, args),
                    'seconds': round(time.monotonic() - begun),
                }
            for key, value in result[name].items():
                print(f'{name} {key:>30}: {value}', flush=True)
            write(path, result)
    sys.exit(
        any(
            part['problems']
            for part in result.values()
            if isinstance(part, dict) and 'problems' in part
        )
    )


def kills(logdir: Path, count: int, args: argparse.Namespace) -> dict:
    """Kill a run `count` times, let it finish, evaluate it."""
    chance, problems, steps = random.Random(args.seed), [], [0]
    for kill in range(count):
        killed(logdir, chance.uniform(5.0, 13.0))
        found, step = inspect(logdir)
        problems += [f'kill {kill}: {problem}' for problem in found]
        if step < steps[-1]:
            problems.append(f'kill {kill}: the run fell back from step {steps[-1]} to {step}')
        steps.append(step)
    last = max(args.steps, steps[-1] + 200)
    subprocess.run(command(logdir, last), check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    problems += finish(logdir)
    score = evaluated(logdir, problems)
    return {
        'kills': count,
        'problems': problems,
        'steps at the last kill': steps[-1],
        'steps': last,
        'return, 100 episodes': score,
        'restarts that went further': sum(b > a for a, b in zip(steps, steps[1:])),
    }


def faults(logdir: Path, count: int, args: argparse.Namespace) -> dict:
    """Let `count` env faults happen to a run that must finish by itself, and evaluate it."""
    ledger, problems = logdir.with_name('ledger'), []
    flags = [
        *FLAGS,
        *PATIENT,
        '--seed',
        str(args.seed),
        '--logdir',
        str(logdir),
        '--run.steps',
        str(args.steps),
    ]
    done = subprocess.run(
        [sys.executable, '-m', 'benchmarks.chaos_faults', str(ledger), str(count), *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        problems.append(f'the run ended with {done.returncode}: {done.stderr[-500:]}')
    happened = ledger.read_text().split() if ledger.exists() else []
    replaced = rows(logdir / 'metrics.jsonl')[-1].get('env/restarts', 0)
    if len(happened) < count:
        problems.append(f'only {len(happened)} faults happened; more steps are needed')
    if not 0 < replaced <= len(happened):
        problems.append(f'{replaced} workers were replaced after {len(happened)} faults')
    problems += finish(logdir)
    return {
        'faults': dict(Counter(happened)),
        'workers replaced': replaced,
        'problems': problems,
        'steps': args.steps,
        'return, 100 episodes': evaluated(logdir, problems),
    }


def evaluated(logdir: Path, problems: list[str]) -> float:
    """Mean return of 100 episodes of the run's agent; a bad one is a problem."""
    subprocess.run(
        [
            sys.executable,
            '-m',
            'dreamer4.main',
            *TASK,
            '--script',
            'eval_only',
            '--from_checkpoint',
            str(logdir),
            '--eval.episodes',
            '100',
            '--eval.envs',
            '10',
            '--eval.videos',
            '0',
            '--logdir',
            str(logdir) + '-eval',
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    score = json.loads((Path(str(logdir) + '-eval') / 'eval' / 'eval.json').read_text())['mean']
    if score < UNHURT:
        problems.append(f'the agent returns {score:.2f}, less than {UNHURT}')
    return round(score, 3)


def command(logdir: Path, steps: int) -> list[str]:
    return [
        sys.executable,
        '-m',
        'dreamer4.main',
        *FLAGS,
        '--logdir',
        str(logdir),
        '--run.steps',
        str(steps),
    ]


def killed(logdir: Path, seconds: float) -> None:
    """Run for some seconds, then SIGKILL the whole tree."""
    process = subprocess.Popen(
        command(logdir, 10**9),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=ROOT,
    )
    time.sleep(seconds)
    assert process.poll() is None, f'the run ended by itself with {process.returncode}'
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def inspect(logdir: Path) -> tuple[list[str], int]:
    """Problems of what a killed run left, and the step of its newest checkpoint."""
    problems = []
    found = Checkpoint(logdir / 'ckpt', 2, problems.append).load()
    if found is None:
        return problems, 0
    trees, meta = found
    for stream in trees['replay']['streams']:
        for name in stream['chunks']:
            path = logdir / 'replay' / name
            if not path.exists():
                problems.append(f'the checkpoint names {name}, which is not there')
                continue
            with np.load(path) as chunk:
                lengths = {len(chunk[key]) for key in chunk}
            if lengths != {int(path.stem.rsplit('-', 1)[1])}:
                problems.append(f'{name} holds columns of {lengths} rows')
    return problems, meta['step']


def finish(logdir: Path) -> list[str]:
    """Problems of the logs and the replay of the finished run."""
    problems, metrics = [], rows(logdir / 'metrics.jsonl')
    steps = [row['step'] for row in metrics]
    if steps != sorted(set(steps)):
        problems.append('metrics.jsonl holds a step twice or out of order')
    if any('nonfinite' in row for row in metrics):
        problems.append('metrics.jsonl holds non-finite numbers')
    found, made = inspect(logdir)
    stored = [np.load(path) for path in (logdir / 'replay').glob('*.npz')]
    decisions = sum(int((~chunk['is_first']).sum()) for chunk in stored)
    if decisions != made:
        problems.append(f'the replay holds {decisions} decisions, the run made {made}')
    return problems + found


if __name__ == '__main__':
    start(main)
