"""Which observations are pictures, how they become uint8 (H, W, C), and how such are shown.

Inside the system an image is uint8 (height, width, channels) with any number of channels;
everything else is a vector, classes or flags. What an env declares otherwise is recognised here by
dtype, rank and bounds. Letters: H height, W width, C channels, T stacked frames.
"""

import math
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from PIL import Image

from .base import OUTCOME, Spaces, is_image

USUAL_CHANNELS = (1, 3, 4)
FLOAT_RANGES = ((0, 1), (0, 255), (-1, 1), (-0.5, 0.5))  # bounds that pictures in floats have
LEAST_SIDE = 8  # pixels; smaller arrays of floats are no pictures
LEAST_FLAT_SIDE = 16  # pixels; likewise without a channel axis, which tables have not either
LARGE_VECTOR = 1024  # entries beyond which an array that is no picture is worth a word
LARGE_PICTURE = 128 * 128  # pixels beyond which a picture is worth a word
SHOWN_CHANNELS = 8  # that are shown side by side
AXES_WORDS = {
    'HWC': '',
    'CHW': ', channels first',
    'HW': ' without a channel axis',
    'THWC': ', stacked frames first',
    'TCHW': ', stacked frames and channels first',
}


@dataclass(frozen=True)
class Picture:
    """How an array is read as an image.

    Attributes:
      space: of the image: uint8 (H, W, C).
      source: the space as it was declared.
      axes: 'HWC', 'CHW', 'HW', 'THWC' or 'TCHW', the meaning of its axes.
      low, high: values that become 0 and 255.
    """

    space: spaces.Box
    source: spaces.Box
    axes: str
    low: float
    high: float

    @property
    def unchanged(self) -> bool:
        """Whether the array is the image."""
        return self.axes == 'HWC' and self.exact

    @property
    def exact(self) -> bool:
        """Whether its values are those of the image."""
        return self.source.dtype == np.uint8

    def read(self, value: np.ndarray) -> np.ndarray:
        """The image of a value of the source; what lies beyond low and high is cut off."""
        image = arrange(np.asarray(value), self.axes)
        if self.exact:
            return np.ascontiguousarray(image)
        scaled = (image.astype(np.float32) - self.low) * (255 / (self.high - self.low))
        return np.ascontiguousarray(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))

    def __str__(self) -> str:
        shape = 'x'.join(map(str, self.source.shape))
        words = AXES_WORDS[self.axes] + (
            '' if self.exact else f', in {self.low:g} .. {self.high:g}'
        )
        return f'{self.source.dtype} {shape}{words} is read as {reading(self.space)}'


def picture(space: spaces.Space) -> Picture | None:
    """How a space is read as an image; None where it is none.

    Images are all arrays of uint8 or bool with three or four axes; of other integers those whose
    bounds span at most 255; of floats those with sides of at least 8 and the bounds of
    FLOAT_RANGES; and without a channel axis those that span all of uint8, or as floats 0 .. 1 or 0
    .. 255.
    """
    if not isinstance(space, spaces.Box) or not 2 <= len(space.shape) <= 4 or 0 in space.shape:
        return None
    kind, bounds = space.dtype.kind, uniform_bounds(space)
    axes = axes_of(space.shape)
    height, width, channels = arrange(np.broadcast_to(np.uint8(0), space.shape), axes).shape
    side = min(height, width)
    if space.dtype == np.uint8:
        fits = axes != 'HW' or bounds == (0, 255) and side >= LEAST_SIDE
        bounds = (0, 255)
    elif kind == 'f' or axes == 'HW' and kind in 'iu':
        ranges = FLOAT_RANGES[:2] if axes == 'HW' else FLOAT_RANGES
        fits = bounds in ranges and side >= (LEAST_FLAT_SIDE if axes == 'HW' else LEAST_SIDE)
    else:
        fits = (
            kind in 'biu'
            and axes != 'HW'
            and bounds is not None
            and 0 < bounds[1] - bounds[0] <= 255
        )
    if not fits:
        return None
    image = spaces.Box(0, 255, (height, width, channels), np.uint8)
    return Picture(image, space, axes, *bounds)


