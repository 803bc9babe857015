"""Any dictionary of action spaces as one flat code, its features for the world model and its policy distribution.

An action is a code (..., M + E): M indices of categorical parts, stored as floats, then E real values.
        Discrete(n)      1 part of n            MultiDiscrete(nvec)  one part per entry
        MultiBinary(n)   n parts of 2           Box                  one part of `bins` values in [-1, 1] per dimension, or
                                                                                                                                  one normal per dimension (continuous='normal')
Letters: M parts, K choices of the largest part, E normal dimensions, A features.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from gymnasium import spaces

from .nets.outputs import Policy


class Actions(nn.Module):
    """Codec between the env's action dict, the code, the features that enter the dynamics, and policy parameters.

    Args:
        act_space: name -> gymnasium space, without 'reset'. Box spaces must be bounded to [-1, 1], as the env wrappers leave them.
        continuous: 'bins' (categorical over `bins` values) or 'normal', for Box spaces.
        bins: values per continuous dimension, odd so that zero is one of them.
        unimix: share of a uniform distribution mixed into every categorical part, which bounds log-probabilities.

    Raises:
        ValueError: for an unknown kind of space, an unbounded Box or an even number of bins.
    """

    def __init__(self, act_space: Mapping[str, spaces.Space], continuous: str, bins: int, unimix: float):
        super().__init__()
        if continuous not in ('bins', 'normal'):
            raise ValueError(f"actions: continuous must be 'bins' or 'normal', got {continuous!r}")
        if bins % 2 == 0:
            raise ValueError(f'actions: bins must be odd, so that zero is a choice; got {bins}')
        self.spaces, self.unimix, self.bins = dict(sorted(act_space.items())), unimix, bins
        self.binned = continuous == 'bins'
        parts, columns = [], []  # choices of every part; feature vectors of its choices
        self.fields, self.normals = {}, 0  # key -> (kind, slice of the code's parts or of its real values)
        for key, space in self.spaces.items():
            self._add(key, space, parts, columns)
        self.parts, self.choices = len(parts), max(parts, default=1)
        width = sum(rows.shape[1] for rows in columns)
        table, offset = torch.zeros(self.parts, self.choices, width), 0
        for m, rows in enumerate(columns):
            table[m, :rows.shape[0], offset:offset + rows.shape[1]] = rows
            offset += rows.shape[1]
        self.features = width + self.normals
        self.register_buffer('table', table, persistent=False)
        counts = torch.tensor(parts, dtype=torch.long).reshape(-1, 1)
        self.register_buffer('counts', counts.float(), persistent=False)
        self.register_buffer('absent', torch.arange(self.choices)[None] >= counts, persistent=False)
        self.register_buffer('grid', torch.linspace(-1, 1, bins), persistent=False)

    def _add(self, key, space, parts, columns):
        """Append the parts of one space and remember where they stand."""
        start = len(parts)
        if isinstance(space, spaces.Box):
            if not (np.all(space.low == -1) and np.all(space.high == 1)):
                raise ValueError(f'actions: Box {key!r} must span [-1, 1] (wrap the env with NormalizeAction), got {space}')
            size = int(np.prod(space.shape))
            if not self.binned:
                self.fields[key] = ('normal', slice(self.normals, self.normals + size))
                self.normals += size
                return
            parts += [self.bins] * size
            columns += [torch.linspace(-1, 1, self.bins)[:, None]] * size
        elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            counts = np.atleast_1d(getattr(space, 'nvec', getattr(space, 'n', None))).reshape(-1).tolist()
            parts += counts
            columns += [torch.eye(n) for n in counts]
        elif isinstance(space, spaces.MultiBinary):
            size = int(np.prod(space.shape))
            parts += [2] * size
            columns += [torch.tensor([[-1.0], [1.0]])] * size
        else:
            raise ValueError(f'actions: {key!r} is a {type(space).__name__}; expected Box, Discrete, MultiDiscrete or MultiBinary')
        self.fields[key] = ('bins' if isinstance(space, spaces.Box) else 'index', slice(start, len(parts)))

    @property
    def code_size(self) -> int:
        """M + E."""
        return self.parts + self.normals

    @property
    def outputs(self) -> int:
        """Number of network outputs that parametrise a policy: M K + 2 E."""
        return self.parts * self.choices + 2 * self.normals

    def encode(self, action: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Env actions, each (..., *space.shape), -> code (..., M + E); binned dimensions go to the nearest bin."""
        indices, values = [], []
        for key, (kind, _) in self.fields.items():
            x = action[key]
            x = x.reshape(*x.shape[:x.ndim - len(self.spaces[key].shape)], -1).float()
            if kind == 'bins':
                x = ((x.clamp(-1, 1) + 1) / 2 * (self.bins - 1)).round()
            (values if kind == 'normal' else indices).append(x)
        return torch.cat(indices + values, -1)

    def decode(self, code: torch.Tensor) -> dict[str, torch.Tensor]:
        """Code (..., M + E) -> env actions with the dtypes float32 (Box, in [-1, 1]), int32 or bool (MultiBinary)."""
        action = {}
        for key, (kind, where) in self.fields.items():
            space = self.spaces[key]
            part = code[..., self.parts:][..., where] if kind == 'normal' else code[..., where]
            if kind == 'bins':
                part = self.grid[part.long()]
            elif kind == 'normal':
                part = part.clamp(-1, 1)
            elif isinstance(space, spaces.MultiBinary):
                part = part > 0.5
            else:
                part = part.int()
            action[key] = part.reshape((*code.shape[:-1], *space.shape))
        return action

    def embed(self, code: torch.Tensor) -> torch.Tensor:
        """Features (..., A) of a code: one-hot choices, bin values, signs, real values."""
        index = code[..., :self.parts].long()
        rows = self.table[torch.arange(self.parts, device=code.device), index].sum(-2)
        return torch.cat([rows, code[..., self.parts:]], -1)

    def policy(self, outputs: torch.Tensor) -> Policy:
        """Distribution from network outputs (..., M K + 2 E); a normal has its mean in (-1, 1) and std in [0.1, 1]."""
        outputs = outputs.float()
        split = self.parts * self.choices
        logits = outputs[..., :split].unflatten(-1, (self.parts, self.choices)) if self.parts else outputs.new_zeros(
                *outputs.shape[:-1], 0, 1)
        logits = logits.masked_fill(self.absent, -math.inf)
        probs = logits.softmax(-1) * (1 - self.unimix) + self.unimix / self.counts
        log_probs = probs.masked_fill(self.absent, 1.0).log().masked_fill(self.absent, -math.inf)  # log(0) has no gradient
        mean, std = outputs[..., split:].chunk(2, -1)
        return Policy(log_probs, mean.tanh(), 0.1 + 0.9 * torch.sigmoid(std + 2))

    def uniform(self, *shape: int) -> torch.Tensor:
        """Random codes (*shape, M + E): uniform choices, real values uniform in [-1, 1]."""
        device = self.table.device
        index = (torch.rand(*shape, self.parts, device=device) * self.counts[:, 0]).floor()
        return torch.cat([index, torch.rand(*shape, self.normals, device=device) * 2 - 1], -1)

    def describe(self) -> str:
        """Words for the summary: keys and kinds."""
        return ', '.join(f'{key}: {self.spaces[key]}' for key in self.fields)
