"""The small layers every network here is made of: RMSNorm, SwiGLU, a head MLP, rotary positions.

Letters: B batch, T time, N tokens of a frame, D model width.
"""

import math

import torch
from torch import nn
import torch.nn.functional as F


class RMSNorm(nn.Module):
    """x / rms(x) * gain over the last axis, never in less than float32: norms are where bfloat16 loses most."""

    def __init__(self, width: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        return F.rms_norm(wide, self.gain.shape, self.gain, 1e-6).to(x.dtype)


class SwiGLU(nn.Module):
    """Gated feed-forward layer, about 8/3 D hidden units so that its size equals a plain 4 D layer."""

    def __init__(self, width: int):
        super().__init__()
        hidden = max(8, int(width * 8 / 3) // 8 * 8)
        self.inward = nn.Linear(width, 2 * hidden, bias=False)
        self.outward = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.inward(x).chunk(2, -1)
        return self.outward(F.silu(gate) * value)


class MLP(nn.Module):
    """Linear -> RMSNorm -> SiLU, `layers` times, then a linear output that starts at zero.

    The zero start makes a fresh reward or value head predict exactly zero and a fresh policy exactly uniform.
    """

    def __init__(self, inputs: int, width: int, layers: int, outputs: int):
        super().__init__()
        sizes = [inputs] + [width] * layers
        self.hidden = nn.Sequential(*(
                part for a, b in zip(sizes[:-1], sizes[1:])
                for part in (nn.Linear(a, b, bias=False), RMSNorm(b), nn.SiLU())))
        self.output = zero_init(nn.Linear(sizes[-1], outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(self.hidden(x))


def zero_init(linear: nn.Linear) -> nn.Linear:
    """Zero the weights and bias in place; returns the layer."""
    nn.init.zeros_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
    return linear


def rotary(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rotate channel pairs of x (..., T, C) by angles that grow with `positions`, broadcastable to (..., T).

    Only differences of positions matter for attention, so a window may start anywhere.
    """
    half = x.shape[-1] // 2
    rates = torch.exp(torch.arange(half, device=x.device) * (-math.log(1000.0) / half))
    angle = positions[..., None].float() * rates
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
