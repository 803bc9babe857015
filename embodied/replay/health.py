"""Whether rows can be learned from: ranges, NaN, columns and entries that never change, frames that
stand twice. What training could not bear is a fault; what a person should look at is a remark.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import UNLABELED
from ..errors import ChunkError, ChunkUnreadable
from . import npz
from .archive import Archive
from .finite import excuses
from .infer import range_fault

CHUNKS = 64  # whose images are read; --verify reads all
REPEATED = 0.2  # share of frames equal to the one before that is worth a remark
SHORT = 2  # rows of an episode that holds an action


class Column:
    """What is in one column, over the rows that were read."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]):
        self.rows = self.nonfinite = self.repeated = self.pairs = 0
        self.image = dtype == np.uint8 and len(shape) == 3
        self._low = np.full(shape, np.inf)
        self._high = np.full(shape, -np.inf)

    def add(self, values: np.ndarray, counts: np.ndarray, follows: np.ndarray) -> None:
        """Rows of a chunk.

        Args:
          values: (T, ...). counts: bool (T,), rows whose value means something. follows: bool
            (T-1,), whether row t+1 is of the same episode as t.
        """
        self.rows += len(values)
        meant = values[counts]
        if values.dtype.kind == 'f':
            finite = np.isfinite(meant)
            self.nonfinite += int((~finite.all(tuple(range(1, finite.ndim)))).sum())
            meant = np.where(finite, meant, np.nan)
        if len(meant):
            with np.errstate(invalid='ignore'):
                self._low = np.fmin(self._low, np.fmin.reduce(meant, axis=0))
                self._high = np.fmax(self._high, np.fmax.reduce(meant, axis=0))
        if self.image and len(values) > 1:
            same = (values[1:] == values[:-1]).all((1, 2, 3))
            self.repeated += int((same & follows).sum())
            self.pairs += int(follows.sum())

    def report(self) -> dict[str, Any]:
        """As `inspect --json` shows it."""
        known = bool(np.isfinite(self._low).all())
        low, high = (float(self._low.min()), float(self._high.max())) if known else (None, None)
        entries = int(np.prod(self._low.shape))
        constant = np.flatnonzero((self._low == self._high).reshape(-1)).tolist() if known else []
        report = {
            'rows': self.rows,
            'min': low,
            'max': high,
            'nonfinite': self.nonfinite,
            'entries': entries,
            'constant': len(constant),
        }
        if self.image:
            report['repeated'] = self.repeated / max(1, self.pairs)
        else:
            report['constant_entries'] = constant[:20]
        return report


def examine(archive: Archive, act_space: dict[str, spaces.Space] | None) -> dict[str, Any]:
    """Look at the rows of a folder.

    Args: the archive; the spaces of its actions, where they are known.

    Returns:
      'columns': key -> ranges and counts; 'faults' and 'remarks': sentences.
    """
    actions = [key for key, _, _ in archive.schema.specs if _acts(key, act_space)]
    columns = {key: Column(dtype, shape) for key, dtype, shape in archive.schema.specs}
    chunks = [chunk for stream in archive.streams for chunk in stream.chunks]
    wanted = len(chunks) if archive.verified else min(CHUNKS, len(chunks))
    seen = {int(index) for index in np.linspace(0, len(chunks) - 1, wanted)} if chunks else set()
    for index, rows in enumerate(_read(archive, chunks)):
        first, last = (rows.get(key, np.zeros(1, bool)) for key in ('is_first', 'is_last'))
        for key, column in columns.items():
            if not column.image or index in seen:
                counts = _meant(rows, key, actions, last)
                column.add(rows[key], counts, np.broadcast_to(~first, len(rows[key]))[1:])
    report = {key: column.report() for key, column in columns.items()}
    return {
        'columns': report,
        'faults': faults(archive, report, actions, act_space or {}),
        'remarks': remarks(report, actions),
    }


def _acts(key: str, act_space: dict[str, spaces.Space] | None) -> bool:
    return key in act_space if act_space else key.partition('/')[0] == 'action'


def _read(archive: Archive, chunks: list) -> Iterator[dict[str, np.ndarray]]:
    for chunk in chunks:
        try:
            yield npz.read(chunk.path, archive.schema.columns(chunk.length))
        except (ChunkError, ChunkUnreadable) as error:
            archive.broken[chunk.path.name] = str(error)


def _meant(rows: dict[str, np.ndarray], key: str, actions: list[str], last: Any) -> np.ndarray:
    """Rows in which a column holds something that is learned from."""
    meant = np.ones(len(rows[key]), bool)
    for flag in excuses(key, actions):
        meant &= ~rows[flag] if flag in rows else True
    return meant & ~last if key in actions else meant


def faults(
    archive: Archive, report: dict[str, Any], actions: list[str], act_space: dict[str, Any]
) -> list[str]:
    """What training could not bear."""
    found = []
    if not archive.streams.rows:
        found.append('there is no row.')
    for key in ('is_first', 'is_last'):
        if key not in report:
            found.append(f'rows have no {key}, so nobody knows where episodes begin and end.')
    for key, column in report.items():
        if column['nonfinite']:
            found.append(f'{key} holds NaN or infinities in {column["nonfinite"]:,} rows.')
    for key in actions:
        low, high = report[key]['min'], report[key]['max']
        if key in act_space and low is not None and (why := range_fault(act_space[key], low, high)):
            found.append(f'the action {key} {why}.')
    observed = [key for key in report if key not in actions and not _told(key)]
    if not observed:
        found.append('rows hold no observation.')
    elif archive.streams.rows and all(_still(report[key]) for key in observed):
        found.append(f'no observation ever changes ({", ".join(observed)}).')
    return found


def _told(key: str) -> bool:
    return key in ('reward', 'is_first', 'is_last', 'is_terminal', 'task_id', *UNLABELED)


def _still(column: dict[str, Any]) -> bool:
    return column['constant'] == column['entries']


def remarks(report: dict[str, Any], actions: list[str]) -> list[str]:
    """What a person should look at."""
    found = []
    for key, column in report.items():
        if _told(key) and key != 'reward':
            continue
        if key == 'reward' and column['min'] is None:
            found.append('no row tells its reward.')
        if _still(column) and column['min'] is not None:
            found.append(f'{key} is {column["min"]:g} in every row.')
        elif 'repeated' in column and column['repeated'] > REPEATED:
            found.append(f'{column["repeated"]:.0%} of the frames of {key} equal the one before.')
        elif column['constant'] and 'repeated' not in column:
            entries = ', '.join(map(str, column['constant_entries']))
            found.append(f'{key} never changes in {column["constant"]} entries: {entries}.')
    if not actions:
        found.append('rows hold no action: nobody learns to act from them.')
    if 'reward' not in report:
        found.append('rows hold no reward.')
    return found
