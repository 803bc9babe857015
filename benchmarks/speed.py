"""How long each part of an update takes, on this machine, against what the machine could do. One
table, one JSON, minutes.

    python -m benchmarks.speed [--preset dmc_vision] [--sizes size1m size12m ...] [--batch 16]
    [--length 64] [--flags --agent.imagination.starts 256]
    python -m benchmarks.speed --preset pixel --sizes ''             # the pixel preset as it is
    python -m benchmarks.speed --name speed_graphs --flags --machine.graphs true    # on a GPU: as
    CUDA graphs; --machine.compile true beside it
    python -m benchmarks.speed --growth                              # time against batch, length,
    horizon and parameters

Peak: a large matrix product in the precision of the run, measured on the same device before the
parts. FLOPs: counted from the model (dreamer4/summary.py). Launches: operators that reach the
device (CPU: operators that torch dispatches) in one whole update. Rows are random.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from gymnasium import spaces

from dreamer4.agent import Agent
from dreamer4.agent_config import AgentConfig
from dreamer4.feed import Feed
from dreamer4.machine import MachineConfig, settle
from dreamer4.record import WARM, Plain
from dreamer4.summary import parameters, update_flops
from embodied.config import parse

from .command import start, write
from .learning import RESULTS, ROOT, commit, machine

FLAGS = ('is_first', 'is_last', 'is_terminal')
GROWTH = {
    'batch': ('agent.batch.size', (4, 8, 16, 32)),
    'length': ('agent.batch.length', (8, 16, 32, 64)),
    'horizon': ('agent.imagination.horizon', (4, 8, 16)),
    'starts': ('agent.imagination.starts', (32, 64, 128, 256)),
}


def make(preset: str, size: str, changes: dict, flags: list[str]) -> Agent:
    """An agent in its last stage, for 64x64 images (32x32 in the pixel preset) and six
    continuous actions (pixel: two).
    """
    config = parse(
        ['--configs', preset, *([size] if size else []), *flags], ROOT / 'configs'
    ).update({'agent.schedule.dynamics_updates': 0} | changes)
    pixels, dims = (32, 2) if preset == 'pixel' else (64, 6)
    obs = {
        'image': spaces.Box(0, 255, (pixels, pixels, 3), np.uint8),
        'reward': spaces.Box(-np.inf, np.inf, (), np.float32),
    }
    obs |= {key: spaces.Box(0, 1, (), np.bool_) for key in FLAGS}
    machine = config.machine.build(MachineConfig)
    settle(machine)
    agent = Agent(
        obs,
        {'action': spaces.Box(-1, 1, (dims,), np.float32)},
        config.agent.build(AgentConfig),
        machine,
        0,
    )
    agent.schedule.stage = 'policy'
    return agent


def sampler(agent: Agent) -> Callable:
    """Random rows, the same every time."""
    rng, made = np.random.default_rng(0), {}
    shape, dims = agent.world.tokenizer.images['image'].shape, agent.actions.spaces['action'].shape

    def sample(batch, length):
        if (batch, length) not in made:
            made[batch, length] = {
                'image': rng.integers(0, 256, (batch, length, *shape), np.uint8),
                'reward': rng.normal(size=(batch, length)).astype(np.float32),
                'action': rng.uniform(-1, 1, (batch, length, *dims)).astype(np.float32),
                **{key: np.zeros((batch, length), bool) for key in FLAGS},
            }
        return made[batch, length]

    return sample


def feed_of(agent: Agent, sample: Callable) -> Feed:
    """The feed of an agent from a function (sequences, rows) -> rows, in place of a replay."""
    draw = lambda batch, length, **how: sample(batch, length)
    return agent.feed(SimpleNamespace(sample=draw, held_out=False))


def parts(agent: Agent) -> dict[str, Callable[[], object]]:
    """What is timed, by name; recorded as the agent's own work is where it has a recorder."""
    c, sample = agent.config, sampler(agent)
    feed = feed_of(agent, sample)
    rows = sample(c.batch.size, c.batch.length + 1)
    batch = agent.batch(rows)
    with agent.machine.autocast():
        context = agent.world.commit(batch).detach()
    plan = agent.updater.plan(agent.updates, batch.shape, agent.schedule)

    def tokenizer(_) -> dict[str, torch.Tensor]:
        loss, metrics = agent.world.tokenizer_loss(plan.world, batch)
        return metrics | agent.optimizers['tokenizer'].step(loss)

    def model(_) -> dict[str, torch.Tensor]:
        with agent.machine.autocast():
            total, _ = agent.world.model_loss(
                batch,
                agent.world.commit(batch),
                round(len(batch.is_first) * agent.config.shortcut.bootstrap),
                heads=True,
            )
        return agent.optimizers['model'].step(total)

    def dream(_) -> dict[str, torch.Tensor]:
        with agent.machine.autocast():
            return {'features': agent.world.imagine(context, batch, agent.updater.choose).features}

    works = {'tokenizer': tokenizer, 'world model': model, 'imagination': dream}
    carry, envs = (
        agent.init_policy(16),
        {key: value[:1, 0].repeat(16, 0) for key, value in sample(1, 2).items()},
    )
    run = agent.recorder.run
    return {
        name: lambda name=name, work=work: run(name, work, {}) for name, work in works.items()
    } | {
        'acting, 16 envs': lambda: agent.policy(carry, envs),
        'whole update': lambda: agent.train(feed.next()),
    }


