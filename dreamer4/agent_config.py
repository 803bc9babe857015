"""Settings of the agent: the typed blocks of `agent` in the configuration, and which of their
values cannot work together.

What every setting means and where it comes from stands in configs/defaults.yaml; blocks of a part
stand beside the part.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from . import worlds
from .actions import REAL
from .actor_critic import ActorConfig, ActorCriticConfig, ValueConfig
from .heads import READS, HeadsConfig
from .method import DREAMER4, Method
from .optim import OptimConfig
from .returns import LOSSES
from .schedule import ScheduleConfig
from .worlds.dreamer4 import TOKENIZERS, shortcut
from .worlds.dreamer4.dynamics import DynamicsConfig
from .worlds.dreamer4.shortcut import ShortcutConfig
from .worlds.dreamer4.tokenizer import TokenizerConfig
from .worlds.rssm.forms import FORMS, Form
from .worlds.rssm.model import RSSMConfig

LONG_SHARE = 0.25  # of batches are long (Dreamer 4, Section 3.4: alternating, ratio not given)
GOLDEN = (5**0.5 - 1) / 2  # multiples of it fall as evenly on a circle as can be


@dataclass(frozen=True)
class BatchConfig:
    """Block `agent.batch`: shapes of the training batches."""

    size: int
    length: int
    long_length: int
    single: float
    frames: int

    @property
    def frames_per_update(self) -> int:
        """B T; a long batch has as many."""
        return self.size * self.length

    @property
    def longest(self) -> int:
        """Frames of the longest sequence."""
        return max(self.length, self.long_length)

    @property
    def long(self) -> tuple[int, int]:
        """(B, T) of a long batch."""
        return max(1, self.frames_per_update // self.long_length), self.long_length

    def shape(self, update: int) -> tuple[int, int]:
        """(B, T) of an update: LONG_SHARE of the batches are long, if there are long ones.

        They lie two to five updates apart, and every n-th update has as large a share of them as
        all have: what is done every n-th time, such as a dream, is done with both kinds.
        """
        is_long = self.long_length and update * GOLDEN % 1 >= 1 - LONG_SHARE
        return self.long if is_long else (self.size, self.length)


@dataclass(frozen=True)
class TokenizerTrainingConfig:
    """Block `agent.tokenizer_training`: the tokenizer's share of the updates once it is warm.

    Attributes:
        every: updates of the agent per update of the tokenizer, which changes little by then.
    """

    rate: float
    model: float
    every: ClassVar[int] = 2


@dataclass(frozen=True)
class ModelTrainingConfig:
    """Block `agent.model_training`: the world model's pace once the policy learns."""

    rate: float


@dataclass(frozen=True)
class ImaginationConfig:
    """Block `agent.imagination`: how often, how many and how long dreams are."""

    starts: int
    horizon: int
    every: int
    epochs: int


@dataclass(frozen=True)
class ScalesConfig:
    """Block `agent.scales`: the weight of behaviour cloning beside the other normalised losses,
    that of the value's loss on replayed sequences, and the floor of the dynamics' normaliser.
    """

    behaviour: float
    replay: float
    dynamics_floor: float


@dataclass(frozen=True)
class AgentConfig:
    """Block `agent` of the configuration."""

    world: str
    batch: BatchConfig
    tokenizer: TokenizerConfig
    tokenizer_training: TokenizerTrainingConfig
    model_training: ModelTrainingConfig
    dynamics: DynamicsConfig
    shortcut: ShortcutConfig
    rssm: RSSMConfig
    heads: HeadsConfig
    imagination: ImaginationConfig
    actor: ActorConfig
    value: ValueConfig
    scales: ScalesConfig
    optim: OptimConfig
    schedule: ScheduleConfig

    @property
    def form(self) -> Form | None:
        """Which published RSSM the world model is; None of another kind."""
        return FORMS.get(self.world)

    @property
    def method(self) -> Method:
        """How policy and value learn beside this world model."""
        return self.form.method if self.form else replace(DREAMER4, replay=self.scales.replay)

    @property
    def scalar_heads(self) -> HeadsConfig:
        """Block `heads` as reward, policy and value read it. Those of an RSSM are as wide as its
        other MLPs, and those of DreamerV1 and V2 have no bins.
        """
        if self.form is None:
            return self.heads
        bins = self.heads.bins if self.form.twohot else 0
        return replace(self.heads, width=self.rssm.units, bins=bins)

    def actor_critic(self) -> ActorCriticConfig:
        """What policy and value read of it."""
        return ActorCriticConfig(
            heads=self.scalar_heads,
            actor=self.actor,
            value=self.value,
            optim=self.optim,
            epochs=self.imagination.epochs,
            method=self.method,
        )


