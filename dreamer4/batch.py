"""The border between numpy rows and torch: Batch, the device move, and the one time shift of the
project.

        stored row t     obs_t, reward_t, is_first_t, is_last_t, is_terminal_t, action_t chosen
        after seeing obs_t
        model frame t    prev_action_t = action_{t-1}, which led to obs_t; reward_t and cont_t on
        arrival; action_t the policy's target
The replay hands out T+1 rows; the first serves only for the shift. Letters: B batch, T time, W
trajectories, H horizon, M action code, F features of a frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from embodied.base import MIX, UNLABELED, Spaces
from embodied.tasks import KEY

from . import ranks
from .actions import Actions

# keys of a row that are nothing to look at
FLAGS = ('reward', 'is_first', 'is_last', 'is_terminal', *UNLABELED, KEY)


@dataclass(frozen=True)
class Batch:
    """Model frames; every tensor is (B, T, ...) on one device.

    Attributes:
        obs: observation key -> tensor, as stored (images uint8).
        prev_action: (B, T, M) code of the action that led to the frame; meaningless where
            prev_valid is False.
        prev_valid: bool (B, T), False where the frame begins an episode or the action is not known
            (embodied.base.UNLABELED).
        action: (B, T, M) code of the action chosen at the frame.
        action_valid: bool (B, T), False where no action was executed (is_last) or it is not known.
        reward: (B, T) float32, received on arrival at the frame; zero where it is not known.
        reward_valid: bool (B, T), False where neither the reward nor is_terminal is known.
        is_first, is_last, is_terminal: bool (B, T).
        imitated: bool (B, T), frames whose action behaviour cloning learns; None for all.
        predicted: bool (B, T), frames that the dynamics learn to predict; None for all.
    """

    obs: dict[str, torch.Tensor]
    prev_action: torch.Tensor
    prev_valid: torch.Tensor
    action: torch.Tensor
    action_valid: torch.Tensor
    reward: torch.Tensor
    reward_valid: torch.Tensor
    is_first: torch.Tensor
    is_last: torch.Tensor
    is_terminal: torch.Tensor
    imitated: torch.Tensor | None = None
    predicted: torch.Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.is_first.shape)

    @property
    def task(self) -> torch.Tensor | None:
        """long (B, T), numbers of the tasks; None where there is one."""
        return self.obs[KEY].long() if KEY in self.obs else None

    def task_at(self, rows: torch.Tensor, frames: torch.Tensor) -> torch.Tensor | None:
        """long (W,) or None, at places long (W,)."""
        return None if self.task is None else self.task[rows, frames]

    def flat(self) -> dict[str, torch.Tensor]:
        """All tensors by name; observations are called 'obs/<key>'."""
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != 'obs'}
        rest = {name: value for name, value in rest.items() if value is not None}
        return {f'obs/{k}': v for k, v in self.obs.items()} | rest

    def blame(self) -> str:
        """One sentence about the values that are not finite, or else the largest: what to look
        at where a loss is not finite.
        """
        floats = {
            k: v.detach().float().reshape(*self.shape, -1)
            for k, v in self.flat().items()
            if v.is_floating_point() and v.numel()
        }
        parts = []
        for key, value in floats.items():
            bad = (~torch.isfinite(value)).any(-1)
            for sequence in bad.any(1).nonzero().flatten().tolist()[:3]:
                frames = bad[sequence].nonzero().flatten().tolist()
                parts.append(
                    f'{key} in sequence {sequence}, frames'
                    f' {", ".join(map(str, frames[:5]))}{" ..." if len(frames) > 5 else ""}'
                )
        if parts:
            return f'In the batch these are not finite: {"; ".join(parts)}.'
        sizes = {key: value.abs().max().item() for key, value in floats.items()}
        largest = max(sizes, key=sizes.get)
        return (
            f'All values of the batch are finite; the largest is {sizes[largest]:.3g} in {largest}.'
        )

    @classmethod
    def of(cls, flat: Mapping[str, torch.Tensor]) -> 'Batch':
        """Inverse of flat."""
        obs = {k.removeprefix('obs/'): v for k, v in flat.items() if k.startswith('obs/')}
        return cls(obs=obs, **{k: v for k, v in flat.items() if not k.startswith('obs/')})

    @property
    def single(self) -> torch.Tensor:
        """bool (B,): sequences of single images."""
        return self.is_first.all(1)

    def cut(self, begin: int, end: int) -> 'Batch':
        """The sequences from `begin` to `end` as single images: every frame begins an episode of
        its own (Dreamer 4, Section 3.2).
        """
        place = torch.arange(len(self.is_first), device=self.is_first.device)[:, None]
        single = (place >= begin) & (place < end)
        return replace(self, is_first=self.is_first | single, prev_valid=self.prev_valid & ~single)

    def shuffled(self) -> 'Batch':
        """The sequences in a random order, of which Roles are ranges."""
        return self.at(torch.rand(len(self.is_first), device=self.is_first.device).argsort())

    def at(self, rows: torch.Tensor) -> 'Batch':
        """The sequences of these numbers, long (N,), in their order."""
        return Batch.of({k: v.index_select(0, rows) for k, v in self.flat().items()})

    def after(self, rows: torch.Tensor, frames: torch.Tensor, count: int) -> 'Batch':
        """What stands behind some places, long (W,): the next `count` frames of those sequences,
        (W, count, ...), without what they show.
        """
        index = frames[:, None] + torch.arange(1, count + 1, device=frames.device)
        shown = {k: v for k, v in self.obs.items() if k == KEY}
        flat = replace(self, obs=shown).flat()
        return Batch.of({k: v[rows[:, None], index] for k, v in flat.items()})

    def first(self, rows: int) -> 'Batch':
        """Only the first `rows` sequences."""
        return Batch.of({k: v[:rows] for k, v in self.flat().items()})

    def joined(self) -> 'Batch':
        """The sequences of all ranks, on each: (ranks B, T, ...)."""
        return Batch.of({k: ranks.joined(v) for k, v in self.flat().items()})


@dataclass(frozen=True)
class Dream:
    """Imagined trajectories, as value and policy learn from them. Frame 0 is a real one.

    Attributes:
        features: (W, H+1, F) what policy and value read at frames 0 .. H.
        action: (W, H, M) code chosen at frames 0 .. H-1.
        reward, cont: (W, H+1) on arrival at frames 0 .. H; cont is the probability that the episode
            goes on.
        rows, frames: long (W,), where in the batch they begin.
        task: long (W,) or None, as of Batch.
    """

    features: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    cont: torch.Tensor
    rows: torch.Tensor
    frames: torch.Tensor
    task: torch.Tensor | None = None


@dataclass(frozen=True)
class Roles:
    """What the sequences of a training batch are for: ranges of an order that is random
    (Batch.shuffled).

        [ steps larger than d_min ........ | d_min ................. ]
                               [ single images ...... ]
    Whatever a sequence is, a demonstration or not, it takes every role as often as any other, and
    each role has its share within the other one: images alone train large steps, and so do frames
    with a past.

    Attributes:
        large: the first so many sequences train steps larger than d_min, the bootstrap.
        single: begin and end of those that are cut into single images.
    """

    large: int
    single: tuple[int, int]

    @classmethod
    def draw(cls, rows: int, large: float, single: float, rng: np.random.Generator) -> 'Roles':
        """Roles of `rows` sequences by their shares, in [0, 1].

        Numbers that are not whole are rounded up or down at random, so that the shares hold over
        many batches, in batches of a single long sequence too. Of images alone there are never so
        many that no sequence has a past, without which heads learn nothing.
        """
        near = lambda number: int(number + rng.random())
        large, single = near(large * rows), min(near(single * rows), rows - 1)
        both = min(max(near(large * single / rows), large + single - rows), large, single)
        return cls(large, (large - both, large - both + single))


def draw_starts(usable: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` places (row, frame), each long (count,), drawn without order from bool (B, T); every
    usable frame is as likely.

    Frames repeat only when fewer than `count` are usable. Without any usable frame the first ones
    are returned.
    """
    noise = torch.rand(usable.shape, device=usable.device).flatten() + usable.flatten()
    order = noise.argsort(descending=True)
    total = usable.sum().clamp(min=1)
    index = order[torch.arange(count, device=usable.device) % total]
    return index // usable.shape[1], index % usable.shape[1]


