"""Where the episodes of a LeRobot data set are: its meta data, as far as a reader needs them.

Sets may hold a million episodes, so what is known of each is kept as a few numbers.
"""

import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ReplayError
from .arrays import MOST_ROWS
from .tables import Parquet

DRIFT = 0.5  # seconds between counted frames and time stamps; more is video of no episode


class Clip(NamedTuple):
    """Where the frames of an episode are."""

    path: Path
    start: int


class Place(NamedTuple):
    """One episode: its rows, and its frames by feature."""

    index: int
    length: int
    data: Path
    clips: dict[str, Clip]


class Places(NamedTuple):
    """The episodes of a data set, in the order of their numbers.

    Attributes:
      columns: (episodes,) each, under the names that meta/episodes has for them.
      make: turns the numbers of all into places, one after the other.
    """

    columns: dict[str, np.ndarray]
    make: Callable[[Iterator[dict[str, Any]]], Iterator[Place]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.columns['episode_index'])

    def __iter__(self) -> Iterator[Place]:
        order = np.argsort(self.columns['episode_index'], kind='stable')
        numbers = ({key: v[at].item() for key, v in self.columns.items()} for at in order)
        return self.make(numbers)


def places_v2(source: Path, info: dict[str, Any]) -> Places:
    """Of v2.1: every episode has files of its own."""
    videos, index, length = _videos(info), array('q'), array('q')
    for entry in _lines(source / 'meta' / 'episodes.jsonl'):
        index.append(entry['episode_index'])
        length.append(entry['length'])
    data, video, size = info['data_path'], videos and info['video_path'], info['chunks_size']

    def make(entries: Iterator[dict[str, Any]]) -> Iterator[Place]:
        for entry in entries:
            number = entry['episode_index']
            names = {'episode_chunk': number // size, 'episode_index': number}
            clips = {key: Clip(source / video.format(video_key=key, **names), 0) for key in videos}
            yield Place(number, entry['length'], source / data.format(**names), clips)

    columns = {'episode_index': index, 'length': length}
    return Places({key: np.array(values, np.int64) for key, values in columns.items()}, make)


def places_v3(source: Path, info: dict[str, Any]) -> Places:
    """Of v3.0: many episodes share a file, and a video."""
    videos = _videos(info)
    wanted = ['episode_index', 'length', 'data/chunk_index', 'data/file_index']
    wanted += [
        f'videos/{key}/{name}'
        for key in videos
        for name in ('chunk_index', 'file_index', 'from_timestamp')
    ]
    columns = _episode_columns(source, wanted)
    data, video, fps = info['data_path'], videos and info['video_path'], info['fps']
    path = lambda form, entry, at, **names: (
        source
        / form.format(
            chunk_index=entry[f'{at}/chunk_index'], file_index=entry[f'{at}/file_index'], **names
        )
    )

    def make(entries: Iterator[dict[str, Any]]) -> Iterator[Place]:
        counted: dict[Path, int] = {}  # frames of each video that belong to episodes before
        for entry in entries:
            clips = {}
            for key in videos:
                film = path(video, entry, f'videos/{key}', video_key=key)
                start, begin = counted.get(film, 0), entry[f'videos/{key}/from_timestamp'] * fps
                if abs(begin - start) > DRIFT * fps:
                    start = round(begin)
                clips[key] = Clip(film, start)
                counted[film] = start + entry['length']
            place = path(data, entry, 'data')
            yield Place(entry['episode_index'], entry['length'], place, clips)

    return Places(columns, make)


def _videos(info: dict[str, Any]) -> list[str]:
    return [key for key, spec in info['features'].items() if spec['dtype'] == 'video']


def _episode_columns(source: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    """What meta/episodes says of all episodes. Its files also hold statistics, which are larger by
    far and are not read."""
    parts: dict[str, list[np.ndarray]] = {key: [] for key in wanted}
    for path in sorted((source / 'meta' / 'episodes').glob('chunk-*/file-*.parquet')):
        file = Parquet(path, wanted, MOST_ROWS)
        if missing := [key for key in wanted if key not in file.names]:
            raise ReplayError(f'{path}: expected the columns {", ".join(missing)}.')
        for batch in file.batches(0, file.length):
            for key in wanted:
                parts[key].append(batch[key].to_numpy().copy())
    if not parts['episode_index']:
        raise ReplayError(f'{source}: meta/episodes names no episode.')
    return {key: np.concatenate(values) for key, values in parts.items()}


def tasks_v2(source: Path) -> list[str]:
    """The texts of the tasks, by their numbers."""
    entries = list(_lines(source / 'meta' / 'tasks.jsonl'))
    return [entry['task'] for entry in sorted(entries, key=lambda entry: entry['task_index'])]


def tasks_v3(source: Path) -> list[str]:
    """The texts of the tasks, by their numbers."""
    import pyarrow.parquet as pq

    path = source / 'meta' / 'tasks.parquet'
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error
    text = next((name for name in table.column_names if name != 'task_index'), None)
    if text is None or 'task_index' not in table.column_names:
        raise ReplayError(f'{path}: expected task_index and the tasks, found {table.column_names}.')
    pairs = zip(table['task_index'].to_pylist(), table[text].to_pylist())
    return [task for _, task in sorted(pairs)]


def read_json(path: Path) -> dict[str, Any]:
    """What a .json file holds.

    Raises:
      ReplayError: it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(path, encoding='utf-8') as file:
            for line in file:
                if line.strip():
                    yield json.loads(line)
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error
