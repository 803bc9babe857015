"""Measurements that end a stage: the world model open loop, and what a stage is to lower.

Letters: B sequences, T time.
"""

import torch

from .batch import Batch
from .machine import Machine
from .schedule import MODEL, Schedule
from .state import fetch
from .updater import Updater


class Gate:
    """Tells a schedule how good its stage has become, on sequences that are not learned from.

    Args:
        updater: with the world model and the policy that are measured. machine: where.
    """

    def __init__(self, updater: Updater, schedule: Schedule, machine: Machine):
        self.updater, self.schedule, self.machine = updater, schedule, machine

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, float]:
        """Measure the world model open loop, where the policy may start once it predicts the
        reward; and what the stage is to lower, where that ends it.

        Args:
            batch: (B, T); where there are several ranks, each measures the sequences of all. Shares
                of an error, and of a skill, are no means of those of parts, and one sequence alone
                has no other's actions to compare with.

        Returns:
            metrics gate/... and held_out/STAGE.
        """
        stage, batch, out = self.schedule.stage, batch.joined(), {}
        if stage in MODEL:
            metrics = fetch(self.updater.world.measure(batch))
            self.schedule.note(metrics)
            out = {f'gate/{k}': v for k, v in metrics.items() if '/' not in k}
        if self.schedule.config.plateau and stage != 'value':
            with self.machine.fixed():
                score = fetch({'score': self._score(stage, batch)})['score']
            self.schedule.compare(score)
            out[f'held_out/{stage}'] = score
        return out

    def _score(self, stage: str, batch: Batch) -> torch.Tensor:
        """What a stage is to lower (scalar): of the policy the mean reward of dreams, negative."""
        world = self.updater.world
        with self.machine.autocast():
            if stage != 'policy':
                return world.score(stage, batch)
            dream = world.imagine(world.recall(batch), batch, self.updater.choose)
        alive = dream.cont.cumprod(1)[:, :-1]
        return -(dream.reward[:, 1:] * alive).mean()
