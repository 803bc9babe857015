"""Where numbers and pictures go: metrics.jsonl, scores.jsonl, TensorBoard events, GIFs, and a
terminal line that lives.

Every line of metrics.jsonl holds the counters step (decisions), frames, updates and episodes, the
seconds that the run has taken over all its processes, then all scalars since the last line.
scores.jsonl holds one line per episode: frames, step, score, length. Both are strict JSON: what is
not finite is null and is named under 'nonfinite'. A resumed run removes the lines that were written
after the save it resumes from. A disk that is full or away ends no run: lines wait in memory, and
pictures are dropped, until it is back.
"""

import contextlib
import io
import json
import math
import os
import shutil
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..base import Status, Values
from ..console import is_terminal
from ..errors import ConfigError
from ..files import claim
from ..pictures import displayable
from ..tree_spec import COUNT, NUMBER, REAL, Each, demand
from .progress import Pace, Returns, live_line

COUNTERS = ('step', 'frames', 'updates', 'episodes')
RESERVED = (*COUNTERS, 'seconds', 'nonfinite')  # keys of every line
LIVE_SECONDS = 0.2  # the terminal line is redrawn no more often
FLUSH_SECONDS = 20  # TensorBoard shows events so late
VIDEO_WIDTH = 256  # pixels of a GIF, at least, as far as
VIDEO_HEIGHT = 1024  # pixels in height allow it
LOOP_SECONDS = 1.0  # that a GIF lasts, at least
STATE = {  # of a logger, as it is saved; beside it what is only for eyes
    'scalars': Each(REAL),
    'counters': dict.fromkeys(COUNTERS, COUNT),
    'seconds': NUMBER,
    'bytes': {'metrics': COUNT, 'scores': COUNT},
}
MAX_WAITING = 10_000  # lines that wait for a disk
# What Pillow raises for pictures that it cannot write, such as those beyond 65535 pixels, and what
# follows where memory ends.
UNSHOWABLE = (ValueError, TypeError, OSError, OverflowError, SystemError, MemoryError, struct.error)


@dataclass(frozen=True)
class LoggerConfig:
    """Block `logger` of the config.

    Attributes:
      tensorboard: write TensorBoard events.
      videos: newest GIFs to keep in logdir/videos; 0 for none.
      fps: frames per second of videos.
    """

    tensorboard: bool
    videos: int
    fps: int

    def __post_init__(self):
        if self.videos < 0:
            raise ConfigError(f'logger.videos must not be negative, got {self.videos}.')
        if self.fps < 1:
            raise ConfigError(f'logger.fps must be at least 1, got {self.fps}.')


