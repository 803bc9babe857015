"""Settings of the agent: the typed blocks of `agent` in the configuration, and which of their
values cannot work together.

What every setting means and where it comes from stands in configs/defaults.yaml; blocks of a part
stand beside the part.
"""

import math
from dataclasses import dataclass

from . import shortcut
from .actions import CONTINUOUS
from .dynamics import DynamicsConfig
from .heads import READS, HeadsConfig
from .imagination import ImaginationConfig
from .optim import OptimConfig
from .schedule import ScheduleConfig
from .shortcut import ShortcutConfig
from .tokenizer import TokenizerConfig


@dataclass(frozen=True)
class BatchConfig:
    """Block `agent.batch`: shapes of the training batches."""

    size: int
    length: int
    long_length: int
    long_every: int
    single: float
    frames: int


@dataclass(frozen=True)
class TokenizerTrainingConfig:
    """Block `agent.tokenizer_training`: the tokenizer's share of the updates once it is warm,
    and who reads which copy.
    """

    every: int
    rate: float
    model: float
    slow: float


@dataclass(frozen=True)
class ModelTrainingConfig:
    """Block `agent.model_training`: the world model's pace once the policy learns."""

    rate: float


@dataclass(frozen=True)
class ActorConfig:
    """Block `agent.actor`: the policy's objective."""

    loss: str
    lam: float
    alpha: float
    floor: float
    beta: float
    prior: str
    slow: float
    entropy: float
    start: str
    hold: float
    context: int
    acting: float


@dataclass(frozen=True)
class ValueConfig:
    """Block `agent.value`: returns and the critic."""

    gamma: float
    lam: float
    slow: float


@dataclass(frozen=True)
class ScalesConfig:
    """Block `agent.scales`: weights of the normalised world-model losses and the floors of their
    normalisers.
    """

    dynamics: float
    reward: float
    cont: float
    behaviour: float
    decay: float
    dynamics_floor: float
    reward_floor: float
    behaviour_floor: float


@dataclass(frozen=True)
class OptimsConfig:
    """Block `agent.optim`: one optimizer per part."""

    tokenizer: OptimConfig
    model: OptimConfig
    policy: OptimConfig
    value: OptimConfig


@dataclass(frozen=True)
class AgentConfig:
    """Block `agent` of the configuration."""

    batch: BatchConfig
    tokenizer: TokenizerConfig
    tokenizer_training: TokenizerTrainingConfig
    model_training: ModelTrainingConfig
    dynamics: DynamicsConfig
    shortcut: ShortcutConfig
    heads: HeadsConfig
    imagination: ImaginationConfig
    actor: ActorConfig
    value: ValueConfig
    scales: ScalesConfig
    optim: OptimsConfig
    schedule: ScheduleConfig


def check(config: AgentConfig) -> None:
    """Refuse settings that cannot work, before anything is built.

    Raises:
        ValueError: naming the setting, what it must be and what it is.
    """
    choices = {
        'tokenizer.kind': (config.tokenizer.kind, ('patches', 'conv')),
        'actor.loss': (config.actor.loss, ('pmpo', 'reinforce')),
        'actor.prior': (config.actor.prior, ('slow', 'behaviour', 'frozen', 'none')),
        'actor.start': (config.actor.start, ('uniform', 'behaviour')),
        'tokenizer.lpips_net': (config.tokenizer.lpips_net, ('vgg', 'alex', 'squeeze')),
        'heads.continuous': (config.heads.continuous, CONTINUOUS),
        'heads.reads': (config.heads.reads, READS),
        'heads.learn_on': (config.heads.learn_on, ('committed', 'noised')),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f'agent.{name} must be one of {", ".join(allowed)}; got {value!r}')
    for name in ('length', 'long_length'):
        if getattr(config.batch, name) < 2:
            raise ValueError(
                f'agent.batch.{name} must be at least 2 frames, of which the second is predicted;'
                f' got {getattr(config.batch, name)}'
            )
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


def _check_parts(config: AgentConfig) -> None:
    lpips = config.tokenizer.lpips
    if lpips != 'auto' and not (isinstance(lpips, float) and 0 <= lpips < math.inf):
        raise ValueError(
            f'agent.tokenizer.lpips must be a weight of at least 0 or auto, got {lpips}'
        )
    if config.dynamics.time_every < 1:
        raise ValueError(
            'agent.dynamics.time_every must be at least 1: without time attention nothing is'
            ' remembered'
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
