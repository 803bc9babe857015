"""Networks of a recurrent state-space model: recurrent cells, encoder and decoder of observations.

Letters: N rows of any batch, D deterministic state, Z stochastic state, A action features, U hidden
units, G blocks, E embedding.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import nn

from ...nets.conv import ConvDecoder, ConvEncoder, halvings
from ...nets.layers import RMSNorm
from ...vectors import safe, split_space, vector_size, vectorize

ACTS = {'silu': nn.SiLU, 'elu': nn.ELU}
NORMS = {'rms': RMSNorm, 'layer': nn.LayerNorm, 'none': nn.Identity}
MULTS = (2, 3, 4)  # of the depth, by convolution; further ones have the last (DreamerV3)


@dataclass(frozen=True)
class Style:
    """Which activation and norm stand between layers: keys of ACTS and NORMS."""

    act: str
    norm: str

    def layer(self, inputs: int, outputs: int) -> nn.Sequential:
        """Linear -> norm -> activation."""
        return nn.Sequential(
            nn.Linear(inputs, outputs), NORMS[self.norm](outputs), ACTS[self.act]()
        )

    def mlp(self, inputs: int, width: int, layers: int) -> nn.Sequential:
        """`layers` times Linear -> norm -> activation, at least one."""
        sizes = [inputs] + [width] * layers
        return nn.Sequential(*(self.layer(a, b) for a, b in zip(sizes, sizes[1:])))


class BlockLinear(nn.Module):
    """A linear layer whose matrix is block-diagonal: G times fewer weights (DreamerV3).

    Args:
        inputs, outputs, blocks: G divides both.
    """

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        if inputs % blocks or outputs % blocks:
            raise ValueError(
                f'block linear: {blocks} blocks must divide {inputs} inputs and {outputs} outputs'
            )
        self.blocks = blocks
        bound = (blocks / inputs) ** 0.5
        self.weight = nn.Parameter(
            torch.empty(blocks, inputs // blocks, outputs // blocks).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs) -> (N, outputs); block g of the outputs reads block g of the inputs."""
        grouped = x.unflatten(-1, (self.blocks, -1)).transpose(0, 1)  # (G, N, inputs / G)
        return torch.bmm(grouped, self.weight.to(x.dtype)).transpose(0, 1).flatten(1) + self.bias


class Cell(nn.Module):
    """h_t = f(h_{t-1}, z_{t-1}, a_{t-1}): the deterministic path of a state-space model."""

    def forward(
        self, deter: torch.Tensor, stoch: torch.Tensor, action: torch.Tensor
    ) -> torch.Tensor:
        """deter (N, D), stoch (N, Z), action (N, A) -> deter (N, D)."""
        raise NotImplementedError


class PlainGRU(Cell):
    """torch's GRU behind one layer that reads sample and action (DreamerV1)."""

    def __init__(self, deter: int, stoch: int, action: int, hidden: int, blocks: int, style: Style):
        super().__init__()
        self.inward = style.layer(stoch + action, hidden)
        self.gru = nn.GRUCell(hidden, deter)

    def forward(self, deter, stoch, action):
        return self.gru(self.inward(torch.cat([stoch, action], -1)), deter)


class NormGRU(Cell):
    """A GRU with layer norm on its gates, slow to forget (DreamerV2):

    reset, cand, update = LayerNorm(W [x, h]);  cand = tanh(sigmoid(reset) cand)
    h' = u cand + (1 - u) h,  u = sigmoid(update - 1)
    """

    def __init__(self, deter: int, stoch: int, action: int, hidden: int, blocks: int, style: Style):
        super().__init__()
        self.inward = style.layer(stoch + action, hidden)
        self.gates = nn.Sequential(
            nn.Linear(hidden + deter, 3 * deter, bias=False), nn.LayerNorm(3 * deter)
        )

    def forward(self, deter, stoch, action):
        x = self.inward(torch.cat([stoch, action], -1))
        return gated(deter, *self.gates(torch.cat([x, deter], -1)).chunk(3, -1))