class Logger:
    """The outputs of one run."""

    def __init__(
        self,
        logdir: str | Path,
        config: LoggerConfig,
        counters: Callable[[], dict[str, int]],
        on_event: Callable[[str], None] = print,
    ):
        """Open the outputs; last lines that a killed run left unfinished are removed.

        Args:
          logdir: folder of the run; made if it is not there.
          config: see LoggerConfig.
          counters: returns step, frames, updates and episodes.
          on_event: receives a text when an output fails and when it works again.
        """
        self.logdir, self._config, self._counters = Path(logdir), config, counters
        self.logdir.mkdir(parents=True, exist_ok=True)
        self._on_event = on_event
        self._metrics = JsonLines(self.logdir / 'metrics.jsonl', on_event)
        self._scores = JsonLines(self.logdir / 'scores.jsonl', on_event)
        self._events = Events(self.logdir, on_event) if config.tensorboard else None
        self._scalars, self._unshown = {}, set()
        self.returns = Returns()
        self._start = time.monotonic()
        self._live = is_terminal(sys.stdout)
        self._drawn = -math.inf
        self._pace = Pace()

    def add(self, metrics: Mapping[str, float | np.ndarray], prefix: str = '') -> None:
        """Take scalars for the next line; write images to TensorBoard, and videos there and as GIF,
        at once.

        Args:
          metrics: name -> number, uint8 image (H, W, C) or uint8 video (T, H, W, C); what cannot be
              shown is left out and said once.
          prefix: names become prefix/name.

        Raises:
          ValueError: a name is a key of every line.
        """
        frames = self._counters()['frames']
        for name, value in metrics.items():
            name = f'{prefix}/{name}' if prefix else name
            if name in RESERVED:
                raise ValueError(
                    f'A metric cannot be named {name!r}, which is a key of every line.'
                )
            if np.ndim(value) == 0:
                self._scalars[name] = float(value)
                continue
            try:
                self._show(name, np.asarray(value), frames)
            except UNSHOWABLE as error:  # no picture may end a run
                if name not in self._unshown:
                    self._unshown.add(name)
                    self._on_event(f'{name} cannot be shown: {type(error).__name__}: {error}')

    def score(self, score: float, length: int) -> None:
        """One finished episode, sum of rewards and decisions: its line in scores.jsonl, at once."""
        now = self._counters()
        self.returns.add(float(score), now['frames'])
        self._scores.append(
            {
                'frames': now['frames'],
                'step': now['step'],
                'score': float(score),
                'length': int(length),
            }
        )

    def text(self, name: str, text: str) -> None:
        """Markdown for TensorBoard's page of texts, where it replaces what `name` was before."""
        if self._events:
            self._events.text(name, text, self._counters()['frames'])

    def write(self) -> None:
        """One line of metrics.jsonl with all scalars since the last; no line if there are none."""
        if not self._scalars:
            return
        now = self._counters()
        head = {name: now[name] for name in COUNTERS} | {'seconds': round(self.seconds, 1)}
        self._metrics.append(head | self._scalars)
        if self._events:
            self._events.scalars(
                {name: value for name, value in self._scalars.items() if math.isfinite(value)},
                now['frames'],
            )
        self._scalars = {}

    def line(
        self,
        share: float,
        status: Status = Status(),
        metrics: Mapping[str, float] = {},
        force: bool = False,
    ) -> None:
        """Draw the terminal line, over the last one on a terminal.

        Args:
          share: of the run that is done, in [0, 1].
          status: of the agent.
          metrics: present values, of which the line shows those that status names.
          force: also where output is no terminal, and however short ago the last one was drawn.
        """
        now = time.monotonic()
        self._pace.add(now, self._counters(), share, status.stage)
        if not force and not (self._live and now - self._drawn >= LIVE_SECONDS):
            return
        self._drawn = now
        text = live_line(self._counters(), share, status, metrics, self._pace, self.returns)
        if self._live:
            width = max(shutil.get_terminal_size().columns - 1, 1)
            print(f'\r{text[:width]:<{width}}', end='', flush=True)
        else:
            print(text, flush=True)

    def save(self) -> dict[str, Any]:
        """What is not yet written, and how far the files were."""
        return {
            'scalars': dict(self._scalars),
            'returns': self.returns.save(),
            'counters': dict(self._counters()),
            'seconds': self.seconds,
            'bytes': {'metrics': self._metrics.bytes, 'scores': self._scores.bytes},
        }

    def load(self, tree: Mapping[str, Any]) -> None:
        """Take up a saved run: lines that were written after it was saved are removed, TensorBoard
        hides such events.

        Raises:
          CheckpointError: the tree is not one of save().
        """
        demand(tree, STATE, 'The state of the logger')
        scalars, counters, sizes = (tree[key] for key in ('scalars', 'counters', 'bytes'))
        if 'returns' in tree:  # they are for eyes, and older saves have none
            self.returns.load(tree['returns'])
        self._start = time.monotonic() - tree['seconds']
        self._metrics.cut(sizes['metrics'], counters)
        self._scores.cut(sizes['scores'], counters)
        self._scalars = dict(scalars)
        if self._events:
            self._events.resume(counters['frames'])

    def close(self) -> None:
        """End the terminal line and flush all outputs. May be called more than once."""
        if self._live and self._drawn > 0:
            print(flush=True)
            self._drawn = -math.inf
        for lines in (self._metrics, self._scores):
            lines.flush()
        if self._events:
            self._events.close()

    @property
    def seconds(self) -> float:
        """That the run has taken, over all its processes."""
        return time.monotonic() - self._start

    def _show(self, name: str, value: np.ndarray, frames: int) -> None:
        """Write an image or a video."""
        if value.dtype != np.uint8 or value.ndim not in (3, 4) or 0 in value.shape:
            raise ValueError(
                'expected a number, or a uint8 image (H, W, C) or video (T, H, W, C), got'
                f' {value.dtype} {value.shape}.'
            )
        value = displayable(value)
        if value.ndim == 4:
            self._video(name, value, frames)
        elif self._events:
            self._events.image(name, png(value), value.shape, frames)

    def _video(self, name: str, frames: np.ndarray, step: int) -> None:
        content = gif(frames, self._config.fps)
        if self._events:
            self._events.image(name, content, frames.shape[1:], step)
        if not self._config.videos:
            return
        target = self.logdir / 'videos' / f'{step:012d}-{name.replace("/", "-")}.gif'
        partial = target.with_suffix('.partial')
        try:
            target.parent.mkdir(exist_ok=True)
            partial.write_bytes(content)
            os.replace(partial, target)
            for old in sorted(target.parent.glob('*.gif'))[: -self._config.videos]:
                old.unlink()
        except OSError as error:
            partial.unlink(missing_ok=True)
            self._on_event(f'The video {target} could not be written: {error}')


