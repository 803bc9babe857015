"""What an agent takes of a device's memory, counted without allocating any of it.

The networks are built on torch's meta device. The losses then run once on fake tensors, which have
shapes and no memory, while hooks count what autograd saves for the way back.

Letters: B sequences, T time, W trajectories, H horizon.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from gymnasium import spaces
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from . import worlds
from .actions import Actions
from .actor_critic import ActorCritic
from .agent_config import AgentConfig
from .batch import Batch, Dream, make_batch
from .machine import Machine, MachineConfig
from .nets.transformer import Block, Transformer
from .summary import parameters, update_flops
from .tasks import Tasks

META, CPU = torch.device('meta'), torch.device('cpu')
ROWS = 2, 4  # sequences of the two batches that are counted; what grows with them is a line
FLOAT = 4  # bytes of a number of parameters, gradients and moments
FLAGS = ('is_first', 'is_last', 'is_terminal')


@dataclass(frozen=True)
class Saved:
    """Bytes that wait for the way back: `fixed` (weights in the precision of the products) and
    `row`, for each sequence of the batch.
    """

    fixed: float
    row: float

    def __call__(self, rows: float) -> float:
        return self.fixed + self.row * rows


@dataclass(frozen=True)
class Footprint:
    """What one update takes.

    Attributes:
        parameters: optimizer -> numbers that it moves. copies: numbers that are only kept: slow
            copies, a frozen loss network.
        shared: those that it moves in transformers, which ranks can share.
        saved: phase -> what autograd saves in it: 'tokenizer' where that learns in a step of its
            own, 'model', and 'policy', the actor and the critic.
        memory: bytes of a dream's keys and values, for each sequence of the batch.
        block: numbers of the largest block of a transformer, the unit that is gathered.
        flops: kind of work -> FLOPs of an update.
        slices: parts of a batch that pass one after the other, for each of which blocks are
            gathered.
    """

    parameters: dict[str, int]
    copies: int
    shared: dict[str, int]
    saved: dict[str, Saved]
    memory: float
    block: int
    flops: dict[str, float]
    slices: int = 1

    def working(self, rows: float) -> float:
        """Most bytes at once of activations and caches for so many sequences: dreams are made
        while the losses of the model wait for their step.
        """
        saved = {name: bytes_of(rows) for name, bytes_of in self.saved.items()}
        waiting = saved.get('model', 0.0) + saved.get('policy', 0.0) + self.memory * rows
        return max(saved.get('tokenizer', 0.0), waiting)


@dataclass
class Parts:
    """An agent's parts on no device, as summaries read them."""

    config: AgentConfig
    machine: Machine
    actions: Actions
    world: worlds.World
    actor_critic: ActorCritic

    @classmethod
    def build(
        cls,
        obs_space: Mapping[str, spaces.Space],
        act_space: Mapping[str, spaces.Space],
        config: AgentConfig,
        machine: MachineConfig,
    ) -> 'Parts':
        """Raises ValueError where settings do not go together."""
        place, c = Machine(machine, 0), config.heads
        actions = Actions(act_space, *c.box, c.unimix)
        place.device = META
        with META:
            world = worlds.find(config.world)(obs_space, Tasks({}), actions, config, place)
            actor_critic = ActorCritic(world.parts, actions, config.actor_critic(), place)
        return cls(config, place, actions, world, actor_critic)

    def modules(self) -> list[nn.Module]:
        """All networks, slow copies included."""
        found = [*vars(self.world).values(), *vars(self.actor_critic).values()]
        found = [getattr(part, 'module', part) for part in found]
        return [part for part in found if isinstance(part, nn.Module) and part is not self.actions]