class BlockGRU(Cell):
    """A GRU in G blocks (DreamerV3). Every block reads its own part of h and all of one layer each
    over h, z and a:

    x = [layer(h) | layer(z) | layer(a)];  y_g = layer([h_g | x]);  gates_g = W_g y_g
    and goes on as NormGRU does. The norm stands on y, over all blocks.
    """

    def __init__(self, deter: int, stoch: int, action: int, hidden: int, blocks: int, style: Style):
        super().__init__()
        self.blocks = blocks
        self.inward = nn.ModuleList(style.layer(size, hidden) for size in (deter, stoch, action))
        self.hidden = nn.Sequential(
            BlockLinear(deter + blocks * 3 * hidden, deter, blocks),
            NORMS[style.norm](deter),
            ACTS[style.act](),
        )
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def forward(self, deter, stoch, action):
        x = torch.cat([layer(v) for layer, v in zip(self.inward, (deter, stoch, action))], -1)
        own = deter.unflatten(-1, (self.blocks, -1))
        y = torch.cat([own, x[:, None].expand(-1, self.blocks, -1)], -1).flatten(1)
        gates = self.gates(self.hidden(y)).unflatten(-1, (self.blocks, 3, -1))
        return gated(deter, *(gates[:, :, i].flatten(1) for i in range(3)))


def gated(deter, reset, cand, update) -> torch.Tensor:
    """u tanh(sigmoid(reset) cand) + (1 - u) h with u = sigmoid(update - 1): at the start three
    quarters of the state stay."""
    update = torch.sigmoid(update - 1)
    return update * torch.tanh(torch.sigmoid(reset) * cand) + (1 - update) * deter


CELLS = {'plain': PlainGRU, 'norm': NormGRU, 'block': BlockGRU}


