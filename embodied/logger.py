"""Where numbers and pictures go: metrics.jsonl, scores.jsonl, TensorBoard events, GIFs, and a terminal line that lives.

Every line of metrics.jsonl holds the counters step (decisions), frames, updates and episodes, the seconds that the run has taken over all
its processes, then all scalars since the last line.
scores.jsonl holds one line per episode: frames, step, score, length. Both are strict JSON: what is not finite is null and is named
under 'nonfinite'. A resumed run removes the lines that lie beyond the step it resumes from.
"""

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .base import Values

LIVE_SECONDS = 0.2  # the terminal line is redrawn no more often


@dataclass(frozen=True)
class LoggerConfig:
    """Block `logger` of the config; units and meanings stand in configs/defaults.yaml."""

    tensorboard: bool
    videos: int
    fps: int


class Logger:
    """The outputs of one run.

    Args:
      logdir: folder of the run; made if it is not there.
      config: see LoggerConfig.
      counters: returns step, frames, updates and episodes.
    """

    def __init__(self, logdir: str | Path, config: LoggerConfig, counters: Callable[[], dict[str, int]]):
        self.logdir, self._config, self._counters = Path(logdir), config, counters
        self.logdir.mkdir(parents=True, exist_ok=True)
        self._scalars = {}
        self._events = Events(self.logdir) if config.tensorboard else None
        for name in ('metrics.jsonl', 'scores.jsonl'):
            mend(self.logdir / name)
        self._live = sys.stdout.isatty()
        self._drawn = 0.0
        self._rates = Rates()
        self._score = None
        self._start = time.monotonic()

    def add(self, metrics: Mapping[str, float | np.ndarray], prefix: str = '') -> None:
        """Scalars for the next line; uint8 images (H, W, C) and videos (T, H, W, C) are written at once."""
        step = self._counters()['frames']
        for name, value in metrics.items():
            name = f'{prefix}/{name}' if prefix else name
            if np.ndim(value) == 0:
                self._scalars[name] = float(value)
            elif self._events and np.ndim(value) == 3:
                self._events.image(name, png(value), value.shape, step)
            elif np.ndim(value) == 4:
                self._video(name, value, step)

    def score(self, score: float, length: int) -> None:
        """One finished episode: its line in scores.jsonl, at once."""
        now = self._counters()
        self._score = score
        append(self.logdir / 'scores.jsonl', {'frames': now['frames'], 'step': now['step'], 'score': float(score), 'length': int(length)})
        if self._events:
            self._events.scalars({'episode/score': score, 'episode/length': length}, now['frames'])

    def write(self) -> None:
        """One line of metrics.jsonl with all scalars since the last; the terminal line where nothing is redrawn."""
        now = self._counters()
        finite = {k: v for k, v in self._scalars.items() if math.isfinite(v)}
        broken = sorted(self._scalars.keys() - finite.keys())
        row = now | {'seconds': round(time.monotonic() - self._start, 1)} | {k: finite.get(k) for k in self._scalars} | ({'nonfinite': broken} if broken else {})
        append(self.logdir / 'metrics.jsonl', row)
        if self._events:
            self._events.scalars(finite, now['frames'])
        self._scalars = {}

    def line(self, share: float, status: str = '', force: bool = False) -> None:
        """Draw the terminal line.

        Args:
          share: of the run that is done, in [0, 1]. status: words of the agent. force: also where output is no terminal.
        """
        now = time.monotonic()
        if not force and not (self._live and now - self._drawn >= LIVE_SECONDS):
            return
        self._drawn = now
        counters = self._counters()
        rate = self._rates(counters, now)
        left = duration(rate['elapsed'] * (1 - share) / share) if share > 1e-9 and self._rates.moved else '?'
        score = '' if self._score is None else f' | return {self._score:.4g}'
        text = (
            f'step {counters["step"]:,} | frames {counters["frames"]:,} | episodes {counters["episodes"]:,} | updates {counters["updates"]:,}'
            f' | {rate["updates"]:.1f} updates/s | {rate["frames"]:.0f} frames/s{score} | left {left}' + (f' | {status}' if status else ''))
        width = 0
        if self._live:
            width = os.get_terminal_size(sys.stdout.fileno()).columns - 1
        print(f'\r{text[:width]:<{width}}' if self._live else text, end='' if self._live else '\n', flush=True)

    def rates(self) -> dict[str, float]:
        """Updates and frames per second since the logger was made."""
        rate = self._rates(self._counters(), time.monotonic())
        return {'fps/updates': rate['updates'], 'fps/frames': rate['frames']}

    def save(self) -> dict:
        return {
            'scalars': dict(self._scalars), 'score': self._score, 'counters': self._counters(), 'seconds': time.monotonic() - self._start}

    def load(self, tree: dict) -> None:
        """Take up a saved run: lines that were written after it was saved are removed."""
        self._scalars, self._score = dict(tree['scalars']), tree['score']
        self._start = time.monotonic() - tree['seconds']
        for name in ('metrics.jsonl', 'scores.jsonl'):
            truncate(self.logdir / name, tree['counters'])

    def close(self) -> None:
        if self._live and self._drawn:
            print(flush=True)
            self._drawn = 0.0
        if self._events:
            self._events.close()

    def _video(self, name: str, frames: np.ndarray, step: int) -> None:
        content = gif(frames, self._config.fps)
        if self._events:
            self._events.image(name, content, frames.shape[1:], step)
        if not self._config.videos:
            return
        folder = self.logdir / 'videos'
        folder.mkdir(exist_ok=True)
        target = folder / f'{step:012d}-{name.replace("/", "-")}.gif'
        partial = target.with_suffix('.partial')
        partial.write_bytes(content)
        partial.rename(target)
        for old in sorted(folder.glob('*.gif'))[:-self._config.videos]:
            old.unlink()


