"""When which part learns: tokenizer, then dynamics and heads, then value, then policy, each when
the one before is ready.

Ready is measured, not counted (counts are lower bounds): a policy that starts before the model
predicts its reward collapses onto a wrong answer and then collects data in which the model cannot
learn better.

Offline the data do not change, so a stage may also go on until a measure of episodes that nothing
learned from stops improving; and stages are told off in phases, as the paper counts them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embodied.base import Status
from embodied.errors import ConfigError

# Phase, as --phases names it -> its stages (Dreamer 4, Section 3: 1a tokenizer, 1b dynamics, 2
# agent finetuning, 3 imagination training).
PHASES = {
    '1a': ('tokenizer',),
    '1b': ('dynamics',),
    '2': ('agent',),
    '3': ('value', 'policy'),
}
LAST = ('value', 'policy')  # stages that follow those of every world model
# Range that a measure is kept in before it is averaged: one bad measurement weighs no more than
# knowing nothing.
BOUNDS = {
    'unexplained': (0.0, 1.0),
    'reward_skill': (0.0, 1.0),
    'latent_error': (0.0, 2.0),
    'action_effect': (-1.0, 1.0),
}
# measure -> the metric that it is, the metric that says whether there is any, and the decay of its
# running mean
SOURCES = {
    'unexplained': ('tokenizer/unexplained', 'tokenizer/frames_vary', 0.98),
    'reward_skill': ('reward_skill', 'rewards_vary', 0.5),
    'latent_error': ('error', 'frames_move', 0.5),
    'action_effect': ('action_effect', 'actions_vary', 0.5),
}
NOTHING = {  # measure -> what there is not in the data, where it cannot be measured
    'unexplained': 'the frames never change, so there is nothing to reconstruct',
    'reward_skill': 'the rewards never change where they are known, so there is nothing to predict',
    'latent_error': (
        'the frames of an episode never change where actions are known, so there is nothing to'
        ' predict'
    ),
    'action_effect': 'all take the same actions, so what they change cannot be told',
}
MODEL = ('dynamics', 'agent')  # stages in which the dynamics learn
LEAST_GAIN = 1e-3  # share of a held-out measure that a better one is better by
SLOWEST = 0.1  # of a learning rate that falls: a run that goes on must be able to learn what is new


@dataclass(frozen=True)
class ScheduleConfig:
    """Block `agent.schedule` of the configuration; meanings and sources stand there."""

    tokenizer_updates: int
    tokenizer_unexplained: float
    dynamics_updates: int
    agent_updates: int
    reward_skill: float
    latent_error: float
    action_effect: float
    gate_every: int
    gate_sequences: int
    value_updates: int
    policy_updates: int
    plateau: int
    patience: int
    anneal: int


class Schedule:
    """The current stage, the smoothed measures that end it, and the updates spent in it.

    Args:
        config: see ScheduleConfig. stages: of the world model, in order. long: whether a stage of
            the dynamics ends with long sequences alone, with half of `dynamics_updates` of them
            (Dreamer 4, Section 3.4; number not given).

    Attributes:
        until: the last stage that this run is to make. over: it is made.
        best: the lowest held-out measure of the current stage, None before there is one. stale:
            measurements since then.
        long: the updates of the current stage that were made of long sequences alone.
    """

    def __init__(self, config: ScheduleConfig, stages: tuple[str, ...], long: bool = False):
        self.config, self.stages = config, (*stages, *LAST)
        self.long_last = config.dynamics_updates // 2 if long else 0
        self.measures, self.until, self.over = {}, self.stages[-1], False
        self._go_to(self.stages[0])

    def _go_to(self, stage: str) -> None:
        self.stage, self.updates = stage, 0
        self.best, self.stale, self.long = None, 0, 0

    def take(self, phases: tuple[str, ...], anew: bool) -> None:
        """End after the last of some phases, and begin with the first.

        Args:
            phases: keys of PHASES, in order and without a gap; none for all that are left.
            anew: begin with the first phase, from whatever stage a checkpoint was in; else the
                stage stays, as where a run is resumed.

        Raises:
            ConfigError: there is no such phase, or what it builds on has not been learned.
        """
        order = ordered(phases)
        stages = [stage for name in order for stage in PHASES[name]]
        if lacking := [stage for stage in stages if stage not in self.stages]:
            raise ConfigError(
                f'--phases {" ".join(order)}: this agent learns in the stages'
                f' {", ".join(self.stages)}, there is no stage {lacking[0]}'
                + (
                    '; give it updates of its own with agent.schedule.agent_updates (preset paper)'
                    if lacking[0] == 'agent'
                    else ''
                )
            )
        self.until = stages[-1] if stages else self.stages[-1]
        passed = self._number(self.stage) > self._number(self.until)
        self.over = self.over and (passed or self.stage == self.stages[-1])
        if anew and stages:
            if not self.reached(stages[0]):
                raise ConfigError(
                    f'--phases {" ".join(order)} begins with the stage {stages[0]}, but the agent'
                    f' has only come to {self.stage}; begin with an earlier phase, or'
                    ' --from_checkpoint a run that has made it'
                )
            self.over = False
            self._go_to(stages[0])

    def _number(self, stage: str) -> int:
        return self.stages.index(stage)

    @property
    def begun(self) -> tuple[str, ...]:
        """The stages that have begun, the current one included."""
        return self.stages[: self.stages.index(self.stage) + 1]

    def reached(self, stage: str) -> bool:
        """Whether `stage` has begun."""
        return stage in self.begun

    def note(self, metrics: Mapping[str, float]) -> None:
        """Fold in the measures that are among the metrics of an update, or of a gate."""
        for name, (key, varies, decay) in SOURCES.items():
            if key in metrics:
                self.measure(name, metrics[key] if metrics[varies] else None, decay)

    def measure(self, name: str, value: float | None, decay: float) -> None:
        """Fold a new measurement into its running mean (the first one is taken as it is).

        Args:
            name: a key of BOUNDS. value: None where the data give nothing to measure; a mean that
                is known stays as it is.
        """
        old = self.measures.get(name)
        if value is None or not math.isfinite(value):
            self.measures[name] = old
            return
        low, high = BOUNDS[name]
        value = min(max(value, low), high)
        self.measures[name] = value if old is None else decay * old + (1 - decay) * value

    def pace(self) -> float:
        """Factor on every learning rate: 1 until the policy learns, then 1 / (1 + (u / anneal)^2)
        after u more updates, at least SLOWEST; 1 for ever where anneal is 0. What is learned early
        need not be exact, what is learned late is only as exact as its steps are small.
        """
        if self.stage != self.stages[-1] or not self.config.anneal:
            return 1.0
        return max(SLOWEST, 1 / (1 + (self.updates / self.config.anneal) ** 2))

    def gate_due(self) -> bool:
        """Whether this update should end with a measurement: of the world model open loop while the
        dynamics learn, and in every stage where held-out measures end it.
        """
        return (
            (self.stage in MODEL or self.config.plateau > 0)
            and self.updates > 0
            and self.updates % self.config.gate_every == 0
        )

    def compare(self, value: float) -> None:
        """Fold in the held-out measure of the current stage; lower is better."""
        if not math.isfinite(value):
            return
        if self.best is None or value < self.best - LEAST_GAIN * abs(self.best):
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    @property
    def all_long(self) -> bool:
        """Whether the stage has learned what it should and ends with long sequences alone."""
        return self.long > 0

    def advance(self) -> list[str]:
        """Count one update and enter the next stage if this one is done.

        Returns:
            sentences about a stage that ended without being measured to be ready.
        """
        self.updates += 1
        if self.over or not self.all_long and (self._endless() or self.waits_for()):
            return []
        if self.stage in MODEL and self.long < self.long_last:
            self.long += 1
            return []
        words = [
            f'The {self.stage} stage ends unmeasured: {NOTHING[name]}.'
            for name in self._limits()
            if self._idle(name)
        ]
        if unmet := self._unmet():
            words.append(
                f'The {self.stage} stage ends by schedule.patience, after {self.updates:,} updates:'
                f' {unmet}.'
            )
        self.over = self.stage == self.until
        if self.stage != self.stages[-1]:
            self._go_to(self.stages[len(self.begun)])
        return words

    def _endless(self) -> bool:
        """Whether nothing ends the current stage: the policy learns until the run is ended."""
        c = self.config
        return self.stage == self.stages[-1] and not (c.policy_updates or c.plateau)

    def waits_for(self) -> str:
        """What keeps the current stage from ending, in words; empty if nothing does."""
        c, least = self.config, self._least(self.stage)
        if self.updates < least:
            return f'{self.stage} {self.updates}/{least}'
        if c.patience and self.updates >= least + c.patience:
            return ''
        unmet = self._unmet()
        return unmet and f'{self.stage} waits: {unmet}'

    def _least(self, stage: str) -> int:
        """Updates that a stage takes, however ready it is."""
        c = self.config
        return {
            'tokenizer': c.tokenizer_updates,
            'dynamics': c.dynamics_updates,
            'agent': c.agent_updates,
            'value': c.value_updates,
            'policy': c.policy_updates,
        }.get(stage, 0)

    def _before_policy(self) -> int:
        """Fewest updates until the policy learns; 0 where it does, or where it is not to."""
        if self.stage == self.stages[-1] or self.until != self.stages[-1]:
            return 0
        later = sum(map(self._least, self.stages[len(self.begun) : -1]))
        return max(1, self._least(self.stage) - self.updates) + later

    def status(self, *watched: Mapping[str, tuple[str, ...]]) -> Status:
        """How it goes, for the terminal line.

        Args:
            watched: of each part, stage -> names of the metrics that tell.
        """
        names = tuple(name for part in watched for name in part.get(self.stage, ()))
        waits = self.waits_for().removeprefix(self.stage).strip()
        settled = self.stage == self.stages[-1]
        return Status(self.stage, waits, settled, names, self.over, self._before_policy())

    def _limits(self) -> dict[str, tuple[float, bool]]:
        """Measure -> limit, and whether it must lie above; those that the current stage waits
        for.
        """
        c = self.config
        skill = {'reward_skill': (c.reward_skill, True)}
        video = {
            'latent_error': (c.latent_error, False),
            'action_effect': (c.action_effect, True),
        }
        apart = 'agent' in self.stages  # where nothing predicts the reward before
        limits = {
            'tokenizer': {'unexplained': (c.tokenizer_unexplained, False)},
            'dynamics': video if apart else skill | video,
            'agent': skill,
        }
        return {name: limit for name, limit in limits.get(self.stage, {}).items() if limit[0]}

    def _idle(self, name: str) -> bool:
        """Whether the data have given nothing to measure."""
        return name in self.measures and self.measures[name] is None

    def _unmet(self) -> str:
        """The first measure that is not as it must be; empty if all are, or cannot be measured."""
        for name, (limit, above) in self._limits().items():
            value = self.measures.get(name)
            if (
                self._idle(name)
                or value is not None
                and (value >= limit if above else value <= limit)
            ):
                continue
            shown = 'not measured yet' if value is None else f'{value:.2f}'
            return f'{name} {shown}, needs {">" if above else "<"} {limit}'
        plateau = self.config.plateau if self.stage != 'value' else 0
        if self.stale < plateau:
            shown = 'not measured yet' if self.best is None else f'best {self.best:.4g}'
            return f'held-out measure {shown}, {self.stale}/{plateau} without a better one'
        return ''

    def state_dict(self) -> dict:
        return {
            'stage': self.stage,
            'updates': self.updates,
            'measures': dict(self.measures),
            'held_out': {'best': self.best, 'stale': self.stale},
            'long': self.long,
            'over': self.over,
        }

    def load_state_dict(self, state: dict) -> None:
        if state['stage'] not in self.stages:
            raise ValueError(f'schedule: unknown stage {state["stage"]!r:.80}')
        self.stage, self.updates = state['stage'], int(state['updates'])
        self.measures = {
            name: None if value is None else float(value)
            for name, value in state['measures'].items()
        }
        held_out = state.get('held_out', {})  # older runs have none of what follows
        self.best, self.stale = held_out.get('best'), int(held_out.get('stale', 0))
        self.long, self.over = int(state.get('long', 0)), bool(state.get('over', False))


def ordered(phases: Sequence[str]) -> list[str]:
    """The phases, which must be some of PHASES, in succession; none are none.

    Raises:
        ConfigError: they are not.
    """
    known, wanted = list(PHASES), list(phases)
    first = known.index(wanted[0]) if wanted and wanted[0] in known else 0
    if wanted != known[first : first + len(wanted)]:
        raise ConfigError(
            f'--phases names some of {" ".join(known)}, in succession; got {" ".join(wanted)}'
        )
    return wanted
