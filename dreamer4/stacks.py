"""Several RGB frames in one image, the newest last, as `env.dmc.stack` makes them: their
differences show what moves, and how fast.

A body that moves by a pixel changes few of them, and one picture, shown twice, explains most of
what both frames are. In a run on walker_stand that was all that was learned: of the difference of
the frames nothing was explained. Told and asked of the difference, a tokenizer of 800 updates
leaves .54 of it, and no more of the frames than before.

Letters: C channels, 3 for each frame.
"""

import torch

from embodied.pictures import stacked

from . import ranks
from .tasks import weighted_mean

RGB = 3
GAIN = 3.0  # of differences beside the newest frame: they are smaller than frames
WEIGHT = 2.0  # of their error beside that of the frames


def steps(image: torch.Tensor) -> torch.Tensor:
    """Differences (..., C - 3) of the frames of a stack (..., C) from those before."""
    return image[..., RGB:] - image[..., :-RGB]


def missed_steps(
    true: torch.Tensor, made: torch.Tensor, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted squared error (scalar) of the differences of stacks (B, T, H, W, C), and the share
    of their mean square that it is, of all ranks, without gradient.

    Args:
        weight: as of weighted_mean.
    """
    true, made = steps(true), steps(made)
    error = weighted_mean((made - true).square(), weight)
    usual = ranks.mean(weighted_mean(true.square(), weight)).clamp(min=1e-8)
    return WEIGHT * error, ranks.mean(error.detach()) / usual


def told(image: torch.Tensor) -> torch.Tensor:
    """A stack (..., C) as its differences and its newest frame, the same shape; other images as
    they are.
    """
    if not stacked(image.shape):
        return image
    return torch.cat([GAIN * steps(image), image[..., -RGB:]], -1)
