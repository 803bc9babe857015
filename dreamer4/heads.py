"""Heads, which read the features of a frame, and those of Dreamer 4's world model: reward,
continue and behaviour (Dreamer 4, Section 3.3). Policy and value stand in actor_critic.py.

Letters: B batch, T time, F inputs of a head, L offsets of multi-token prediction, M action code.
Heads read [agent feature | latent], both of the same frame; frame t predicts its own reward and
continue flag (received on arrival), the action chosen after seeing it, and the value of all rewards
after it.

The feature knows the past but was made from noisy latents; the latents are exact but know one
frame. A network that reads both at once learns from the feature first, which makes rewards easy to
read, and is slow to find what the latents know better. Hence one for each; what later frames bring
is asked of the first part alone. Where one frame with its move is the whole state, the latents
suffice.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from . import ranks
from .actions import Actions
from .batch import Batch
from .nets.layers import MLP
from .nets.outputs import Plain, Policy, TwoHot
from .scores import shared_mean


@dataclass(frozen=True)
class HeadsConfig:
    """Block `agent.heads` of the configuration; meanings and sources stand there."""

    width: int
    layers: int
    offsets: int
    reads: str
    learn_on: str
    bins: int
    limit: float
    continuous: str | int
    unimix: float

    @property
    def box(self) -> tuple[str, int]:
        """How Box actions are said, a key of actions.CONTINUOUS, and in how many bins if so."""
        counted = isinstance(self.continuous, int)
        return ('bins', self.continuous) if counted else (self.continuous, 1)


# `heads.reads` -> sizes of the parts of the input that have a network each.
READS = {
    'apart': lambda feature, latent: [feature, latent],
    'together': lambda feature, latent: [feature + latent],
    'feature': lambda feature, latent: [feature],
    'latents': lambda feature, latent: [latent],
}


def scalar(config: HeadsConfig) -> TwoHot | Plain:
    """How a reward or a value is said: over so many bins, without any as a mean."""
    return TwoHot(config.bins, config.limit) if config.bins else Plain()


class Head(nn.Module):
    """One MLP for each part of the input; their outputs are added, which for logits means that
    every part has its say.

    Args:
        parts: sizes of the parts, in the order in which they stand in the input. width, layers: as
            for MLP.
        outputs: what all parts speak about. later: further outputs, which are left to the first
            part.
    """

    def __init__(self, parts: list[int], width: int, layers: int, outputs: int, later: int = 0):
        super().__init__()
        self.sizes, self.later = parts, later
        self.parts = nn.ModuleList(
            MLP(size, width, layers, outputs + later * (i == 0)) for i, size in enumerate(parts)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, *others = (part(piece) for part, piece in zip(self.parts, x.split(self.sizes, -1)))
        return first + sum(F.pad(other, (0, self.later)) for other in others)


class Heads(nn.Module):
    """What the world model says of a frame beside its latents.

    Args:
        feature: D of the dynamics. latent: S W, size of a frame's latents. actions: the action
            codec. config: see HeadsConfig.
    """

    def __init__(self, feature: int, latent: int, actions: Actions, config: HeadsConfig):
        super().__init__()
        self.config, self.actions = config, actions
        self.parts = READS[config.reads](feature, latent)
        head = lambda outputs, offsets=0: Head(
            self.parts, config.width, config.layers, outputs, offsets * outputs
        )
        self.scalar = scalar(config)
        self.reward_head = head(self.scalar.outputs, config.offsets)
        self.cont_head = head(1)
        self.behaviour_head = head(actions.outputs, config.offsets)

    @property
    def reads_features(self) -> bool:
        """Whether the agent token's feature is among what they read."""
        return self.config.reads != 'latents'

    def inputs(self, feature: torch.Tensor | None, latent: torch.Tensor) -> torch.Tensor:
        """What every head reads: feature (..., D), None where none is read, and latent (..., S, W)
        -> (..., F).
        """
        if self.config.reads == 'feature':
            return feature
        latent = latent.flatten(-2)
        return torch.cat([feature, latent], -1) if self.reads_features else latent

    def reward(self, x: torch.Tensor) -> torch.Tensor:
        """Expected reward on arrival at the frame, (...)."""
        return self.scalar.mean(self.reward_head(x)[..., : self.scalar.outputs])

    def cont(self, x: torch.Tensor) -> torch.Tensor:
        """Probability (...) that the frame is not terminal."""
        return torch.sigmoid(self.cont_head(x).float())[..., 0]

    def behaviour(self, x: torch.Tensor, task: torch.Tensor | None = None) -> Policy:
        """Distribution of the action that the data takes at the frame (behaviour cloning, offset
        0), at features (..., F) of tasks (...).
        """
        return self.actions.policy(self.behaviour_head(x)[..., : self.actions.outputs], task)

    def losses(
        self, x: torch.Tensor, batch: Batch, weight: torch.Tensor, behaviour: bool = True
    ) -> dict[str, torch.Tensor]:
        """Losses of the world-model heads with multi-token prediction (Dreamer 4, Eq. 9).

        Offset n of frame t predicts reward and action of frame t + n, wherever that frame belongs
        to the same episode. Rewards of first frames do not exist and actions of last frames are
        never executed: neither is a target, nor is what is not known.

        Args:
            x: (B, T, F). batch: targets. weight: bool (B, T), frames to learn from.
            behaviour: whether actions are learned.

        Returns:
            'reward', 'cont', 'behaviour': scalars, means over valid frames (and over offsets).
        """
        count = self.config.offsets + 1
        reward = self.reward_head(x).float().unflatten(-1, (count, self.scalar.outputs))
        there = ahead(batch.is_first, count) & weight[..., None]
        errors = {
            'reward': (
                self.scalar.loss(reward, shifted(batch.reward, count)),
                there & shifted(batch.reward_valid & ~batch.is_first, count),
            ),
            'cont': (
                F.binary_cross_entropy_with_logits(
                    self.cont_head(x).float()[..., 0],
                    1 - batch.is_terminal.float(),
                    reduction='none',
                ),
                weight & batch.reward_valid & ~batch.is_first,
            ),
        }
        if behaviour:
            chosen = self.actions.policy(
                self.behaviour_head(x).unflatten(-1, (count, self.actions.outputs)),
                None if batch.task is None else batch.task[..., None],
            )
            acted = batch.action_valid
            if batch.imitated is not None:
                acted = acted & batch.imitated
            errors['behaviour'] = (
                -chosen.log_prob(shifted(batch.action, count)),
                there & shifted(acted, count),
            )
        return {name: shared_mean(error, mask) for name, (error, mask) in errors.items()}


