"""Kill a run at random moments, again and again, and check after every kill that nothing is lost.

    python -m benchmarks.chaos [--kills 100] [--seed 0]

The whole process tree gets SIGKILL while it collects, learns, and saves every second. After each kill: the newest checkpoint reads, every chunk
that it names is on disk and whole, and the restarted run goes on from its counters. At the end the run finishes in order, its logs hold every step
once, and no logged number is non-finite. Prints a table; results go to benchmarks/results/chaos.json.
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
from pathlib import Path

import numpy as np

from embodied.checkpoint import Checkpoint

from .learning import RESULTS, ROOT, commit, machine, rows

FLAGS = ['--configs', 'pixel', 'debug', '--task', 'pixel_catch', '--agent.threads', '1', '--run.save_every', '1', '--driver.parallel', 'true']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--kills', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder) / 'run'
        problems, steps, begun = [], [0], time.monotonic()
        for kill in range(args.kills):
            killed(logdir, chance.uniform(2.0, 8.0))
            found, step = inspect(logdir)
            problems += [f'kill {kill}: {problem}' for problem in found]
            if step < steps[-1]:
                problems.append(f'kill {kill}: the run fell back from step {steps[-1]} to {step}')
            steps.append(step)
        subprocess.run(command(logdir, steps[-1] + 200), check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        problems += finish(logdir)
        result = {
            'kills': args.kills, 'seed': args.seed, 'problems': problems, 'steps': steps[-1], 'restarts that went further': sum(
                b > a for a, b in zip(steps, steps[1:])), 'seconds': round(time.monotonic() - begun), 'commit': commit(), 'machine': machine()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / 'chaos.json').write_text(json.dumps(result, indent=1) + '\n')
    for key, value in result.items():
        print(f'{key:>28}: {value}')
    sys.exit(bool(problems))


def command(logdir: Path, steps: int) -> list[str]:
    return [sys.executable, '-m', 'dreamer4.main', *FLAGS, '--logdir', str(logdir), '--run.steps', str(steps)]


def killed(logdir: Path, seconds: float) -> None:
    """Run for some seconds, then SIGKILL the whole group."""
    process = subprocess.Popen(
        command(logdir, 10 ** 9), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=ROOT)
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
    main()
