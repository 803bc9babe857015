"""Any dictionary of action spaces as one flat code, its features for the world model and its policy
distribution.

An action is a code (..., M + E): M indices of categorical parts, stored as floats, then E real
values in [-1, 1]. A code stands for the action that the env executes, so that dreams see what the
        replay will hold.
        Discrete(n)      1 part of n            MultiDiscrete(nvec)  one part per entry
        MultiBinary(n)   n parts of 2           Box                  one part of `bins` values in
                                                                     [-1, 1] per dimension, or one
                                                                     real value (continuous='normal'
                                                                     or 'truncnormal')
Parts with as many choices form a group and stand together in the code. Nothing here is larger than
the number of all choices.
Letters: M parts, K choices of a part, E real values, A features.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from embodied.tasks import TaskId

from .nets.outputs import ClippedNormal, Policy, TruncatedNormal

REAL = {'normal': ClippedNormal, 'truncnormal': TruncatedNormal}
CONTINUOUS = ('bins', *REAL)
NEVER = -1e9  # log-probability of what cannot be chosen: finite, so that 0 times it is 0
MOST = 2**24  # choices of one part: larger indices are not exact in float32


class Part(NamedTuple):
    """How a categorical part enters the features: every choice sets one of its columns.

    Attributes:
        values: (K,) what each choice sets. columns: long (K,) which column. width: number of
            columns.
    """

    values: torch.Tensor
    columns: torch.Tensor
    width: int


def one_hot(count: int) -> Part:
    """A column for every choice."""
    return Part(torch.ones(count), torch.arange(count), count)


def number(values: torch.Tensor) -> Part:
    """One column, which holds the number that the choice stands for."""
    return Part(values, torch.zeros(len(values), dtype=torch.long), 1)


class Actions(nn.Module):
    """Codec between the env's action dict, the code, the features that enter the dynamics, and
    policy parameters.

    Args:
        act_space: name -> gymnasium space, without 'reset'. Bounded Box spaces are mapped to
            [-1, 1], which the env wrappers leave them at.
        continuous: for Box spaces: 'bins' (categorical over `bins` values), 'normal' (draws are
            clipped to the box) or 'truncnormal' (draws never leave it).
        bins: values per continuous dimension, odd so that zero is one of them.
        unimix: share of a uniform distribution mixed into every categorical part, which bounds
            log-probabilities.
        tasks: TaskId of several tasks, or None. What a task has not is one choice, which is no
            choice: it is zero in the code, its log-probability is 0 and has no gradient.

    Raises:
        ValueError: for an unknown kind of space, an unbounded Box, an even number of bins or a part
            of more than MOST choices.
    """

    def __init__(
        self,
        act_space: Mapping[str, spaces.Space],
        continuous: str,
        bins: int,
        unimix: float,
        tasks: spaces.Space | None = None,
    ):
        super().__init__()
        if continuous not in CONTINUOUS:
            raise ValueError(
                f'actions: continuous must be one of {", ".join(CONTINUOUS)}; got {continuous!r}'
            )
        if bins % 2 == 0:
            raise ValueError(f'actions: bins must be odd, so that zero is a choice; got {bins}')
        self.spaces, self.unimix, self.bins = dict(sorted(act_space.items())), unimix, bins
        self.continuous = continuous
        # key -> (kind, slice of the parts by key or of the code's real values)
        self.fields, self.normals = {}, 0
        self.scaled = {}  # key of a Box of other bounds -> its buffers (middle, half)
        parts = []
        for key, space in self.spaces.items():
            self._add(key, space, parts)
        self.parts = len(parts)
        counts = [len(part.values) for part in parts]
        if max(counts, default=0) > MOST:
            raise ValueError(f'actions: a part may have {MOST:,} choices, got {max(counts):,}')
        rank = {count: i for i, count in enumerate(dict.fromkeys(counts))}
        self.groups = [(counts.count(count), count) for count in rank]  # (parts, choices of each)
        # the code's parts, numbered by key
        order = sorted(range(self.parts), key=lambda m: rank[counts[m]])
        self._register([parts[m] for m in order], torch.tensor(order, dtype=torch.long))
        self.masked = isinstance(tasks, TaskId) and any(
            tasks.present(key) is not None for key in self.spaces
        )
        if self.masked:
            self._mask(tasks)

    def _add(self, key: str, space: spaces.Space, parts: list[Part]) -> None:
        """Append the parts of one space and remember where they stand."""
        start = len(parts)
        if isinstance(space, spaces.Box):
            if not np.all(np.isfinite(space.low) & np.isfinite(space.high)):
                raise ValueError(f'actions: Box {key!r} must have finite bounds, got {space}')
            self._keep_bounds(key, space)
            size = int(np.prod(space.shape))
            if self.continuous != 'bins':
                self.fields[key] = ('real', slice(self.normals, self.normals + size))
                self.normals += size
                return
            parts += [number(torch.linspace(-1, 1, self.bins))] * size
        elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            counts = (
                np.atleast_1d(getattr(space, 'nvec', getattr(space, 'n', None)))
                .reshape(-1)
                .tolist()
            )
            parts += [one_hot(n) for n in counts]
        elif isinstance(space, spaces.MultiBinary):
            parts += [number(torch.tensor([-1.0, 1.0]))] * int(np.prod(space.shape))
        else:
            raise ValueError(
                f'actions: {key!r} is a {type(space).__name__}; expected Box, Discrete,'
                ' MultiDiscrete or MultiBinary'
            )
        self.fields[key] = (
            'bins' if isinstance(space, spaces.Box) else 'index',
            slice(start, len(parts)),
        )

    def _keep_bounds(self, key: str, space: spaces.Box) -> None:
        """Remember how a Box that does not span [-1, 1] is mapped to it."""
        if np.all(space.low == -1) and np.all(space.high == 1):
            return
        names = f'middle_{len(self.scaled)}', f'half_{len(self.scaled)}'
        low, high = (np.asarray(x, np.float32).reshape(-1) for x in (space.low, space.high))
        for name, value in zip(names, ((low + high) / 2, (high - low) / 2)):
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        self.scaled[key] = names

    def _register(self, parts: list[Part], order: torch.Tensor) -> None:
        """Tables of the parts as they stand in the code: by part (M,), and by choice, those of
        all parts in a row.
        """
        counts = torch.tensor([len(part.values) for part in parts], dtype=torch.long)
        widths = torch.tensor([part.width for part in parts], dtype=torch.long)
        self.choices, self.width = int(counts.sum()), int(widths.sum())
        self.features = self.width + self.normals
        first = (widths.cumsum(0) - widths).tolist()
        tables = {
            'order': order,
            'place': order.argsort(),
            'counts': counts.float(),
            'begin': counts.cumsum(0) - counts,
            'table': torch.cat([torch.zeros(0), *(part.values for part in parts)]),
            'column': torch.cat(
                [order[:0], *(part.columns + begin for part, begin in zip(parts, first))]
            ),
            'grid': torch.linspace(-1, 1, self.bins),
        }
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)

    def _mask(self, tasks: TaskId) -> None:
        """Tables of what each task may choose: (tasks, choices) as they stand in the code, and
        (tasks, E).
        """
        may, real = [None] * self.parts, [torch.ones(tasks.n, 0, dtype=torch.bool)]
        for key, (kind, where) in self.fields.items():
            present, space = tasks.present(key), self.spaces[key]
            if present is None:
                present = np.ones((tasks.n, int(np.prod(space.shape))), bool)
            if kind == 'real':
                real.append(torch.from_numpy(present))
                continue
            places = range(where.start, where.stop)
            counts = [int(self.counts[self.place[m]]) for m in places]
            if len(present[0]) == len(counts):  # numbers or flags, not choices
                present = np.repeat(present, counts, 1)
            for m, part in zip(places, torch.from_numpy(present).split(counts, 1)):
                # what stands for zero: of bins the middle one, of all others the first
                zero = counts[0] // 2 if kind == 'bins' else 0
                may[m] = part.index_put((~part.any(1), torch.tensor(zero)), torch.tensor(True))
        order = self.order.tolist()
        none = torch.ones(tasks.n, 0, dtype=torch.bool)
        self.register_buffer(
            'may', torch.cat([none, *(may[m] for m in order)], 1), persistent=False
        )
        self.register_buffer('real', torch.cat(real, 1), persistent=False)

    @property
    def code_size(self) -> int:
        """M + E."""
        return self.parts + self.normals

    @property
    def outputs(self) -> int:
        """Number of network outputs that parametrise a policy: one per choice and two per real
        value.
        """
        return self.choices + 2 * self.normals

    def encode(self, action: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Env actions, each (..., *space.shape), -> code (..., M + E); what leaves a box goes to
        its bound or outermost bin.
        """
        indices, values = [], []
        for key, (kind, _) in self.fields.items():
            x = action[key]
            x = x.reshape(*x.shape[: x.ndim - len(self.spaces[key].shape)], -1).float()
            if key in self.scaled:
                middle, half = (getattr(self, name) for name in self.scaled[key])
                # a number that is always the same has no half
                x = (x - middle) / half.where(half > 0, 1.0)
            if kind != 'index':
                x = x.clamp(-1, 1)
            if kind == 'bins':
                x = ((x + 1) / 2 * (self.bins - 1)).round()
            (values if kind == 'real' else indices).append(x)
        if len(self.groups) > 1:
            indices = [torch.cat(indices, -1)[..., self.order]]
        return torch.cat(indices + values, -1)

    def decode(self, code: torch.Tensor) -> dict[str, torch.Tensor]:
        """Code (..., M + E) -> env actions with the dtypes float32 (Box, in [-1, 1]), int32 or
        bool (MultiBinary).
        """
        indices, values = code[..., : self.parts], code[..., self.parts :]
        if len(self.groups) > 1:
            indices = indices[..., self.place]
        action = {}
        for key, (kind, where) in self.fields.items():
            space = self.spaces[key]
            part = (values if kind == 'real' else indices)[..., where]
            if kind == 'bins':
                part = self.grid[part.long()]
            elif kind == 'real':
                part = part.clamp(-1, 1)
            elif isinstance(space, spaces.MultiBinary):
                part = part > 0.5
            else:
                part = part.int()
            if key in self.scaled:
                middle, half = (getattr(self, name) for name in self.scaled[key])
                part = middle + half * part
            action[key] = part.reshape((*code.shape[:-1], *space.shape))
        return action

    def embed(self, code: torch.Tensor) -> torch.Tensor:
        """Features (..., A) of the action that a code stands for: one-hot choices, bin values,
        signs, real values in [-1, 1].
        """
        choice = code[..., : self.parts].long() + self.begin
        rows = code.new_zeros(*code.shape[:-1], self.width).scatter(
            -1, self.column[choice], self.table[choice].to(code.dtype)
        )
        return torch.cat([rows, code[..., self.parts :].clamp(-1, 1)], -1)

    def embed_sampled(self, code: torch.Tensor, policy: Policy) -> torch.Tensor:
        """Features (..., A) of a code that was sampled from `policy`, the same numbers as embed,
        with a gradient into the policy: that of the expected features for categorical parts
        (straight-through), that of the sample for real values.
        """
        likely = [code[..., :0], *(x.exp().flatten(-2) for x in policy.log_probs)]
        columns = code.new_zeros(*code.shape[:-1], self.width)
        columns = columns.index_add(-1, self.column, torch.cat(likely, -1) * self.table)
        soft = torch.cat([columns, torch.zeros_like(code[..., self.parts :])], -1)
        return self.embed(code) + (soft - soft.detach())

    def policy(self, outputs: torch.Tensor, task: torch.Tensor | None = None) -> Policy:
        """Distribution from network outputs (..., `outputs`); a normal has its mean in (-1, 1)
        and std in [0.1, 1].

        Args:
            task: long, which broadcasts to (...), of several tasks.
        """
        outputs = outputs.float()
        *logits, real = outputs.split(
            [*(count * choices for count, choices in self.groups), 2 * self.normals], -1
        )
        mays, there = [None] * len(self.groups), None
        if self.masked and task is not None:
            mays = self.may[task].split([count * choices for count, choices in self.groups], -1)
            mays = [x.unflatten(-1, group) for x, group in zip(mays, self.groups)]
            there = self.real[task]
        log_probs = [
            self._mixed(x.unflatten(-1, group), may)
            for x, group, may in zip(logits, self.groups, mays)
        ]
        mean, std = real.chunk(2, -1)
        kind = REAL.get(self.continuous, ClippedNormal)  # with bins there are no real values
        return Policy(log_probs, kind(mean.tanh(), 0.1 + 0.9 * torch.sigmoid(std + 2), there))

    def _mixed(self, logits: torch.Tensor, may: torch.Tensor | None = None) -> torch.Tensor:
        """Log-probabilities (..., K) of logits, with a share of the uniform distribution; NEVER
        where bool `may` is False.
        """
        count = logits.shape[-1]
        if may is not None:
            logits, count = logits.masked_fill(~may, NEVER), may.sum(-1, keepdim=True)
        if self.unimix:
            mixed = (logits.softmax(-1) * (1 - self.unimix) + self.unimix / count).log()
            return mixed if may is None else mixed.masked_fill(~may, NEVER)
        return logits.log_softmax(-1)  # no probability underflows to log(0)

    def uniform(self, *shape: int, task: torch.Tensor | None = None) -> torch.Tensor:
        """Random codes (*shape, M + E): uniform choices, real values uniform in [-1, 1]; of those
        that the tasks (*shape) have.
        """
        device = self.table.device
        if self.masked and task is not None:
            flat = torch.zeros(*shape, self.outputs, device=device)
            code, there = self.policy(flat, task).sample(), self.real[task]
            value = (torch.rand(*shape, self.normals, device=device) * 2 - 1) * there
            return torch.cat([code[..., : self.parts], value], -1)
        index = (torch.rand(*shape, self.parts, device=device) * self.counts).floor()
        return torch.cat([index, torch.rand(*shape, self.normals, device=device) * 2 - 1], -1)

    def describe(self) -> str:
        """Words for the summary: keys and kinds."""
        words = ', '.join(f'{key}: {self.spaces[key]}' for key in self.fields)
        return ' '.join(words.split())  # arrays are written in several lines
