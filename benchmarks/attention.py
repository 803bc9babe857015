"""Which attention kernel is the fastest on the shapes in use, on this machine: one table, one JSON, a minute or two.

    python -m benchmarks.attention [--presets pixel dmc_vision:size12m] [--seconds 0.3]

A row for every use: frames in training (forward and backward) and frames in imagination (forward). Kernels are those of dreamer4/nets/attention.py.
The explicit one stands for all that has a soft cap; 'flex, cap 50' is FlexAttention with one. A kernel that cannot do a row is left blank; what it
said instead is printed.
"""

import argparse
import json
import statistics
import time

import torch

from dreamer4.agent import Agent
from dreamer4.nets.attention import MASKED, attend

from .learning import RESULTS, commit, machine
from .speed import make, synchronize

KERNELS = {'fused': ('fused', 0.0), 'explicit': ('explicit', 0.0), 'flex': ('flex', 0.0), 'explicit, cap 50': ('explicit', 50.0), 'flex, cap 50': ('flex', 50.0)}


def uses(agent: Agent) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Name -> (rows, query heads, key-value heads, queries, keys, channels), whether it learns."""
    c, world, eyes = agent.config, agent.dynamics, agent.tokenizer
    batch, time, width = c.batch.size, c.batch.length, c.dynamics
    starts, known = c.imagination.starts, c.batch.length + c.imagination.horizon
    tokens, heads, shared = world.layout.size, width.heads, width.kv_heads
    channels = width.width // heads
    return {
        'tokenizer, space': ((c.batch.frames, c.tokenizer.heads, c.tokenizer.heads, eyes.layout.size, eyes.layout.size, c.tokenizer.width // c.tokenizer.heads), True),
        'committed frames, space': ((batch * time, heads, shared, tokens, tokens, channels), True),
        'committed frames, time': ((batch, tokens * heads, tokens * shared, time, time, channels), True),
        'noisy frames, space': ((batch * time, heads, shared, tokens - 1, tokens - 1, channels), True),
        'noisy frames, time': ((batch, (tokens - 1) * heads, (tokens - 1) * shared, time, 2 * time, channels), True),
        'imagined frame, space': ((starts, heads, shared, tokens, tokens, channels), False),
        'imagined frame, time': ((starts, tokens * heads, tokens * shared, 1, known, channels), False)}


def seconds(agent: Agent, shape: tuple[int, ...], learns: bool, kernel: str, softcap: float, limit: float) -> float:
    """Median seconds of a call."""
    rows, groups, shared, queries, keys, channels = shape
    kind = torch.bfloat16 if agent.device.type == 'cuda' else torch.float32
    q, k, v = (
        torch.randn(rows, heads, count, channels, device=agent.device, dtype=kind, requires_grad=learns)
        for heads, count in ((groups, queries), (shared, keys), (shared, keys)))
    bias = torch.where(torch.rand(queries, keys, device=agent.device) < 0.3, MASKED, 0.0)
    bias[:, 0] = 0
    slope = torch.randn_like(q)

    def once() -> float:
        synchronize(agent.device)
        begin = time.perf_counter()
        out = attend(q, k, v, bias[None, None], softcap, kernel)
        if learns:
            torch.autograd.grad(out, (q, k, v), slope)
        synchronize(agent.device)
        return time.perf_counter() - begin
    for _ in range(3):
        once()
    times, stop = [once()], time.perf_counter() + limit
    while time.perf_counter() < stop:
        times.append(once())
    return statistics.median(times)


def measure(agent: Agent, limit: float) -> dict[str, dict]:
    """Use -> its shape and the microseconds of every kernel, None where one cannot do it."""
    found = {}
    for use, (shape, learns) in uses(agent).items():
        found[use] = {'shape': shape, 'learns': learns, 'us': {}}
        for name, (kernel, softcap) in KERNELS.items():
            try:
                with torch.set_grad_enabled(learns):
                    found[use]['us'][name] = 1e6 * seconds(agent, shape, learns, kernel, softcap, limit)
            except Exception as error:  # whatever a kernel, its compiler or its driver says: the others are still to be measured
                found[use]['us'][name] = None
                print(f'{use}, {name}: {type(error).__name__}: {str(error).splitlines()[0]}', flush=True)
    return found


def table(results: dict) -> str:
    """Markdown; microseconds, the fastest without a soft cap in bold."""
    lines = ['| preset, use | rows x heads x queries x keys x channels | ' + ' | '.join(KERNELS) + ' |', '|---|---|' + '---|' * len(KERNELS)]
    for preset, found in results['presets'].items():
        for use, one in found.items():
            rows, groups, _, queries, keys, channels = one['shape']
            best = min(value for name, value in one['us'].items() if value is not None and not KERNELS[name][1])
            cells = ['' if value is None else f'**{value:,.0f}**' if value == best else f'{value:,.0f}' for value in one['us'].values()]
            lines.append(f'| {preset}, {use} | {rows} x {groups} x {queries} x {keys} x {channels} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--presets', nargs='+', default=['pixel', 'dmc_vision:size400k', 'dmc_vision:size12m'], help='preset or preset:size')
    parser.add_argument('--seconds', type=float, default=0.3, help='for each number')
    parser.add_argument('--threads', type=int, default=1, help='on a CPU')
    parser.add_argument('--name', default='attention', help='of the result file')
    args = parser.parse_args()
    results = {'machine': machine(), 'commit': commit(), 'threads': args.threads, 'presets': {}}
    for preset in args.presets:
        base, _, size = preset.partition(':')
        results['presets'][preset] = measure(make(base, size, {}, ['--agent.threads', str(args.threads)]), args.seconds)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f'{args.name}.json').write_text(json.dumps(results, indent=1) + '\n')
    print(table(results))


if __name__ == '__main__':
    main()