class JsonLines:
    """A file of one JSON object per line. Lines that cannot be written wait, and are written
    before the next one.
    """

    def __init__(self, path: Path, on_event: Callable[[str], None]):
        self.path, self._on_event = path, on_event
        self._waiting = deque(maxlen=MAX_WAITING)
        self._failed = False
        claim(path, on_event)
        self._mend()

    @property
    def bytes(self) -> int:
        """Of all lines in the file."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def append(self, row: Values) -> None:
        """Add one line."""
        self._waiting.append(encode(row))
        self.flush()

    def flush(self) -> None:
        """Write the lines that wait, all or none."""
        if not self._waiting:
            return
        content = b''.join(self._waiting)
        try:
            with open(self.path, 'ab', buffering=0) as file:
                size = file.tell()
                if (written := _write(file, content)) < len(content):
                    file.truncate(size)  # no half lines
                    raise OSError(f'only {written} of {len(content)} bytes could be written')
        except OSError as error:
            if not self._failed:
                self._on_event(f'{self.path} cannot be written, its lines wait in memory: {error}')
            self._failed = True
            return
        self._waiting.clear()
        if self._failed:
            self._on_event(f'{self.path} can be written again; nothing is missing.')
        self._failed = False

    def cut(self, size: int, counters: Mapping[str, int]) -> None:
        """Remove what lies beyond `size` bytes; where the file is no longer what it was, the
        last lines beyond `counters`.
        """
        self._waiting.clear()
        if not self.path.exists():
            return
        with open(self.path, 'r+b') as file:
            if size <= file.seek(0, os.SEEK_END) and (
                size == 0 or (file.seek(size - 1), file.read(1))[1] == b'\n'
            ):
                file.truncate(size)
                return
            file.seek(0)
            keep = 0
            for line in file:
                if _beyond(line, counters):
                    break
                keep += len(line)
            file.truncate(keep)

    def _mend(self) -> None:
        """Remove a last line that was not written to its end."""
        if not self.path.exists():
            return
        with open(self.path, 'r+b') as file:
            end, tail = file.seek(0, os.SEEK_END), b''
            while end and b'\n' not in tail:
                step = min(end, 4096)
                end -= step
                file.seek(end)
                tail = file.read(step)
            file.truncate(end + tail.rfind(b'\n') + 1)


class Events:
    """TensorBoard's event file, written with its own writer and neither torch nor TensorFlow."""

    def __init__(self, logdir: Path, on_event: Callable[[str], None]):
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._make, self._proto, self._summary = EventFileWriter, event_pb2, summary_pb2.Summary
        self._tensor = tensor_pb2.TensorProto
        self._logdir, self._on_event = str(logdir), on_event
        self._writer = None
        self._failed = False

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Args: name -> number; frames."""
        self._add(
            [
                self._summary.Value(tag=name, simple_value=float(value))
                for name, value in values.items()
            ],
            step,
        )

    def image(self, name: str, content: bytes, shape: tuple[int, ...], step: int) -> None:
        """Args: name; PNG or GIF; its (H, W, C); frames."""
        image = self._summary.Image(
            height=shape[0], width=shape[1], colorspace=shape[2], encoded_image_string=content
        )
        self._add([self._summary.Value(tag=name, image=image)], step)

    def text(self, name: str, text: str, step: int) -> None:
        """Args: name; Markdown; frames."""
        content = self._tensor(dtype='DT_STRING', string_val=[text.encode()])
        value = self._summary.Value(tag=name, tensor=content)
        value.metadata.plugin_data.plugin_name = 'text'
        self._add([value], step)

    def resume(self, step: int) -> None:
        """Say that a run goes on after `step`: what earlier files hold beyond is no longer
        shown.
        """
        log = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._write(self._proto.Event(wall_time=time.time(), step=step + 1, session_log=log))

    def close(self) -> None:
        if self._writer:
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None

    def _add(self, values: list, step: int) -> None:
        if values:
            self._write(
                self._proto.Event(
                    wall_time=time.time(), step=step, summary=self._summary(value=values)
                )
            )

    def _write(self, event: Any) -> None:
        try:
            self._writer = self._writer or self._make(self._logdir, flush_secs=FLUSH_SECONDS)
            self._writer.add_event(event)  # raises what the writing thread ran into before
            self._failed = False
        except OSError as error:
            self._writer = None  # its thread has ended; the next event begins another file
            if not self._failed:
                self._on_event(
                    f'TensorBoard events cannot be written to {self._logdir}, some are lost:'
                    f' {error}'
                )
            self._failed = True


def encode(row: Values) -> bytes:
    """One line of strict JSON; numbers that are not finite are null and named under 'nonfinite'."""
    broken = [
        name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)
    ]
    if broken:
        row = row | dict.fromkeys(broken) | {'nonfinite': broken}
    return json.dumps(row, allow_nan=False).encode() + b'\n'


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, C) as PNG."""
    out = io.BytesIO()
    pillow(image).save(out, 'png')
    return out.getvalue()


