"""Output distributions: symexp two-hot scalars, bounded normals, and a factored policy over
categorical parts and real values.

Letters: M categorical parts of an action, K choices of a part, E real values.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def symlog(x: torch.Tensor) -> torch.Tensor:
    """sign(x) ln(1 + |x|)."""
    return x.sign() * x.abs().log1p()


def symexp(x: torch.Tensor) -> torch.Tensor:
    """Inverse of symlog: sign(x) (exp(|x|) - 1)."""
    return x.sign() * x.abs().expm1()


class TwoHot(nn.Module):
    """A real number as a distribution over symexp-spaced bins (Dreamer 4, Section 3.3; DreamerV3).

    Args:
        bins: number of bins, odd so that zero is one of them.
        limit: the outermost bins stand at symexp(+-limit); targets beyond are clipped to them.
    """

    def __init__(self, bins: int, limit: float):
        super().__init__()
        if bins % 2 == 0:
            raise ValueError(
                f'two-hot: bins must be odd, so that zero has a bin of its own; got {bins}'
            )
        half = symexp(torch.linspace(0, limit, bins // 2 + 1))
        self.register_buffer('values', torch.cat([-half.flip(0)[:-1], half]), persistent=False)
        self.outputs = bins

    def mean(self, logits: torch.Tensor) -> torch.Tensor:
        """Expected value (...) of logits (..., bins).

        Summed in mirrored pairs, so that a symmetric distribution gives exactly zero and not a rest
        of large bins.
        """
        p = logits.float().softmax(-1)
        half = len(self.values) // 2
        return ((p[..., half + 1 :] - p[..., :half].flip(-1)) * self.values[half + 1 :]).sum(-1)

    def clip(self, target: torch.Tensor) -> torch.Tensor:
        """Targets (...) as they are learned: no larger than the outermost bins."""
        return target.float().clamp(self.values[0], self.values[-1])

    def beyond(self, target: torch.Tensor) -> torch.Tensor:
        """bool (...): the target is larger than what the bins can say."""
        return target.abs() > self.values[-1]

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (...) between the two-hot encoding of target (...) and logits (...,
        bins).
        """
        target = self.clip(target).contiguous()
        low = (torch.searchsorted(self.values, target, right=True) - 1).clamp(
            0, len(self.values) - 2
        )
        weight = (target - self.values[low]) / (self.values[low + 1] - self.values[low])
        log_p = logits.float().log_softmax(-1)
        at_low = log_p.gather(-1, low[..., None])[..., 0]
        at_high = log_p.gather(-1, low[..., None] + 1)[..., 0]
        return -(at_low * (1 - weight) + at_high * weight)