class Rates:
    """Counters per second since the first call."""

    def __init__(self):
        self._start, self._first, self.moved = None, None, False

    def __call__(self, counters: Mapping[str, int], now: float) -> dict[str, float]:
        if self._start is None:
            self._start, self._first = now, dict(counters)
        elapsed = max(now - self._start, 1e-6)
        self.moved = elapsed > 1
        return {k: (counters[k] - self._first[k]) / elapsed for k in ('updates', 'frames')} | {'elapsed': elapsed}


class Events:
    """TensorBoard's event file, written with its own writer and neither torch nor TensorFlow."""

    def __init__(self, logdir: Path):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self._writer = EventFileWriter(str(logdir))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._add([self._summary.Value(tag=k, simple_value=float(v)) for k, v in values.items()], step)

    def image(self, name: str, content: bytes, shape: tuple[int, ...], step: int) -> None:
        image = self._summary.Image(height=shape[0], width=shape[1], colorspace=shape[2], encoded_image_string=content)
        self._add([self._summary.Value(tag=name, image=image)], step)

    def close(self) -> None:
        self._writer.close()

    def _add(self, values: list, step: int) -> None:
        if values:
            self._writer.add_event(self._event(wall_time=time.time(), step=step, summary=self._summary(value=values)))


def append(path: Path, row: Values) -> None:
    """Add one line of JSON to a file."""
    with open(path, 'a') as file:
        file.write(json.dumps(row, allow_nan=False) + '\n')


def mend(path: Path) -> None:
    """Cut a last line that was not written to its end."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b'\n'):
        with open(path, 'r+b') as file:
            file.truncate(content.rfind(b'\n') + 1)


def truncate(path: Path, counters: Mapping[str, int]) -> None:
    """Remove the lines at the end whose step or updates lie beyond `counters`."""
    if not path.exists():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    keep = len(lines)
    while keep and any(json.loads(lines[keep - 1]).get(k, 0) > counters[k] for k in ('step', 'updates')):
        keep -= 1
    if keep < len(lines):
        with open(path, 'r+b') as file:
            file.truncate(sum(map(len, lines[:keep])))


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 1 or 3) as PNG."""
    out = io.BytesIO()
    picture(image).save(out, 'png')
    return out.getvalue()


def gif(frames: np.ndarray, fps: int) -> bytes:
    """uint8 (T, H, W, 1 or 3) as an animated GIF that repeats for ever."""
    out = io.BytesIO()
    first, *rest = map(picture, frames)
    first.save(out, 'gif', save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    return out.getvalue()


def picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def duration(seconds: float) -> str:
    """3723 -> '1:02:03'; more than a hundred days as 'long'."""
    if not seconds < 8.64e6:
        return 'long'
    hours, rest = divmod(int(seconds), 3600)
    return f'{hours}:{rest // 60:02d}:{rest % 60:02d}'
