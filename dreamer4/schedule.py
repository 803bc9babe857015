"""When which part learns: tokenizer, then dynamics and heads, then value, then policy, each when
the one before is ready.

Ready is measured, not counted (counts are lower bounds): a policy that starts before the model
predicts its reward collapses onto a wrong answer and then collects data in which the model cannot
learn better.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

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
SLOWEST = 0.1  # of a learning rate that falls: a run that goes on must be able to learn what is new


@dataclass(frozen=True)
class ScheduleConfig:
    """Block `agent.schedule` of the configuration; meanings and sources stand there."""

    tokenizer_updates: int
    tokenizer_unexplained: float
    dynamics_updates: int
    reward_skill: float
    latent_error: float
    action_effect: float
    gate_every: int
    gate_sequences: int
    value_updates: int
    patience: int
    anneal: int


class Schedule:
    """The current stage, the smoothed measures that end it, and the updates spent in it.

    Args:
        config: see ScheduleConfig. stages: of the world model, in order.
    """

    def __init__(self, config: ScheduleConfig, stages: tuple[str, ...]):
        self.config, self.stages = config, (*stages, *LAST)
        self.stage, self.updates, self.measures = self.stages[0], 0, {}

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
        """Whether this update should measure the world model open loop."""
        return (
            self.stage == 'dynamics'
            and self.updates > 0
            and self.updates % self.config.gate_every == 0
        )

    def advance(self) -> list[str]:
        """Count one update and enter the next stage if this one is done.

        Returns:
            sentences about a stage that ended without being measured to be ready.
        """
        self.updates += 1
        if self.stage == self.stages[-1] or self.waits_for():
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
        self.stage, self.updates = self.stages[len(self.begun)], 0
        return words

    def waits_for(self) -> str:
        """What keeps the current stage from ending, in words; empty if nothing does."""
        c = self.config
        least = {
            'tokenizer': c.tokenizer_updates,
            'dynamics': c.dynamics_updates,
            'value': c.value_updates,
        }.get(self.stage, 0)
        if self.updates < least:
            return f'{self.stage} {self.updates}/{least}'
        if c.patience and self.updates >= least + c.patience:
            return ''
        unmet = self._unmet()
        return unmet and f'{self.stage} waits: {unmet}'

    def _limits(self) -> dict[str, tuple[float, bool]]:
        """Measure -> limit, and whether it must lie above; those that the current stage waits
        for.
        """
        c = self.config
        limits = {
            'tokenizer': {'unexplained': (c.tokenizer_unexplained, False)},
            'dynamics': {
                'reward_skill': (c.reward_skill, True),
                'latent_error': (c.latent_error, False),
                'action_effect': (c.action_effect, True),
            },
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
        return ''

    def state_dict(self) -> dict:
        return {'stage': self.stage, 'updates': self.updates, 'measures': dict(self.measures)}

    def load_state_dict(self, state: dict) -> None:
        if state['stage'] not in self.stages:
            raise ValueError(f'schedule: unknown stage {state["stage"]!r:.80}')
        self.stage, self.updates = state['stage'], int(state['updates'])
        self.measures = {
            name: None if value is None else float(value)
            for name, value in state['measures'].items()
        }
