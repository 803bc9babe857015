"""The machine that an agent runs on: device, precision, threads, and the random numbers of torch.

The block `machine` of the configuration says where and how fast, never what is learned: it may
differ between a run and its resumption, evaluation or load.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from .agent_config import AgentConfig
from .cache import CacheConfig
from .nets.attention import KERNELS

PRECISIONS = ('auto', 'float32', 'bfloat16')
SHARDS = ('ddp', 'fsdp', 'none')


@dataclass(frozen=True)
class MachineConfig:
    """Block `machine` of the configuration; meanings stand in configs/defaults.yaml."""

    device: str
    precision: str
    threads: int
    attention: str
    compile: bool
    graphs: bool
    checkpointing: bool
    accumulate: int
    shard: str
    sharded_checkpoint: bool
    cache: CacheConfig


class Machine:
    """Where one agent computes, and its stream of random numbers.

    Args:
        config: block `machine`. seed: of the stream.

    Attributes:
        device: torch.device that parameters and batches live on.

    Raises:
        ValueError: the device is none of this machine.
    """

    def __init__(self, config: MachineConfig, seed: int):
        self.config, self.device = config, find_device(config.device)
        self._inside = False
        self.seed(seed)

    @property
    def half(self) -> bool:
        """Whether products are of bfloat16 ('auto': on CUDA)."""
        kind = self.config.precision
        return kind == 'bfloat16' or (kind == 'auto' and self.device.type == 'cuda')

    def autocast(self) -> AbstractContextManager:
        """bfloat16 autocast where configured, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.half else nullcontext()

    def seed(self, seed: int) -> None:
        """Begin the stream of a seed."""
        self._random = {'cpu': torch.Generator().manual_seed(seed).get_state()}
        if self.device.type == 'cuda':
            generator = torch.Generator(self.device)
            self._random['cuda'] = generator.manual_seed(seed).get_state()

    @contextmanager
    def random(self) -> Iterator[None]:
        """A context in which torch draws from this agent's stream; the caller's is put back."""
        if self._inside:  # the stream is the one in use already
            yield
            return
        outer, self._inside = self._current(), True
        try:
            self._set(self._random)
            yield
        finally:
            self._random, self._inside = self._current(), False
            self._set(outer)

    @contextmanager
    def fixed(self) -> Iterator[None]:
        """A context in which torch draws the same numbers each time; the stream stays as it is."""
        before = self._current()
        try:
            torch.manual_seed(0)
            yield
        finally:
            self._set(before)

    def save(self) -> dict[str, torch.Tensor]:
        """The state of the stream, per kind of device."""
        return self._current() if self._inside else dict(self._random)

    def load(self, tree: Mapping[str, torch.Tensor]) -> None:
        """Take up the stream that save() returned, as far as this machine has the device."""
        known = {kind: tree[kind] for kind in self._random if kind == 'cpu' or kind in tree}
        with self.random():
            self._set(known)

    def _current(self) -> dict[str, torch.Tensor]:
        state = {'cpu': torch.get_rng_state()}
        if self.device.type == 'cuda':
            state['cuda'] = torch.cuda.get_rng_state(self.device)
        return state

    def _set(self, state: Mapping[str, torch.Tensor]) -> None:
        torch.set_rng_state(state['cpu'])
        if 'cuda' in state:
            torch.cuda.set_rng_state(state['cuda'], self.device)


def own_stream(method: Callable) -> Callable:
    """A method of an agent that draws from the stream of its `machine`, not from its caller's."""

    @functools.wraps(method)
    def inside(self, *args, **kwargs):
        with self.machine.random():
            return method(self, *args, **kwargs)

    return inside


def settle(config: MachineConfig) -> None:
    """Set what holds for a whole process: torch's threads, and on CUDA float32 products in TF32.
    For a program that owns its process; neither Agent nor load() does it.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if find_device(config.device).type == 'cuda':
        torch.set_float32_matmul_precision('high')


@contextmanager
def settled(config: MachineConfig) -> Iterator[None]:
    """A context in which settle() holds; the process is as it was afterwards."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    try:
        settle(config)
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


def find_device(name: str) -> torch.device:
    """The device of `machine.device`: 'auto' is CUDA where there is one.

    Raises:
        ValueError: the name is none, or CUDA is asked for and there is none.
    """
    kind = name.partition(':')[0]
    if kind not in ('auto', 'cpu', 'cuda'):
        raise ValueError(f'machine.device must be auto, cpu, cuda or cuda:<number>; got {name!r}')
    if kind == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f'machine.device is {name}, but torch finds no CUDA device here; take auto or cpu'
        )
    return torch.device(name if kind != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu')


def check(machine: MachineConfig, agent: AgentConfig) -> None:
    """Refuse a machine that cannot carry an agent, before anything is built.

    Raises:
        ValueError: naming the setting, what it must be and what it is.
    """
    for name, allowed in (
        ('precision', PRECISIONS),
        ('attention', KERNELS),
        ('shard', SHARDS),
    ):
        if getattr(machine, name) not in allowed:
            raise ValueError(
                f'machine.{name} must be one of {", ".join(allowed)}; got'
                f' {getattr(machine, name)!r}'
            )
    if find_device(machine.device).type == 'cpu' and machine.attention == 'flex':
        raise ValueError(
            'machine.attention flex learns on a GPU alone, but machine.device is the CPU; take auto'
        )
    if machine.accumulate < 1:
        raise ValueError(f'machine.accumulate must be at least 1; got {machine.accumulate}')
    if agent.form and (machine.checkpointing or machine.accumulate > 1):
        raise ValueError(
            'machine.checkpointing and machine.accumulate are for transformers, but agent.world is'
            f' {agent.world}; leave them at false and 1'
        )
    if machine.shard == 'fsdp':
        check_shared(machine, agent)
    if machine.threads < 0:
        raise ValueError(f'machine.threads must be >= 0 (0: torch decides); got {machine.threads}')
    if machine.attention == 'fused' and agent.dynamics.softcap:
        raise ValueError(
            'machine.attention fused has no soft cap, but agent.dynamics.softcap is'
            f' {agent.dynamics.softcap}; take auto'
        )


def check_shared(machine: MachineConfig, agent: AgentConfig) -> None:
    """Refuse what cannot go with parameters that are shared among ranks.

    Raises:
        ValueError: naming the setting.
    """
    if agent.form:
        raise ValueError(
            f'machine.shard fsdp shares transformers, but agent.world is {agent.world}; take ddp'
        )
    if machine.compile:
        raise ValueError('machine.shard fsdp does not go with machine.compile; take ddp')
