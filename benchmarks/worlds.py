"""Every suite once: made, checked against the contract, trained for a moment.

    python -m benchmarks.worlds [--only minigrid vizdoom] [--steps 240]

Takes a minute or more for each suite that is installed. Adds to benchmarks/results/worlds.json;
`python -m benchmarks.pages` writes docs/worlds.md from it. A debug run shows that rows, losses and
checkpoints work, not that anything is learned.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from embodied import envs
from embodied.base import RandomAgent
from embodied.config import parse
from embodied.errors import EmbodiedError, EnvMissing
from embodied.log.jsonl import read_lines

from .command import write
from .learning import RESULTS, ROOT, machine

PATH = RESULTS / 'worlds.json'
# task -> its distribution, and the presets it is trained with
TASKS = {
    'pixel_catch': ('', 'pixel'),
    'dmc_cartpole_swingup': ('dm_control', 'dmc_vision'),
    'gym_CartPole-v1': ('gymnasium', 'gym'),
    'atari_pong': ('ale-py', 'atari100k'),
    'crafter_reward': ('crafter', 'crafter'),
    'procgen_coinrun': ('procgen', 'procgen'),
    'minigrid_Empty-8x8': ('minigrid', 'minigrid'),
    'minigrid_MemoryS7': ('minigrid', 'minigrid'),
    'memmaze_9x9': ('memory-maze', 'memmaze'),
    'metaworld_reach': ('metaworld', 'metaworld'),
    'mujoco_half_cheetah': ('mujoco', 'mujoco'),
    'vizdoom_Basic': ('vizdoom', 'vizdoom'),
    'retro_Airstriker-Genesis': ('stable-retro', 'retro'),
    'craftax_Classic-Symbolic': ('craftax', 'mujoco craftax'),
    'brax_inverted_pendulum': ('brax', 'mujoco brax'),
    'dmlab_rooms_watermaze': ('deepmind_lab', 'dmlab'),
    'unity_editor': ('mlagents-envs', 'mujoco unity'),
}
UNTESTED = {
    'procgen_coinrun': 'no wheel for this Python; the adapter is tested with a stand-in of gym3',
    'dmlab_rooms_watermaze': 'built from source only; the adapter is tested with a stand-in',
    'unity_editor': 'needs a player built with Unity; the adapter is tested with a stand-in',
}
NOTES = {
    'metaworld_reach': 'with MuJoCo 3.3.7: it cannot be made with 3.17, whose eq_data is longer',
    'memmaze_9x9': 'memory-maze imports gym, which its extra brings',
    'retro_Airstriker-Genesis': 'one emulator in a process: driver.envs_per_worker 1',
    'craftax_Classic-Symbolic': 'compiled for minutes before the first step',
}
SPEED_STEPS, CHECK_STEPS = 100, 40
LOSSES = ('loss/', 'tokenizer/total', 'model/total', 'policy/', 'value/')  # names of metrics
# all stages, down to the policy, within a few dozen updates
BRIEFLY = (
    '--run.train_ratio 32 --run.prefill 70 --run.log_every 20 --run.report_every 0'
    ' --agent.schedule.tokenizer_updates 4 --agent.schedule.dynamics_updates 4'
    ' --agent.schedule.value_updates 2 --agent.schedule.gate_every 2'
    ' --agent.schedule.gate_sequences 2'
).split()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', nargs='+', default=[], help='suites; all of them without it')
    parser.add_argument('--steps', type=int, default=240, help='decisions of a debug run')
    parser.add_argument('--timeout', type=float, default=1800, help='seconds of one command')
    args = parser.parse_args()
    found = json.loads(PATH.read_text()) if PATH.exists() else {'tasks': {}}
    found['machine'] = machine()
    for task in TASKS:
        if args.only and task.partition('_')[0] not in args.only:
            continue
        found['tasks'][task] = measure(task, args.steps, args.timeout)
        print(task, json.dumps(found['tasks'][task]), flush=True)
        write(PATH, found)


def measure(task: str, steps: int, timeout: float) -> dict:
    """A row of the table: what was found of a task, in words where something is missing."""
    package, presets = TASKS[task]
    row = {'package': package, 'version': version(package), 'presets': presets}
    row |= {'note': NOTES[task]} if task in NOTES else {}
    config = parse(['--configs', *presets.split()], ROOT / 'configs').env.to_dict()
    try:
        envs.check(task, config)
        if task in UNTESTED:
            return row | {'words': UNTESTED[task]}
        row |= speed(task, config)
    except EnvMissing as error:
        words = UNTESTED.get(task) or str(error).partition(';')[0]
        return row | {'words': words}
    except (EmbodiedError, ImportError, ValueError) as error:
        return row | {'words': f'cannot be made: {type(error).__name__}: {error}'[:200]}
    row['contract'] = checked(task, timeout)
    return row | trained(task, presets, steps, timeout)


def version(package: str) -> str:
    """Of an installed distribution, '' where there is none."""
    try:
        return metadata.version(package) if package else ''
    except metadata.PackageNotFoundError:
        return ''


def speed(task: str, config: dict) -> dict:
    """Frames per second of one env under random play, what is compiled at first left out."""
    env = envs.make(task, config, 0)
    try:
        agent = RandomAgent(env.act_space, 0)
        step = lambda reset: env.step(
            {k: v[0] for k, v in agent.policy({}, {'is_first': np.zeros(1)})[1].items()}
            | {'reset': np.bool_(reset)}
        )
        step(True), step(False)
        begin = time.perf_counter()
        rows = [step(False) for _ in range(SPEED_STEPS)]
        seconds = time.perf_counter() - begin
        decisions = sum(not row['is_first'] for row in rows)
        return {'made': True, 'fps': decisions * env.repeat / seconds}
    finally:
        env.close()


def checked(task: str, timeout: float) -> str:
    """'' where the contract is kept, else the finding."""
    command = ['-m', 'embodied.checks', '--task', task, '--steps', str(CHECK_STEPS)]
    done = run(command, timeout)
    return '' if done is not None and done.returncode == 0 else last_line(done)


def trained(task: str, presets: str, steps: int, timeout: float) -> dict:
    """Whether a debug run ended, and with how many losses, all of them finite."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ['--task', task, '--logdir', folder, '--run.steps', str(steps)]
        command = ['-m', 'dreamer4.main', '--configs', *presets.split(), 'debug', *flags]
        done = run([*command, *BRIEFLY], timeout)
        lines = list(read_lines(Path(folder) / 'metrics.jsonl'))
        losses = [v for line in lines for k, v in line.items() if k.startswith(LOSSES)]
        updates = lines[-1]['updates'] if lines else 0
        finite = bool(losses) and all(v is not None and math.isfinite(v) for v in losses)
        if done is None or done.returncode or not updates or not finite:
            return {'trained': False, 'words': f'debug run failed: {last_line(done)}'}
        return {'trained': True, 'updates': updates, 'losses': len(losses)}


def run(command: list[str], timeout: float) -> subprocess.CompletedProcess | None:
    """A command of this Python; None where it takes longer."""
    environ = os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    with tempfile.TemporaryDirectory() as folder:  # some games write files where they are started
        try:
            return subprocess.run(
                [sys.executable, *command],
                cwd=folder,
                env=environ,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            return None


def last_line(done: subprocess.CompletedProcess | None) -> str:
    """What a command said last."""
    if done is None:
        return 'it took too long'
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1][:200] if lines else f'exit status {done.returncode}'


if __name__ == '__main__':
    main()
