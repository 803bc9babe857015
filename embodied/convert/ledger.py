"""What a conversion has done so far, kept inside the folder that it fills: which episodes are in
it, and which rows are theirs. A conversion that was killed continues from there.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ReplayError
from ..files import open_regular, whole
from ..replay import Replay
from ..replay import meta as metas
from ..replay.config import unlimited

FOLDER = 'convert'  # in the destination
FILENAME = 'ledger.json'
MEMORY_GB = 0.25  # rows that wait for the disk
UNLISTED = 'unlisted'  # where the replay moves rows that no record names


class Ledger:
    """The replay that is filled and the record of what is in it.

    Attributes:
      done: names of the episodes whose rows are in the folder.
      ranges: action key -> [lowest, highest] of each entry, over these rows.
      replay: where rows go; open between start() and close().
    """

    def __init__(self, dest: Path, request: dict[str, Any], on_event: Callable[[str], None]):
        """Open the record of a folder, or begin one.

        Args:
          dest: the folder, new or empty, or filled by the same request before.
          request: what is converted and how, JSON-able.

        Raises:
          ReplayError: the folder holds something else.
        """
        self.dest, self._path, self._on_event = dest, dest / FOLDER / FILENAME, on_event
        self._request = json.loads(json.dumps(request))
        self.done: dict[str, None] = {}
        self.ranges: dict[str, list] = {}
        self._manifest = None
        self.replay: Replay | None = None
        if self._path.exists():
            self._read()
        elif dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise ReplayError(
                f'{dest} exists and is no unfinished conversion; nothing is overwritten, choose'
                ' another folder.'
            )

    def _read(self) -> None:
        try:
            with open_regular(self._path) as file:
                content = json.loads(file.read())
            found, self.done = content['request'], dict.fromkeys(content['done'])
            self.ranges, self._manifest = content['ranges'], content['manifest']
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReplayError(f'{self._path}: cannot be read: {error!r}.') from error
        if found != self._request and not self.done:
            self.ranges, self._manifest = {}, None  # it failed at once: the next try may differ
        elif found != self._request:
            keys = sorted(found.keys() | self._request.keys())
            other = [key for key in keys if found.get(key) != self._request.get(key)]
            raise ReplayError(
                f'{self.dest} holds another conversion: '
                + ', '.join(
                    f'{key} {found.get(key)!r} there, {self._request.get(key)!r} here'
                    for key in other
                )
                + '; nothing is overwritten, choose another folder.'
            )

    def start(self) -> None:
        """Open the replay with the rows of the episodes that are done and no others."""
        if self._manifest is None:
            for path in self.dest.glob('*.npz'):  # of an episode that was not finished
                path.unlink()
            (self.dest / metas.FILENAME).unlink(missing_ok=True)
            self._write()
        config = unlimited(MEMORY_GB, resume='manifest')
        self.replay = Replay(config, self.dest, 0, on_event=self._tell)
        self.replay.load(self._manifest)
        shutil.rmtree(self.dest / UNLISTED, ignore_errors=True)

    def save(self) -> None:
        """Bring the rows to disk and note the episodes that are done."""
        self._manifest = self.replay.save()
        self._write()

    def close(self, sound: bool) -> None:
        """Close the replay. Where the last episode is not `sound`, what came after the last save()
        is given up."""
        self.replay.close()
        if not sound:
            if self._path.exists():
                self._read()
            self.start()
            self.replay.close()

    def replace_meta(self, content: bytes) -> None:
        """Write meta.json anew, at the end.

        Raises:
          ReplayError: it cannot be written.
        """
        try:
            with whole(self.dest / metas.FILENAME) as file:
                file.write(content)
        except OSError as error:
            raise ReplayError(f'{self.dest}: meta.json cannot be written: {error}.') from error

    def add(self, row: dict[str, np.ndarray], actions: tuple[str, ...]) -> None:
        """Store a row and widen the ranges of its actions."""
        self.replay.add(row)
        for key in actions:
            self._widen(key, np.asarray(row[key]))

    def _widen(self, key: str, value: np.ndarray) -> None:
        if key not in self.ranges:
            self.ranges[key] = [value.copy(), value.copy()]
        low, high = self.ranges[key]
        self.ranges[key] = [np.minimum(low, value), np.maximum(high, value)]

    def _write(self) -> None:
        plain = {key: [np.asarray(v).tolist() for v in pair] for key, pair in self.ranges.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with whole(self._path) as file:
            content = {
                'request': self._request,
                'done': list(self.done),
                'ranges': plain,
                'manifest': self._manifest,
            }
            file.write(json.dumps(content).encode())

    def _tell(self, text: str) -> None:
        if UNLISTED not in text:  # rows of an episode that was not finished, deleted at once
            self._on_event(text)
