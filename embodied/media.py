"""Pictures and videos as files: PNG, GIF and MP4 of uint8 arrays with any number of channels.

Letters: T frames, H height, W width, C channels.
"""

import io
import math
import struct
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import EnvMissing
from .extras import install_hint
from .pictures import displayable

VIDEO_WIDTH = 256  # pixels of a GIF, at least, as far as
VIDEO_HEIGHT = 1024  # pixels in height allow it
LOOP_SECONDS = 1.0  # that a GIF lasts, at least
# What Pillow raises for pictures that it cannot write, such as those beyond 65535 pixels, and what
# follows where memory ends.
UNSHOWABLE = (ValueError, TypeError, OSError, OverflowError, SystemError, MemoryError, struct.error)


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, C) as PNG."""
    out = io.BytesIO()
    pillow(image).save(out, 'png')
    return out.getvalue()


def gif(
    frames: np.ndarray, fps: float, width: int = VIDEO_WIDTH, seconds: float = LOOP_SECONDS
) -> bytes:
    """uint8 (T, H, W, C) as an animated GIF that repeats without end.

    Small frames are enlarged to `width` pixels, and short videos slowed down to `seconds`, so that
    a person can follow them; 0 leaves them as they are.
    """
    out, frames = io.BytesIO(), displayable(frames)
    times = max(1, min(-(-width // frames.shape[2]), VIDEO_HEIGHT // frames.shape[1]))
    larger = lambda frame: frame.repeat(times, 0).repeat(times, 1)
    first, *rest = (pillow(larger(frame)) for frame in frames)
    hundredths = math.ceil(100 * max(1 / fps, seconds / len(frames)))  # the format's unit
    first.save(out, 'gif', save_all=True, append_images=rest, duration=10 * hundredths, loop=0)
    return out.getvalue()


def write_mp4(out: Path, frames: np.ndarray, fps: float) -> None:
    """uint8 (T, H, W, 3) as a file of H.264.

    Raises:
      EnvMissing: the packages that write it are not installed; says how to install them.
    """
    try:
        import imageio
        import imageio_ffmpeg  # noqa: F401  without it imageio fails late and obscurely
    except ImportError as error:
        raise EnvMissing(
            f'Writing .mp4 needs the package {error.name!r}, .gif and .npz do not; '
            f'{install_hint("video")}'
        ) from error
    imageio.mimwrite(out, frames, fps=fps, macro_block_size=1)


def pillow(image: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) as an image of PIL."""
    image = displayable(image)
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
