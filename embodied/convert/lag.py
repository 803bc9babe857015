"""Does an action stand at its row? How much what changes from a frame to the next tells of the
actions around it.

By our row table the action of row t leads from frame t to frame t+1. Bodies keep moving, so the
change after t also tells of earlier actions; a policy reacts, so it tells of later ones. Neither is
a fault. So what two frames before already predict is taken away first, and an action counts by what
it adds to all the others:

    gain of lag k = R2 of all lags - R2 of all lags but k,  for the action of row t + k

with R2 the share of the unpredicted change that ridge regression explains on rows it was not fitted
to; actions enter alone and times what is seen, since where a body is decides which pixels it moves.
If lag -1 or 1 has by far the largest gain, and that of 0 is next to nothing, actions are off by a
row. A policy without noise, whose actions everything else tells of, shows nothing.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from ..base import UNLABELED
from ..replay.importer import resized
from .episode import Row

LAGS = (-2, -1, 0, 1, 2)
ROWS = 4000  # looked at, at most
SIDE = 8  # pixels of the small grey frames
PARTS = 12  # principal components of them that are predicted
FOLDS = 5
RIDGE = 1e-3
FAINT = 0.01  # a gain below this tells nothing
CLEAR = 5.0  # the largest gain is so many times that of lag 0 where actions are off,
AHEAD = 2.0  # and so many times any other
FRESH = 0.02  # share of the change that frames before do not predict, at least
TIMES = 300  # products of actions and what is seen, at most,
PER_WEIGHT = 8  # and one for so many rows


@dataclass(frozen=True)
class Verdict:
    """What was measured.

    Attributes:
      gains: of LAGS, in their order; empty where there was nothing to measure.
      rows: that were looked at.
      off: how many rows the actions are off, 0 where they are not, None where it cannot be told.
    """

    gains: tuple[float, ...]
    rows: int
    off: int | None

    def words(self) -> str:
        """For a person."""
        if not self.gains:
            return f'check: {self.rows:,} rows are too few, or hold no action, to measure a lag.'
        table = '  '.join(f'{lag:+d}: {gain:.3f}' for lag, gain in zip(LAGS, self.gains))
        text = f'check: over {self.rows:,} rows, gain of the action of row t + k:  {table}\n'
        if self.off is None:
            return text + 'check: no action tells of the change; nothing is shown.'
        if self.off == 0:
            return text + 'check: actions stand where they are said to stand.'
        return text + (
            f'check: the action of row t{self.off:+d} leads from frame t to t+1, not that of row t.'
            f' Try --time {"led" if self.off == 1 else "taken"}.'
        )


def measure(rows: Iterable[Row], actions: Collection[str]) -> Verdict:
    """The lag between actions and what is seen, over the first rows of a stream.

    Args:
      rows: of the row table, in order, of any number of episodes.
      actions: keys of them, known when the first row has come.
    """
    seen, acted, runs = [], [], []
    for row in rows:
        if len(seen) >= ROWS:
            break
        if any(row.get(flag, False) for flag in UNLABELED[:2]) or not actions:
            continue
        if row['is_first']:
            runs.append(len(seen))
        seen.append(_seen(row, actions))
        acted.append(np.concatenate([np.ravel(row[key]) for key in sorted(actions)]))
    if len(seen) < 20 * FOLDS or not runs:
        return Verdict((), len(seen), None)
    action = _standard(_one_hot(np.stack(acted)))
    state = _components(np.stack(seen))
    here = _middles(runs, len(seen))
    if len(here) < 20 * FOLDS or not action.shape[1] or not state.shape[1]:
        return Verdict((), len(seen), None)
    gains, fresh = _gains(state, action, here)
    return Verdict(gains, len(seen), _judge(gains) if fresh > FRESH else None)


def _judge(gains: tuple[float, ...]) -> int | None:
    best, own = max(gains), gains[LAGS.index(0)]
    lag, others = LAGS[gains.index(best)], [gain for gain in gains if gain != best]
    if best < max(FAINT, -min(gains)):
        return None
    if lag == 0 or own > max(best / CLEAR, FAINT):
        return 0
    return lag if abs(lag) == 1 and best > AHEAD * max(map(abs, others)) else None


def _seen(row: Row, actions: Collection[str]) -> np.ndarray:
    """What a row shows, as a vector: small grey images, and numbers."""
    parts = []
    for key, value in sorted(row.items()):
        if key in actions or key in ('reward', 'task_id') or value.dtype == bool:
            continue
        if value.ndim == 3 and value.dtype == np.uint8:
            grey = value.mean(-1, keepdims=True).astype(np.uint8)
            value = resized(grey, SIDE) / 255
        parts.append(np.ravel(value).astype(np.float64))
    return np.concatenate(parts)


def _one_hot(action: np.ndarray) -> np.ndarray:
    """Choices as codes: a column of few whole numbers becomes one per number."""
    columns = []
    for column in action.T:
        values = np.unique(column)
        few = len(values) <= 20 and (values == np.rint(values)).all()
        columns += [column == value for value in values[1:]] if few else [column]
    return np.stack(columns, 1).astype(np.float64) if columns else action[:, :0]


def _standard(values: np.ndarray) -> np.ndarray:
    spread = values.std(0)
    return (values - values.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]


def _components(values: np.ndarray) -> np.ndarray:
    values = _standard(values)
    _, _, axes = np.linalg.svd(values, full_matrices=False)
    return values @ axes[:PARTS].T


def _middles(runs: list[int], total: int) -> np.ndarray:
    """Rows t whose lags, and whose frames t-1, t and t+1, lie in one episode; its last row, which
    holds no action, apart."""
    parts = [np.arange(a + 2, b - 3) for a, b in zip(runs, [*runs[1:], total])]
    return np.concatenate(parts) if parts else np.zeros(0, int)


def _gains(
    state: np.ndarray, action: np.ndarray, here: np.ndarray
) -> tuple[tuple[float, ...], float]:
    """Of each lag; and the share of the change that frames before do not predict."""
    before, after = np.concatenate([state[here], state[here - 1]], 1), state[here + 1]
    room = min(TIMES, len(here) // PER_WEIGHT) // (len(LAGS) * action.shape[1])
    weights = np.concatenate([np.ones((len(here), 1)), _standard(state[here][:, :room])], 1)
    lagged = [
        (action[here + lag][:, :, None] * weights[:, None]).reshape(len(here), -1) for lag in LAGS
    ]
    sizes = [before.shape[1] + 1, *(part.shape[1] for part in lagged)]
    part = np.repeat(np.arange(len(sizes)), sizes)  # 0: no action; then the lags
    x = np.concatenate([np.ones((len(here), 1)), before, *lagged], 1)
    columns = [part == 0, part >= 0, *(part != 1 + lag for lag in range(len(LAGS)))]
    base, full, *without = _errors(x, after, [np.flatnonzero(kept) for kept in columns])
    change = ((after - state[here]) ** 2).sum()
    gains = tuple(float((error - full) / max(base, 1e-12)) for error in without)
    return gains, float(base / max(change, 1e-12))


def _errors(x: np.ndarray, y: np.ndarray, columns: list[np.ndarray]) -> list[float]:
    """Squared error of ridge regression from some columns of x to y, on rows that were held out,
    for each choice of columns."""
    errors = [0.0] * len(columns)
    gram, cross = x.T @ x, x.T @ y
    for fold in np.array_split(np.arange(len(y)), FOLDS):
        rest, left = gram - x[fold].T @ x[fold], cross - x[fold].T @ y[fold]
        rest += RIDGE * (len(y) - len(fold)) * np.eye(len(rest))
        for index, kept in enumerate(columns):
            weights = np.linalg.solve(rest[np.ix_(kept, kept)], left[kept])
            errors[index] += ((y[fold] - x[fold][:, kept] @ weights) ** 2).sum()
    return errors
