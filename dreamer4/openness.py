"""How open a policy is kept: the entropy bonus, steered to a share of the largest entropy.

How much a nat is worth depends on how much an action matters for the return. That differs by task,
by the number of action parts (six torques matter less, each, than one force), and grows as value
and policy learn. One bonus for all leaves a walker's policy at random and closes it on the first
answer when it is divided by five. So the entropy is given and the bonus follows, as the temperature
does in SAC (Haarnoja et al. 2018, Eq. 18).
"""

import torch
from torch import nn

from . import ranks

RATE = 0.1  # of the logarithm of the bonus per policy update, for an entropy that is all too small
LEAST, MOST = 1e-5, 1.0  # bonus per nat


class Openness(nn.Module):
    """The entropy bonus of a policy.

    Args:
        bonus: per nat, at first. goal: shares of the largest entropy, at full learning rates and
            when they have fallen to nothing; none for a bonus that stays.
    """

    def __init__(self, bonus: float, goal: tuple[float, ...]):
        super().__init__()
        self.ends = goal
        self.register_buffer('bonus', torch.tensor(bonus))
        self.register_buffer('goal', torch.tensor(goal[0] if goal else 1.0))

    def aim(self, pace: float) -> None:
        """Set the goal of the next updates by the factor on the learning rates, in (0, 1]."""
        if self.ends:
            first, last = self.ends
            self.goal.fill_(last + (first - last) * pace)

    @torch.no_grad()
    def follow(self, share: torch.Tensor) -> None:
        """Move the bonus: up where the entropy is a smaller share (scalar, of all ranks its mean)
        of the largest than it is to be. One that is not finite moves nothing.
        """
        if self.ends:
            off = self.goal - ranks.mean(share)
            moved = (self.bonus * (RATE * off).exp()).clamp(LEAST, MOST)
            self.bonus.copy_(torch.where(moved.isfinite(), moved, self.bonus))