def share(config: AgentConfig, ranks: int) -> AgentConfig:
    """What each of so many ranks does of it: its part of the batch, and of what is drawn from that.

    Raises:
        ValueError: the batch cannot be cut into so many parts.
    """
    batch, part = config.batch, lambda whole: -(-whole // ranks)
    if batch.size % ranks:
        raise ValueError(
            f'agent.batch.size must be a multiple of the {ranks} processes that share it, got'
            f' {batch.size}'
        )
    if ranks > 1 and batch.frames_per_update // ranks < batch.long_length:
        raise ValueError(
            f'agent.batch: of its {batch.size} sequences of {batch.length} frames, each of {ranks}'
            f' processes has {batch.frames_per_update // ranks} frames, in which a long sequence of'
            f' agent.batch.long_length {batch.long_length} has no room; give the batch more, or'
            ' take fewer processes'
        )
    return replace(
        config,
        batch=replace(batch, size=batch.size // ranks, frames=part(batch.frames)),
        imagination=replace(config.imagination, starts=part(config.imagination.starts)),
        schedule=replace(config.schedule, gate_sequences=part(config.schedule.gate_sequences)),
    )


def check(config: AgentConfig) -> None:
    """Refuse settings that cannot work, before anything is built.

    Raises:
        ValueError: naming the setting, what it must be and what it is.
    """
    choices = {
        'world': (config.world, worlds.WORLDS),
        'tokenizer.kind': (config.tokenizer.kind, TOKENIZERS),
        'actor.loss': (config.actor.loss, LOSSES),
        'heads.reads': (config.heads.reads, READS),
        'rssm.conv': (config.rssm.conv, ('strided', 'pooled')),
        'heads.learn_on': (config.heads.learn_on, ('committed', 'noised', 'predicted', 'dreamed')),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f'agent.{name} must be one of {", ".join(allowed)}; got {value!r}')
    for name in ('length', 'long_length'):
        none = name == 'long_length' and config.batch.long_length == 0
        if getattr(config.batch, name) < 2 and not none:
            raise ValueError(
                f'agent.batch.{name} must be at least 2 frames, of which the second is predicted;'
                f' got {getattr(config.batch, name)}'
            )
    _check_openness(config)
    shortcut.check(config.shortcut, config.dynamics.levels)
    share, rows = config.shortcut.bootstrap, config.batch.size
    if share > 0 and config.dynamics.levels > 1 and not 0 < round(rows * share) < rows:
        raise ValueError(
            'agent.shortcut.bootstrap must give large steps and d_min some of the agent.batch.size'
            f' {rows} sequences each, or be 0; {share} of them is {round(rows * share)}'
        )
    if not 0 <= config.batch.single < 1:
        raise ValueError(
            'agent.batch.single must be a share of at least 0 and below 1, got'
            f' {config.batch.single}'
        )
    _check_parts(config)


def _check_openness(config: AgentConfig) -> None:
    """A goal for the entropy needs one that cannot be exceeded."""
    goal, bins = config.actor.openness, isinstance(config.heads.continuous, int)
    if goal and (len(goal) != 2 or not all(0 < share < 1 for share in goal)):
        raise ValueError(
            'agent.actor.openness must be two shares between 0 and 1, as in [0.85, 0.45], or [];'
            f' got {list(goal)}'
        )
    if goal and not bins:
        raise ValueError(
            'agent.actor.openness needs actions in bins, whose entropy has a largest value:'
            f' agent.heads.continuous must be a number, got {config.heads.continuous!r}'
        )


def _check_rssm(config: AgentConfig) -> None:
    """What one kind of world model has and the other has not."""
    rssm = config.form is not None
    if config.method.backprop and config.imagination.epochs > 1:
        raise ValueError(
            f'agent.world {config.world} differentiates a dream, which can be done once, so'
            f' agent.imagination.epochs must be 1, got {config.imagination.epochs}'
        )
    if rssm and (config.tokenizer.share_cameras or config.tokenizer.camera_dropout):
        raise ValueError(
            'agent.tokenizer.share_cameras and camera_dropout belong to agent.world dreamer4'
        )


def _check_parts(config: AgentConfig) -> None:
    _check_rssm(config)
    told = config.heads.learn_on
    if told in ('predicted', 'dreamed') and config.heads.reads != 'latents':
        raise ValueError(
            f"agent.heads.learn_on {told!r} needs agent.heads.reads 'latents', as a predicted"
            f' frame has no feature; got {config.heads.reads!r}'
        )
    lpips = config.tokenizer.lpips
    if lpips != 'auto' and not (isinstance(lpips, float) and 0 <= lpips < math.inf):
        raise ValueError(
            f'agent.tokenizer.lpips must be a weight of at least 0 or auto, got {lpips}'
        )
    if not 0 <= config.tokenizer.camera_dropout <= 1:
        raise ValueError(
            f'agent.tokenizer.camera_dropout must be a share, got {config.tokenizer.camera_dropout}'
        )
    if config.tokenizer.share_cameras and config.tokenizer.kind != 'patches':
        raise ValueError(
            'agent.tokenizer.share_cameras needs agent.tokenizer.kind patches, got'
            f' {config.tokenizer.kind}'
        )
    prior, actions = config.actor.prior, config.heads.continuous
    if prior not in ('none', 'clone') and not (isinstance(prior, float) and 0 < prior <= 1):
        raise ValueError(
            f'agent.actor.prior must be none, clone or a step above 0 and up to 1, got {prior!r}'
        )
    if actions not in REAL and not (isinstance(actions, int) and actions % 2):
        raise ValueError(
            f'agent.heads.continuous must be {", ".join(REAL)} or an odd number of bins, got'
            f' {actions!r}'
        )
    if config.dynamics.time_every < 1:
        raise ValueError(
            'agent.dynamics.time_every must be at least 1: without time attention nothing is'
            ' remembered'
        )
    if config.dynamics.heads % config.dynamics.group:
        raise ValueError(
            f'agent.dynamics.group must divide the {config.dynamics.heads} heads that a width of'
            f' {config.dynamics.width} has, got {config.dynamics.group}'
        )
    for name in ('every', 'epochs'):
        if getattr(config.imagination, name) < 1:
            raise ValueError(
                f'agent.imagination.{name} must be at least 1, got'
                f' {getattr(config.imagination, name)}'
            )
    if config.actor.hold < 1:
        raise ValueError(
            f'agent.actor.hold counts decisions and must be at least 1, got {config.actor.hold}'
        )
