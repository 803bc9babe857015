"""Break a run again and again and check that nothing is lost; results go to
benchmarks/results/chaos.json.

    python -m benchmarks.chaos [--kills 100] [--faults 200] [--steps 48000] [--seed 0]
                               [--minutes 60]

Everywhere envs step in worker processes, each env has started a process of its own (as simulators
do), and no process may open more than chaos_lives.DESCRIPTORS files.
Kills: a run of the pixel preset on pixel_catch that saves every two seconds is ended at random
moments of its start and of its course, by SIGKILL to its process group, by SIGKILL to the main
process alone, or by SIGHUP; its output leads to a file, a broken pipe, a full disk, or is closed.
After each life the newest checkpoint reads, every chunk that it names is on disk and whole, nothing
lies in replay/broken, no process is left, and after SIGHUP nothing is missing. The restarted run
goes on from its counters. At the end the run finishes in order, its logs hold every step once, the
replay every decision once, and no logged number is non-finite.
Turnover: a quarter of the kills are those of a run with budgets so small that memory and disk turn
over between saves: its replay holds no row twice and the folder stays within its budget.
Faults: another run whose envs raise an unpicklable exception, exit, are killed, hang or return NaN
(chaos_faults.py) must finish by itself, having replaced every one. The first and the last run are
then evaluated over 100 episodes: what happened to them must not show in the return.
Where the time for the kills is up before all of them are done, the rest is left out, and the
figures say so: `ends` counts those that were.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from embodied.checkpoint import Checkpoint
from embodied.log.jsonl import read_lines

from . import chaos_lives as lives
from .command import start, write
from .learning import RESULTS, ROOT, commit, machine

TASK = ['--configs', 'pixel', '--task', 'pixel_catch']
FLAGS = [*TASK, '--run.save_every', '2', '--driver.parallel', 'true', '--run.report_every', '0']
FLAGS += [r'--.*\.threads', '1']  # other programs use the machine too
PATIENT = ['--driver.timeout', '10', '--driver.start_timeout', '60']
PATIENT += ['--driver.max_restarts', '1000000']
TURNOVER_GB = 0.01  # of memory and of disk: 3,200 rows, which a run makes in seconds
TURNOVER = ['--replay.max_gb', str(TURNOVER_GB), '--replay.disk_gb', str(TURNOVER_GB)]
BANNER = 'worker process'  # is told once the envs are there
STILLBORN = 0.2  # so many lives may end before the envs step
LIFE = 8.0  # seconds of a life, at most; it saves every two
START = 300.0  # seconds that a start may take
SLACK = 2**20  # bytes of a chunk for every env that may lie beyond a budget for a moment
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
    parser.add_argument(
        '--minutes',
        type=float,
        default=1e6,
        help='for all kills, after which no further one begins',
    )
    args = parser.parse_args()
    path = RESULTS / 'chaos.json'
    result = {'machine': machine(), 'commit': commit(), 'seed': args.seed}
    few = args.kills // 4
    parts = ('kills', kills, args.kills - few), ('turnover', turnover, few)
    for name, part, count in (*parts, ('faults', faults, args.faults)):
        if count:
            with tempfile.TemporaryDirectory() as folder:
                begun = time.monotonic()
                result[name] = {
                    **part(Path(folder) / 'run', count, args),
                    'seconds': round(time.monotonic() - begun),
                }
            for key, value in result[name].items():
                print(f'{name} {key:>30}: {value}', flush=True)
            write(path, earlier(path) | result)
    found = (part.get('problems') for part in result.values() if isinstance(part, dict))
    sys.exit(any(found))


def earlier(path: Path) -> dict:
    """Parts that were measured on the same commit, by another call or beside this one."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return found if found.get('commit') == commit() else {}


