"""What every size takes of GPUs, and whether that is what a process takes.

python -m benchmarks.plan            # all sizes, and the check; minutes
python -m benchmarks.plan --check    # the check alone

The check trains for a few updates on the CPU, without and with what saves memory, and compares the
most that each process had with the plan of the same agent.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from dreamer4 import plan
from dreamer4.agent import Agent
from dreamer4.agent_config import AgentConfig
from dreamer4.feed import Meal
from dreamer4.footprint import FLAGS, FLOAT, Footprint, Saved
from dreamer4.machine import MachineConfig
from embodied.config import Config, configs_dir, parse

from .command import start, write
from .learning import RESULTS, ROOT, commit, machine

NAME = 'plan'
SIZES = (
    *(f'size{n}' for n in ('400k', '1m', '5m', '12m', '25m', '50m', '100m', '200m', '400m')),
    'paper2b',
)
GPUS, MEMORY = (8, 64, 256), 80e9
H100 = plan.Hardware(1, MEMORY, 989e12, 50e9, 0.3)
# eight short sequences of the 12M preset, in which activations are most of the memory
CHECK = (
    '--configs dmc_vision size12m --agent.batch.size 8 --agent.batch.frames 64'
    ' --agent.imagination.starts 64 --agent.imagination.horizon 4 --machine.device cpu'
).split()
SAVINGS = {
    'plain': '',
    'checkpointing': '--machine.checkpointing true',
    'accumulate': '--machine.accumulate 4',
}
UPDATES = 2


def settings(size: str) -> Config:
    """The preset of control from pixels in a size."""
    return parse(['--configs', 'dmc_vision', size], configs_dir(ROOT / 'dreamer4'))


def restored(tree: dict) -> Footprint:
    """Inverse of asdict."""
    saved = {name: Saved(**line) for name, line in tree['saved'].items()}
    return Footprint(**tree | {'saved': saved})


def rows(tree: dict, size: str) -> dict[str, str]:
    """Cells of the tables of one size."""
    found, config = restored(tree), settings(size).agent.build(AgentConfig)
    gigabytes = lambda kind, gpus: plan.divide(found, config, kind, gpus).total / 1e9
    least = {kind: plan.fewest(found, config, kind, MEMORY) for kind in plan.KINDS}
    ratio = [
        f'{plan.divide(found, config, kind, gpus).communication(H100):.2g}'
        for kind in ('ddp', 'fsdp')
        for gpus in GPUS
    ]
    memory = [f'{gigabytes("none", 1):.3g}', *(f'{gigabytes(k, 8):.3g}' for k in ('ddp', 'fsdp'))]
    fewest = [str(least[kind] or 'none') for kind in plan.KINDS]
    return {
        'memory': f'| `{size}` | {sum(found.parameters.values()) / 1e6:.1f} M |'
        f' {sum(found.flops.values()) / 1e12:,.2f} | {" | ".join([*memory, *fewest])} |',
        'ratio': f'| `{size}` | {" | ".join(ratio)} |',
    }


def memory_table(found: dict) -> str:
    """Of all sizes, and the check."""
    if not found:
        return 'Not counted yet.'
    lines = [
        '| size | parameters | TFLOPs an update | GB on one GPU | GB on each of 8, ddp | fsdp |'
        ' fewest GPUs of 80 GB: none | ddp | fsdp |',
        '|---|---|---|---|---|---|---|---|---|',
        *(rows(tree, size)['memory'] for size, tree in found['sizes'].items()),
    ]
    checks = []
    for name, one in found['check'].items():
        planned, measured = one['planned'], one['measured']
        words = f'with `{SAVINGS[name]}` ' if SAVINGS[name] else ''
        checks.append(
            f'{words}planned {planned / 1e9:.3f} GB, measured {measured / 1e9:.3f} GB resident,'
            f' {planned / measured - 1:+.0%}'
        )
    words = f'Check, `{" ".join(CHECK)}`: {"; ".join(checks)}.'
    it = found['machine']
    origin = f'Machine: {it["device"]}, {it["cpus"]} logical CPUs, torch {it["torch"]}.'
    return '\n'.join([*lines, '', words, '', f'{origin} Commit {found["commit"]}.'])


def ratio_table(found: dict) -> str:
    """Seconds of communication for a second of computing."""
    if not found:
        return 'Not counted yet.'
    heads = [f'{kind}, {gpus}' for kind in ('ddp', 'fsdp') for gpus in GPUS]
    sizes = {
        k: tree for k, tree in found['sizes'].items() if k in ('size12m', 'size100m', 'paper2b')
    }
    return '\n'.join(
        [
            f'| size | {" | ".join(heads)} |',
            f'|---|{"---|" * len(heads)}',
            *(rows(tree, size)['ratio'] for size, tree in sizes.items()),
        ]
    )


def resident(name: str) -> int:
    """Bytes that this process has ('VmRSS'), or has had at most ('VmHWM')."""
    text = Path('/proc/self/status').read_text()
    return int(re.search(rf'{name}:\s+(\d+)', text)[1]) * 1024


def made(shape: tuple[int, int], seed: int) -> dict[str, np.ndarray]:
    """Rows as a replay would draw them, (B, T+1, ...)."""
    rng, shape = np.random.default_rng(seed), (shape[0], shape[1] + 1)
    return {
        'image': rng.integers(0, 255, (*shape, 64, 64, 3), dtype=np.uint8),
        'action': rng.uniform(-1, 1, (*shape, 6)).astype(np.float32),
        'reward': rng.normal(size=shape).astype(np.float32),
        **{flag: np.zeros(shape, bool) for flag in FLAGS},
    }


def train(saving: str) -> None:
    """Print what a process that learns takes more than one that has only imported torch."""
    torch.set_num_threads(1)
    config = checked(saving).update({'agent.tokenizer.lpips': 0.0})
    agent_config = config.agent.build(AgentConfig)
    x = torch.randn(64, 64, requires_grad=True)
    (x @ x).sum().backward()  # what torch loads at the first call is not of the agent
    before = resident('VmRSS')
    obs_space = {'image': spaces.Box(0, 255, (64, 64, 3), np.uint8)}
    act_space = {'action': spaces.Box(-1, 1, (6,), np.float32)}
    agent = Agent(obs_space, act_space, agent_config, config.machine.build(MachineConfig), 0)
    agent.schedule.stage = 'policy'
    for update in range(UPDATES):
        agent.train(Meal(agent.batch(made(agent_config.batch.shape(update), update)), None))
    print(json.dumps(resident('VmHWM') - before))


def checked(saving: str) -> Config:
    """The agent of the check, with one of SAVINGS."""
    return parse([*CHECK, *SAVINGS[saving].split()], configs_dir(ROOT / 'dreamer4'))


def check(saving: str) -> dict[str, float]:
    """Bytes planned and measured."""
    command = [sys.executable, '-m', 'benchmarks.plan', '--train', saving]
    # what is freed goes back to the system at once: holes of the allocator are not the agent's
    env = os.environ | {'MALLOC_MMAP_THRESHOLD_': '65536'}
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=env)
    config = checked(saving)
    found = plan.count(config, 64, 6)
    share = plan.divide(found, config.agent.build(AgentConfig), 'none', 1)
    assert share.parameters == FLOAT * (sum(found.parameters.values()) + found.copies)
    return {'planned': share.total, 'measured': float(run.stdout.split()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--train', choices=SAVINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        return train(args.train)
    checks = {}
    for saving in SAVINGS:
        one = checks[saving] = check(saving)
        print(
            f'{saving}: ' + 'planned {planned:,.0f}, measured {measured:,.0f}'.format(**one),
            flush=True,
        )
    path = RESULTS / f'{NAME}.json'
    if args.check:
        write(path, json.loads(path.read_text()) | {'check': checks})
        return None
    sizes = {}
    for size in SIZES:
        sizes[size] = asdict(plan.count(settings(size), 64, 6))
        print(size, f'{sum(sizes[size]["parameters"].values()):,}', flush=True)
    found = {'sizes': sizes, 'check': checks, 'machine': machine(), 'commit': commit()}
    write(path, found)
    return None


if __name__ == '__main__':
    start(main)
