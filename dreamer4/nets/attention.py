"""Attention over the tokens of a frame (space) and over the history of a token (time), one `attend` for both.

Letters: B batch, T time (queries), S keys in time, N tokens, G query heads, M key-value heads, C channels of a head.
Queries and keys are RMS-normalised (QK-norm) and several query heads may share one key-value head (GQA); Dreamer 4, Section 3.4.
"""

import torch
from torch import nn

from .layers import RMSNorm, rotary

MASKED = -1e9  # finite, so that a row without any visible key yields a mean and not NaN


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None, softcap: float) -> torch.Tensor:
    """softmax(cap(q k^T / sqrt(C)) + bias) v with grouped key-value heads.

    Args:
        q: (..., G, Q, C). k, v: (..., M, S, C) with M dividing G.
        bias: broadcastable to (..., 1, Q, S), zero where the query may look and MASKED where not; None if it may look anywhere.
        softcap: logits become softcap * tanh(logits / softcap); 0 leaves them.

    Returns:
        (..., G, Q, C).
    """
    groups, shared = q.shape[-3], k.shape[-3]
    if groups != shared:
        k = k.repeat_interleave(groups // shared, -3)
        v = v.repeat_interleave(groups // shared, -3)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.to(logits.dtype)
    return logits.softmax(-1) @ v


class Attention(nn.Module):
    """Shared projections of the two directions; input is normalised here (pre-norm), the residual is added by the block."""

    def __init__(self, width: int, heads: int, kv_heads: int, softcap: float):
        super().__init__()
        if width % heads or heads % kv_heads:
            raise ValueError(f'attention: width {width} must be a multiple of heads {heads}, and heads of kv_heads {kv_heads}')
        self.heads, self.kv_heads, self.softcap = heads, kv_heads, softcap
        self.channels = width // heads
        if self.channels % 2:
            raise ValueError(f'attention: {self.channels} channels per head; rotary positions need an even number')
        self.norm = RMSNorm(width)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.channels, bias=False)
        self.q_norm, self.k_norm = RMSNorm(self.channels), RMSNorm(self.channels)
        self.out = nn.Linear(width, width, bias=False)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x (..., D) -> q (..., G, C), k (..., M, C), v (..., M, C)."""
        parts = self.qkv(self.norm(x)).unflatten(-1, (-1, self.channels))
        q, k, v = parts.split([self.heads, self.kv_heads, self.kv_heads], -2)
        return self.q_norm(q), self.k_norm(k), v


class SpaceAttention(Attention):
    """Tokens of one frame look at each other."""

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x (B, T, N, D), bias (N, N) -> (B, T, N, D)."""
        q, k, v = (part.transpose(-2, -3) for part in self.project(x))  # (B, T, heads, N, C)
        return self.out(attend(q, k, v, bias, self.softcap).transpose(-2, -3).flatten(-2))


class TimeAttention(Attention):
    """Every token looks at its own past."""

    def forward(self, x, bias, positions, memory=None, layer: int = 0):
        """One layer of attention over time.

        Args:
            x: (B, T, N, D).
            bias: (B or 1, T, S) over all keys that `memory` returns, or over T without memory.
            positions: (B or 1, T) position of every query in its sequence.
            memory: what supplies earlier keys and values (nets/memory.py); None: the queries' own.
            layer: which time layer this is, counted from 0, the memory's address.

        Returns:
            (B, T, N, D) and this layer's own (keys, values), each (B, N, M, T, C), keys already rotated.
        """
        q, k, v = (part.permute(0, 2, 3, 1, 4) for part in self.project(x))  # (B, N, heads, T, C)
        where = positions[:, None, None]
        q, k = rotary(q, where), rotary(k, where)
        keys, values = (k, v) if memory is None else memory.extend(layer, k, v)
        out = attend(q, keys, values, bias[:, None, None], self.softcap)
        return self.out(out.permute(0, 3, 1, 2, 4).flatten(-2)), (k, v)
