"""A replay folder as a LeRobot data set of version 3.0, without lerobot.

An action is taken at its frame in both. next.reward is what it earned, so ours one row earlier;
next.done marks last rows. next.terminated is our own column: whether the future of the last row is
worth zero, so that nothing is lost on the way back.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..base import OUTCOME, UNLABELED
from ..errors import ReplayError
from ..extras import require
from .arrays import block_rows
from .chunks import open_chunks
from .episode import Episode, Options, Row
from .exports import FPS, Film, fresh

DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
META = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
ROWS_PER_FILE = 50_000
EPISODES_PER_GROUP = 1000  # lines of meta/episodes that are written at a time
OBJECT = 32  # bytes of a number in a list
INDICES = ('frame_index', 'episode_index', 'index', 'task_index')


def to_lerobot(source: Path, dest: Path, options: Options, fps: float | None) -> str:
    """Write all episodes of a replay folder. Returns what was done as a sentence.

    Raises:
      ReplayError: the folder holds no rows of actions and rewards, or dest something.
    """
    require('pyarrow', 'data')
    require('av', 'data')
    recording = open_chunks(source, options)
    fresh(dest)
    task = str(recording.facts.get('task') or 'unnamed')
    writer = Writer(dest, fps or recording.facts.get('fps') or FPS, task)
    for unit in recording.units:
        writer.add(unit.open())
    writer.finish()
    return f'{dest}: {writer.episodes:,} episodes, {writer.rows:,} frames.'


class Writer:
    """Fills one data set.

    Attributes:
      episodes: so many are there. rows: of all of them.
    """

    def __init__(self, dest: Path, fps: float, task: str):
        self.episodes = self.rows = 0
        self._dest, self._fps, self._task = dest, round(fps), task
        self._features: dict[str, dict[str, Any]] = {}
        self._listed: dict[str, bool] = {}
        self._file, self._films = 0, {}
        self._data: Table | None = None
        self._begun = 0  # the first row of the data file
        self._meta = Table(self._path(META, 0), {}, EPISODES_PER_GROUP)
        self._stats: dict[str, Stats] = {}

    def add(self, episode: Episode) -> None:
        """Add one episode."""
        if not episode.actions or episode.rewards is None:
            raise ReplayError('LeRobot holds actions and rewards; these rows have none.')
        first, begin = self.rows, {key: film.frames for key, film in self._films.items()}
        rows = episode.rows()
        row = next(rows)
        for index in itertools.count():
            after = next(rows, None)
            flat = self._row(row, index)
            flat['next.reward'] = 0.0 if after is None else float(after['reward'])
            flat['next.done'] = after is None
            flat['next.terminated'] = episode.terminal and after is None
            self._table().add(flat)
            if after is None:
                break
            row = after
        self._meta.add(self._entry(first, begin))
        self.episodes += 1
        if self.rows - self._begun >= ROWS_PER_FILE:
            self._flush()

    def _row(self, row: Row, index: int) -> dict[str, Any]:
        """A row of the data file, but for what is known when the next has come."""
        flat = {
            'timestamp': np.float32(index / self._fps),
            'frame_index': index,
            'episode_index': self.episodes,
            'index': self.rows,
            'task_index': 0,
        }
        for key, value in row.items():
            value = np.asarray(value)
            if key in OUTCOME or key in UNLABELED:
                continue
            name = self._name(key, value)
            self._stats.setdefault(name, Stats()).add(value)
            if self._features[name]['dtype'] == 'video':
                self._film(name).add(value)
            else:
                flat[name] = value.reshape(-1).tolist() if value.ndim else value.item()
        self.rows += 1
        return flat

    def _name(self, key: str, value: np.ndarray) -> str:
        """The feature of a column of ours; noted the first time it comes."""
        image = value.ndim == 3 and value.dtype == np.uint8
        name = key.replace('/', '.')
        if key.partition('/')[0] != 'action':
            name = f'observation.images.{name}' if image else f'observation.{name}'
        if name not in self._features:
            shape = list(value.shape) or [1]
            names = ['height', 'width', 'channels'] if image else None
            kind = 'video' if image else value.dtype.name
            self._listed[name] = value.ndim > 0
            self._features[name] = {'dtype': kind, 'shape': shape, 'names': names}
            if image:
                shape[:2] = [size + size % 2 for size in shape[:2]]  # as the codec takes them
                shape[2] = 3
        return name

    def _film(self, name: str) -> Film:
        if name not in self._films:
            path = self._path(VIDEO, self._file, video_key=name)
            self._films[name] = Film(path, self._fps)
        return self._films[name]

    def _table(self) -> 'Table':
        """The data file; its columns are known when the first row is."""
        if self._data is None:
            import pyarrow as pa

            kinds: dict[str, Any] = dict.fromkeys(INDICES, pa.int64())
            kinds |= dict.fromkeys(('timestamp', 'next.reward'), pa.float32())
            numbers = 0
            for key, spec in self._features.items():
                if spec['dtype'] != 'video':
                    plain = pa.from_numpy_dtype(np.dtype(spec['dtype']))
                    kinds[key] = pa.list_(plain) if self._listed[key] else plain
                    numbers += int(np.prod(spec['shape']))
            nbytes = OBJECT * (numbers + len(kinds))
            self._data = Table(self._path(DATA, self._file), kinds, block_rows(nbytes))
        return self._data

    def _entry(self, first: int, begin: dict[str, int]) -> dict[str, Any]:
        """The line of the newest episode in meta/episodes."""
        entry = {
            'episode_index': self.episodes,
            'tasks': [self._task],
            'length': self.rows - first,
            'data/chunk_index': 0,
            'data/file_index': self._file,
            'dataset_from_index': first,
            'dataset_to_index': self.rows,
            'meta/episodes/chunk_index': 0,
            'meta/episodes/file_index': 0,
        }
        for key, film in self._films.items():
            start = begin.get(key, 0)
            entry |= {
                f'videos/{key}/chunk_index': 0,
                f'videos/{key}/file_index': self._file,
                f'videos/{key}/from_timestamp': start / self._fps,
                f'videos/{key}/to_timestamp': film.frames / self._fps,
            }
        return entry

    def _flush(self) -> None:
        """Finish the files that are being filled; the next episodes get new ones."""
        self._data.close()
        for film in self._films.values():
            film.close()
        self._file, self._data, self._films, self._begun = self._file + 1, None, {}, self.rows

    def _path(self, template: str, file: int, **names: str) -> Path:
        path = self._dest / template.format(chunk_index=0, file_index=file, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self) -> None:
        """Write what stands in meta/.

        Raises:
          ReplayError: there was no episode.
        """
        if not self.episodes:
            raise ReplayError('There is no episode in the folder.')
        if self._data is not None:
            self._flush()
        self._meta.close()
        tasks = Table(self._dest / 'meta' / 'tasks.parquet', {}, 1)
        tasks.add({'task_index': 0, '__index_level_0__': self._task})
        tasks.close()
        plain = lambda kind: {'dtype': kind, 'shape': [1], 'names': None}
        info = {
            'codebase_version': 'v3.0',
            'robot_type': None,
            'total_episodes': self.episodes,
            'total_frames': self.rows,
            'total_tasks': 1,
            'chunks_size': 1000,
            'data_files_size_in_mb': 100,
            'video_files_size_in_mb': 200,
            'fps': self._fps,
            'splits': {'train': f'0:{self.episodes}'},
            'data_path': DATA,
            'video_path': VIDEO,
            'features': self._features
            | {'next.reward': plain('float32'), 'next.done': plain('bool')}
            | {'next.terminated': plain('bool'), 'timestamp': plain('float32')}
            | {key: plain('int64') for key in INDICES},
        }
        stats = {key: stats.report() for key, stats in self._stats.items()}
        for name, content in (('info', info), ('stats', stats)):
            (self._dest / 'meta' / f'{name}.json').write_text(json.dumps(content, indent=1) + '\n')


class Table:
    """A Parquet file that is written row by row; a group of rows waits in memory."""

    def __init__(self, path: Path, kinds: dict[str, Any], rows: int):
        """
        Args:
          kinds: column -> type of Arrow; others follow from their first values.
          rows: of a group.
        """
        self._path, self._kinds, self._rows = path, kinds, rows
        self._waiting: list[dict[str, Any]] = []
        self._file: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; all have the same columns."""
        self._waiting.append(row)
        if len(self._waiting) >= self._rows:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            key: pa.array([row[key] for row in self._waiting], self._kinds.get(key))
            for key in self._waiting[0]
        }
        table = pa.table(columns)
        if self._file is None:
            self._file = pq.ParquetWriter(self._path, table.schema)
        self._file.write_table(table)
        self._waiting.clear()

    def close(self) -> None:
        """Write what waits, and finish the file."""
        if self._waiting:
            self._write()
        self._file.close()


