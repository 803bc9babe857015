"""Files of one JSON object per line: written whole line by whole line, cut to what a save knew, and
read also while a run writes them.
"""

import contextlib
import io
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..base import Values
from ..files import claim

COUNTERS = ('step', 'frames', 'updates', 'episodes')  # of every line of metrics.jsonl
MAX_WAITING = 10_000  # lines that wait for a disk


def read_lines(path: Path) -> Iterator[dict]:
    """What the lines of a log hold; none if there is no such file. A torn last line, of a run that
    was killed or that is writing now, is left out.
    """
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


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


def encode(row: Values) -> bytes:
    """One line of strict JSON; numbers that are not finite are null and named under 'nonfinite'."""
    broken = [
        name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)
    ]
    if broken:
        row = row | dict.fromkeys(broken) | {'nonfinite': broken}
    return json.dumps(row, allow_nan=False).encode() + b'\n'


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
