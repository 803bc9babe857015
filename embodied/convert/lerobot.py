"""LeRobot data sets, v2.1 (a file per episode) and v3.0 (many episodes per file), without lerobot.

Videos are decoded once, in order, and cut by counting frames: whether a time stamp meets a frame
depends on rounding, a count does not.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import ReplayError
from ..replay.importer import decoded
from .episode import Episode, Options, Recording, Row, Unit, row_names

BOOKKEEPING = ('timestamp', 'frame_index', 'episode_index', 'index', 'task_index')
# The reward of a row is what its action earned. next.done marks the last row of every episode and
# says nothing of how it ended. next.terminated is ours; it tells that the last action is idle.
REWARD, SUCCESS, TERMINATED = 'next.reward', 'next.success', 'next.terminated'
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


def open_lerobot(source: Path, options: Options) -> Recording:
    """A data set folder; its version stands in meta/info.json."""
    info = _json(source / 'meta' / 'info.json')
    version = str(info.get('codebase_version', ''))
    try:
        if version.startswith('v3'):
            places, tasks = _places_v3(source, info), _tasks_v3(source)
        elif version.startswith('v2'):
            places, tasks = _places_v2(source, info), _tasks_v2(source)
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
    return Recording(units, len(places), facts)


class Reader:
    """Reads episodes in order; holds one table and one open video per camera."""

    def __init__(self, features: dict[str, Any], several_tasks: bool, options: Options):
        self._options, self._several = options, several_tasks
        self._features = {k: v for k, v in features.items() if v['dtype'] != 'string'}
        self._table: tuple[Path, Any] | None = None
        self._films: dict[str, Film] = {}
        known = (*BOOKKEEPING, REWARD, SUCCESS, TERMINATED, 'next.done')
        self._actions = [key for key in self._features if self._acts(key)]
        self._seen = [k for k in self._features if k not in known and k not in self._actions]
        images = [k for k in self._seen if self._kind(k) in ('video', 'image')]
        named = row_names({_ours(key): key in images for key in self._seen}, options)
        self._names = {k: named.get(_ours(k), _ours(k)) for k in self._features}
        self._seen = [key for key in self._seen if options.wanted(self._names[key])]

    def episode(self, place: Place) -> Episode:
        """The episode at a place."""
        rows = self._rows(place)
        if rows.num_rows != place.length:
            raise ReplayError(f'{place.length} rows are announced, there are {rows.num_rows}.')
        columns = set(rows.column_names)
        reward = self._column(rows, REWARD) if REWARD in columns else None
        ended = next((key for key in (TERMINATED, SUCCESS) if key in columns), None)
        constants: Row = {}
        if self._several and 'task_index' in columns:
            constants['task_id'] = np.int32(rows['task_index'][0].as_py())
        return Episode(
            self._frames(place, rows),
            {self._names[key]: self._column(rows, key) for key in self._actions},
            self._options.convention(False),
            reward,
            terminal=ended is not None and bool(self._column(rows, ended)[-1]),
            idle=TERMINATED in columns,
            constants=constants,
        )

    def _acts(self, key: str) -> bool:
        if self._options.action:
            return key in self._options.action
        return key.partition('.')[0] == 'action'

    def _kind(self, key: str) -> str:
        return self._features[key]['dtype']

    def _rows(self, place: Place) -> Any:
        """The table of an episode."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        if self._table is None or self._table[0] != place.data:
            wanted = set(self._seen) | set(self._actions) | {REWARD, SUCCESS, TERMINATED}
            wanted |= {'episode_index', 'task_index'}
            try:
                names = pq.read_schema(place.data).names
                table = pq.read_table(place.data, columns=[n for n in names if n in wanted])
            except (OSError, ValueError) as error:
                raise ReplayError(f'{place.data}: cannot be read: {error}.') from error
            self._table = place.data, table
        table = self._table[1]
        return table.filter(pc.equal(table['episode_index'], place.index))

    def _column(self, rows: Any, key: str) -> np.ndarray:
        """(N, *shape) of a feature of numbers."""
        shape = tuple(self._features[key]['shape'])
        values = np.asarray(rows[key].to_pylist())
        scalar = shape in ((), (1,)) and values.ndim == 1
        values = values if scalar else values.reshape(len(values), *shape)
        return values.astype(self._kind(key))

    def _frames(self, place: Place, rows: Any) -> Iterator[Row]:
        vectors = {
            key: self._column(rows, key)
            for key in self._seen
            if self._kind(key) not in ('video', 'image')
        }
        films = {
            key: self._film(key, place.clips[key].path).cut(place.clips[key].start, place.length)
            for key in self._seen
            if self._kind(key) == 'video'
        }
        stills = [key for key in self._seen if self._kind(key) == 'image']
        for index in range(place.length):
            row = {self._names[key]: values[index] for key, values in vectors.items()}
            row |= {self._names[key]: next(film) for key, film in films.items()}
            for key in stills:
                row[self._names[key]] = _picture(rows[key][index].as_py(), place.data)
            yield row

    def _film(self, key: str, path: Path) -> 'Film':
        if key not in self._films or self._films[key].path != path:
            self._films[key] = Film(path)
        return self._films[key]


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


