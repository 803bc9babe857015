"""Strided convolutions of images of any size, and back.

Letters: N images, H W C their height, width and channels.
"""

import torch
from torch import nn

from .layers import zero_init

SMALLEST = 4  # pixels: convolutions halve an image until a side has no more
WIDEST = 8  # times the channels of the first convolution


class ConvEncoder(nn.Module):
    """Image (N, H, W, C) -> features (N, outputs); every convolution halves the sides.

    Args:
        shape: (H, W, C). channels: of the first convolution.
    """

    def __init__(self, shape: tuple[int, int, int], channels: int):
        super().__init__()
        self.layers, self.products = nn.ModuleList(), 0
        for (inputs, outputs), size in zip(widths(shape, channels), halvings(shape)):
            self.layers.append(
                nn.Sequential(
                    nn.Conv2d(inputs, outputs, 4, 2, 1), nn.GroupNorm(1, outputs), nn.SiLU()
                )
            )
            # multiplications of an image
            self.products += self.layers[-1][0].weight.numel() * size[0] * size[1]
        self.outputs = outputs * size[0] * size[1]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image.permute(0, 3, 1, 2)
        for layer in self.layers:
            # an odd side is made even
            x = layer(nn.functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2)))
        return x.flatten(1)


class ConvDecoder(nn.Module):
    """Features (N, inputs) of a ConvEncoder of the same arguments -> image (N, H, W, C); zero at
    the start.
    """

    def __init__(self, shape: tuple[int, int, int], channels: int):
        super().__init__()
        pairs, sides = widths(shape, channels), [shape[:2], *halvings(shape)]
        self.sides, self.start = sides[-2::-1], (pairs[-1][1], *sides[-1])
        up = [nn.ConvTranspose2d(outputs, inputs, 4, 2, 1) for inputs, outputs in reversed(pairs)]
        zero_init(up[-1])
        self.layers = nn.ModuleList(
            nn.Sequential(layer, nn.GroupNorm(1, layer.out_channels), nn.SiLU())
            for layer in up[:-1]
        )
        self.layers.append(up[-1])
        # of an image
        self.products = sum(
            conv.weight.numel() * h * w // 4 for conv, (h, w) in zip(up, self.sides)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(1, self.start)
        for layer, (height, width) in zip(self.layers, self.sides):
            x = layer(x)[..., :height, :width]
        return x.permute(0, 2, 3, 1)


def halvings(shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Sides (H, W) after each halving of an image, rounded up, until the smaller is SMALLEST."""
    sides = [tuple((n + 1) // 2 for n in shape[:2])]
    while min(sides[-1]) > SMALLEST:
        sides.append(tuple((n + 1) // 2 for n in sides[-1]))
    return sides


def widths(shape: tuple[int, int, int], channels: int) -> list[tuple[int, int]]:
    """Channels (in, out) of the convolutions of an image (H, W, C)."""
    sizes = [channels * min(2**i, WIDEST) for i in range(len(halvings(shape)))]
    return list(zip([shape[2], *sizes], sizes))
