"""The small layers every network here is made of: norms, SwiGLU, a head MLP, rotary positions.

Letters: B batch, T time, N tokens of a frame, D model width.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-6


class _Normalize(torch.autograd.Function):
    """x / rms(x) * gain with a backward pass in six kernels. On a CPU torch takes both passes apart
    into some twenty small ones, which cost more than the matrix products beside them (speed tables
    in docs/speed.md).
    """

    @staticmethod
    def forward(ctx, x, gain):
        inverse = (x.square().mean(-1, keepdim=True) + EPS).rsqrt_()
        normal = x * inverse
        ctx.save_for_backward(normal, inverse, gain)
        return normal * gain

    @staticmethod
    def backward(ctx, grad):
        normal, inverse, gain = ctx.saved_tensors
        slope = (
            (grad * normal).flatten(0, -1 - gain.dim()).sum(0) if ctx.needs_input_grad[1] else None
        )
        if not ctx.needs_input_grad[0]:
            return None, slope
        grad = grad * gain
        along = (grad * normal).mean(-1, keepdim=True)
        return torch.addcmul(grad, normal, along, value=-1).mul_(inverse), slope


def normalize(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """x / rms(x) * gain, in float32 whatever comes: norms are where bfloat16 loses most. The mean
    of squares is over the last axis.

    Args:
        x: (..., *gain.shape). gain: one axis for a layer, two (heads, channels) for queries and
            keys.

    Returns:
        the shape and dtype of x.
    """
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    gain = gain.to(wide.dtype)  # where ranks share it, it comes in bfloat16
    if wide.device.type == 'cpu' and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Normalize.apply(wide, gain).to(x.dtype)
    if gain.dim() == 1:
        return F.rms_norm(wide, gain.shape, gain, EPS).to(x.dtype)
    return (F.rms_norm(wide, gain.shape[-1:], None, EPS) * gain).to(x.dtype)


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return normalize(x, self.gain)


class QKNorm(nn.Module):
    """RMS norm of queries and keys over their channels, with a gain for every head. One call serves
    both.

    Args:
        heads: G. kv_heads: M. channels: C.
    """

    def __init__(self, heads: int, kv_heads: int, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(heads + kv_heads, channels))

    def forward(self, qk: torch.Tensor, heads: slice = slice(None)) -> torch.Tensor:
        """qk (..., G + M, C), or only the `heads` of them, -> the same shape and dtype."""
        return normalize(qk, self.gain[heads])


class SwiGLU(nn.Module):
    """Gated feed-forward layer, about 8/3 D hidden units so that its size equals a plain 4 D
    layer.
    """

    def __init__(self, width: int):
        super().__init__()
        hidden = max(8, int(width * 8 / 3) // 8 * 8)
        self.inward = nn.Linear(width, 2 * hidden, bias=False)
        self.outward = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.inward(x).chunk(2, -1)
        return self.outward(F.silu(gate) * value)


def mlp(inputs: int, width: int, layers: int) -> nn.Sequential:
    """Linear -> RMSNorm -> SiLU, `layers` times."""
    sizes = [inputs] + [width] * layers
    return nn.Sequential(
        *(
            part
            for a, b in zip(sizes, sizes[1:])
            for part in (nn.Linear(a, b, bias=False), RMSNorm(b), nn.SiLU())
        )
    )


class MLP(nn.Module):
    """Linear -> RMSNorm -> SiLU, `layers` times, then a linear output that starts at zero.

    The zero start makes a fresh reward or value head predict exactly zero and a fresh policy
    exactly uniform.
    """

    def __init__(self, inputs: int, width: int, layers: int, outputs: int):
        super().__init__()
        self.hidden = mlp(inputs, width, layers)
        self.output = zero_init(nn.Linear(width if layers else inputs, outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(x))


def zero_init(linear: nn.Linear) -> nn.Linear:
    """Zero the weights and bias in place; returns the layer."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def rotary_angles(positions: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and signed sines for `rotate`, each (B or 1, T, 1, 1, C).

    Args:
        positions: (B or 1, T). Only their differences matter for attention, so a window may start
            anywhere.
    """
    half = channels // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(1000.0) / half))
    angle = positions[:, :, None, None, None].float() * rates
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the channel pairs (c, c + C / 2) of x (B, T, N, heads, C) by the angles of
    rotary_angles.
    """
    return torch.addcmul(x * cos.to(x.dtype), x.roll(x.shape[-1] // 2, -1), sin.to(x.dtype))
