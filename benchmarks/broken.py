"""One healthy run and several broken on purpose: does `dreamer4.diagnose` name each fault?

    python -m benchmarks.broken [--rows 12000] [--updates 2600] [--only CASE ...]

Collects random play of pixel_catch once, copies the folder with one thing wrong in each copy,
trains offline on each, and prints the first cause that diagnose finds beside the fault. Results:
benchmarks/results/broken.json.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dreamer4.diagnose import NOTHING, diagnose, lacking, latest

from .command import start, write
from .learning import RESULTS, ROOT, commit, machine

Columns = dict[str, np.ndarray]
FROZEN = ['--agent.tokenizer_training.rate', '0']


def black(rows: Columns) -> Columns:
    return {**rows, 'image': np.zeros_like(rows['image'])}


def shuffled(rows: Columns) -> Columns:
    return {**rows, 'action': np.random.default_rng(0).permutation(rows['action'])}


def early(rows: Columns) -> Columns:
    return {**rows, 'reward': np.append(rows['reward'][1:], np.float32(0))}


def late(rows: Columns) -> Columns:
    return {**rows, 'reward': np.append(np.float32(0), rows['reward'][:-1])}


# name -> change of the rows, further flags, a word the diagnosis must contain ('': it must find
# nothing)
CASES: dict[str, tuple[Callable[[Columns], Columns], list[str], str]] = {
    'healthy': (dict, [], ''),
    'frozen tokenizer on black frames': (black, FROZEN, 'frames never change'),
    'actions shuffled': (shuffled, [], 'ignores actions'),
    'rewards one row early': (early, [], 'one row early'),
    'rewards one row late': (late, [], 'one row late'),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rows', type=int, default=12000, help='of random play')
    parser.add_argument('--updates', type=int, default=2600, help='of each run')
    parser.add_argument('--only', nargs='+', default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    path = RESULTS / 'broken.json'
    RESULTS.mkdir(exist_ok=True)
    known = json.loads(path.read_text())['cases'] if path.exists() else {}
    results = {
        'machine': machine(),
        'rows': args.rows,
        'updates': args.updates,
        'cases': {name: known[name] for name in CASES if name in known},
    }
    with tempfile.TemporaryDirectory() as folder:
        base = ['--configs', 'pixel', '--seed', '0']
        program(
            *base,
            '--task',
            'pixel_catch',
            '--script',
            'collect',
            '--run.steps',
            str(args.rows),
            '--logdir',
            f'{folder}/collect',
        )
        for name in args.only:
            results['cases'][name] = case(name, Path(folder), base, args.updates)
            done = results['cases'][name]
            print(f'{"ok" if done["named"] else "!!"} {name}: {done["first cause"]}', flush=True)
            write(path, results)
    sys.exit(not all(results['cases'][name]['named'] for name in args.only))


def case(name: str, folder: Path, base: list[str], updates: int) -> dict:
    """The record of one case: a run on the rows in folder/collect, tampered with, and what diagnose
    says of it.
    """
    tamper, flags, word = CASES[name]
    data, logdir = folder / name / 'data', folder / name / 'run'
    rewrite(folder / 'collect' / 'replay', data, tamper)
    where = ['--script', 'offline', '--replay.directory', str(data), '--logdir', str(logdir)]
    length = ['--run.updates', str(updates), '--run.report_every', str(updates)]
    program(*base, *where, *length, '--run.log_every', '200', *flags)
    values = latest(logdir)
    found = [NOTHING[name] for name in lacking(values)] + [
        words for *_, good, words in diagnose(values) if good is False
    ]
    first = found[0] if found else 'nothing'
    named = word in first if word else not found
    return {'first cause': first, 'all': found, 'named': named, 'commit': commit()}


def program(*flags: str) -> None:
    subprocess.run(
        [sys.executable, '-m', 'dreamer4.main', *flags],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )


def rewrite(source: Path, target: Path, change: Callable[[Columns], Columns]) -> None:
    """Copy a replay folder, passing the columns of every chunk through `change`."""
    shutil.copytree(source, target)
    for chunk in target.glob('*.npz'):
        with np.load(chunk) as rows:
            columns = {key: rows[key] for key in rows}
        np.savez(chunk, **change(columns))


if __name__ == '__main__':
    start(main)
