"""Output distributions: symexp two-hot scalars and a factored policy over categorical and normal parts.

Letters: M categorical parts of an action, K choices of the largest part, E normal dimensions.
"""

import math

import torch
from torch import nn
import torch.nn.functional as F


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
        limit: the outermost bins stand at symexp(+-limit); targets beyond are clamped.
    """

    def __init__(self, bins: int, limit: float):
        super().__init__()
        if bins % 2 == 0:
            raise ValueError(f'two-hot: bins must be odd, so that zero has a bin of its own; got {bins}')
        half = symexp(torch.linspace(0, limit, bins // 2 + 1))
        self.register_buffer('values', torch.cat([-half.flip(0)[:-1], half]), persistent=False)

    def mean(self, logits: torch.Tensor) -> torch.Tensor:
        """Expected value (...) of logits (..., bins).

        Summed in mirrored pairs, so that a symmetric distribution gives exactly zero and not a rest of large bins.
        """
        p = logits.float().softmax(-1)
        half = len(self.values) // 2
        return ((p[..., half + 1:] - p[..., :half].flip(-1)) * self.values[half + 1:]).sum(-1)

    def loss(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy (...) between the two-hot encoding of target (...) and logits (..., bins)."""
        target = target.float().clamp(self.values[0], self.values[-1]).contiguous()
        low = (torch.searchsorted(self.values, target, right=True) - 1).clamp(0, len(self.values) - 2)
        weight = (target - self.values[low]) / (self.values[low + 1] - self.values[low])
        log_p = logits.float().log_softmax(-1)
        at_low = log_p.gather(-1, low[..., None])[..., 0]
        at_high = log_p.gather(-1, low[..., None] + 1)[..., 0]
        return -(at_low * (1 - weight) + at_high * weight)


class Policy:
    """Distribution over action codes (see dreamer4/actions.py): independent categoricals, then independent normals.

    Args:
        log_probs: (..., M, K) log-probabilities, -inf for choices a part does not have.
        mean, std: (..., E).
    """

    def __init__(self, log_probs: torch.Tensor, mean: torch.Tensor, std: torch.Tensor):
        self.log_probs, self.mean, self.std = log_probs, mean, std

    def sample(self) -> torch.Tensor:
        """Action code (..., M + E) as float32. Gumbel-max on the device's generator, so nothing waits for the host."""
        noise = -torch.empty_like(self.log_probs).exponential_().log()
        choice = (self.log_probs + noise).argmax(-1)
        return self._code(choice, self.mean + self.std * torch.randn_like(self.mean))

    def mode(self) -> torch.Tensor:
        """Most likely code (..., M + E)."""
        return self._code(self.log_probs.argmax(-1), self.mean)

    def log_prob(self, code: torch.Tensor) -> torch.Tensor:
        """Joint log-probability (...) of code (..., M + E)."""
        parts = self.log_probs.shape[-2]
        choice = code[..., :parts].long()[..., None]
        discrete = self.log_probs.gather(-1, choice)[..., 0].sum(-1)
        z = (code[..., parts:] - self.mean) / self.std
        return discrete + (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Entropy (...) in nats, summed over the parts."""
        finite = self._finite()
        discrete = -(self.log_probs.exp() * finite).sum((-1, -2))
        return discrete + (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: 'Policy') -> torch.Tensor:
        """KL(self || other) (...) in nats, exact, summed over the parts."""
        discrete = (self.log_probs.exp() * (self._finite() - other._finite())).sum((-1, -2))
        ratio = (self.std / other.std).square()
        shift = ((self.mean - other.mean) / other.std).square()
        return discrete + 0.5 * (ratio + shift - 1 - ratio.log()).sum(-1)

    def _finite(self) -> torch.Tensor:
        return self.log_probs.masked_fill(self.log_probs == -math.inf, 0.0)

    @staticmethod
    def _code(choice: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.cat([choice.float(), value.float()], -1)
