"""Training steps and generation of public Dreamer 4 code beside ours: the same shapes, in turns, in
one run. Two minutes on a CPU.

    python -m benchmarks.peers --nicklashansen CHECKOUT --lucidrains CHECKOUT --vijayabhaskar
        CHECKOUT --machines-in-motion CHECKOUT [--with PATH ...] [--rounds 7] [--threads 1]
        [--compile]

Every peer that is given runs in a process of its own (peer_dreamer4.py) from a checkout that
whoever runs this has made. Seconds are medians; what is not equal between the contestants stands in
benchmarks/peers.md. Results: benchmarks/results/peers.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from dreamer4.actions import Actions
from dreamer4.agent_config import AgentConfig
from dreamer4.nets.transformer import causal_mask
from dreamer4.optim import Optimizer
from dreamer4.worlds.dreamer4 import shortcut
from dreamer4.worlds.dreamer4.dynamics import Context, Dynamics, Given
from dreamer4.worlds.dreamer4.rollout import predict
from dreamer4.worlds.dreamer4.tokenizer import Tokenizer
from dreamer4.worlds.dreamer4.world import compile_parts
from embodied.config import parse

from .command import start, write
from .learning import RESULTS, ROOT, commit, machine
from .runtime import Peer

SHAPES = {
    'size': 64,
    'patch': 8,
    'width': 128,
    'heads': 4,
    'latents': 16,
    'channels': 16,
    'tokenizer_depth': 4,
    'dynamics_depth': 6,
    'time_every': 2,
    'registers': 2,
    'pack': 2,
    'levels': 16,
    'batch': 4,
    'clip': 8,
    'time': 16,
    'context': 16,
    'horizon': 8,
    'steps': 4,
    'bootstrap_rows': 1,
}
MEASURES = ('tokenizer', 'dynamics', 'generate')
PEERS = {  # the adapters of peer_dreamer4.py -> their repositories
    'nicklashansen': 'nicklashansen/dreamer4',
    'lucidrains': 'lucidrains/dreamer4',
    'vijayabhaskar': 'vijayabhaskar-ev/dreamer_v4',
    'machines-in-motion': 'machines-in-motion/dreamer-v4',
}

# the fastest two; of the others one takes many minutes to compile, one fails at generation
COMPILED = ('nicklashansen', 'machines-in-motion')


class Ours:
    """Our networks and losses in these shapes; the same questions as a Peer.

    Args:
        history: of the training step: 'commit' makes two passes, one over committed and one over
            noisy frames, as a run does; 'forcing' makes the one pass over noisy frames that other
            code makes, too.
        compiled: as with machine.compile.
    """

    def __init__(self, s: dict, device: str, history: str, compiled: bool = False):
        self.s, self.device, self.history = s, torch.device(device), history
        config = (
            parse(['--configs', 'dmc_vision'], ROOT / 'configs')
            .update(
                {
                    'agent.tokenizer.patch': s['patch'],
                    'agent.tokenizer.width': s['width'],
                    'agent.tokenizer.depth': s['tokenizer_depth'],
                    'agent.tokenizer.latents': s['latents'],
                    'agent.tokenizer.channels': s['channels'],
                    'agent.tokenizer.time_every': 4,
                    'agent.dynamics.width': s['width'],
                    'agent.dynamics.depth': s['dynamics_depth'],
                    'agent.dynamics.time_every': s['time_every'],
                    'agent.dynamics.registers': s['registers'],
                    'agent.dynamics.levels': s['levels'],
                    'agent.shortcut.history': history,
                    'agent.shortcut.bootstrap': s['bootstrap_rows'] / s['batch'],
                }
            )
            .agent.build(AgentConfig)
        )
        self.config, image = config, spaces.Box(0, 255, (s['size'], s['size'], 3), np.uint8)
        self.codec = Actions({'action': spaces.Box(-1, 1, (16,), np.float32)}, 'bins', 11, 0.01).to(
            self.device
        )
        self.nets = {
            'tokenizer': Tokenizer({'image': image}, config.tokenizer).to(self.device),
            'dynamics': (
                Dynamics((s['latents'], s['channels']), self.codec.features, 1, config.dynamics).to(
                    self.device
                )
            ),
        }
        self.optimizers = {
            name: Optimizer({'dynamics': 'model'}.get(name, name), [net], config.optim)
            for name, net in self.nets.items()
        }
        for optimizer in self.optimizers.values():
            optimizer.begin()
        if compiled:
            compile_parts(self.nets['tokenizer'], self.nets['dynamics'])
        make = lambda *shape: torch.rand(*shape, device=self.device)
        self.video = {'image': (255 * make(s['batch'], s['clip'], s['size'], s['size'], 3)).byte()}
        world = self.nets['dynamics']
        self.latents = make(s['batch'], s['time'], world.tokens, world.channels) * 2 - 1
        self.codes = self.codec.uniform(s['batch'], s['time'])

    def ask(self, name: str, *numbers: float) -> float:
        if name == 'parameters':
            return (
                sum(
                    p.numel()
                    for p in self.nets[('tokenizer', 'dynamics')[int(numbers[0])]].parameters()
                )
                / 1e6
            )
        begin = time.perf_counter()
        with torch.autocast('cuda', torch.bfloat16, enabled=self.device.type == 'cuda'):
            getattr(self, name)()
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    def close(self) -> None:
        pass

    def tokenizer(self) -> None:
        losses, _ = self.nets['tokenizer'].losses(
            self.video,
            torch.zeros(self.s['batch'], self.s['clip'], dtype=torch.bool, device=self.device),
        )
        self.optimizers['tokenizer'].step(sum(losses.values()))

    def _known(self) -> tuple[Given, torch.Tensor]:
        """Actions of all frames, and where episodes begin: nowhere."""
        first = torch.zeros(self.s['batch'], self.s['time'], dtype=torch.bool, device=self.device)
        return Given(self.codec.embed(self.codes), ~first), first

    def dynamics(self) -> None:
        given, first = self._known()
        net, z = self.nets['dynamics'], self.latents
        if self.history == 'commit':
            context = net.commit(z, given, first)
        else:
            context = Context(z, z, z, None, [], causal_mask(first))
        losses = shortcut.loss(
            net, context, given, first, self.config.shortcut, self.s['bootstrap_rows']
        )
        self.optimizers['dynamics'].step(sum(loss.mean() for loss in losses.values()))

    @torch.no_grad()
    def generate(self) -> None:
        context = self.nets['dynamics'].commit(self.latents, *self._known(), wanted=slice(0))
        rows = torch.arange(self.s['batch'], device=self.device)
        action = self.codec.embed(self.codes[:, : self.s['horizon']])
        predict(
            self.nets['dynamics'],
            context,
            rows,
            rows * 0 + self.s['context'] - 1,
            action,
            self.s['steps'],
        )


def main() -> None:
    args = asked()
    torch.set_num_threads(args.threads)
    contestants = enter(args, 'cuda' if torch.cuda.is_available() else 'cpu')
    millions = {
        name: [one.ask('parameters', i) for i in (0, 1)] for name, one in contestants.items()
    }
    for name, one in list(contestants.items()):  # the round that compiles and does not count
        try:
            for what in MEASURES * 2:
                one.ask(what)
        except RuntimeError as error:
            print(f'{name} is left out: {error}')
            del contestants[name]
    rounds = [
        {(name, what): one.ask(what) for what in MEASURES for name, one in contestants.items()}
        for _ in range(args.rounds)
    ]
    seconds = {key: statistics.median(turn[key] for turn in rounds) for key in rounds[0]}
    for one in contestants.values():
        one.close()
    result = {
        'machine': machine(),
        'commit': commit(),
        'shapes': SHAPES,
        'threads': args.threads,
        'rounds': args.rounds,
        'millions': millions,
        'seconds': {name: {what: seconds[name, what] for what in MEASURES} for name in contestants},
    }
    RESULTS.mkdir(exist_ok=True)
    write(RESULTS / 'peers.json', result)
    print(table(result))


def asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, repository in PEERS.items():
        parser.add_argument(
            f'--{name}', dest=name, metavar='CHECKOUT', help=f'checkout of github.com/{repository}'
        )
    parser.add_argument(
        '--with',
        dest='others',
        nargs='+',
        default=[],
        help='folders with packages that peers import and that are not installed',
    )
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument(
        '--compile',
        action='store_true',
        help=(
            'also compiled: ours as with machine.compile, the networks of the two fastest peers'
            ' with torch.compile; takes some minutes more'
        ),
    )
    return parser.parse_args()


def enter(args: argparse.Namespace, device: str) -> dict[str, 'Ours | Peer']:
    """All that are measured, by name."""
    contestants = {
        'ours': Ours(SHAPES, device, 'commit'),
        'ours, diffusion forcing': Ours(SHAPES, device, 'forcing'),
    }
    if args.compile:
        contestants |= {
            f'{name}, compiled': Ours(SHAPES, device, history, True)
            for name, history in (('ours', 'commit'), ('ours, diffusion forcing', 'forcing'))
        }
    for name in (name for name in PEERS if vars(args)[name]):
        for compiled in (False, True) if args.compile and name in COMPILED else (False,):
            shapes = json.dumps(
                SHAPES | {'threads': args.threads, 'device': device, 'compiled': compiled}
            )
            place = str(Path(vars(args)[name]).resolve())
            contestants[f'{name}, compiled' if compiled else name] = Peer(
                ROOT / 'benchmarks' / 'peer_dreamer4.py',
                [Path(one).resolve() for one in args.others],
                [name, place, shapes],
            )
    return contestants


def table(result: dict) -> str:
    """Markdown; times in milliseconds, generation in frames per second, in brackets ours over
    theirs.
    """
    ours, made = result['seconds']['ours'], result['shapes']['batch'] * result['shapes']['horizon']
    lines = [
        (
            '| | parameters, tokenizer + dynamics | tokenizer step ms (ours / theirs) | dynamics'
            ' step ms | generated frames/s |'
        ),
        '|---|---|---|---|---|',
    ]
    for name, found in result['seconds'].items():
        cells = [
            f'{1000 * found[what]:.0f} ({ours[what] / found[what]:.2f})'
            for what in ('tokenizer', 'dynamics')
        ]
        rate = made / found['generate']
        lines.append(
            f'| {name} | {result["millions"][name][0]:.2f}M + {result["millions"][name][1]:.2f}M | '
            + ' | '.join(cells)
            + f' | {rate:.1f} ({found["generate"] / ours["generate"]:.2f}) |'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    start(main)
