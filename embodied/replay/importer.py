"""Episodes from files into a replay folder: videos, which have neither actions nor rewards, and
arrays, which may have some.

    python -m embodied.replay import FILE... --out DIR [--key image] [--size 64]

A file is an episode. Every frame of a video is a row (most writers of .gif drop frames that equal
the one before); an .npz holds columns (rows, ...) under the names of their keys, `frames` being the
frames, as `export` writes them. What is not in the files is not in the folder, whose rows are then
unlabeled (labels.py).
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..errors import ReplayError
from ..extras import install_hint
from . import npz
from .config import unlimited
from .replay import Replay

# as envs give their values; uint8 stays
NARROW = {'f': np.float32, 'i': np.int32, 'u': np.int32, 'b': np.bool_}
Row = dict[str, np.ndarray]


def import_files(
    files: list[Path], out: Path, key: str, size: int | None, on_event: Callable[[str], None]
) -> str:
    """Add episodes to the folder `out`, one per file. Returns what was done as a sentence.

    Args:
      files: see the module. key: name of the frames. size: height and width of all images in
          pixels; None as they are.

    Raises:
      ReplayError: a file cannot be read or does not fit; names it. The episodes before it are in
          the folder.
    """
    replay = Replay(unlimited(1.0), out, 0, on_event=on_event)
    replay.load(None)
    before = len(replay)
    try:
        for file in files:
            add(replay, file, key, size)
    finally:
        replay.close()
    return (
        f'{out}: {len(files)} episodes, {len(replay) - before:,} rows of'
        f' {", ".join(name for name, _, _ in replay.schema.specs)}.'
    )


def add(replay: Replay, file: Path, key: str, size: int | None) -> None:
    """Add the episode of one file."""
    try:
        values = (
            arrays(file, key)
            if file.suffix == '.npz'
            else ({key: frame} for frame in pictures(file))
        )
        for row in bordered(values):
            replay.add({name: narrow(value, size) for name, value in row.items()})
    except ReplayError as error:
        raise type(error)(f'{file}: {error}') from error
    except (OSError, ValueError) as error:
        raise ReplayError(f'{file}: cannot be read as an episode: {error}') from error


def arrays(file: Path, key: str) -> Iterator[Row]:
    """Rows of the columns of an .npz."""
    columns = npz.read(file, npz.describe(file))
    lengths = {name: len(values) if values.ndim else 0 for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise ReplayError(
            f'the columns of an episode must be equally long, found {lengths or "none"}.'
        )
    columns = {key if name == 'frames' else name: values for name, values in columns.items()}
    if key in columns and columns[key].dtype.kind == 'f' and columns[key].ndim in (3, 4):
        columns[key] = bytes_of(key, columns[key])
    for index in range(next(iter(lengths.values()))):
        yield {name: values[index] for name, values in columns.items()}


def bytes_of(key: str, images: np.ndarray) -> np.ndarray:
    """Images that are floats, in [0, 1] or [0, 255], as uint8.

    Raises:
      ReplayError: they are not finite, or lie outside.
    """
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):  # NaN as well
        raise ReplayError(
            f'images {key!r} must be uint8, or floats in [0, 1] or [0, 255], got {images.dtype}'
            f' from {low:g} to {high:g}.'
        )
    return np.rint(images * (255 if high <= 1 else 1)).astype(np.uint8)


def pictures(file: Path) -> Iterator[np.ndarray]:
    """The frames of a picture file or video, uint8 (H, W, 3) each."""
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            yield from (np.asarray(frame.convert('RGB')) for frame in ImageSequence.Iterator(image))
        return
    except UnidentifiedImageError:
        pass  # a video, then
    yield from decoded(file)


def decoded(file: Path) -> Iterator[np.ndarray]:
    """The frames of a video in the order they are shown, uint8 (H, W, 3) each: by PyAV, or by
    imageio where only that is there.

    Raises:
      ReplayError: it is damaged or no video, or both packages are missing.
    """
    try:
        import av
    except ImportError:
        yield from _decoded_by_imageio(file)
        return
    try:
        with av.open(os.fspath(file)) as container:
            if not container.streams.video:
                raise ReplayError(f'{file}: holds no video.')
            container.streams.video[0].thread_type = 'AUTO'
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format='rgb24')
    except av.FFmpegError as error:
        raise ReplayError(f'{file}: cannot be read as a video: {error}.') from error


def _decoded_by_imageio(file: Path) -> Iterator[np.ndarray]:
    try:
        import imageio
        import imageio_ffmpeg  # noqa: F401  without it imageio fails late and obscurely
    except ImportError as error:
        raise ReplayError(
            f'reading a video needs the package av, or {error.name!r}, which is not installed; .gif'
            f' and .npz do not; {install_hint("video")}'
        ) from error
    yield from imageio.get_reader(file)


def bordered(values: Iterator[Row]) -> Iterator[Row]:
    """Rows with is_first and is_last where they have none: the first and the last of the file."""
    row, first = next(values, None), True
    if row is None:
        raise ReplayError('holds no frame.')
    while row is not None:
        after = next(values, None)
        yield {'is_first': np.bool_(first), 'is_last': np.bool_(after is None)} | row
        row, first = after, False


def narrow(value: np.ndarray, size: int | None) -> np.ndarray:
    """A value in the dtype that envs give it, and images with both sides `size`; grey ones get
    their channel.
    """
    value = np.asarray(value)
    if value.dtype == np.uint8 and value.ndim in (2, 3):
        image = value if value.ndim == 3 else value[..., None]
        return image if size is None or image.shape[:2] == (size, size) else resized(image, size)
    return value.astype(NARROW.get(value.dtype.kind, value.dtype))


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, C) -> (size, size, C), each pixel the mean of those that it covers."""
    from PIL import Image

    box = Image.Resampling.BOX
    if image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize((size, size), box))
    return np.stack(
        [
            np.asarray(Image.fromarray(plane).resize((size, size), box))
            for plane in np.moveaxis(image, -1, 0)
        ],
        -1,
    )
