"""One update: what it is made of, what the host decides about it, and the work for the device.

The world model's losses, a dream of it, what policy and value learn from the dream, then the world
model's step. Letters: W trajectories, F features, M action code.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from .actions import Actions
from .actor_critic import ActorCritic, Real
from .agent_config import AgentConfig
from .batch import Batch
from .feed import Needs
from .machine import Machine
from .optim import NonFiniteLoss, Optimizer
from .schedule import Schedule
from .worlds import Turn, World


@dataclass(frozen=True)
class Plan:
    """What one update does: every decision made on the host. Given the plan, an update is pure
    device work and can be recorded.

    Attributes:
        shape: (B, T) of the batch. world: plan of the world model. value, policy: they learn from a
            dream.
    """

    shape: tuple[int, int]
    world: Hashable
    value: bool
    policy: bool


class Updater:
    """Makes updates of a world model and of the actor-critic that dreams in it.

    Args:
        seed: with the number of an update, of what the host draws for it.
    """

    def __init__(
        self,
        world: World,
        actor_critic: ActorCritic,
        actions: Actions,
        config: AgentConfig,
        machine: Machine,
        seed: int,
    ):
        self.world, self.actor_critic, self.actions = world, actor_critic, actions
        self.config, self.machine, self.seed = config, machine, seed

    def needs(self, number: int, schedule: Schedule) -> Needs:
        """What the update of a number, from 0, is to be made of."""
        batch = self.config.batch
        size, length = self.world.shape(number, schedule.begun)
        if schedule.all_long:
            size, length = batch.long
        measured = self.config.schedule.gate_sequences, batch.length + 1
        heads = 'agent' if 'agent' in schedule.stages else 'dynamics'
        return Needs(
            (size, length + 1), measured, schedule.gate_due(), relevant=schedule.reached(heads)
        )

    def plan(self, number: int, shape: tuple[int, int], schedule: Schedule) -> Plan:
        """Decide what the update of a number, from 0, does on a batch (B, T), and tell the
        optimizers that take part.
        """
        every, pace = self.config.imagination.every, schedule.pace()
        rng = np.random.default_rng([self.seed, number])
        world = self.world.plan(Turn(number, shape[0], schedule.begun, pace, rng))
        value = schedule.reached('value') and number % every == every - 1
        policy = value and schedule.reached('policy')
        if value:
            self.actor_critic.begin(policy, pace)
        return Plan(shape, world, value, policy)

    def carry_out(self, plan: Plan, batch: Batch) -> dict[str, torch.Tensor]:
        """Do what a plan says; metrics."""
        losses = self.world.losses(plan.world, batch)
        metrics = losses.metrics
        if plan.value:
            with self.machine.autocast():
                dream = self.world.imagine(losses.context, losses.batch, self.choose)
            targets, replay = self.actor_critic.score(dream), self.config.method.replay > 0
            real = Real(losses.batch, losses.features) if replay else None
            metrics = metrics | self.actor_critic.learn(dream, targets, plan.policy, real)
            if real is not None and losses.features.requires_grad:
                lesson = self.actor_critic.teach(dream, targets, real)
                losses = replace(losses, total=losses.total + lesson)
        return metrics | self.world.step(plan.world, losses)

    def choose(
        self, x: torch.Tensor, task: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (W, M) of the policy that learns and their features (W, A), at features (W, F) of
        a dream in tasks (W,).
        """
        policy = self.actor_critic.policy(x, task)
        code = policy.sample()
        if self.config.method.backprop:
            return code.detach(), self.actions.embed_sampled(code, policy)
        return code, self.actions.embed(code)


def accepted(
    optimizers: Mapping[str, Optimizer], metrics: Mapping[str, float], batch: Batch
) -> dict[str, float]:
    """The metrics of an update, on the host, none of whose steps was refused.

    Raises:
        NonFiniteLoss: one was; names what is not finite, and what of the batch.
    """
    try:
        for optimizer in optimizers.values():
            optimizer.check(metrics)
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f'{error}. {batch.blame()}') from error
    return {k: v for k, v in metrics.items() if not k.endswith('/nonfinite')}
