"""A replay folder as a LeRobot data set of version 3.0, without lerobot.

An action is taken at its frame in both. next.reward is what it earned, so ours one row earlier;
next.done marks last rows. next.terminated is our own column: whether the future of the last row is
worth zero, so that nothing is lost on the way back.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..base import OUTCOME, UNLABELED
from ..errors import ReplayError
from ..extras import require
from .chunks import open_chunks
from .episode import Episode, Options, Row
from .exports import FPS, Film, fresh

DATA = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
VIDEO = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
META = 'meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
ROWS_PER_FILE = 50_000
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
    return f'{dest}: {len(writer.entries):,} episodes, {writer.rows:,} frames.'


class Writer:
    """Fills one data set.

    Attributes:
      entries: the line of each episode in meta/episodes. rows: of all of them.
    """

    def __init__(self, dest: Path, fps: float, task: str):
        self.entries: list[dict[str, Any]] = []
        self.rows = 0
        self._dest, self._fps, self._task = dest, round(fps), task
        self._features: dict[str, dict[str, Any]] = {}
        self._file, self._columns, self._films = 0, {}, {}
        self._stats: dict[str, Stats] = {}

    def add(self, episode: Episode) -> None:
        """Add one episode."""
        if not episode.actions or episode.rewards is None:
            raise ReplayError('LeRobot holds actions and rewards; these rows have none.')
        first, begin = self.rows, {key: film.frames for key, film in self._films.items()}
        made = []
        for index, row in enumerate(episode.rows()):
            self._row(made, row, index)
        for index, flat in enumerate(made):
            after = made[index + 1] if index + 1 < len(made) else None
            flat['next.reward'] = after['came'] if after else 0.0
            flat['next.done'] = after is None
            flat['next.terminated'] = episode.terminal and after is None
        for flat in made:
            del flat['came']
            for key, value in flat.items():
                self._columns.setdefault(key, []).append(value)
        self._entry(first, begin, made)
        if len(self._columns['index']) >= ROWS_PER_FILE:
            self._flush()

    def _row(self, made: list[dict[str, Any]], row: Row, index: int) -> None:
        flat = {
            'timestamp': np.float32(index / self._fps),
            'frame_index': index,
            'episode_index': len(self.entries),
            'index': self.rows,
            'task_index': 0,
            'came': float(row['reward']),
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
        made.append(flat)
        self.rows += 1

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
            self._features[name] = {'dtype': kind, 'shape': shape, 'names': names}
            if image:
                shape[:2] = [size + size % 2 for size in shape[:2]]  # as the codec takes them
                shape[2] = 3
        return name

    def _film(self, name: str) -> Film:
        if name not in self._films:
            path = self._path(VIDEO, video_key=name)
            self._films[name] = Film(path, self._fps)
        return self._films[name]

    def _entry(self, first: int, begin: dict[str, int], made: list) -> None:
        entry = {
            'episode_index': len(self.entries),
            'tasks': [self._task],
            'length': len(made),
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
        self.entries.append(entry)

    def _flush(self) -> None:
        """Finish the files that are being filled; the next episodes get new ones."""
        import pyarrow as pa

        columns = dict(self._columns)
        for key in INDICES:
            columns[key] = pa.array(columns[key], pa.int64())
        for key in ('timestamp', 'next.reward'):
            columns[key] = pa.array(columns[key], pa.float32())
        for key, spec in self._features.items():
            if spec['dtype'] != 'video':
                plain = pa.from_numpy_dtype(np.dtype(spec['dtype']))
                listed = isinstance(columns[key][0], list)
                columns[key] = pa.array(columns[key], pa.list_(plain) if listed else plain)
        self._table(DATA, columns)
        for film in self._films.values():
            film.close()
        self._file, self._columns, self._films = self._file + 1, {}, {}

    def _table(self, template: str, columns: dict[str, Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self._file if template == DATA else 0
        pq.write_table(pa.table(columns), self._path(template, file=file))

    def _path(self, template: str, file: int | None = None, **names: str) -> Path:
        index = self._file if file is None else file
        path = self._dest / template.format(chunk_index=0, file_index=index, **names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self) -> None:
        """Write what stands in meta/.

        Raises:
          ReplayError: there was no episode.
        """
        if not self.entries:
            raise ReplayError('There is no episode in the folder.')
        if self._columns:
            self._flush()
        self._table(META, {key: [e[key] for e in self.entries] for key in self.entries[0]})
        self._table('meta/tasks.parquet', {'task_index': [0], '__index_level_0__': [self._task]})
        plain = lambda kind: {'dtype': kind, 'shape': [1], 'names': None}
        info = {
            'codebase_version': 'v3.0',
            'robot_type': None,
            'total_episodes': len(self.entries),
            'total_frames': self.rows,
            'total_tasks': 1,
            'chunks_size': 1000,
            'data_files_size_in_mb': 100,
            'video_files_size_in_mb': 200,
            'fps': self._fps,
            'splits': {'train': f'0:{len(self.entries)}'},
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
