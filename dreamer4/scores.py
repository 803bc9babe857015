"""How well a prediction fits what happened: means over what is known, explained variance,
correlation. Pure functions, for every world model.

Letters: B sequences, T time.
"""

import torch

from . import ranks
from .batch import Batch

SAME = 1e-6  # float32 numbers that differ by this share of their size are the same
WORST = 100.0  # largest of the ratios of errors: what divides them may be next to nothing


def mean(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of x over all axes, weighted by `weight` of the same shape, bool or float; zero where it
    is zero everywhere.
    """
    weight = weight.to(x.dtype)
    return (x * weight).sum() / weight.sum().clamp(min=1e-6)


def shared_mean(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As mean, of the batch that all ranks have a share of: the mean of what they get is its
    weighted mean, and so is that of the gradients.
    """
    weight = weight.to(x.dtype)
    return (x * weight).sum() / ranks.mean(weight.sum()).clamp(min=1e-6)


def balanced_skill(
    guess: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, buckets: int = 8
) -> torch.Tensor:
    """Explained variance (scalar in [-1, 1]) in which rare levels of the truth weigh more than
    their number; the same in every unit.

    Plain accuracy on rare rewards favours a model that always predicts the common one; here it
    scores zero or less. The range of the truth is cut into equal buckets, and one with n members
    weighs sqrt(n): with equal weights a level that is met once or twice in a measurement decides
    it. A constant truth has no variance to explain: 1 where it is met to a hundredth of its size.
    """
    x, y, keep = guess[valid], truth[valid], torch.ones_like(truth[valid])
    if not len(y):
        return truth.new_zeros(())
    size = y.abs().max()
    unit = torch.where(vary(y), y.max() - y.min(), torch.where(size > 0, size, 1.0))
    x, y = (x - y.min()) / unit, (y - y.min()) / unit
    bucket = (y * (buckets - 1)).round().long()
    weight = torch.zeros(buckets, device=y.device).index_add_(0, bucket, keep)[bucket].rsqrt()
    weight = weight / weight.sum()
    center = (weight * y).sum()
    variance = (weight * (y - center).square()).sum()
    error = (weight * (x - y).square()).sum()
    return (1 - error / variance.clamp(min=1e-4)).clamp(min=-1)


def vary(x: torch.Tensor) -> torch.Tensor:
    """bool scalar: elements of x differ by more than rounding errors; False where there are
    none.
    """
    return (
        x.max() - x.min() > SAME * x.abs().max()
        if x.numel()
        else torch.zeros((), dtype=torch.bool, device=x.device)
    )


def correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Pearson correlation of two equal-shaped tensors in any units, zero if one is constant."""
    x, y = (torch.where(vary(z), z - z.mean(), 0.0) for z in (x, y))
    # squares of small ones would be lost
    x, y = (z / z.abs().max().clamp(min=torch.finfo(z.dtype).tiny) for z in (x, y))
    return (x * y).mean() / (x.square().mean() * y.square().mean()).sqrt().clamp(min=1e-12)


def reward_rows(batch: Batch) -> dict[str, torch.Tensor]:
    """reward_on_first and reward_missed_on_last: whether rewards stand in the rows where they
    belong, see model_metrics.
    """
    size, paid, last = (
        batch.reward.abs(),
        batch.reward_valid,
        (batch.is_last & batch.reward_valid).float(),
    )
    rewarded = (size > 0).float()
    usual = mean(rewarded, paid & ~batch.is_first & ~batch.is_last)
    return {
        'reward_on_first': (
            mean(size, batch.is_first & paid)
            / mean(size, paid).clamp(min=torch.finfo(size.dtype).tiny)
        ),
        'reward_missed_on_last': usual * last.sum() * ((rewarded * last).sum() == 0),
    }


def ratio(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean of a over mean of b where `where` is True (equal shapes), at most WORST."""
    return (mean(a, where) / mean(b, where).clamp(min=1e-12)).clamp(max=WORST)