def gif(frames: np.ndarray, fps: int) -> bytes:
    """uint8 (T, H, W, C) as an animated GIF that repeats without end.

    Small frames are enlarged, and short videos slowed down, until a person can follow them.
    """
    out, frames = io.BytesIO(), displayable(frames)
    height, width = frames.shape[1:3]
    times = max(1, min(-(-VIDEO_WIDTH // width), VIDEO_HEIGHT // height))
    larger = lambda frame: frame.repeat(times, 0).repeat(times, 1)
    first, *rest = (pillow(larger(frame)) for frame in frames)
    hundredths = math.ceil(100 * max(1 / fps, LOOP_SECONDS / len(frames)))  # the format's unit
    first.save(out, 'gif', save_all=True, append_images=rest, duration=10 * hundredths, loop=0)
    return out.getvalue()


def pillow(image: np.ndarray) -> Image.Image:
    """uint8 (H, W, C) as an image of PIL."""
    image = displayable(image)
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _write(file: io.FileIO, content: bytes) -> int:
    """Bytes that could be written; a full disk takes a part and refuses the rest."""
    written = 0
    with contextlib.suppress(OSError):
        while written < len(content) and (count := file.write(content[written:])):
            written += count
    return written


def _beyond(line: bytes, counters: Mapping[str, int]) -> bool:
    try:
        row = json.loads(line)
        return any(row.get(name, 0) > counters[name] for name in ('step', 'updates'))
    except (ValueError, AttributeError, TypeError):
        return True  # not ours, or damaged: nothing after it can be trusted to be in order
