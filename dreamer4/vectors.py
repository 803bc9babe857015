"""Observations: which are images; the others as numbers; and names of keys as torch can hold them.

Letters: B batch, T time.
"""

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from embodied.base import is_image

from .nets.outputs import symexp, symlog

TAKEN = frozenset(dir(nn.ModuleDict()))  # names that a module cannot have


def split_space(
    obs_space: Mapping[str, spaces.Space], who: str
) -> tuple[dict[str, spaces.Space], dict[str, spaces.Space]]:
    """(images, all others) of an observation space, each sorted by key.

    Raises:
        ValueError: there is nothing to observe, for `who` wants it.
    """
    if not obs_space:
        raise ValueError(f'{who}: expected an observation with at least one key, got none')
    keys = sorted(obs_space)
    return (
        {k: obs_space[k] for k in keys if is_image(obs_space[k])},
        {k: obs_space[k] for k in keys if not is_image(obs_space[k])},
    )


def vector_size(space: spaces.Space) -> int:
    """Number of features of a non-image space: one-hot for Discrete and MultiDiscrete, flat
    otherwise.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return int(np.sum(getattr(space, 'nvec', getattr(space, 'n', None))))
    return int(np.prod(space.shape))


def vectorize(x: torch.Tensor, space: spaces.Space) -> torch.Tensor:
    """Stored values (B, T, *shape) -> features (B, T, vector_size): symlog of real values,
    one-hots of classes.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        flat = x.reshape(*x.shape[:2], -1).long()
        # a blank frame is zeros, which need not be a class
        parts = [
            nn.functional.one_hot((flat[..., i] - first).clamp(0, n - 1), n)
            for i, (first, n) in enumerate(classes(space))
        ]
        return torch.cat(parts, -1).float()
    return symlog(x.reshape(*x.shape[:2], -1).float())


def classes(space: spaces.Discrete | spaces.MultiDiscrete) -> list[tuple[int, int]]:
    """The first class, and how many there are, of each number of a space."""
    counts = np.asarray(getattr(space, 'nvec', getattr(space, 'n', None)))
    firsts = np.broadcast_to(space.start, counts.shape)
    return list(zip(firsts.reshape(-1).tolist(), counts.reshape(-1).tolist()))


def devectorize(x: torch.Tensor, space: spaces.Space) -> torch.Tensor:
    """What is decoded -> values as the env gives them, (N, *space.shape), within the space: images
    (N, H, W, C) in about [0, 1], or features (N, vector_size) as of vectorize.
    """
    kind = torch.from_numpy(np.zeros((), space.dtype)).dtype
    if is_image(space):
        return (x.clamp(0, 1) * 255).round().to(kind)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        firsts, counts = zip(*classes(space))
        parts = zip(firsts, x.split(counts, -1))
        choice = [first + part.argmax(-1) for first, part in parts]
        return torch.stack(choice, -1).reshape(len(x), *space.shape).to(kind)
    value = symexp(x.float()).reshape(len(x), *space.shape)
    if isinstance(space, spaces.Box) and kind != torch.bool:
        low, high = (torch.from_numpy(np.asarray(b, np.float64)) for b in (space.low, space.high))
        value = value.double().clamp(low.to(value.device), high.to(value.device))
    if kind.is_floating_point:
        return value.to(kind)
    return (
        value > 0.5
        if kind == torch.bool or isinstance(space, spaces.MultiBinary)
        else value.round()
    ).to(kind)


def safe(key: str) -> str:
    """A name for the module of an observation key: the key itself, or, where torch could not hold
    that, one behind ':'.

    No key holds a colon, so that two keys never share a module.
    """
    return f':{key.replace(".", ":")}' if '.' in key or key in TAKEN else key
