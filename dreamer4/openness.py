"""How open a policy is kept: the entropy bonus, steered to a share of the largest entropy.

How much a nat is worth depends on how much an action matters for the return. That differs by task,
by the number of action parts (six torques matter less, each, than one force), and grows as value
and policy learn. One bonus for all leaves a walker's policy at random and closes it on the first
answer when it is divided by five. So the entropy is given and the bonus follows, as the temperature
does in SAC (Haarnoja et al. 2018, Eq. 18), for each of several tasks by itself.
"""

import torch

from .tasks import Measured

RATE = 0.1  # of the logarithm of the bonus per policy update, for an entropy that is all too small
LEAST, MOST = 1e-5, 1.0  # bonus per nat


class Openness(Measured):
    """The entropy bonus of a policy, one for each task.

    Args:
        bonus: per nat, at first. goal: shares of the largest entropy, at full learning rates and
            when they have fallen to nothing; none for a bonus that stays. tasks: their number.
    """

    def __init__(self, bonus: float, goal: tuple[float, ...], tasks: int = 1):
        super().__init__(tasks, bonus=torch.tensor(bonus))
        self.ends = goal
        self.register_buffer('goal', torch.tensor(goal[0] if goal else 1.0))

    def aim(self, pace: float) -> None:
        """Set the goal of the next updates by the factor on the learning rates, in (0, 1]."""
        if self.ends:
            first, last = self.ends
            self.goal.fill_(last + (first - last) * pace)

    def worth(self, entropy: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        """What entropies (...) of tasks, which broadcast to them, add to the objective, (...)."""
        return self.of(self.bonus, task) * entropy

    @torch.no_grad()
    def follow(
        self,
        share: torch.Tensor,
        weight: torch.Tensor | None = None,
        task: torch.Tensor | None = None,
    ) -> None:
        """Move the bonus of each task: up where its entropy is a smaller share of the largest than
        it is to be. A task that was not met, and what is not finite, moves nothing.

        Args:
            share: (...) of this rank's frames. weight: (...) of them; None: all alike. task: long,
                broadcasts to (...), of several.
        """
        if not self.ends:
            return
        task = None if task is None else task.expand_as(share)
        count, mean = self.fold(task, torch.ones_like(share) if weight is None else weight)
        moved = (self.bonus * (RATE * (self.goal - mean(share))).exp()).clamp(LEAST, MOST)
        self.bonus.copy_(torch.where(moved.isfinite() & (count > 0), moved, self.bonus))
