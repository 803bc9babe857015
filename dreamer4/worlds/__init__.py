"""What a world model is to the agent, and which there are.

A world model takes in what was observed, keeps a state of it, and says from that state what comes
next. The agent knows nothing else of it: actor and critic read features, and learn from dreams.

Another world model is one file here and one line of WORLDS.
Letters: N envs, B sequences, T time, W trajectories, H horizon, M action code, F features.
"""

import importlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..batch import Batch, Dream
from ..optim import Optimizer
from ..tasks import Tasks

Carry = dict[str, torch.Tensor]
Metrics = dict[str, torch.Tensor]
Act = Callable[[torch.Tensor, torch.Tensor | None], tuple[torch.Tensor, torch.Tensor]]

# `agent.world` -> the module, below this package, and its class; imported when it is asked for.
WORLDS = {
    'dreamer4': 'dreamer4.world:Dreamer4',
    'dreamerv1': 'rssm.world:RSSMWorld',
    'dreamerv2': 'rssm.world:RSSMWorld',
    'dreamerv3': 'rssm.world:RSSMWorld',
}


@dataclass(frozen=True)
class Turn:
    """What the host knows of the update that it is about to make.

    Attributes:
        update: its number, from 0.
        rows: B, sequences of the batch.
        reached: stages that have begun.
        pace: factor on all learning rates.
        rng: of this update alone; a resumed run draws from it what an uninterrupted one draws.
    """

    update: int
    rows: int
    reached: tuple[str, ...]
    pace: float
    rng: np.random.Generator


@dataclass(frozen=True)
class Losses:
    """What a world model found in a batch.

    Attributes:
        total: scalar with gradient, or None where there is no step to make.
        metrics: detached scalars by name.
        batch: as the model saw it, its sequences in another order perhaps.
        context: the states that the batch led to, without gradient; None where nothing was learned
            that could be dreamt with.
        features: (B, T, F) of its frames, with the gradient by which a value may teach the model
            (Method.replay) or without it; None where no value asks for them.
    """

    total: torch.Tensor | None
    metrics: Metrics
    batch: Batch
    context: Any
    features: torch.Tensor | None


@dataclass(frozen=True)
class Summary:
    """What a world model is made of and costs.

    Attributes:
        rows: (part, parameters, words) of every part.
        flops: kind of work -> FLOPs of one update. again: those of its transformers' passes with
            gradient, one way, which machine.checkpointing and machine.accumulate each add.
    """

    rows: list[tuple[str, int, str]]
    flops: dict[str, float]
    again: float = 0.0


@dataclass(frozen=True)
class Sampling:
    """How the next frame of a dream that is played is drawn.

    Attributes:
        steps: K, denoising steps of a frame, a power of two; 0: as the agent is configured. A model
            that does not denoise has none.
        mean: the mean of what may come, or the likeliest latents where there is no mean, in place
            of a sample.
        noise: in [0, 1), how much noise past frames are shown with, whose label says so; None: as
            in the dreams that policy and value learn in. A model that keeps no frames has none.
    """

    steps: int = 0
    mean: bool = False
    noise: float | None = None


