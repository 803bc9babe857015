"""Block-causal transformer with factored attention: space in every layer, time in every n-th
(Dreamer 4, Section 3.4).

Letters: B batch, T time, N tokens of a frame, D width, S keys in time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .attention import MASKED, SpaceAttention, TimeAttention
from .layers import RMSNorm, SwiGLU, rotary_angles
from .memory import Beside, Cache, KeyValues

ALL = slice(None)


@dataclass(frozen=True)
class View:
    """What the frames of a pass see in time.

    Attributes:
        mask: bool (B or 1, T, S), [query, key], True: may look; S counts the keys of the memory
            where there is one, else S = T.
        positions: (B or 1, T) positions in time.
        memory: what supplies earlier keys and values; None: the frames' own alone.
    """

    mask: torch.Tensor
    positions: torch.Tensor
    memory: Beside | Cache | None = None

    def rows(self, rows: slice) -> 'View':
        """The same for a part of the batch."""
        of = lambda x: x if len(x) == 1 else x[rows]
        return View(of(self.mask), of(self.positions), self.memory and self.memory.rows(rows))

    def at(self, frames: slice) -> 'View':
        """The same for some of the frames that look."""
        return View(self.mask[:, frames], self.positions[:, frames], self.memory)


@dataclass(frozen=True)
class Time:
    """A View as the attention of all layers takes it: additive bias (B or 1, 1, T, S), rotary
    angles of the positions, memory.
    """

    bias: torch.Tensor
    angles: tuple[torch.Tensor, torch.Tensor]
    memory: Beside | Cache | None


class Block(nn.Module):
    """x + space(x), then x + time(x) where this layer has it, then x + feed-forward(x).

    Args:
        layer: number of the time layer, which is its address in a memory; None for none.

    Attributes:
        recompute: keep nothing but the input for the way back, and compute the layer again there.
    """

    recompute = False

    def __init__(
        self, width: int, heads: int, kv_heads: int, softcap: float, layer: int | None = None
    ):
        super().__init__()
        self.layer = layer
        self.space = SpaceAttention(width, heads, kv_heads, softcap)
        timed = layer is not None
        self.time = TimeAttention(width, heads, kv_heads, softcap) if timed else None
        self.norm = RMSNorm(width)
        self.mlp = SwiGLU(width)

    def forward(
        self,
        x: torch.Tensor,
        bias: torch.Tensor,
        time: Time | None,
        read: slice = ALL,
        frames: slice = ALL,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor] | None]:
        """One layer.

        Args:
            x: (B, T, N, D). bias: (N, N) of space attention. time: of time attention.
            read, frames: tokens and frames whose outputs are wanted; all are looked at.

        Returns:
            (B, T of frames, N of read, D) and the (keys, values) of time attention over all frames
            and tokens, None without it.
        """
        if self.recompute and torch.is_grad_enabled():
            return again(self._layer, x, bias, time, read, frames)
        return self._layer(x, bias, time, read, frames)

    def _layer(self, x, bias, time, read, frames):
        asks = read if self.time is None else ALL
        x, own = x[:, :, asks] + self.space(x, bias[asks], asks), None
        if self.time is not None:
            change, own = self.time(x, time.bias, time.angles, time.memory, self.layer, frames)
            x = (x[:, frames] + change)[:, :, read]
        if x.shape[1]:  # else nothing but keys and values was asked for
            x = x + self.mlp(self.norm(x))
        return x, own


class Transformer(nn.Module):
    """Stack of blocks and a final norm.

    Args:
        width, depth, heads, kv_heads: sizes; heads share key-value heads in groups (GQA) where
            kv_heads < heads.
        time_every: time attention in layers 0, n, 2n ...; 0 for none. Layer 0 has it so that later
            space layers can spread the past.
        softcap: cap of the attention logits, 0 for none.

    Attributes:
        slices: parts of the batch that a pass with gradient takes one after the other; each is
            computed again on the way back, so that only one of them holds activations at a time.
    """

    slices = 1

    def __init__(
        self, width: int, depth: int, heads: int, kv_heads: int, time_every: int, softcap: float
    ):
        super().__init__()
        timed = [bool(time_every) and i % time_every == 0 for i in range(depth)]
        self.blocks = nn.ModuleList(
            Block(width, heads, kv_heads, softcap, sum(timed[:i]) if timed[i] else None)
            for i in range(depth)
        )
        self.norm = RMSNorm(width)
        self.channels = width // heads
        # nobody looks at the frames of later layers, at the tokens of the last one
        self.last_timed = max((i for i in range(depth) if timed[i]), default=None)

    def forward(
        self,
        x: torch.Tensor,
        space_mask: torch.Tensor,
        view: View | None = None,
        read: slice = ALL,
        frames: slice = ALL,
    ) -> tuple[torch.Tensor, KeyValues]:
        """Run all blocks.

        Args:
            x: (B, T, N, D).
            space_mask: bool (N, N), [query, key], True: may look.
            view: of the time layers; None where there are none.
            read: the tokens whose outputs are wanted. The last block computes nothing for the
                others that nobody looks at.
            frames: the frames whose outputs are wanted, slice(0) for none. The others end with the
                last time layer, which keeps what later frames look at.

        Returns:
            (B, T of frames, N of read, D) and per time layer the (keys, values) of all frames.
        """
        if self.slices == 1 or not torch.is_grad_enabled():
            return self._pass(x, space_mask, view, read, frames)
        parts = []
        for rows in torch.arange(len(x)).tensor_split(min(self.slices, len(x))):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            seen = view and view.rows(part)
            parts.append(again(self._pass, x[part], space_mask, seen, read, frames))
        out, present = zip(*parts)
        join = lambda pairs: tuple(torch.cat(same) for same in zip(*pairs))
        return torch.cat(out), [join(pairs) for pairs in zip(*present)]

    def _pass(self, x, space_mask, view, read, frames):
        bias, time, present = as_bias(space_mask), None, []
        if self.last_timed is None:
            x = x[:, frames]
        else:
            angles = rotary_angles(view.positions, self.channels)
            time = Time(as_bias(view.mask)[:, None], angles, view.memory)
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            wanted = frames if i == self.last_timed else ALL
            x, own = block(x, bias, time, read if last else ALL, wanted)
            present += [own] if own is not None else []
            if not x.shape[1]:
                return (x if last else x[:, :, read]), present
        return self.norm(x), present


def again(run: Callable, *args):
    """run(*args), of which nothing but the arguments is kept for the way back."""
    # no layer draws random numbers
    return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)


def as_bias(mask: torch.Tensor) -> torch.Tensor:
    """Boolean mask -> additive float32 bias, zero where True."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, MASKED)


def causal_mask(is_first: torch.Tensor) -> torch.Tensor:
    """Who may look at whom in time: bool (B, T, T), True where the key is not later and belongs to
    the same episode.

    Args:
        is_first: bool (B, T), True where an episode begins.
    """
    episode = is_first.long().cumsum(1)
    same = episode[:, :, None] == episode[:, None, :]
    length = is_first.shape[1]
    return same & torch.ones(length, length, dtype=torch.bool, device=is_first.device).tril()