class Stats:
    """min, max, mean, std and count of a feature as LeRobot has them: of images per channel, of
    values in [0, 1].
    """

    def __init__(self):
        self._count, self._sum, self._square = 0, 0.0, 0.0
        self._low, self._high = np.inf, -np.inf

    def add(self, value: np.ndarray) -> None:
        """One more value."""
        image = value.ndim == 3 and value.dtype == np.uint8
        value = np.repeat(value, 3, -1) if image and value.shape[-1] == 1 else value
        rows = value.reshape(-1, value.shape[-1]) / 255 if image else value.reshape(1, -1)
        rows = rows.astype(np.float64)
        self._image = image
        self._count += 1
        self._sum = self._sum + rows.mean(0)
        self._square = self._square + (rows**2).mean(0)
        self._low, self._high = (
            np.minimum(self._low, rows.min(0)),
            np.maximum(self._high, rows.max(0)),
        )

    def report(self) -> dict[str, list]:
        """As stats.json holds it."""
        mean = self._sum / self._count
        spread = np.sqrt(np.maximum(self._square / self._count - mean**2, 0))
        values = {'min': self._low, 'max': self._high, 'mean': mean, 'std': spread}
        shaped = lambda v: v.reshape(-1, 1, 1).tolist() if self._image else v.tolist()
        return {name: shaped(np.asarray(v)) for name, v in values.items()} | {
            'count': [self._count]
        }