def observed(obs_space: Spaces) -> tuple[Spaces, list[str]]:
    """What an agent looks at: the spaces without flags and 'log/' keys, and the keys that
    make_batch() puts into a batch, the number of the task of several among them.
    """
    seen = {k: s for k, s in obs_space.items() if k not in FLAGS and not k.startswith('log/')}
    several = KEY in obs_space and obs_space[KEY].n > 1
    return seen, sorted(seen) + [KEY] * bool(several)


def make_batch(
    rows: Mapping[str, np.ndarray], obs_keys, actions: Actions, device: torch.device
) -> Batch:
    """Rows as the replay hands them out, (B, T+1, ...), -> Batch of (B, T).

    Raises:
        KeyError: a key is missing. ValueError: fewer than two rows.
    """
    needed = {*obs_keys, *actions.spaces, 'reward', 'is_first', 'is_last', 'is_terminal'}
    if missing := sorted(needed - set(rows)):
        raise KeyError(f'batch: rows lack {missing}; they hold {sorted(rows)}')
    if rows['is_first'].shape[1] < 2:
        raise ValueError(
            'batch: expected at least 2 rows of time, the first only for the shift, got'
            f' {rows["is_first"].shape}'
        )
    put = {k: move(v, device) for k, v in rows.items() if k in {*needed, *UNLABELED, *MIX}}
    acted, paid = (known(put, label) for label in ('unlabeled_action', 'unlabeled_reward'))
    for keys, where in ((actions.spaces, acted), (('reward', 'is_terminal'), paid)):
        put |= (
            {k: blank(put[k], where) for k in keys}
            if any(flag in put for flag in UNLABELED)
            else {}
        )
    code = actions.encode({k: put[k] for k in actions.spaces})
    executed = acted & ~put['is_last']
    return Batch(
        obs={k: put[k][:, 1:] for k in obs_keys},
        prev_action=code[:, :-1],
        prev_valid=executed[:, :-1] & ~put['is_first'][:, 1:],
        action=code[:, 1:],
        action_valid=executed[:, 1:],
        reward=put['reward'][:, 1:].float(),
        reward_valid=paid[:, 1:],
        is_first=put['is_first'][:, 1:],
        is_last=put['is_last'][:, 1:],
        is_terminal=put['is_terminal'][:, 1:],
        **{k: put[k][:, 1:] for k in MIX if k in put},
    )


def known(rows: Mapping[str, torch.Tensor], label: str) -> torch.Tensor:
    """bool (B, T): rows where neither the flag `label` nor 'unlabeled' is set."""
    flags = [rows[flag] for flag in (label, 'unlabeled') if flag in rows]
    return ~sum(flags, torch.zeros_like(rows['is_first'])).bool()


def blank(x: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """x (B, T, ...) with zeros where `where` (B, T) is False: a filler may be anything, also NaN
    or no choice at all.
    """
    return torch.where(where.reshape(*where.shape, *[1] * (x.ndim - 2)), x, torch.zeros_like(x))


def move(array: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Array -> tensor on the device; through pinned memory where there is a GPU, so that the
    host goes on while it is copied.
    """
    if isinstance(array, torch.Tensor):
        return array.to(device)
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == 'cuda':
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
