"""Block-causal transformer with factored attention: space in every layer, time in every n-th
(Dreamer 4, Section 3.4).

Letters: B batch, T time, N tokens of a frame, D width, S keys in time.
"""

import torch
from torch import nn

from .attention import MASKED, SpaceAttention, TimeAttention
from .layers import RMSNorm, SwiGLU, rotary_angles
from .memory import KeyValues


class Block(nn.Module):
    """x + space(x), then x + time(x) where this layer has it, then x + feed-forward(x)."""

    def __init__(self, width: int, heads: int, kv_heads: int, softcap: float, timed: bool):
        super().__init__()
        self.space = SpaceAttention(width, heads, kv_heads, softcap)
        self.time = TimeAttention(width, heads, kv_heads, softcap) if timed else None
        self.norm = RMSNorm(width)
        self.mlp = SwiGLU(width)


class Transformer(nn.Module):
    """Stack of blocks and a final norm.

    Args:
        width, depth, heads, kv_heads: sizes; heads share key-value heads in groups (GQA) where
            kv_heads < heads.
        time_every: time attention in layers 0, n, 2n ...; 0 for none. Layer 0 has it so that later
            space layers can spread the past.
        softcap: cap of the attention logits, 0 for none.
    """

    def __init__(
        self, width: int, depth: int, heads: int, kv_heads: int, time_every: int, softcap: float
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width, heads, kv_heads, softcap, bool(time_every) and i % time_every == 0)
            for i in range(depth)
        )
        self.norm = RMSNorm(width)
        self.time_layers, self.channels = (
            sum(block.time is not None for block in self.blocks),
            width // heads,
        )

    def forward(
        self,
        x: torch.Tensor,
        space_mask: torch.Tensor,
        time_mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        memory=None,
        read: slice = slice(None),
        frames: slice = slice(None),
    ) -> tuple[torch.Tensor, KeyValues]:
        """Run all blocks.

        Args:
            x: (B, T, N, D).
            space_mask: bool (N, N), [query, key], True: may look.
            time_mask: bool (B or 1, T, S), True: may look; S counts the memory's keys where one is
                given. Unused without time layers.
            positions: (B or 1, T) positions in time.
            memory: see nets/memory.py.
            read: the tokens whose outputs are wanted. The last block computes nothing for the
                others that nobody looks at.
            frames: the frames whose outputs are wanted, slice(0) for none. The others end with the
                last time layer, which keeps what later frames look at.

        Returns:
            (B, T of frames, N of read, D) and per time layer the (keys, values) of all frames.
        """
        space_bias, time_bias, angles = as_bias(space_mask), None, None
        if time_mask is not None and self.time_layers:
            time_bias, angles = as_bias(time_mask)[:, None], rotary_angles(positions, self.channels)
        present = []
        if not self.time_layers:
            x = x[:, frames]
        for i, block in enumerate(self.blocks):
            last = i == len(self.blocks) - 1
            asks = read if last and block.time is None else slice(None)
            x = x[:, :, asks] + block.space(x, space_bias[asks], asks)
            if block.time is not None:
                on = frames if len(present) == self.time_layers - 1 else slice(None)
                change, own = block.time(x, time_bias, angles, memory, len(present), on)
                x = x[:, on] + change
                present.append(own)
                if not x.shape[1]:  # nothing but keys and values was asked for
                    return x[:, :, read], present
                x = x[:, :, read] if last else x
            x = x + block.mlp(block.norm(x))
        return self.norm(x), present


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
