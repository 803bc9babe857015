"""Convolutional autoencoder of single frames: a tokenizer for small networks, which see where a thin body stands.

Patches of a small transformer know the place of a body to a fraction of a patch; convolutions share what they learn over all places.
Letters: B batch, T time, L latent tokens, Z channels of a latent, D width, C channels of a convolution.
"""

from collections.abc import Mapping

import torch
from torch import nn

from .nets.layers import mlp, zero_init
from .tokenizer import Tokenizer, TokenizerConfig, safe, vector_size, vectorize

SMALLEST = 4  # pixels: convolutions halve an image until a side has no more
WIDEST = 8  # times the channels of the first convolution


class ConvTokenizer(Tokenizer):
    """Strided convolutions for every image, features of every vector, one MLP to the latents, and the same way back.

    Args:
        obs_space, config: as for Tokenizer. `patch`, `heads`, `mask_max` and `unmasked` are without meaning here.

    Raises:
        ValueError: `time_every` is not 0, or nothing to encode.
    """

    def build(self, config: TokenizerConfig) -> None:
        if config.time_every:
            raise ValueError(f'tokenizer: kind conv sees single frames, so time_every must be 0, got {config.time_every}')
        self.encoders = nn.ModuleDict({safe(k): ConvEncoder(s.shape, config.conv) for k, s in self.images.items()})
        self.decoders = nn.ModuleDict({safe(k): ConvDecoder(s.shape, config.conv) for k, s in self.images.items()})
        self.sizes = [e.outputs for e in self.encoders.values()] + [vector_size(s) for s in self.vectors.values()]
        total, latent = sum(self.sizes), config.latents * config.channels
        self.inward = mlp(total, config.width, config.depth)
        self.bottleneck = nn.Linear(config.width, latent)
        self.outward = mlp(latent, config.width, config.depth)
        self.unbottleneck = nn.Linear(config.width, total)

    def encode(
            self, obs: Mapping[str, torch.Tensor], is_first: torch.Tensor, drop: torch.Tensor | None = None,
            frames: slice = slice(None)) -> torch.Tensor:
        obs = {k: obs[k][:, frames] for k in [*self.images, *self.vectors]}
        images = [self.encoders[safe(k)](self.scale[safe(k)](obs[k]).flatten(0, 1)) for k in self.images]
        vectors = [vectorize(obs[k], space).flatten(0, 1) for k, space in self.vectors.items()]
        latent = torch.tanh(self.bottleneck(self.inward(torch.cat(images + vectors, -1))).float())
        return latent.unflatten(0, (is_first.shape[0], -1)).unflatten(-1, self.latent_shape)

    def decode(self, latent: torch.Tensor, is_first: torch.Tensor) -> dict[str, torch.Tensor]:
        shape = latent.shape[:2]
        x = self.outward(latent.flatten(0, 1).flatten(1).to(self.unbottleneck.weight.dtype))
        parts = iter(self.unbottleneck(x).split(self.sizes, -1))
        out = {}
        for key in self.images:
            image = self.decoders[safe(key)](next(parts)).float().unflatten(0, shape)
            out[key] = self.scale[safe(key)].invert(image)
        for key in self.vectors:
            out[key] = next(parts).float().unflatten(0, shape)
        return out


class ConvEncoder(nn.Module):
    """Image (N, H, W, C) -> features (N, outputs); every convolution halves the sides.

    Args:
        shape: (H, W, C). channels: of the first convolution.
    """

    def __init__(self, shape: tuple[int, int, int], channels: int):
        super().__init__()
        self.layers, self.products, size = nn.ModuleList(), 0, shape[:2]
        for inputs, outputs in widths(shape, channels):
            size = tuple((n + 1) // 2 for n in size)
            self.layers.append(nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.GroupNorm(1, outputs), nn.SiLU()))
            self.products += self.layers[-1][0].weight.numel() * size[0] * size[1]  # multiplications of an image
        self.outputs = outputs * size[0] * size[1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.permute(0, 3, 1, 2)
        for layer in self.layers:
            x = layer(nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))  # an odd side is made even
        return x.flatten(1)


class ConvDecoder(nn.Module):
    """Features (N, inputs) of a ConvEncoder of the same arguments -> image (N, H, W, C); zero at the start."""

    def __init__(self, shape: tuple[int, int, int], channels: int):
        super().__init__()
        pairs, self.shape, sides = widths(shape, channels), shape, [shape[:2]]
        for _ in pairs:
            sides.append(tuple((n + 1) // 2 for n in sides[-1]))
        self.sides, self.start = sides[-2::-1], (pairs[-1][1], *sides[-1])
        up = [nn.ConvTranspose2d(outputs, inputs, 4, 2, 1) for inputs, outputs in reversed(pairs)]
        zero_init(up[-1])
        self.layers = nn.ModuleList(
            nn.Sequential(layer, nn.GroupNorm(1, layer.out_channels), nn.SiLU()) for layer in up[:-1])
        self.layers.append(up[-1])
        self.products = sum(conv.weight.numel() * h * w // 4 for conv, (h, w) in zip(up, self.sides))  # of an image

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(1, self.start)
        for layer, (height, width) in zip(self.layers, self.sides):
            x = layer(x)[..., :height, :width]
        return x.permute(0, 2, 3, 1)


def widths(shape: tuple[int, int, int], channels: int) -> list[tuple[int, int]]:
    """Channels (in, out) of the convolutions of an image (H, W, C)."""
    count, side = 1, (min(shape[:2]) + 1) // 2
    while side > SMALLEST:
        count, side = count + 1, (side + 1) // 2
    sizes = [shape[2]] + [channels * min(2 ** i, WIDEST) for i in range(count)]
    return list(zip(sizes, sizes[1:]))