class Tally:
    """Stands in for an optimizer: a step closes the count of its phase and moves nothing."""

    updates = 1 << 30  # past every warm-up

    def __init__(self, phase: str, counts: 'Counts'):
        self._phase, self._counts = phase, counts

    def begin(self, steps: int = 1, scale: float = 1.0) -> None:
        pass

    def step(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        self._counts.close(self._phase)
        return {}


@dataclass
class Pass:
    """One pass with gradient through a block or a transformer, in bytes.

    Attributes:
        taken: of its input. saved: by it for the way back. blocks: of a transformer, those in it.
    """

    taken: float
    saved: float
    blocks: list['Pass']

    @property
    def again(self) -> float:
        """Saved at most where its blocks keep their inputs and are computed again."""
        if not self.blocks:
            return self.saved
        kept = sum(block.saved - block.taken for block in self.blocks)
        return self.saved - kept + max(block.saved for block in self.blocks)


class Counts:
    """Bytes of different storages that autograd saves, by phase; parameters apart.

    Args:
        known: modules. machine: whether it computes layers again, and in how many parts; the passes
            that are counted do neither.
    """

    def __init__(self, known: list[nn.Module], machine: MachineConfig):
        self._known = {p.untyped_storage()._cdata for part in known for p in part.parameters()}
        self._open, self._kept, self.bytes = {}, [], {}
        self._machine, self._passes, self._within = machine, [], []
        if machine.checkpointing or machine.accumulate > 1:
            for layer in (m for part in known for m in part.modules()):
                if isinstance(layer, Block | Transformer):
                    layer.register_forward_pre_hook(self._enter)
                    layer.register_forward_hook(self._leave)

    def hooks(self):
        """A context that counts."""
        return torch.autograd.graph.saved_tensors_hooks(self._save, lambda x: x)

    def _save(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in self._known:
            self._open[storage._cdata] = storage.nbytes()
            self._kept.append(storage)  # or another one may take its address
        return x

    def close(self, phase: str) -> None:
        """What was saved since the last call belongs to `phase`."""
        self.bytes[phase] = self.bytes.get(phase, 0) + self._waiting()
        self._open, self._kept, self._passes = {}, [], []

    def _waiting(self) -> float:
        """Most bytes at once, the largest of what is computed again included."""
        total, passes, how = sum(self._open.values()), self._passes, self._machine
        if not passes:
            return total
        inside = [one.again if how.checkpointing else one.saved for one in passes]
        if how.accumulate > 1:
            largest = max(inside) / how.accumulate
            return total - sum(one.saved - one.taken for one in passes) + largest
        largest = max((block.saved for one in passes for block in one.blocks), default=0.0)
        kept = sum(block.saved - block.taken for one in passes for block in one.blocks)
        return total - kept + largest

    def _enter(self, layer: nn.Module, args: tuple) -> None:
        if torch.is_grad_enabled():
            taken = args[0].untyped_storage().nbytes()
            self._within.append(Pass(taken, -sum(self._open.values()), []))

    def _leave(self, layer: nn.Module, args: tuple, out) -> None:
        if torch.is_grad_enabled():
            done = self._within.pop()
            done.saved += sum(self._open.values())
            (self._within[-1].blocks if self._within else self._passes).append(done)


def measure(
    obs_space: Mapping[str, spaces.Space],
    act_space: Mapping[str, spaces.Space],
    config: AgentConfig,
    machine: MachineConfig,
) -> Footprint:
    """Count an agent of these spaces.

    Args:
        obs_space, act_space: as for Agent, without flags. config: block `agent`; the weights of
            a perceptual loss are not counted.
        machine: precision and kernels decide what is saved; its device is not asked.

    Raises:
        ValueError: settings that do not go together.
    """
    config = replace(config, tokenizer=replace(config.tokenizer, lpips=0.0))
    whole = Parts.build(obs_space, act_space, config, machine)
    learned, copies = numbers(whole)
    shared, _ = numbers(whole, Transformer)
    blocks = [m for part in whole.modules() for m in part.modules() if isinstance(m, Block)]
    few, many = (counted(obs_space, act_space, share(config, rows), machine) for rows in ROWS)
    lines = {name: line(few[name], many[name]) for name in few}
    memory, times = lines.pop('memory'), machine.checkpointing + (machine.accumulate > 1)
    return Footprint(
        parameters=learned,
        copies=copies,
        shared=shared,
        saved=lines,
        memory=memory.row,
        block=max(map(parameters, blocks), default=max(learned.values())),
        flops=update_flops(whole) | {'computed again': times * whole.world.summary().again},
        slices=machine.accumulate,
    )


def numbers(parts: Parts, kind: type[nn.Module] = nn.Module) -> tuple[dict[str, int], int]:
    """Optimizer -> numbers that it moves, and numbers that are only kept, within modules of a
    kind.
    """
    found = [m for part in parts.modules() for m in part.modules() if isinstance(m, kind)]
    own = {p for module in found for p in module.parameters()}
    optimizers = parts.world.optimizers | parts.actor_critic.optimizers
    learned = {
        name: sum(p.numel() for p in optimizer.parameters if p in own)
        for name, optimizer in optimizers.items()
    }
    return learned, sum(p.numel() for p in own) - sum(learned.values())


def line(few: float, many: float) -> Saved:
    """Through the counts of both batches."""
    row = (many - few) / (ROWS[1] - ROWS[0])
    return Saved(max(0.0, few - row * ROWS[0]), row)


def share(config: AgentConfig, rows: int) -> AgentConfig:
    """The same with a batch of so many sequences, and as much less of what is drawn from it."""
    part = rows / config.batch.size
    frames = max(1, math.ceil(config.batch.frames * part))
    starts = max(1, math.ceil(config.imagination.starts * part))
    return replace(
        config,
        batch=replace(config.batch, size=rows, frames=frames),
        imagination=replace(config.imagination, starts=starts),
    )


def counted(obs_space, act_space, config: AgentConfig, machine: MachineConfig) -> dict[str, float]:
    """Phase -> bytes saved in one update of all parts, and 'memory', those of the dreams' keys and
    values.
    """
    plain = replace(machine, checkpointing=False, accumulate=1)
    parts = Parts.build(obs_space, act_space, config, plain)
    parts.machine.device = CPU  # of the fakes: autocast knows no meta device
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in parts.modules():
            fake(module)
        counts = Counts(parts.modules(), machine)
        for part in (parts.world, parts.actor_critic):
            phase = lambda name: 'tokenizer' if name == 'tokenizer' else 'policy'
            part.optimizers = {name: Tally(phase(name), counts) for name in part.optimizers}
        batch = blank_batch(obs_space, act_space, config, parts.actions)
        stages, rng = (*parts.world.stages, 'value', 'policy'), np.random.default_rng(0)
        turn = worlds.Turn(0, config.batch.size, stages, 1.0, rng)
        with counts.hooks():
            losses = parts.world.losses(parts.world.plan(turn), batch)
            counts.close('model')
            dream = blank_dream(parts)
            parts.actor_critic.learn(dream, parts.actor_critic.score(dream), policy=True)
        length = batch.shape[1] + config.imagination.horizon
        present = [x for pair in getattr(losses.context, 'present', ()) for x in pair]
        each = sum(x[0, :, 0].numel() * x.element_size() for x in present)
    return counts.bytes | {'memory': float(each * length * config.imagination.starts)}


def fake(module: nn.Module) -> None:
    """Put fake tensors of the CPU in place of those without a device."""
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                part._parameters[name] = nn.Parameter(
                    torch.empty_like(p, device=CPU), requires_grad=p.requires_grad
                )
        for name, x in part._buffers.items():
            if x is not None:
                part._buffers[name] = torch.empty_like(x, device=CPU)


def blank_batch(obs_space, act_space, config: AgentConfig, actions: Actions) -> Batch:
    """A batch (B, T) of fakes."""
    shape = config.batch.size, config.batch.length + 1
    kind = lambda space: torch.from_numpy(np.zeros(0, space.dtype)).dtype
    rows = {
        k: torch.zeros(*shape, *s.shape, dtype=kind(s)) for k, s in (obs_space | act_space).items()
    }
    rows |= {k: torch.zeros(shape, dtype=torch.bool) for k in FLAGS}
    return make_batch(rows | {'reward': torch.zeros(shape)}, sorted(obs_space), actions, CPU)


@torch.no_grad()
def blank_dream(parts: Parts) -> Dream:
    """Dreams (W, H) of fakes."""
    count, horizon = parts.config.imagination.starts, parts.config.imagination.horizon
    x, told = torch.zeros(count, horizon + 1, sum(parts.world.parts)), (count, horizon + 1)
    action = parts.actor_critic.policy(x[:, :-1]).sample()
    where = torch.zeros(count, dtype=torch.long)
    return Dream(x, action, torch.zeros(told), torch.zeros(told), where, where)
