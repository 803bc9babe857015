"""Attention over the tokens of a frame (space) and over the history of a token (time), one `attend`
for both.

Letters: B batch, T time (queries), S keys in time, N tokens, G query heads, M key-value heads, C
channels of a head. Queries and keys are RMS-normalised (QK-norm) and several query heads may share
one key-value head (GQA); Dreamer 4, Section 3.4.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from .layers import QKNorm, RMSNorm, rotate

# finite: minus infinity turns a row without any visible key into NaN, and its gradient into NaN
# everywhere
MASKED = -1e9
KERNELS = ('auto', 'fused', 'explicit', 'flex')
HEAD, FEWEST, MOST = (
    64,
    4,
    16,
)  # channels of a head, and how many heads there are (paper: not given)


def head_count(width: int) -> int:
    """Query heads of a transformer: HEAD channels each, FEWEST to MOST of them, as far as the width
    can be cut into heads of an even number of channels.
    """
    wanted = min(MOST, max(FEWEST, width // HEAD))
    return next((n for n in range(wanted, 0, -1) if width % (2 * n) == 0), 1)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    softcap: float = 0.0,
    kernel: str = 'auto',
) -> torch.Tensor:
    """softmax(cap(q k^T / sqrt(C)) + bias) v with grouped key-value heads.

    Args:
        q: (B, G, Q, C). k, v: (B, M, S, C) with M dividing G.
        bias: broadcastable to (B, 1, Q, S), zero where the query may look, which is at one key at
            least, and MASKED where not; None if it may look anywhere.
        softcap: logits become softcap * tanh(logits / softcap); 0 leaves them.
        kernel: 'fused' (torch's scaled dot-product attention, which knows no soft cap), 'explicit'
            (matrix products and a softmax), 'flex' (FlexAttention, compiled at the first call of a
            shape; soft cap included; no gradient on a CPU) or 'auto': a rule for the fastest that
            benchmarks/attention.py found on the shapes in use (docs/speed.md says where it misses).

    Returns:
        (B, G, Q, C).

    Raises:
        ValueError: the kernel cannot do what is asked of it.
    """
    if kernel == 'fused' and softcap:
        raise ValueError(
            f'attention: the fused kernel has no soft cap, got softcap {softcap}; take kernel auto,'
            ' explicit or flex'
        )
    if kernel == 'flex' and q.device.type == 'cpu' and q.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            'attention: the flex kernel has no gradient on a CPU; take kernel auto, explicit or'
            ' fused'
        )
    groups, shared = q.shape[1], k.shape[1]
    if bias is not None:
        bias = bias.to(q.dtype)
    # torch's fused kernel shares heads itself only without a bias; with one it would take its slow
    # path and not say so
    if groups != shared:
        k = k.repeat_interleave(groups // shared, 1)
        v = v.repeat_interleave(groups // shared, 1)
    if kernel == 'auto':
        kernel = _fastest(q, k, softcap)
    if kernel == 'fused':
        return F.scaled_dot_product_attention(q, k, v, bias)
    if kernel == 'flex':
        if bias is not None:
            bias = bias.view((1,) * (4 - bias.dim()) + bias.shape).expand(-1, -1, q.shape[2], -1)
        return _flex()(q, k, v, bias, softcap)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias
    return logits.softmax(-1) @ v


def _fastest(q: torch.Tensor, k: torch.Tensor, softcap: float) -> str:
    """Explicit under a soft cap, fused on a GPU. On a CPU explicit too, but for one query of few
    channels, or one whose keys would be copied, or in compiled code, which takes the products of a
    single query apart into loops that are three times slower.
    """
    if softcap:
        return 'explicit'
    single = q.shape[2] == 1 and (
        q.shape[3] < 32 or not k.is_contiguous() or torch.compiler.is_compiling()
    )
    return 'fused' if single or q.device.type != 'cpu' else 'explicit'


@functools.cache
def _flex():
    """FlexAttention as attend wants it; imported and compiled where it is asked for."""
    from torch.nn.attention.flex_attention import flex_attention

    def attention(q, k, v, bias, softcap):
        alike = bias is not None and bias.shape[0] == 1

        def score(logit, row, head, query, key):
            if softcap:
                logit = softcap * torch.tanh(logit / softcap)
            return logit if bias is None else logit + bias[0 if alike else row, 0, query, key]

        return flex_attention(q, k, v, score)

    # Space and time, training, acting and measuring, with and without gradient: some fifty shapes.
    # As one whole graph it fails beyond the limit, where torch would otherwise go on without
    # compiling.
    torch._dynamo.config.recompile_limit = max(512, torch._dynamo.config.recompile_limit)
    torch._dynamo.config.accumulated_recompile_limit = max(
        1024, torch._dynamo.config.accumulated_recompile_limit
    )
    return torch.compile(attention, dynamic=False, fullgraph=True)


class Attention(nn.Module):
    """Shared projections of the two directions; input is normalised here (pre-norm), the
    residual is added by the block.
    """

    def __init__(self, width: int, heads: int, kv_heads: int, softcap: float):
        super().__init__()
        if width % heads or heads % kv_heads:
            raise ValueError(
                f'attention: width {width} must be a multiple of heads {heads}, and heads of'
                f' kv_heads {kv_heads}'
            )
        self.heads, self.kv_heads, self.softcap, self.kernel = heads, kv_heads, softcap, 'auto'
        self.channels = width // heads
        if self.channels % 2:
            raise ValueError(
                f'attention: {self.channels} channels per head; rotary positions need an even'
                ' number'
            )
        self.norm = RMSNorm(width)
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * self.channels, bias=False)
        self.qk_norm = QKNorm(heads, kv_heads, self.channels)
        self.out = nn.Linear(width, width, bias=False)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x (..., D) -> normalised q beside k (..., G + M, C), v (..., M, C)."""
        parts = self.qkv(self.norm(x)).unflatten(-1, (-1, self.channels))
        qk, v = parts.split([self.heads + self.kv_heads, self.kv_heads], -2)
        return self.qk_norm(qk), v


class SpaceAttention(Attention):
    """Tokens of one frame look at each other."""

    def forward(
        self, x: torch.Tensor, bias: torch.Tensor | None, asks: slice = slice(None)
    ) -> torch.Tensor:
        """x (B, T, N, D), bias (Q, N) -> (B, T, Q, D). Only the Q tokens of `asks` look; all
        tokens are looked at.
        """
        flat = x.flatten(0, 1)
        if asks == slice(None):
            qk, v = self.project(flat)  # (B T, N, heads, C)
            q, k = qk.split([self.heads, self.kv_heads], -2)
        else:
            q, k, v = self._project_apart(flat, asks)
        out = attend(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), bias, self.softcap, self.kernel
        )
        return self.out(out.transpose(1, 2).flatten(-2)).unflatten(0, x.shape[:2])

    def _project_apart(self, x, asks):
        """The same projection with queries of some tokens only."""
        x, split = self.norm(x), self.heads * self.channels
        q = F.linear(x[:, asks], self.qkv.weight[:split]).unflatten(-1, (-1, self.channels))
        k, v = F.linear(x, self.qkv.weight[split:]).unflatten(-1, (-1, self.channels)).chunk(2, -2)
        return self.qk_norm(q, slice(0, self.heads)), self.qk_norm(k, slice(self.heads, None)), v