def uniform_bounds(space: spaces.Box) -> tuple[float, float] | None:
    """(low, high) where they are finite and the same for all entries, else None."""
    low, high = float(space.low.flat[0]), float(space.high.flat[0])
    same = (space.low == space.low.flat[0]).all() and (space.high == space.high.flat[0]).all()
    return (low, high) if same and math.isfinite(low) and math.isfinite(high) else None


def axes_of(shape: tuple[int, ...]) -> str:
    """What the axes of a picture of this shape mean.

    Channels stand first or last. A last axis of 1, 3 or 4 is channels, unless the first one is that
    short too; else two neighbours of equal length are height and width; else the shorter end is
    the channels.
    """
    if len(shape) == 2:
        return 'HW'
    stacked, (first, middle, last) = 'T' * (len(shape) - 3), shape[-3:]
    if last in USUAL_CHANNELS and first not in USUAL_CHANNELS or first == middle:
        return stacked + 'HWC'
    return stacked + ('CHW' if middle == last or first < last else 'HWC')


def arrange(value: np.ndarray, axes: str) -> np.ndarray:
    """A view (H, W, C) of a picture, stacked frames becoming channels."""
    if axes == 'HW':
        return value[..., None]
    order = 'HWTC' if 'T' in axes else 'HWC'
    value = value.transpose([axes.index(axis) for axis in order])
    return value.reshape(*value.shape[:2], -1)


def resize(image: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, C) at size x size, or (height, width), each channel by itself where they are no
    colours.
    """
    high, wide = (size, size) if isinstance(size, int) else size
    scale = lambda part: np.asarray(
        Image.fromarray(part).resize((wide, high), Image.Resampling.BILINEAR)
    )
    if image.shape[-1] == 3:
        return scale(image)
    return np.stack(
        [scale(np.ascontiguousarray(image[..., c])) for c in range(image.shape[-1])], -1
    )


def reading(space: spaces.Space) -> str:
    """How the agent reads a space, or acts in it, in words."""
    match space:
        case spaces.Box() if is_image(space):
            return 'image ' + 'x'.join(map(str, space.shape))
        case spaces.Discrete():
            return f'classes {space.n}'
        case spaces.MultiDiscrete():
            counts = [int(n) for n in space.nvec.reshape(-1)]
            text = (
                f'{len(counts)} times {counts[0]}'
                if len(set(counts)) == 1
                else ' + '.join(map(str, counts[:8]))
            )
            return f'classes {text}{" + ..." if len(set(counts)) > 1 and len(counts) > 8 else ""}'
        case spaces.MultiBinary():
            return f'flags {int(np.prod(space.shape))}'
    return f'vector {int(np.prod(space.shape))}'


def readings(obs_space: Spaces, act_space: Spaces) -> list[str]:
    """Two lines for a person: how every observation and every action is read."""
    observed = [
        f'{key}: {reading(space)}'
        for key, space in obs_space.items()
        if key not in OUTCOME and not key.startswith('log/')
    ]
    acted = [f'{key}: {reading(space)}' for key, space in act_space.items() if key != 'reset']
    return [f'observes {"; ".join(observed)}', f'acts by {"; ".join(acted)}']


def stacked(shape: tuple[int, ...]) -> bool:
    """Whether an image (..., H, W, C) is a stack: its channels make two RGB frames or more, the
    newest last.
    """
    return shape[-1] > 3 and shape[-1] % 3 == 0


def displayable(frames: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, C) with one or three channels: of a stack of frames in colours the newest
    is shown, and other channels side by side, in grey.
    """
    channels = frames.shape[-1]
    if channels in (1, 3):
        return frames
    if stacked(frames.shape):
        return frames[..., -3:]
    parts = [frames[..., c : c + 1] for c in range(min(channels, SHOWN_CHANNELS))]
    return np.concatenate(parts, -2)