def kills(logdir: Path, count: int, args: argparse.Namespace) -> dict:
    """End a run `count` times, let it finish, evaluate it."""
    found = broken(logdir, count, args.seed, [], 60 * args.minutes * 3 / 4)
    last = max(args.steps, found['steps at the last end'] + 200)
    found['problems'] += completed(logdir, last, []) + finish(logdir) + complete(logdir)
    return {**found, 'steps': last, 'return, 100 episodes': evaluated(logdir, found['problems'])}


def turnover(logdir: Path, count: int, args: argparse.Namespace) -> dict:
    """End a run with small budgets `count` times, and let it finish."""
    found = broken(logdir, count, args.seed + 1, TURNOVER, 60 * args.minutes / 4)
    # so that every row of the last life is given up in the end
    last = found['steps at the last end'] + 8000
    found['problems'] += completed(logdir, last, TURNOVER) + finish(logdir) + bounded(logdir)
    return {**found, 'steps': last}


def broken(logdir: Path, count: int, seed: int, flags: list[str], seconds: float) -> dict:
    """What `count` ends of a run did to it, or as many as there is time for."""
    chance, problems, steps = random.Random(seed), [], [0]
    ends, outputs, unsaved, begun = Counter(), Counter(), 0, time.monotonic()
    for number in range(count):
        if time.monotonic() - begun > seconds:
            break
        output, ending = chance.choice(lives.OUTPUTS), chance.choice(lives.ENDINGS)
        there = chance.random() > STILLBORN
        found, late = life(logdir, output, ending, there, chance.uniform(0.0, LIFE), flags)
        before, (told, step) = steps[-1], inspect(logdir)
        if step < before:
            told.append(f'the run fell back from step {before} to {step}')
        problems += [f'end {number} ({ending}, {output}): {text}' for text in found + told]
        steps.append(step)
        ends[ending] += 1
        outputs[output] += 1
        unsaved += late
        print(f'end {number} of {count} at step {step}: {ending}, {output}', flush=True)
    return {
        'ends': dict(ends),
        'outputs': dict(outputs),
        'problems': problems,
        'steps at the last end': steps[-1],
        'restarts that went further': sum(b > a for a, b in zip(steps, steps[1:])),
        'ends by SIGHUP that saved': unsaved,
    }


def life(
    logdir: Path, output: str, ending: str, begun: bool, seconds: float, flags: list[str]
) -> tuple[list[str], bool]:
    """Run for some seconds, counted from when the envs step if `begun`, then end it; returns
    problems, and whether it said goodbye.
    """
    token, events = f'chaos-{os.getpid()}-{time.monotonic_ns()}', logdir / 'events.log'
    before = events.stat().st_size if events.exists() else 0
    process = lives.start(command(logdir, 10**9, flags), output, logdir.with_name('log'), token)
    if begun:
        wait_for(lambda: BANNER in says(events, before), process)
    time.sleep(seconds)
    problems = [problem] if (problem := lives.end(process, ending)) else []
    if strays := lives.left(token):
        problems.append(f'{len(strays)} processes outlived the run')
    told = says(events, before)
    goodbye = 'SIGHUP asked for the end' in told
    if goodbye and 'saved' not in told.rpartition('SIGHUP asked for the end')[2].lower():
        problems.append('the run ended after SIGHUP without saying that it saved')
    return problems, goodbye


def says(events: Path, after: int) -> str:
    """What an event log holds beyond so many bytes."""
    return events.read_bytes()[after:].decode() if events.exists() else ''


