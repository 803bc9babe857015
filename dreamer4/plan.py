"""What a run takes before anything is bought: memory of each GPU, GPUs, hours.

    python -m dreamer4.plan --configs dmc_vision paper2b --gpus 8 --gpu-gb 80

Presets and flags are those of dreamer4.main. Nothing is allocated and no GPU is needed: see
footprint.py. One batch of the configuration is shared by all GPUs; where it has fewer sequences
than there are GPUs, each takes one and the batch grows.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from gymnasium import spaces

from embodied.config import Config, configs_dir, parse
from embodied.errors import ConfigError, brief

from .agent_config import AgentConfig
from .agent_config import check as check_agent
from .footprint import FLOAT, Footprint, measure
from .machine import MachineConfig

KINDS = ('none', 'ddp', 'fsdp')  # all on one; the batch is shared; the transformers are, too
MOMENTS = 2  # of AdamW and LaProp, beside the parameters and their gradients
HALF = 2  # bytes of a gathered parameter
GATHERED = 2  # blocks whose gradients are whole at once: the one in use and the next
# passes that gather blocks, of each slice of the batch and of all of it. Of the dynamics: committed
# and denoising, both ways; two of the teacher, and one for all steps of the dreams, which keep what
# was gathered. Of the tokenizer: both ways; one for the latents. What is computed again on the way
# back finds them there.
GATHERS = {'model': (2 * 2, 2 + 1), 'tokenizer': (2, 1)}
KEPT = 0.9  # of a GPU: CUDA itself and what the allocator cannot use take the rest
MOST = 4096  # GPUs that are tried


@dataclass(frozen=True)
class Hardware:
    """What a GPU is taken to be.

    Attributes:
        gpus: so many. memory: bytes of one. peak: FLOPs a second of one. link: bytes a second that
            one sends to the others. utilisation: share of the peak that is reached.
    """

    gpus: int
    memory: float
    peak: float
    link: float
    utilisation: float


@dataclass(frozen=True)
class Share:
    """What one GPU holds at its peak, in bytes, and what an update costs it.

    Attributes:
        kind: of KINDS. gpus: that share the work. rows: sequences of the batch that are its own.
        sent: bytes that it sends in an update. flops: of an update.
    """

    kind: str
    gpus: int
    rows: float
    parameters: float
    gradients: float
    moments: float
    buffers: float
    working: float
    sent: float
    flops: float

    @property
    def total(self) -> float:
        return self.parameters + self.gradients + self.moments + self.buffers + self.working

    def communication(self, hardware: Hardware) -> float:
        """Seconds of communication for each second of computing, where neither hides the other."""
        computing = self.flops / (hardware.peak * hardware.utilisation)
        return self.sent / hardware.link / computing


def divide(found: Footprint, config: AgentConfig, kind: str, gpus: int) -> Share:
    """What each of `gpus` holds and sends; 'none' is one alone, whatever their number."""
    gpus = 1 if kind == 'none' else gpus
    rows = max(1.0, config.batch.size / gpus)
    grown = rows * gpus / config.batch.size
    learned, largest = sum(found.parameters.values()), max(found.parameters.values())
    shared = sum(found.shared.values()) if kind == 'fsdp' else 0
    apart = 1 - 1 / gpus  # of what is shared, others have so much
    buffers = {
        'none': 0.0,
        'ddp': FLOAT * largest,  # the gradients once more, in one piece
        # a dream keeps the dynamics whole
        'fsdp': HALF * found.shared.get('model', 0) + GATHERED * found.block * FLOAT,
    }[kind]
    working = found.working(rows)
    if kind == 'fsdp':  # weights in half precision are those of the gathered blocks
        working -= max(saved.fixed for saved in found.saved.values()) * apart * shared / learned
    return Share(
        kind=kind,
        gpus=gpus,
        rows=rows,
        parameters=FLOAT * (learned + found.copies - shared * apart),
        gradients=FLOAT * (learned - shared * apart),
        moments=MOMENTS * FLOAT * (learned - shared * apart),
        buffers=buffers if gpus > 1 else 0.0,
        working=working,
        sent=sent(found, config, kind, gpus),
        flops=sum(found.flops.values()) * grown / gpus,
    )


def sent(found: Footprint, config: AgentConfig, kind: str, gpus: int) -> float:
    """Bytes that each GPU sends in an update, by rings: an all-reduce sends 2 (n - 1) / n of its
    numbers, a gather and a scatter half of that each.
    """
    dream = config.imagination.epochs / config.imagination.every
    steps = {'policy': dream, 'value': dream, 'tokenizer': 1 / config.tokenizer_training.every}
    ring, total = (gpus - 1) / gpus, 0.0
    for name, count in found.parameters.items():
        shared = found.shared[name] if kind == 'fsdp' else 0
        each, once = GATHERS.get(name, (0, 0))
        gathered = (each * found.slices + once) * HALF
        bytes_of = 2 * FLOAT * (count - shared) + (FLOAT + gathered) * shared
        total += steps.get(name, 1.0) * bytes_of
    return ring * total


def fewest(found: Footprint, config: AgentConfig, kind: str, memory: float) -> int | None:
    """Fewest GPUs, a power of two, that hold it; None where not even MOST do."""
    gpus = 1
    while gpus <= (1 if kind == 'none' else MOST):
        if divide(found, config, kind, gpus).total <= KEPT * memory:
            return gpus
        gpus *= 2
    return None


def hours(share: Share, config: Config, frames: float, hardware: Hardware) -> float:
    """For so many frames of the env, where learning is all that takes time."""
    block = config.task.partition('_')[0] or 'dmc'
    known = config.env.to_dict().get(block, {})
    decisions = frames / known.get('repeat', 1)
    batch = config.agent.batch
    updates = decisions * config.run.train_ratio / (batch.size * batch.length)
    if share.rows * share.gpus > batch.size:  # larger batches, and as many rows replayed
        updates *= batch.size / (share.rows * share.gpus)
    return updates * share.flops / (hardware.peak * hardware.utilisation) / 3600


def count(config: Config, image: int, actions: int) -> Footprint:
    """The footprint of a configuration, on what an env of one camera shows.

    Raises:
        ConfigError: settings that cannot work.
    """
    agent, machine = config.agent.build(AgentConfig), config.machine.build(MachineConfig)
    if machine.device != 'cpu' and machine.precision == 'auto':
        machine = replace(machine, precision='bfloat16')
    if machine.device != 'cpu' and machine.attention == 'auto' and not agent.dynamics.softcap:
        machine = replace(machine, attention='fused')
    obs_space = {'image': spaces.Box(0, 255, (image, image, 3), np.uint8)}
    act_space = {'action': spaces.Box(-1, 1, (actions,), np.float32)}
    try:
        check_agent(agent)
        return measure(obs_space, act_space, agent, replace(machine, device='cpu'))
    except ValueError as error:
        raise ConfigError(str(error)) from error


HEAD = (
    f'{"":<6}{"GPUs":>5}{"rows":>7}{"params":>9}{"grads":>8}{"moments":>9}{"buffers":>9}'
    f'{"working":>9}{"total":>9}  fits  {"sent":>9}{"comm/comp":>11}{"hours":>10}'
)


def table(found: Footprint, config: Config, hardware: Hardware, frames: float) -> list[str]:
    """Lines of the plan: 10^9 bytes on each GPU."""
    agent, lines = config.agent.build(AgentConfig), [HEAD]
    for kind in KINDS:
        share = divide(found, agent, kind, hardware.gpus)
        sizes = (share.parameters, share.gradients, share.moments, share.buffers, share.working)
        numbers = [f'{size / 1e9:.2f}' for size in (*sizes, share.total)]
        cells = ''.join(f'{text:>{w}}' for text, w in zip(numbers, (9, 8, 9, 9, 9, 9)))
        fits = 'yes' if share.total <= KEPT * hardware.memory else 'no'
        lines.append(
            f'{kind:<6}{share.gpus:>5}{share.rows:>7.3g}{cells}  {fits:<4}'
            f'{share.sent / 1e9:>9.2f}{share.communication(hardware):>11.3f}'
            f'{hours(share, config, frames, hardware):>10,.1f}'
        )
    for kind in KINDS:
        least = fewest(found, agent, kind, hardware.memory)
        words = f'{least} of {hardware.memory / 1e9:g} GB' if least else 'does not fit'
        lines.append(f'{kind}: {words}')
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.partition('\n\n')[0],
        allow_abbrev=False,
        epilog='Further flags are those of dreamer4.main: --configs, --agent.batch.size ...',
    )
    parser.add_argument('--gpus', type=int, default=8)
    parser.add_argument('--gpu-gb', type=float, default=80.0, help='memory of one, 10^9 bytes')
    parser.add_argument('--peak', type=float, default=989.0, help='TFLOPs a second of one')
    parser.add_argument('--link', type=float, default=50.0, help='GB a second that one sends')
    parser.add_argument('--utilisation', type=float, default=0.3, help='share of the peak')
    parser.add_argument('--frames', type=float, default=1e6, help='frames of the env')
    parser.add_argument('--image', type=int, default=64, help='side of its image in pixels')
    parser.add_argument('--actions', type=int, default=6, help='numbers of its action')
    said, rest = parser.parse_known_args(argv)
    hardware = Hardware(
        said.gpus, said.gpu_gb * 1e9, said.peak * 1e12, said.link * 1e9, said.utilisation
    )
    try:
        config = parse(rest, configs_dir(Path(__file__).parent))
        if not 0 < said.utilisation <= 1 or min(said.gpus, said.gpu_gb, said.peak, said.link) <= 0:
            raise ConfigError('--gpus, --gpu-gb, --peak, --link and --utilisation are above 0')
        found = count(config, said.image, said.actions)
    except ConfigError as error:
        print(f'plan: {brief(error)}', file=sys.stderr)
        return 2
    numbers = ', '.join(f'{k} {v / 1e6:.2f}M' for k, v in found.parameters.items())
    print(f'parameters: {numbers}; kept copies {found.copies / 1e6:.2f}M')
    print(
        f'{sum(found.flops.values()) / 1e12:,.2f} TFLOPs an update',
        '10^9 bytes on each GPU:',
        sep='\n',
    )
    print('\n'.join(table(found, config, hardware, said.frames)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
