"""LeRobot data sets, v2.1 (a file per episode) and v3.0 (many episodes per file), without lerobot.

Videos are decoded once, in order, and cut by counting frames: whether a time stamp meets a frame
depends on rounding, a count does not.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReplayError
from ..replay.importer import decoded
from .arrays import MOST_ROWS, block_rows
from .episode import Episode, Options, Recording, Row, Unit, row_names
from .lerobot_index import Place, places_v2, places_v3, read_json, tasks_v2, tasks_v3
from .tables import Parquet, numbers

BOOKKEEPING = ('timestamp', 'frame_index', 'episode_index', 'index', 'task_index')
# The reward of a row is what its action earned. next.done marks the last row of every episode and
# says nothing of how it ended. next.terminated is ours; it tells that the last action is idle.
REWARD, SUCCESS, TERMINATED = 'next.reward', 'next.success', 'next.terminated'


def open_lerobot(source: Path, options: Options) -> Recording:
    """A data set folder; its version stands in meta/info.json."""
    info = read_json(source / 'meta' / 'info.json')
    version = str(info.get('codebase_version', ''))
    try:
        if version.startswith('v3'):
            places, tasks = places_v3(source, info), tasks_v3(source)
        elif version.startswith('v2'):
            places, tasks = places_v2(source, info), tasks_v2(source)
        else:
            raise ReplayError(
                f'{source}: expected the version v2.1 or v3.0, found {version!r}; lerobot converts'
                ' older ones.'
            )
    except KeyError as error:
        raise ReplayError(f'{source}: its meta data lack {error}.') from error
    facts = {'fps': info.get('fps'), 'robot': info.get('robot_type'), 'tasks': tasks}
    reader = Reader(info['features'], len(tasks) > 1, options)
    units = (Unit(f'{p.index:06}', lambda p=p: reader.episode(p)) for p in places)
    return Recording(units, places.count, facts)


class Reader:
    """Reads episodes in order; one data file is open, and one video per camera."""

    def __init__(self, features: dict[str, Any], several_tasks: bool, options: Options):
        self._options, self._several = options, several_tasks
        self._features = {k: v for k, v in features.items() if v['dtype'] != 'string'}
        self._file: Data | None = None
        self._films: dict[str, Film] = {}
        known = (*BOOKKEEPING, REWARD, SUCCESS, TERMINATED, 'next.done')
        self._actions = [key for key in self._features if self._acts(key)]
        self._seen = [k for k in self._features if k not in known and k not in self._actions]
        images = [k for k in self._seen if self._kind(k) in ('video', 'image')]
        named = row_names({_ours(key): key in images for key in self._seen}, options)
        self._names = {k: named.get(_ours(k), _ours(k)) for k in self._features}
        self._seen = [key for key in self._seen if options.wanted(self._names[key])]
        values = {k: int(np.prod(self._features[k]['shape'])) for k in self._seen}
        self._row_bytes = sum(n * (1 if k in images else 8) for k, n in values.items())

    def episode(self, place: Place) -> Episode:
        """The episode at a place."""
        data = self._data(place.data)
        labels, columns = list(data.labels.batches(*data.span(place))), data.labels.names
        ended = next((key for key in (TERMINATED, SUCCESS) if key in columns), None)
        return Episode(
            self._frames(place, data),
            {self._names[key]: self._label(labels, key) for key in self._actions},
            self._options.convention(False),
            self._label(labels, REWARD) if REWARD in columns else None,
            terminal=ended is not None and bool(self._label(labels[-1:], ended)[-1]),
            idle=TERMINATED in columns,
        )

    def _acts(self, key: str) -> bool:
        if self._options.action:
            return key in self._options.action
        return key.partition('.')[0] == 'action'

    def _kind(self, key: str) -> str:
        return self._features[key]['dtype']

    def _data(self, path: Path) -> 'Data':
        """A data file; that of the episode before is kept open."""
        if self._file is None or self._file.path != path:
            labels = {'episode_index', *self._actions, REWARD, SUCCESS, TERMINATED}
            seen = {'episode_index', 'task_index', *self._seen}
            self._file = Data(path, labels, seen, self._row_bytes)
        return self._file

    def _column(self, values: Any, key: str) -> np.ndarray:
        """(N, *shape) of a feature of numbers."""
        shape = tuple(self._features[key]['shape'])
        nested = hasattr(values.type, 'value_type')
        made = numbers(values, shape if nested or shape != (1,) else ())
        return made.astype(self._kind(key))

    def _label(self, batches: list[Any], key: str) -> np.ndarray:
        return np.concatenate([self._column(batch[key], key) for batch in batches])

    def _frames(self, place: Place, data: 'Data') -> Iterator[Row]:
        films = {
            key: self._film(key, place.clips[key].path).cut(place.clips[key].start, place.length)
            for key in self._seen
            if self._kind(key) == 'video'
        }
        stills = [key for key in self._seen if self._kind(key) == 'image']
        vectors = [key for key in self._seen if key not in films and key not in stills]
        for batch in data.seen.batches(*data.span(place)):
            columns = {self._names[key]: self._column(batch[key], key) for key in vectors}
            if self._several and 'task_index' in data.seen.names:
                columns['task_id'] = batch['task_index'].to_numpy().astype(np.int32)
            for index in range(batch.num_rows):
                row = {key: values[index] for key, values in columns.items()}
                row |= {self._names[key]: next(film) for key, film in films.items()}
                for key in stills:
                    row[self._names[key]] = _picture(batch[key][index].as_py(), place.data)
                yield row

    def _film(self, key: str, path: Path) -> 'Film':
        if key not in self._films or self._films[key].path != path:
            self._films[key] = Film(path)
        return self._films[key]


class Data:
    """A data file, read twice side by side: what actions and rewards are, an episode at a time, and
    what is seen, a few rows at a time.

    Attributes:
      path: the file.
      labels, seen: the columns of either.
    """

    def __init__(self, path: Path, labels: set[str], seen: set[str], row_bytes: int):
        self.path = path
        self.labels = Parquet(path, labels, MOST_ROWS)
        self.seen = Parquet(path, seen, block_rows(row_bytes))
        self._spans: dict[int, tuple[int, int]] = {}
        at = 0
        of = Parquet(path, {'episode_index'}, MOST_ROWS)
        for batch in of.batches(0, of.length if of.names else 0):
            index = batch['episode_index'].to_numpy()
            for part in np.split(index, np.flatnonzero(np.diff(index)) + 1):
                first, count = self._spans.get(int(part[0]), (at, 0))
                if first + count != at:
                    raise ReplayError(f'{path}: the rows of episode {part[0]} lie apart.')
                self._spans[int(part[0])] = first, count + len(part)
                at += len(part)

    def span(self, place: Place) -> tuple[int, int]:
        """First row, and number of rows, of an episode.

        Raises:
          ReplayError: there are not as many as were announced.
        """
        first, count = self._spans.get(place.index, (0, 0))
        if count != place.length:
            raise ReplayError(f'{place.length} rows are announced, there are {count}.')
        return first, count


class Film:
    """A video that is read once from its beginning on, and again where something before is asked
    for.
    """

    def __init__(self, path: Path):
        self.path = path
        self._frames, self._at = decoded(path), 0

    def cut(self, start: int, length: int) -> Iterator[np.ndarray]:
        """`length` frames from frame `start` on.

        Raises:
          ReplayError: the video ends before.
        """
        if start < self._at:
            self._frames, self._at = decoded(self.path), 0
        while self._at < start + length:
            frame = next(self._frames, None)
            if frame is None:
                raise ReplayError(
                    f'{self.path}: ends after {self._at} frames, {start + length} are needed.'
                )
            self._at += 1
            if self._at > start:
                yield frame


def _ours(key: str) -> str:
    """The name of a feature in rows: observation.images.top is images/top."""
    return key.removeprefix('observation.').replace('.', '/')


def _picture(value: dict[str, Any], data: Path) -> np.ndarray:
    from PIL import Image

    try:
        content = value['bytes'] or (data.parents[2] / value['path']).read_bytes()
        return np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
    except (OSError, TypeError) as error:
        raise ReplayError(f'{data}: an image cannot be read: {error}.') from error