def seconds(agent: Agent, work: Callable[[], object], limit: float) -> float:
    """Median seconds of a call, after those that do not count, within about `limit` seconds."""

    def once() -> float:
        synchronize(agent.device)
        start = time.perf_counter()
        work()
        synchronize(agent.device)
        return time.perf_counter() - start

    for _ in range(1 + (WARM + 1) * (not isinstance(agent.recorder, Plain))):
        once()
    times, stop = [once()], time.perf_counter() + limit
    while time.perf_counter() < stop and len(times) < 50:
        times.append(once())
    return statistics.median(times)


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def peak(agent: Agent) -> float:
    """FLOPs per second of a large matrix product in the precision of the run."""
    wide = (
        agent.machine.config.precision == 'float32'
        or agent.device.type == 'cpu'
        and agent.machine.config.precision == 'auto'
    )
    size = 1536 if agent.device.type == 'cpu' else 8192
    a = torch.randn(
        size, size, device=agent.device, dtype=torch.float32 if wide else torch.bfloat16
    )
    return 2 * size**3 / seconds(agent, lambda: a @ a, 2.0)


def launches(agent: Agent, work: Callable[[], object]) -> int:
    """Device kernels of a call; on the CPU the operators that torch dispatches."""
    kind = (
        torch.profiler.ProfilerActivity.CUDA
        if agent.device.type == 'cuda'
        else torch.profiler.ProfilerActivity.CPU
    )
    with torch.profiler.profile(activities=[kind]) as profile:
        work()
        synchronize(agent.device)
    return sum(
        1
        for event in profile.events()
        if kind == torch.profiler.ProfilerActivity.CUDA or event.name.startswith('aten::')
    )


def measure(agent: Agent, limit: float) -> dict:
    """All parts of one agent."""
    if agent.device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(agent.device)
    works, flops, best, every = (
        parts(agent),
        update_flops(agent),
        peak(agent),
        agent.config.imagination.every,
    )
    # updates until every part has had its turn
    cycle = math.lcm(agent.config.tokenizer_training.every, every)
    works['whole update'] = lambda update=works['whole update']: [update() for _ in range(cycle)]
    times = {name: seconds(agent, work, limit) for name, work in works.items()}
    times['whole update'] /= cycle
    counted = {
        'tokenizer': flops['tokenizer'] * agent.config.tokenizer_training.every,
        'world model': flops['world model'] + flops['encode'],
        'imagination': flops['imagination'] * every,
        'whole update': sum(flops.values()),
    }
    return {
        'parameters': parameters(
            agent.world.tokenizer,
            agent.world.dynamics,
            agent.world.heads,
            agent.actor_critic.policy_head,
            agent.actor_critic.value_head,
        ),
        'frames': agent.frames_per_update,
        'peak': best,
        'ms': {name: 1000 * value for name, value in times.items()},
        'share of peak': {name: counted[name] / times[name] / best for name in counted},
        'launches': round(launches(agent, works['whole update']) / cycle),
        'memory_gb': (
            torch.cuda.max_memory_allocated(agent.device) / 1e9
            if agent.device.type == 'cuda'
            else None
        ),
    }


def line(name: str, found: dict) -> str:
    ms, share = found['ms'], found['share of peak']
    cells = [f'{ms[part]:.1f}' + (f' ({share[part]:.0%})' if part in share else '') for part in ms]
    memory = '' if found['memory_gb'] is None else f'{found["memory_gb"]:.1f}'
    rate = 1000 / ms['whole update']
    return (
        f'| {name} | {found["parameters"] / 1e6:.1f}M | '
        + ' | '.join(cells)
        + f' | {rate:.2f} | {rate * found["frames"]:,.0f} | {found["launches"]:,} | {memory} |'
    )


HEAD = (
    '| | parameters | tokenizer ms | world model ms | imagination ms | acting ms | whole update ms'
    ' | updates/s | frames/s | launches | GB |\n|---|---|---|---|---|---|---|---|---|---|---|'
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--preset', default='dmc_vision')
    parser.add_argument('--sizes', nargs='+', default=['size1m', 'size12m', 'size25m', 'size100m'])
    parser.add_argument('--batch', type=int)
    parser.add_argument('--length', type=int)
    parser.add_argument('--seconds', type=float, default=5.0, help='for each number')
    parser.add_argument(
        '--growth',
        action='store_true',
        help='time against batch, length, horizon and starts, of the first size',
    )
    parser.add_argument('--name', default='speed', help='of the result file')
    parser.add_argument(
        '--flags',
        nargs=argparse.REMAINDER,
        default=[],
        help='everything behind goes to the configuration',
    )
    args = parser.parse_args()
    base = {
        f'agent.batch.{key}': value
        for key, value in (('size', args.batch), ('length', args.length))
        if value
    }
    runs = {size or args.preset: (size, {}) for size in args.sizes}
    if args.growth:
        runs = {
            f'{what} {value}': (args.sizes[0], {key: value})
            for what, (key, values) in GROWTH.items()
            for value in values
        }
    path = RESULTS / f'{args.name}.json'
    results = {
        'machine': machine(),
        'commit': commit(),
        'preset': args.preset,
        'flags': args.flags,
        'runs': {},
    }
    print(HEAD, flush=True)
    for name, (size, changes) in runs.items():
        results['runs'][name] = measure(
            make(args.preset, size, base | changes, args.flags), args.seconds
        )
        print(line(name, results['runs'][name]), flush=True)
        RESULTS.mkdir(exist_ok=True)
        write(path, results)
    print(
        f'Peak {max(run["peak"] for run in results["runs"].values()) / 1e12:.3g} TFLOP/s. In'
        ' brackets: share of it.'
    )


if __name__ == '__main__':
    start(main)