class Plain(nn.Module):
    """A real number as the mean of a normal of unit variance (DreamerV1, DreamerV2); the calls of
    TwoHot.
    """

    outputs = 1

    def mean(self, logits: torch.Tensor) -> torch.Tensor:
        """The number (...) of logits (..., 1)."""
        return logits.float()[..., 0]

    def clip(self, target: torch.Tensor) -> torch.Tensor:
        """Targets (...) as they are learned: as they are."""
        return target.float()

    def beyond(self, target: torch.Tensor) -> torch.Tensor:
        """bool (...): False, every number can be said."""
        return torch.zeros_like(target, dtype=torch.bool)

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(x - target)^2 / 2 (...), the negative log-density but for a constant."""
        return 0.5 * (self.mean(logits) - target.float()).square()


class BoundedNormal:
    """Independent actions in [-1, 1] that come from normals.

    Args:
        mean: (..., E) in [-1, 1]. std: (..., E), positive.
        there: bool (..., E), False for actions that are none: always zero, of log-probability 0.
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor, there: torch.Tensor | None = None):
        self.mean, self.std, self.there = mean, std, there
        # the bounds, in standard deviations
        self.low, self.high = (-1 - mean) / std, (1 - mean) / std

    def mode(self) -> torch.Tensor:
        """Most likely values (..., E) strictly between the bounds."""
        return self._kept(self.mean)

    def _kept(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., E) with zeros for actions that are none."""
        return x if self.there is None else torch.where(self.there, x, torch.zeros_like(x))

    def entropy(self) -> torch.Tensor:
        """Entropy (...) in nats, exact, summed over E."""
        return -self._kept(self._cross(self)).sum(-1)

    def kl(self, other: 'BoundedNormal') -> torch.Tensor:
        """KL(self || other) (...) in nats, exact, summed over E."""
        return self._kept(self._cross(self) - self._cross(other)).sum(-1)

    def _log_normal(self, x: torch.Tensor) -> torch.Tensor:
        """Log-density of the normals without bounds."""
        return -0.5 * ((x - self.mean) / self.std).square() - self.std.log() - HALF_LOG_TAU

    def _mass(self) -> torch.Tensor:
        """Probability that the normals fall between the bounds; at least .47 where std <= 1."""
        return torch.special.ndtr(self.high) - torch.special.ndtr(self.low)

    def _inside(self, other: 'BoundedNormal') -> torch.Tensor:
        """Integral from -1 to 1 of N(x; self) log N(x; other)."""
        low, high = (torch.exp(-0.5 * z.square() - HALF_LOG_TAU) for z in (self.low, self.high))
        mass, first = self._mass(), low - high
        second = mass + self.low * low - self.high * high  # of the standard normal, like `first`
        shift = self.mean - other.mean
        square = self.std.square() * second + 2 * self.std * shift * first + shift.square() * mass
        return -0.5 * square / other.std.square() - mass * (other.std.log() + HALF_LOG_TAU)

    def _cross(self, other: 'BoundedNormal') -> torch.Tensor:
        """Expected log-probability (..., E) under `other` of what `self` draws."""
        raise NotImplementedError


class ClippedNormal(BoundedNormal):
    """Normals whose draws are clipped to [-1, 1], as the env executes them.

    Both bounds have a probability of their own, the tail beyond them; between them there is a
    density. log_prob is that of the action
    executed: all draws beyond a bound are the same action (clipped action policy gradient, Fujita
        and Maeda 2018).
    """

    def sample(self) -> torch.Tensor:
        """Values (..., E) in [-1, 1]."""
        return self._kept((self.mean + self.std * torch.randn_like(self.mean)).clamp(-1, 1))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Joint log-probability (...) of executed values (..., E): of the tail at a bound, of
        the density between.
        """
        at_low, at_high = self._log_tails()
        inside = self._log_normal(x.clamp(-1, 1))
        found = torch.where(x <= -1, at_low, torch.where(x >= 1, at_high, inside))
        return self._kept(found).sum(-1)

    def _log_tails(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.special.log_ndtr(self.low), torch.special.log_ndtr(-self.high)

    def _cross(self, other):
        tails = zip(self._log_tails(), other._log_tails())
        return self._inside(other) + sum(ours.exp() * theirs for ours, theirs in tails)


class TruncatedNormal(BoundedNormal):
    """Normals given that they fall into [-1, 1]: a density alone, with no weight on the bounds
    themselves.
    """

    def sample(self) -> torch.Tensor:
        """Values (..., E) in [-1, 1]."""
        low = torch.special.ndtr(self.low)
        share = low + torch.rand_like(low) * (torch.special.ndtr(self.high) - low)
        # 0 and 1 are drawn once in 2^24 times: they stand for infinity, whose gradient is NaN
        least = torch.finfo(share.dtype).eps / 2
        share = share.clamp(least, 1 - least)
        return self._kept((self.mean + self.std * torch.special.ndtri(share)).clamp(-1, 1))

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """Joint log-density (...) of values (..., E)."""
        return self._kept(self._log_normal(x.clamp(-1, 1)) - self._mass().log()).sum(-1)

    def _cross(self, other):
        return self._inside(other) / self._mass() - other._mass().log()


class Policy:
    """Distribution over action codes (see dreamer4/actions.py): independent categoricals, then
    independent real values.

    Args:
        log_probs: for every group of parts with as many choices each, (..., M of the group, K of
            the group), all finite.
        real: distribution of the E real values; of none where E is 0.
    """

    def __init__(self, log_probs: Sequence[torch.Tensor], real: BoundedNormal):
        self.log_probs, self.real = list(log_probs), real
        self._sizes = [x.shape[-2] for x in self.log_probs]

    def sample(self) -> torch.Tensor:
        """Action code (..., M + E) as float32. Gumbel-max on the device's generator, so nothing
        waits for the host.
        """
        draw = lambda x: (x - torch.empty_like(x).exponential_().log()).argmax(-1)
        return self._code([draw(x) for x in self.log_probs], self.real.sample())

    def mode(self) -> torch.Tensor:
        """Most likely code (..., M + E)."""
        return self._code([x.argmax(-1) for x in self.log_probs], self.real.mode())

    def log_prob(self, code: torch.Tensor) -> torch.Tensor:
        """Joint log-probability (...) of code (..., M + E)."""
        parts = sum(self._sizes)
        choices = code[..., :parts].long().split(self._sizes, -1)
        discrete = (
            x.gather(-1, choice[..., None])[..., 0].sum(-1)
            for x, choice in zip(self.log_probs, choices)
        )
        return sum(discrete, self.real.log_prob(code[..., parts:]))

    def entropy(self) -> torch.Tensor:
        """Entropy (...) in nats, summed over the parts."""
        return sum((-(x.exp() * x).sum((-1, -2)) for x in self.log_probs), self.real.entropy())

    def kl(self, other: 'Policy') -> torch.Tensor:
        """KL(self || other) (...) in nats, exact, summed over the parts."""
        pairs = zip(self.log_probs, other.log_probs)
        return sum(((x.exp() * (x - y)).sum((-1, -2)) for x, y in pairs), self.real.kl(other.real))

    @staticmethod
    def _code(choices: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
        return torch.cat([*(choice.float() for choice in choices), value.float()], -1)