class World(Protocol):
    """A world model, as the agent uses it.

    Made with (obs_space, tasks, actions, config, machine): the spaces of what it observes, the
    tasks (tasks.py), the codec of actions, the whole block `agent`, and the machine.

    Work for the device (`observe`, `features`, `losses`, `step`, `imagine`) reads no number on the
    host, so that it can be recorded; what the host decides is in `plan`.

    Attributes:
        stages: names of its own stages, in order; those of value and policy follow them.
        watched: stage -> names of the metrics that tell how it goes.
        parts: sizes of the parts of the features, F in all; a head has a network for each.
        clone: head whose first outputs say what the data does at a feature, which a policy may
            begin as; None where there is none.
        optimizers: by name, which stands before their metrics.
        notes: sentences that a person should read at the start.
    """

    stages: tuple[str, ...]
    watched: Mapping[str, tuple[str, ...]]
    parts: list[int]
    clone: nn.Module | None
    optimizers: Mapping[str, Optimizer]
    notes: list[str]

    # -- acting

    def begin(self, num_envs: int) -> Carry:
        """The state of `num_envs` envs before their first frame: tensors (N, ...) by name. The name
        'action' is the agent's.
        """

    def observe(
        self, carry: Carry, seen: Mapping[str, torch.Tensor], action: torch.Tensor
    ) -> Carry:
        """Take in one frame of every env.

        Args:
            carry: of begin or the last call. seen: observation key or 'is_first' -> (N, ...).
            action: (N, M) code of the action that led to the frame; without meaning where is_first.
        """

    def features(self, carry: Carry) -> torch.Tensor:
        """(N, F) of the newest frame of every env."""

    # -- being played

    def dream(self, carry: Carry, action: torch.Tensor, how: Sampling) -> Carry:
        """One step without a frame: what the carry of `observe` may be after the action (N, M)."""

    def decode(self, carry: Carry) -> Mapping[str, torch.Tensor]:
        """The newest frame as the model has it: key -> image (N, H, W, C) in about [0, 1], or
        features (N, vector_size) of what is no image, see vectors.py.
        """

    def numbers(self, carry: Carry) -> torch.Tensor:
        """(N, S, W): the newest frame in the numbers that errors are measured in."""

    def judge(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Expected reward on arrival and probability of not being terminal, each (...), of the
        frames with features (..., F).
        """

    # -- learning

    def shape(self, update: int, reached: tuple[str, ...]) -> tuple[int, int]:
        """(B, T) of the batch of an update, counted from 0, where the stages `reached` have begun;
        config.batch.shape(update) where nothing speaks for another one.
        """

    def plan(self, turn: Turn) -> Hashable:
        """Decide what the next update does, and tell the optimizers that take part. Updates of
        equal plans are the same work for the device.
        """

    def losses(self, plan: Hashable, batch: Batch) -> Losses:
        """Losses of a batch. Parts that learn before the others, from losses of their own, make
        their step here.
        """

    def step(self, plan: Hashable, losses: Losses) -> Metrics:
        """Make the gradient step of losses that were just returned; dreams were made before it."""

    def enter(self, stage: str) -> None:
        """A stage begins, one of the world's or of the agent's."""

    # -- imagining

    def imagine(self, context: Any, batch: Batch, act: Act) -> Dream:
        """Dreams that begin at frames of a batch. No gradient reaches the model's own parameters;
        with Method.backprop, which not every model has, one reaches the actions.

        Args:
            context, batch: of Losses. act: features (W, F) and numbers of tasks, long (W,) or None
                -> action codes (W, M) and the features (W, A) by which the model is told of them.
        """

    def recall(self, batch: Batch) -> Any:
        """The states that a batch leads to, as Losses.context, where nothing is to be learned."""

    # -- measuring

    def score(self, stage: str, batch: Batch) -> torch.Tensor:
        """What a stage of the world's own is to lower, a scalar without gradient."""

    def measure(self, batch: Batch) -> Metrics:
        """Diagnostics of fresh sequences. Those that gates wait for are 'reward_skill', with
        'rewards_vary', and 'error', with 'frames_move': see schedule.py and diagnose.py.
        """

    def report(self, batch: Batch) -> tuple[Metrics, dict[str, np.ndarray]]:
        """Diagnostics and open-loop videos, uint8 (T, height, width, 3) by image key."""

    def summary(self) -> Summary:
        """Parts, and an estimate of the work of an update: 2 FLOPs per weight and use, 6 where a
        gradient comes back.
        """

    def state(self) -> dict[str, Any]:
        """Everything with a state_dict but the optimizers, by its name in a checkpoint."""


def build(config, obs_space: Mapping, tasks: Tasks, actions, machine) -> World:
    """The world model of a block `agent`; arguments as for World.

    Raises:
        ValueError: there is none of this name, or it lacks what other settings need.
    """
    world = find(config.world)(obs_space, tasks, actions, config, machine)
    if config.actor.prior == 'clone' and world.clone is None:
        raise ValueError(
            f'agent.actor.prior clone needs a world model that imitates, which {config.world} does'
            ' not; take none'
        )
    return world


def find(name: str) -> type:
    """The class of `agent.world`.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in WORLDS:
        raise ValueError(f'agent.world must be one of {", ".join(WORLDS)}; got {name!r}')
    module, _, kind = WORLDS[name].partition(':')
    return getattr(importlib.import_module(f'{__name__}.{module}'), kind)
