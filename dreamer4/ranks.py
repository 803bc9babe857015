"""Several processes that learn as one: what a rank asks of the others. In one process every
function here gives back what it was given.

Each rank has its share of the batch. A mean over all of it is the mean of the ranks' means, where
these are over equally many; a weighted one divides what a rank adds up by mean(weight), and the
ranks' mean of that is the whole. Gradients are such means: see average. So are metrics where they
reach the host (state.fetch): what is no mean, a largest value or a spread, is made that of all
ranks where it is measured.

All ranks must come to the same calls in the same order; only work for training calls them.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.distributed as dist


def count() -> int:
    """Processes that learn together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def number() -> int:
    """Of this process, from 0."""
    return dist.get_rank() if count() > 1 else 0


def total(x: torch.Tensor) -> torch.Tensor:
    """Sum over the ranks, without gradient."""
    if count() == 1:
        return x
    out = x.detach().clone()
    dist.all_reduce(out)
    return out


def mean(x: torch.Tensor) -> torch.Tensor:
    """Mean over the ranks, without gradient."""
    return x if count() == 1 else total(x) / count()


def largest(x: torch.Tensor) -> torch.Tensor:
    """Largest over the ranks, element by element, without gradient."""
    if count() == 1:
        return x
    out = x.detach().clone()
    dist.all_reduce(out, dist.ReduceOp.MAX)
    return out


def deviation(x: torch.Tensor) -> torch.Tensor:
    """Standard deviation (...) over the rows of all ranks, x (N, ...), without gradient."""
    x = x.detach().float()
    return mean((x - mean(x.mean(0))).square().mean(0)).sqrt()


def joined(x: torch.Tensor) -> torch.Tensor:
    """(N, ...) of every rank, equally many, -> (ranks N, ...), without gradient."""
    if count() == 1:
        return x
    found = [torch.empty_like(x) for _ in range(count())]
    dist.all_gather(found, x.detach().contiguous())
    return torch.cat(found)


@torch.no_grad()
def average(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace gradients by their means over the ranks, all in one message."""
    grads = [p.grad for p in parameters if p.grad is not None] if count() > 1 else []
    if not grads:
        return
    flat = mean(torch.cat([grad.flatten() for grad in grads]))
    for grad, part in zip(grads, flat.split([grad.numel() for grad in grads])):
        grad.copy_(part.view_as(grad))


@torch.no_grad()
def align(tensors: Iterable[torch.Tensor]) -> None:
    """Give every rank what rank 0 has."""
    if count() > 1:
        for x in tensors:
            dist.broadcast(x, 0)


def own(seed: int, updates: int = 0) -> int:
    """A seed of this rank after so many updates; rank 0 has the one that is given."""
    if not number():
        return seed
    parts = [seed, number(), updates] if updates else [seed, number()]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1