class TimeAttention(Attention):
    """Every token looks at its own past."""

    def forward(self, x, bias, angles, memory=None, layer: int = 0, asks: slice = slice(None)):
        """One layer of attention over time.

        Args:
            x: (B, T, N, D).
            bias: (B or 1, 1, T, S) over all keys that `memory` returns, or over T without memory.
            angles: rotary cosines and sines of the queries' positions, see layers.rotary_angles.
            memory: what supplies earlier keys and values (nets/memory.py); None: the queries' own.
            layer: which time layer this is, counted from 0, the memory's address.
            asks: the frames that look; all are looked at.

        Returns:
            (B, T of asks, N, D) and this layer's own (keys, values), each (B, N M, T, C), keys
            already rotated.
        """
        qk, v = self.project(x)
        q, k = rotate(qk, *angles).split([self.heads, self.kv_heads], -2)
        # the heads of all tokens side by side
        q, k, v = (part.flatten(2, 3).transpose(1, 2) for part in (q, k, v))
        keys, values = (k, v) if memory is None else memory.extend(layer, k, v)
        x, q, bias = x[:, asks], q[:, :, asks], None if bias is None else bias[:, :, asks]
        if not x.shape[1]:
            return x, (k, v)
        out = attend(q, keys, values, bias, self.softcap, self.kernel)  # (B, N G, T of asks, C)
        return self.out(out.transpose(1, 2).reshape(x.shape)), (k, v)
