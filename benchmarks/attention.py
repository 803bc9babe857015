"""Which attention kernel is the fastest on the shapes in use, on this machine: one table, one JSON,
a minute or two.

    python -m benchmarks.attention [--presets pixel dmc_vision:size12m] [--seconds 0.3]

A row for every use: frames in training (forward and backward) and frames in imagination (forward).
Kernels are those of dreamer4/nets/attention.py. With a soft cap ('cap 50') there are explicit and
flex. Tensors stand in memory as they do in the networks. A kernel that cannot do a row is left
blank; what it said instead is printed.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dreamer4.agent import Agent
from dreamer4.nets.attention import MASKED, attend

from .command import start, write
from .learning import RESULTS, commit, machine
from .speed import make, seconds

KERNELS = {
    'fused': ('fused', 0.0),
    'explicit': ('explicit', 0.0),
    'flex': ('flex', 0.0),
    'explicit, cap 50': ('explicit', 50.0),
    'flex, cap 50': ('flex', 50.0),
}
ENVS = 16  # that act


@dataclass(frozen=True)
class Use:
    """One place where the networks attend.

    Attributes:
        shape: rows, query heads, key-value heads, queries, keys, channels.
        learns: whether the backward pass is timed too.
        keys: how keys and values stand in memory: 'tokens' as they are projected, heads innermost;
            'block' by heads; 'part' some heads of a block.
    """

    shape: tuple[int, ...]
    learns: bool = True
    keys: str = 'tokens'


def uses(agent: Agent) -> dict[str, Use]:
    """Name -> where it attends."""
    c, world, eyes = agent.config, agent.world.dynamics.config, agent.config.tokenizer
    tokens, frames, starts = (
        agent.world.dynamics.layout.size,
        c.batch.size * c.batch.length,
        c.imagination.starts,
    )
    heads, known = (world.heads, world.kv_heads), c.batch.length + c.imagination.horizon
    time = lambda tokens: (world.heads * tokens, world.kv_heads * tokens)
    channels, patches = world.width // world.heads, agent.world.tokenizer.layout.size
    return {
        'tokenizer, space': Use(
            (c.batch.frames, eyes.heads, eyes.heads, patches, patches, eyes.width // eyes.heads)
        ),
        'committed frames, space': Use((frames, *heads, tokens, tokens, channels)),
        'committed frames, space, the token read': Use((frames, *heads, 1, tokens, channels)),
        'committed frames, time': Use(
            (c.batch.size, *time(tokens), c.batch.length, c.batch.length, channels)
        ),
        'noisy frames, space': Use((frames, *heads, tokens - 1, tokens - 1, channels)),
        'noisy frames, time': Use(
            (c.batch.size, *time(tokens - 1), c.batch.length, 2 * c.batch.length, channels),
            keys='block',
        ),
        'imagined frame, space': Use((starts, *heads, tokens, tokens, channels), learns=False),
        'imagined frame, time, denoising': Use(
            (starts, *time(tokens - 1), 1, known, channels), learns=False, keys='part'
        ),
        'imagined frame, time, committing': Use(
            (starts, *time(tokens), 1, known, channels), learns=False, keys='block'
        ),
        'acting, time': Use((ENVS, *time(tokens), 1, c.actor.context, channels), learns=False),
    }


def call(agent: Agent, use: Use, kernel: str, softcap: float) -> Callable[[], object]:
    """One call of a kernel, with its backward pass where the use learns."""
    rows, groups, shared, queries, keys, channels = use.shape
    kind = torch.bfloat16 if agent.device.type == 'cuda' else torch.float32
    draw = lambda *shape: torch.randn(
        shape, device=agent.device, dtype=kind, requires_grad=use.learns
    )
    past = {
        'tokens': lambda: draw(rows, keys, shared, channels).transpose(1, 2),
        'block': lambda: draw(rows, shared, keys, channels),
        'part': lambda: draw(rows, shared + shared // 4 + 1, keys, channels)[:, :shared],
    }[use.keys]
    q, k, v = draw(rows, queries, groups, channels).transpose(1, 2), past(), past()
    bias = torch.where(torch.rand(queries, keys, device=agent.device) < 0.3, MASKED, 0.0)
    bias[:, 0] = 0
    slope = torch.randn_like(q)

    def once() -> object:
        out = attend(q, k, v, bias[None, None], softcap, kernel)
        return torch.autograd.grad(out, (q, k, v), slope) if use.learns else out

    return once


def measure(agent: Agent, limit: float) -> dict[str, dict]:
    """Use -> its shape and the microseconds of every kernel, None where one cannot do it."""
    found, refused = {}, {}
    for place, use in uses(agent).items():
        found[place] = {'shape': use.shape, 'learns': use.learns, 'us': {}}
        for name, (kernel, softcap) in KERNELS.items():
            try:
                with torch.set_grad_enabled(use.learns):
                    found[place]['us'][name] = 1e6 * seconds(
                        agent, call(agent, use, kernel, softcap), limit
                    )
            # whatever a kernel, its compiler or its driver says: the others are still to be
            # measured
            except Exception as error:
                found[place]['us'][name] = None
                refused.setdefault(
                    f'{type(error).__name__}: {str(error).splitlines()[0]}', []
                ).append(f'{place} ({name})')
    for reason, where in refused.items():
        print(f'{reason}\n    {"; ".join(where)}', flush=True)
    return found


def table(results: dict) -> str:
    """Markdown; microseconds, the fastest without a soft cap in bold."""
    lines = [
        '| preset, use | rows x heads x queries x keys x channels | ' + ' | '.join(KERNELS) + ' |',
        '|---|---|' + '---|' * len(KERNELS),
    ]
    for preset, found in results['presets'].items():
        for use, one in found.items():
            rows, groups, _, queries, keys, channels = one['shape']
            best = min(
                value
                for name, value in one['us'].items()
                if value is not None and not KERNELS[name][1]
            )
            cells = [
                '' if value is None else f'**{value:,.0f}**' if value == best else f'{value:,.0f}'
                for value in one['us'].values()
            ]
            lines.append(
                f'| {preset}, {use} | {rows} x {groups} x {queries} x {keys} x {channels} | '
                + ' | '.join(cells)
                + ' |'
            )
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--presets',
        nargs='+',
        default=['pixel', 'dmc_vision:size400k', 'dmc_vision:size12m'],
        help='preset or preset:size',
    )
    parser.add_argument('--seconds', type=float, default=0.3, help='for each number')
    parser.add_argument('--threads', type=int, default=1, help='on a CPU')
    parser.add_argument('--name', default='attention', help='of the result file')
    args = parser.parse_args()
    results = {'machine': machine(), 'commit': commit(), 'threads': args.threads, 'presets': {}}
    for preset in args.presets:
        base, _, size = preset.partition(':')
        results['presets'][preset] = measure(
            make(base, size, {}, ['--machine.threads', str(args.threads)]), args.seconds
        )
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / f'{args.name}.json', results)
    print(table(results))


if __name__ == '__main__':
    start(main)