def wait_for(true: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until something is true, the process has ended, or START seconds are over."""
    deadline = time.monotonic() + START
    while not true() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)


def faults(logdir: Path, count: int, args: argparse.Namespace) -> dict:
    """Let `count` env faults happen to a run that must finish by itself, and evaluate it."""
    ledger, log, problems = logdir.with_name('ledger'), logdir.with_name('log'), []
    token = f'chaos-{os.getpid()}-{time.monotonic_ns()}'
    flags = [*PATIENT, '--seed', str(args.seed)]
    done = lives.start(command(logdir, args.steps, flags, ledger, count), 'file', log, token)
    if done.wait():
        problems.append(f'the run ended with {done.returncode}: {log.read_text()[-500:]}')
    if strays := lives.left(token):
        problems.append(f'{len(strays)} processes outlived the run')
    happened = ledger.read_text().split() if ledger.exists() else []
    replaced = list(read_lines(logdir / 'metrics.jsonl'))[-1].get('env/restarts', 0)
    if len(happened) < count:
        problems.append(f'only {len(happened)} faults happened; more steps are needed')
    if not 0 < replaced <= len(happened):
        problems.append(f'{replaced} workers were replaced after {len(happened)} faults')
    problems += finish(logdir) + complete(logdir)
    return {
        'faults': dict(Counter(happened)),
        'workers replaced': replaced,
        'problems': problems,
        'steps': args.steps,
        'return, 100 episodes': evaluated(logdir, problems),
    }


def evaluated(logdir: Path, problems: list[str]) -> float:
    """Mean return of 100 episodes of the run's agent; a bad one is a problem."""
    target = Path(f'{logdir}-eval')
    flags = ['--script', 'eval_only', '--from_checkpoint', str(logdir), '--logdir', str(target)]
    flags += ['--eval.episodes', '100', '--eval.envs', '10', '--eval.videos', '0']
    subprocess.run(
        [sys.executable, '-m', 'dreamer4.main', *TASK, *flags],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    score = json.loads((target / 'eval' / 'eval.json').read_text())['mean']
    if score < UNHURT:
        problems.append(f'the agent returns {score:.2f}, less than {UNHURT}')
    return round(score, 3)


def command(
    logdir: Path,
    steps: int,
    flags: list[str],
    ledger: Path = Path(os.devnull),
    count: int = 0,
) -> list[str]:
    """A run whose envs start processes, and break `count` times."""
    program = [sys.executable, '-m', 'benchmarks.chaos_faults', str(ledger), str(count)]
    return [*program, *FLAGS, *flags, '--logdir', str(logdir), '--run.steps', str(steps)]


def completed(logdir: Path, steps: int, flags: list[str]) -> list[str]:
    """Let a run finish; what goes wrong."""
    token, log = f'chaos-{os.getpid()}-{time.monotonic_ns()}', logdir.with_name('log')
    done = lives.start(command(logdir, steps, flags), 'file', log, token)
    problems = [f'the last life ended: {log.read_text()[-500:]}'] if done.wait() else []
    if strays := lives.left(token):
        problems.append(f'{len(strays)} processes outlived the finished run')
    return problems


def inspect(logdir: Path) -> tuple[list[str], int]:
    """Problems of what a run left, and the step of its newest checkpoint."""
    problems = []
    if moved := sorted((logdir / 'replay' / 'broken').glob('*')):
        problems.append(f'{len(moved)} chunks were taken for damaged, first {moved[0].name}')
    found = Checkpoint(logdir / 'ckpt', 2, problems.append).load()
    if found is None:
        return problems, 0
    trees, meta = found
    named = {name for stream in trees['replay']['streams'] for name in stream['chunks']}
    there = {path.name for path in (logdir / 'replay').glob('*.npz')}
    # those that a later save of the same life has no room for any more are gone with a budget
    if missing := named - there if not small(logdir) else ():
        problems.append(f'the checkpoint names {len(missing)} chunks that are not there')
    problems += unsound(logdir / 'replay' / name for name in sorted(named & there))
    return problems, meta['step']


def small(logdir: Path) -> bool:
    """Whether the run's budget turns over."""
    return f'disk_gb: {TURNOVER_GB}' in (logdir / 'config.yaml').read_text()


def unsound(paths: Iterable[Path]) -> list[str]:
    """Chunk files that are not what their names say; every checksum is compared."""
    problems = []
    for path in paths:
        with np.load(path) as chunk:
            lengths = {len(chunk[key]) for key in chunk}
        if lengths != {int(path.stem.rsplit('-', 1)[1])}:
            problems.append(f'{path.name} holds columns of {lengths} rows')
    return problems


def finish(logdir: Path) -> list[str]:
    """Problems of the logs of the finished run, and of what it left."""
    problems, metrics = [], list(read_lines(logdir / 'metrics.jsonl'))
    steps = [row['step'] for row in metrics]
    if steps != sorted(set(steps)):
        problems.append('metrics.jsonl holds a step twice or out of order')
    if any('nonfinite' in row for row in metrics):
        problems.append('metrics.jsonl holds non-finite numbers')
    return problems + inspect(logdir)[0]


def complete(logdir: Path) -> list[str]:
    """Whether the replay holds every decision of the run once."""
    made, decisions = inspect(logdir)[1], 0
    for path in (logdir / 'replay').glob('*.npz'):
        with np.load(path) as chunk:
            decisions += int((~chunk['is_first']).sum())
    if decisions == made:
        return []
    return [f'the replay holds {decisions} decisions, the run made {made}']


def bounded(logdir: Path) -> list[str]:
    """Whether a replay with a small budget keeps it, and holds the rows that the checkpoint
    says.
    """
    problems, folder = [], logdir / 'replay'
    size = sum(path.stat().st_size for path in folder.rglob('*.npz'))
    if size > TURNOVER_GB * 1e9 + SLACK:
        problems.append(f'the folder holds {size:,} bytes, {TURNOVER_GB * 1e9:,.0f} are allowed')
    trees, _ = Checkpoint(logdir / 'ckpt', 2, problems.append).load()
    named = [name for stream in trees['replay']['streams'] for name in stream['chunks']]
    held = {path.name for path in folder.glob('*.npz')}
    if len(named) != len(set(named)) or set(named) != held:
        problems.append(f'the checkpoint names {len(named)} chunks, {len(held)} are there')
    rows_held = sum(int(name.removesuffix('.npz').rsplit('-', 1)[1]) for name in held)
    if not 0 < rows_held < trees['replay']['seen']:
        problems.append(f'{rows_held} rows are held of {trees["replay"]["seen"]} seen')
    return problems


def lines(found: dict) -> list[str]:
    """What a file of results says, for a page."""
    told, at = [], f'commit {found.get("commit")}'
    for name, what in ('kills', 'one run of `pixel_catch`'), ('turnover', 'one with small budgets'):
        if (part := found.get(name)) and 'ends' in part:
            ends = ', '.join(f'{count} x {kind}' for kind, count in sorted(part['ends'].items()))
            outputs = ', '.join(f'{count} x {kind}' for kind, count in part['outputs'].items())
            score = part.get('return, 100 episodes')
            told.append(
                f'- {sum(part["ends"].values())} ends of {what} ({ends}; output: {outputs}):'
                f' {len(part["problems"])} problems, {part["steps"]:,} decisions'
                + (f', return {score}' if score is not None else '')
                + f' ({at}).'
            )
    if (kills := found.get('kills')) and 'kills' in kills:  # before there were other ends
        told.append(
            f'- {kills["kills"]} times `kill -9` of the whole tree at random moments of one run of'
            f' `pixel_catch`: {len(kills["problems"])} problems,'
            f' {kills["restarts that went further"]} restarts got beyond the one before, return'
            f' {kills["return, 100 episodes"]} after {kills["steps"]:,} decisions ({at}).'
        )
    if faults := found.get('faults'):
        kinds = ', '.join(f'{count} x {kind}' for kind, count in sorted(faults['faults'].items()))
        told.append(
            f'- {sum(faults["faults"].values())} env faults in one run ({kinds}):'
            f' {len(faults["problems"])} problems, {faults["workers replaced"]:.0f} workers'
            f' replaced, return {faults["return, 100 episodes"]} after {faults["steps"]:,}'
            f' decisions ({at}).'
        )
    return told


if __name__ == '__main__':
    start(main)