class PoolEncoder(nn.Module):
    """Image (N, H, W, C) -> features (N, outputs): 5 x 5 convolutions at full resolution, each
    followed by max pooling (DreamerV3).

    Args:
        shape: (H, W, C). depth: unit of the channels, see MULTS.
    """

    def __init__(self, shape: tuple[int, int, int], depth: int, style: Style):
        super().__init__()
        sides, channels = halvings(shape), depths(shape, depth)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 5, 1, 2), ChannelNorm(b), ACTS[style.act]())
            for a, b in zip([shape[2], *channels], channels)
        )
        self.outputs = channels[-1] * sides[-1][0] * sides[-1][1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.movedim(-1, -3)
        for conv, norm, act in self.layers:
            # the last row and column of an odd side are pooled alone
            x = act(norm(F.max_pool2d(conv(x), 2, ceil_mode=True)))
        return x.flatten(1)


class PoolDecoder(nn.Module):
    """Features (N, inputs) of a PoolEncoder of the same arguments -> logits (N, H, W, C): nearest
    neighbours and 5 x 5 convolutions (DreamerV3). Zero at the start."""

    def __init__(self, shape: tuple[int, int, int], depth: int, style: Style):
        super().__init__()
        sides, channels = halvings(shape), depths(shape, depth)
        self.start, self.sides = (channels[-1], *sides[-1]), [shape[:2], *sides[:-1]][::-1]
        widths = [*channels[-2::-1], shape[2]]
        convs = [nn.Conv2d(a, b, 5, 1, 2) for a, b in zip(channels[::-1], widths)]
        nn.init.zeros_(convs[-1].weight)
        nn.init.zeros_(convs[-1].bias)
        self.layers = nn.ModuleList(
            nn.Sequential(conv, ChannelNorm(b), ACTS[style.act]())
            for conv, b in zip(convs[:-1], widths)
        )
        self.layers.append(convs[-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(1, self.start)
        for layer, (height, width) in zip(self.layers, self.sides):
            x = layer(F.interpolate(x, scale_factor=2, mode='nearest')[..., :height, :width])
        return x.movedim(-3, -1)


class ChannelNorm(nn.Module):
    """RMS norm over the channels of every pixel, (N, C, H, W) -> the same."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = RMSNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.movedim(-3, -1)).movedim(-1, -3)


def depths(shape: tuple[int, int, int], depth: int) -> list[int]:
    """Channels of the convolution before each halving."""
    return [depth * MULTS[min(i, len(MULTS) - 1)] for i in range(len(halvings(shape)))]


# `rssm.conv` -> encoder, decoder of an image. 'strided' halves by 4 x 4 convolutions of stride two,
# which double the channels (DreamerV1, DreamerV2), at a fraction of the cost.
CONVS = {
    'pooled': (PoolEncoder, PoolDecoder),
    'strided': (
        lambda shape, depth, style: ConvEncoder(shape, depth),
        lambda shape, depth, style: ConvDecoder(shape, depth),
    ),
}


class Encoder(nn.Module):
    """Observations -> embedding (N, E): a convolutional net for each image, one MLP for all other
    keys together, symlog of real numbers and one-hots of classes.

    Args:
        obs_space: key -> space; uint8 Boxes of three axes are images. depth: of the convolutions.
            units, layers: of the MLP. conv: key of CONVS.
    """

    def __init__(
        self,
        obs_space: Mapping[str, spaces.Space],
        depth: int,
        units: int,
        layers: int,
        conv: str,
        style: Style,
    ):
        super().__init__()
        self.spaces = dict(sorted(obs_space.items()))
        self.images, self.vectors = split_space(obs_space, 'rssm')
        self.convs = nn.ModuleDict(
            {safe(k): CONVS[conv][0](s.shape, depth, style) for k, s in self.images.items()}
        )
        self.outputs = sum(net.outputs for net in self.convs.values())
        if self.vectors:
            total = sum(vector_size(s) for s in self.vectors.values())
            self.mlp = style.mlp(total, units, layers)
            self.outputs += units

    def forward(self, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """obs: key -> (N, *shape) as stored."""
        parts = [self.convs[safe(k)](obs[k].float() / 255 - 0.5) for k in self.images]
        if self.vectors:
            numbers = [vectorize(obs[k][:, None], s)[:, 0] for k, s in self.vectors.items()]
            parts.append(self.mlp(torch.cat(numbers, -1)))
        return torch.cat(parts, -1)


class Spread(nn.Module):
    """deter (N, D) and stoch (N, Z) -> the features (N, outputs) that convolutions begin with.

    The large state goes through a matrix of blocks, the small one through a hidden layer, and the
    sum through norm and activation: of a dense matrix over both, most parameters of a large model
    would be this one (DreamerV3).
    """

    def __init__(self, deter: int, stoch: int, units: int, outputs: int, blocks: int, style: Style):
        super().__init__()
        self.deter = BlockLinear(deter, outputs, blocks)
        self.stoch = nn.Sequential(style.layer(stoch, 2 * units), nn.Linear(2 * units, outputs))
        self.after = nn.Sequential(NORMS[style.norm](outputs), ACTS[style.act]())

    def forward(self, deter: torch.Tensor, stoch: torch.Tensor) -> torch.Tensor:
        return self.after(self.deter(deter) + self.stoch(stoch))


class Decoder(nn.Module):
    """State -> observations, the mirror of Encoder.

    Args:
        obs_space, depth, units, layers, conv, style: as for Encoder. deter, stoch: D, Z. blocks: of
            Spread, a divisor of D.
    """

    def __init__(
        self,
        obs_space: Mapping[str, spaces.Space],
        deter: int,
        stoch: int,
        depth: int,
        units: int,
        layers: int,
        conv: str,
        blocks: int,
        style: Style,
    ):
        super().__init__()
        self.images, self.vectors = split_space(obs_space, 'rssm')
        self.convs, self.spreads = nn.ModuleDict(), nn.ModuleDict()
        for key, space in self.images.items():
            net = CONVS[conv][1](space.shape, depth, style)
            self.spreads[safe(key)] = Spread(
                deter, stoch, units, math.prod(net.start), blocks, style
            )
            self.convs[safe(key)] = net
        if self.vectors:
            self.sizes = [vector_size(s) for s in self.vectors.values()]
            self.mlp = nn.Sequential(
                style.mlp(deter + stoch, units, layers), nn.Linear(units, sum(self.sizes))
            )

    def forward(self, deter: torch.Tensor, stoch: torch.Tensor) -> dict[str, torch.Tensor]:
        """deter (N, D), stoch (N, Z) -> key -> images (N, H, W, C) in (0, 1), or vectors (N,
        vector_size): symlog of real numbers, one-hots of classes.
        """
        out = {}
        for key in self.images:
            image = self.convs[safe(key)](self.spreads[safe(key)](deter, stoch))
            out[key] = torch.sigmoid(image.float())
        if self.vectors:
            numbers = self.mlp(torch.cat([deter, stoch], -1)).float().split(self.sizes, -1)
            out |= dict(zip(self.vectors, numbers))
        return out
