"""Formats of videos and pictures: plain ones with or without actions beside them, and the folders
of two public Dreamer 4 implementations.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReplayError
from ..replay.importer import decoded, pictures
from . import arrays
from .episode import Episode, Options, Recording, Row, Unit
from .folders import Files, Folders, names, relative

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.gif')
IMAGES = ('.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff')
ACTIONS = ('action', 'actions', 'continuous_actions', 'discrete_actions')
REWARDS = ('reward', 'rewards')
ENDS = ('terminated', 'terminal', 'is_terminal')

Beside = dict[str, np.ndarray]


def open_video(source: Path, options: Options) -> Recording:
    """A video per episode. Beside NAME.mp4 there may be its actions and rewards, as columns of
    NAME.npz or NAME.json, or as NAME.actions.npy and NAME.rewards.npy; a row's action is taken at
    its frame.
    """
    found = Files(source, *VIDEOS)
    frames = lambda path: shown(pictures(path), options, bgr=False)
    return _recording(found, source, options, frames)


def open_images(source: Path, options: Options) -> Recording:
    """A folder of pictures per episode, in the order of their names, in which numbers count as
    numbers. Actions and rewards as for videos, named after the folder and beside it, or called
    actions.npy (.npz, .json) within.
    """
    folders = Folders(source, *IMAGES)
    frames = lambda folder: shown(_stills(folder), options, bgr=False)
    return _recording(folders, source, options, frames)


def _stills(folder: Path) -> Iterator[np.ndarray]:
    for name in names(folder, *IMAGES):
        try:
            yield next(pictures(folder / name))
        except OSError as error:
            raise ReplayError(f'{folder / name}: cannot be read: {error}.') from error


def shown(frames: Iterable[np.ndarray], options: Options, bgr: bool) -> Iterator[Row]:
    """Frames as observations; with red first, where they were blue first on disk."""
    swap = bgr if options.bgr is None else options.bgr
    for frame in frames:
        yield {options.key: frame[..., ::-1] if swap else frame}


def _recording(
    places: Files | Folders,
    source: Path,
    options: Options,
    frames: Callable[[Path], Iterator[Row]],
) -> Recording:
    """Episodes whose labels stand in files beside; where only some have them, rows say so."""
    one = next((place for place in places if _files_beside(place)), None)
    pattern = columns_beside(one) if one else {}
    units = (Unit(relative(p, source), _opener(p, options, frames, pattern)) for p in places)
    return Recording(units, len(places))


def _opener(
    place: Path, options: Options, frames: Callable[[Path], Iterator[Row]], pattern: Beside
) -> Callable[[], Episode]:
    def open_it() -> Episode:
        beside = columns_beside(place)
        return labeled(frames(place), beside, pattern, options)

    return open_it


def labeled(frames: Iterator[Row], beside: Beside, pattern: Beside, options: Options) -> Episode:
    """An episode with the labels that it has, in the columns that any of them has.

    Args:
      frames: its observations.
      beside: its own columns, action, reward, terminal; empty for none.
      pattern: those of an episode that has some, empty where none has.
    """
    if not pattern:
        return Episode(frames)
    action, terminal = beside.get('action'), beside.get('terminal')
    flags, blank = {}, {}
    if 'action' in pattern:
        flags['unlabeled_action'] = np.bool_(action is None)
        blank = {} if action is not None else {'action': np.zeros_like(pattern['action'][0])}
    if 'reward' in pattern:
        flags['unlabeled_reward'] = np.bool_('reward' not in beside)
    led = options.convention(False)
    return Episode(
        frames,
        {} if action is None else {'action': action},
        led,
        beside.get('reward'),
        came=led,
        terminal=terminal is not None and bool(np.ravel(terminal)[-1]),
        constants=flags,
        blank=blank,
    )


def _files_beside(place: Path) -> list[Path]:
    """The files that may hold the labels of a video or of a folder of pictures."""
    within = place.is_dir()
    stem = place.name if within else place.stem
    known = ACTIONS + REWARDS + ENDS
    paths = [place.parent / f'{stem}{suffix}' for suffix in ('.npz', '.json')]
    paths += [place.parent / f'{stem}.{name}.npy' for name in known]
    if within:
        suffixes = ('.npz', '.npy', '.json')
        paths += [place / f'{name}{suffix}' for name in known for suffix in suffixes]
    return [path for path in paths if path.is_file()]


def columns_beside(place: Path) -> Beside:
    """action, reward and terminal of an episode, as far as there are any.

    Raises:
      ReplayError: a file cannot be read, or two hold actions.
    """
    found: Beside = {}
    for path in _files_beside(place):
        for name, values in _columns_of(path).items():
            for ours, theirs in (('action', ACTIONS), ('reward', REWARDS), ('terminal', ENDS)):
                if name not in theirs:
                    continue
                if ours in found:
                    raise ReplayError(f'{path}: there is a second {ours} of this episode.')
                found[ours] = values
    return found


def _columns_of(path: Path) -> dict[str, np.ndarray]:
    known = ACTIONS + REWARDS + ENDS
    if path.suffix == '.npz':
        return arrays.whole(path, known)
    try:
        if path.suffix == '.npy':
            name = path.stem.rpartition('.')[2]
            return {name: np.load(path, allow_pickle=False)}
        content = json.loads(path.read_text())
        return {key: np.asarray(content[key]) for key in known if key in content}
    except (OSError, ValueError, TypeError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error


def open_lucidrains(source: Path, options: Options) -> Recording:
    """NAME.mp4 of T+1 frames, with NAME.continuous_actions.npy or NAME.discrete_actions.npy (or
    .action.npy) of T, taken at their frames, and NAME.rewards.npy, NAME.terminated.npy of T+1,
    which came with them.
    """
    found = Files(source, '.mp4')

    def opener(path: Path) -> Callable[[], Episode]:
        def open_it() -> Episode:
            columns = columns_beside(path)
            if 'action' not in columns:
                raise ReplayError(f'{path}: no .npy beside it holds its actions.')
            if columns['action'].dtype.kind in 'iu' and columns['action'].shape[1:] == (1,):
                columns['action'] = columns['action'][:, 0]
            terminal = columns.get('terminal')
            return Episode(
                shown(decoded(path), options, bgr=False),
                {'action': columns['action']},
                options.convention(False),
                columns.get('reward'),
                came=True,
                terminal=terminal is not None and bool(terminal[-1]),
            )

        return open_it

    units = (Unit(relative(path, source), opener(path)) for path in found)
    return Recording(units, len(found))


def open_scalable(source: Path, options: Options) -> Recording:
    """episodes/NNNN/video.mp4 with metadata.json: 12 buttons per frame, which led to it (the frame
    of the reset is not stored), as did its reward. Blue comes first on disk.
    """
    found = Files(source, '.mp4', name='video.mp4')

    def opener(path: Path) -> Callable[[], Episode]:
        def open_it() -> Episode:
            meta = path.with_name('metadata.json')
            try:
                content = json.loads(meta.read_text())
                actions = np.asarray(content['actions'])
                rewards = np.asarray(content['rewards'], np.float32)
                terminal = bool(content['terminated'])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ReplayError(f'{meta}: cannot be read: {error!r}.') from error
            buttons = actions.astype(bool) if set(np.unique(actions)) <= {0, 1} else actions
            led = options.convention(True)
            frames = shown(decoded(path), options, bgr=True)
            return Episode(frames, {'action': buttons}, led, rewards, came=led, terminal=terminal)

        return open_it

    units = (Unit(relative(path.parent, source), opener(path)) for path in found)
    return Recording(units, len(found), _facts(next(iter(found)).with_name('metadata.json')))


def _facts(meta: Path) -> dict[str, Any]:
    try:
        content = json.loads(meta.read_text())
    except (OSError, ValueError):
        return {}
    names = {'task': 'environment', 'fps': 'fps'}
    return {ours: content[theirs] for ours, theirs in names.items() if theirs in content}
