"""The agent's configuration at its smallest, for tests."""

from pathlib import Path
from types import SimpleNamespace

import torch

from dreamer4.agent_config import AgentConfig
from dreamer4.machine import MachineConfig
from dreamer4.worlds.dreamer4 import world
from embodied.config import parse

world.BOOTSTRAP_AFTER = 0  # tests make a few updates
CONFIGS = Path(__file__).parents[2] / 'configs'
SMALL = {
    'batch.size': 4,
    'batch.length': 8,
    'batch.frames': 16,
    'tokenizer.width': 16,
    'tokenizer.depth': 1,
    'tokenizer.latents': 4,
    'tokenizer.channels': 4,
    'dynamics.width': 16,
    'dynamics.depth': 2,
    'dynamics.registers': 1,
    'dynamics.levels': 4,
    'heads.width': 16,
    'heads.offsets': 2,
    'heads.bins': 21,
    'heads.limit': 3.0,
    'heads.continuous': 5,
    'imagination.starts': 8,
    'imagination.horizon': 3,
    'actor.context': 4,
    'schedule.gate_sequences': 4,
    'machine.device': 'cpu',
}
# keys of HeadsConfig, where a test builds heads alone
HEADS = dict(
    width=32,
    layers=1,
    offsets=2,
    reads='apart',
    learn_on='committed',
    bins=21,
    limit=2.0,
    continuous=5,
    unimix=0.01,
)


def tiny(**changes) -> tuple[AgentConfig, MachineConfig]:
    """Small settings on the CPU; keys of `changes` are dotted names below `agent`, or begin with
    'machine.'.
    """
    named = {
        k if k.startswith('machine.') else f'agent.{k}': v for k, v in (SMALL | changes).items()
    }
    config = parse([], CONFIGS).update(named)
    return config.agent.build(AgentConfig), config.machine.build(MachineConfig)


def feed(made, sample):
    """The feed of an agent from a function (sequences, rows) -> rows, in place of a replay."""
    draw = lambda *shape, **how: sample(*shape[:2])
    return made.feed(SimpleNamespace(sample=draw, held_out=False))


def train(made, sample) -> dict[str, float]:
    """One update on what a function draws."""
    return made.train(feed(made, sample).next())


def speak(head, std: float = 1.0):
    """Give a fresh head, whose output layers are zero, random ones."""
    for part in head.parts:
        torch.nn.init.normal_(part.output.weight, std=std)


def memorise(tokenizer, obs: dict[str, torch.Tensor], steps: int) -> dict[str, torch.Tensor]:
    """Train a tokenizer on the images of a few frames (B, 1, ...); the metrics of the last step."""
    first = torch.ones(*next(iter(obs.values())).shape[:2], dtype=torch.bool)
    optimizer = torch.optim.Adam(tokenizer.parameters(), 3e-3)
    for _ in range(steps):
        losses, metrics = tokenizer.losses(obs, first)
        optimizer.zero_grad()
        losses['image'].backward()
        optimizer.step()
    return metrics