def _places_v2(source: Path, info: dict[str, Any]) -> list[Place]:
    videos = [key for key, spec in info['features'].items() if spec['dtype'] == 'video']
    places = []
    for entry in _lines(source / 'meta' / 'episodes.jsonl'):
        index = entry['episode_index']
        names = {'episode_chunk': index // info['chunks_size'], 'episode_index': index}
        clips = {
            key: Clip(source / info['video_path'].format(video_key=key, **names), 0)
            for key in videos
        }
        data = source / info['data_path'].format(**names)
        places.append(Place(index, entry['length'], data, clips))
    return places


def _places_v3(source: Path, info: dict[str, Any]) -> list[Place]:
    import pyarrow.parquet as pq

    videos = [key for key, spec in info['features'].items() if spec['dtype'] == 'video']
    wanted = ['episode_index', 'length', 'data/chunk_index', 'data/file_index']
    wanted += [
        f'videos/{key}/{name}'
        for key in videos
        for name in ('chunk_index', 'file_index', 'from_timestamp')
    ]
    entries: list[dict[str, Any]] = []
    for path in sorted((source / 'meta' / 'episodes').glob('chunk-*/file-*.parquet')):
        try:
            entries += pq.read_table(path, columns=wanted).to_pylist()
        except (OSError, ValueError) as error:
            raise ReplayError(f'{path}: cannot be read: {error}.') from error
    if not entries:
        raise ReplayError(f'{source}: meta/episodes names no episode.')
    places, counted = [], {}
    for entry in sorted(entries, key=lambda entry: entry['episode_index']):
        numbers = lambda at, e=entry: {n: e[f'{at}/{n}'] for n in ('chunk_index', 'file_index')}
        clips = {}
        for key in videos:
            path = source / info['video_path'].format(video_key=key, **numbers(f'videos/{key}'))
            start = counted.get(path, 0)
            begin = entry[f'videos/{key}/from_timestamp'] * info['fps']
            if abs(begin - start) > DRIFT * info['fps']:
                start = round(begin)
            clips[key] = Clip(path, start)
            counted[path] = start + entry['length']
        data = source / info['data_path'].format(**numbers('data'))
        places.append(Place(entry['episode_index'], entry['length'], data, clips))
    return places


def _tasks_v2(source: Path) -> list[str]:
    entries = _lines(source / 'meta' / 'tasks.jsonl')
    return [entry['task'] for entry in sorted(entries, key=lambda entry: entry['task_index'])]


def _tasks_v3(source: Path) -> list[str]:
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


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ReplayError(f'{path}: cannot be read: {error}.') from error
