"""Which formats there are: one line each. What they look like on disk stands in docs/data.md."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ReplayError, nearest
from ..extras import require
from .episode import Options, Recording


@dataclass(frozen=True)
class Format:
    """A format that can be read.

    Attributes:
      reader: 'module:function' of this package, function(source, options) -> Recording; the name
        of a module outside begins with its package.
      what: what it is, for --list.
      time: the convention of its actions, for --list.
      needs: modules of the extra `data` that it cannot do without.
    """

    reader: str
    what: str
    time: str
    needs: tuple[str, ...] = ()


TAKEN, LED = 'taken at the frame', 'led to the frame'
FORMATS: dict[str, Format] = {
    'npz': Format('npz_files:open_npz', 'one .npz per episode, columns as our rows', TAKEN),
    'dreamerv3': Format('chunks:open_chunks', 'replay chunks of DreamerV3, and our own', TAKEN),
    'dreamerv3-torch': Format('npz_files:open_torch', 'one .npz per episode of DreamerV2', LED),
    'vd4rl': Format('hdf5:open_vd4rl', 'V-D4RL: 64px .npz, 84px HDF5', LED),
    'mim': Format('hdf5:open_mim', 'shard_NNNN.h5 of machines-in-motion', TAKEN, ('h5py',)),
    'lerobot': Format('lerobot:open_lerobot', 'LeRobot v2.1 and v3.0', TAKEN, ('pyarrow', 'av')),
    'minari': Format('minari:open_minari', 'Minari: HDF5, Arrow or Parquet', TAKEN),
    'rlds': Format('rlds:open_rlds', 'RLDS as TFDS stores it (TFRecord)', TAKEN),
    'd4rl': Format('hdf5:open_d4rl', 'D4RL HDF5', TAKEN, ('h5py',)),
    'vijayabhaskar': Format('npz_files:open_vijayabhaskar', 'frames (N, T, ...) in .npz', TAKEN),
    'video': Format('films:open_video', 'videos, alone or with .npz, .npy, .json beside', TAKEN),
    'images': Format('films:open_images', 'a folder of pictures per episode', TAKEN),
    'lucidrains': Format('films:open_lucidrains', '.mp4 with .npy beside', TAKEN),
    'scalable-dreamer': Format('films:open_scalable', 'episodes/NNNN/video.mp4, .json', LED),
}

# name -> 'module:function', function(source, dest, options, fps) -> a sentence
EXPORTS = {
    'to-npz': 'exports:to_npz',
    'to-mp4': 'exports:to_mp4',
    'to-lerobot': 'lerobot_out:to_lerobot',
}


def register(name: str, form: Format) -> None:
    """Add a format, such as one whose reader needs packages that nothing here may import."""
    FORMATS[name] = form


def demand(name: str, source: Path) -> None:
    """Raises ReplayError: there is no such format, or no such source."""
    if name not in (known := [*FORMATS, *EXPORTS]):
        raise ReplayError(f'there is no format {name!r}; {nearest(name, known)}')
    if not source.expanduser().exists():
        raise ReplayError(f'{source}: there is no such file or folder.')


def open_source(name: str, source: Path, options: Options) -> Recording:
    """Open a source in a format, which demand() has found.

    Raises:
      ReplayError: the source is not of that format.
      EnvMissing: a package is missing; the text holds the command that installs it.
    """
    form, source = FORMATS[name], source.expanduser()
    for module in form.needs:
        require(module, 'data')
    return _function(form.reader)(source, options)


def export(name: str, source: Path, dest: Path, options: Options, fps: float | None) -> str:
    """Write a replay folder in another form. Returns what was done as a sentence.

    Args:
      name: one of EXPORTS.
      fps: frames per second of videos, None for what the folder says.

    Raises: as open_source.
    """
    return _function(EXPORTS[name])(source, dest, options, fps)


def _function(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(':')
    if '.' not in module:
        module = f'{__package__}.{module}'
    return getattr(importlib.import_module(module), function)