def shifted(x: torch.Tensor, count: int) -> torch.Tensor:
    """(B, T, ...) -> (B, T, count, ...), entry [t, n] is x[t + n]; beyond the end the last frame
    repeats.
    """
    time = x.shape[1]
    index = torch.arange(time, device=x.device)[:, None] + torch.arange(count, device=x.device)
    return x[:, index.clamp(max=time - 1)]


def ahead(is_first: torch.Tensor, count: int) -> torch.Tensor:
    """bool (B, T, count): frame t + n exists in the sequence and belongs to the episode of frame
    t.
    """
    time = is_first.shape[1]
    episode = is_first.long().cumsum(1)
    steps = torch.arange(time, device=is_first.device)[:, None] + torch.arange(
        count, device=is_first.device
    )
    return (shifted(episode, count) == episode[..., None]) & (steps < time)


def sizes(
    name: str, scalar: TwoHot | Plain, target: torch.Tensor, where: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Of targets of a two-hot head, of all ranks: '<name>/largest', their largest size, and
    '<name>/beyond', the share that lies beyond the outermost bin.

    Args:
        target: any shape. where: bool of it, those that are learned.
    """
    return {
        f'{name}/beyond': shared_mean(scalar.beyond(target).float(), where),
        f'{name}/largest': ranks.largest(torch.where(where, target.abs(), 0.0).max()),
    }


def beyond_bins(name: str, metrics: Mapping[str, float], limit: float, gamma: float) -> str:
    """A sentence about targets beyond the outermost bin, with a limit that holds them and the
    returns they may add up to.

    Args:
        name: 'reward' or 'value'. metrics: `<name>/beyond`, the share, and `<name>/largest`, the
            size, of both. limit: agent.heads.limit.
        gamma: discount of the returns.
    """
    returns = metrics['reward/largest'] / max(1 - gamma, 1e-3)
    needed = math.ceil(math.log1p(min(max(returns, metrics[f'{name}/largest']), 1e30)))
    return (
        f'{metrics[f"{name}/beyond"]:.1%} of the'
        f' {"rewards" if name == "reward" else "imagined returns"} of this update lie beyond the'
        f' outermost bin and are learned as {math.expm1(limit):,.4g}, the largest is'
        f' {metrics[f"{name}/largest"]:,.4g}: begin a run with --agent.heads.limit'
        f' {max(needed, math.floor(limit) + 1)} (is {limit:g}), or scale the rewards.'
    )
