"""The folder of a replay: which chunk files are in it, and where files go that cannot or should not be read. Nothing that holds
rows is ever deleted here.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from embodied import schema as schemas
from embodied.chunk import Chunk, ChunkName, sync_folder
from embodied.errors import ChunkError, ReplayWriteError

NAMED = 10                     # file names that a message lists before it counts the rest


class Folder:
    """One folder of chunks. One process at a time may write to it; any number may read."""

    def __init__(self, path: Path, read_only: bool, on_event: Callable[[str], None]):
        """Makes the folder unless read_only.

        Raises:
          ReplayWriteError: it cannot be made.
        """
        self.path = path
        self._read_only, self._on_event = read_only, on_event
        if not read_only:
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ReplayWriteError(f'{path}: the replay folder cannot be made: {error}.') from error

    def scan(self) -> dict[str, Chunk]:
        """uuid -> chunk for every chunk file, oldest first; none is opened. Other files are named in one warning and left alone;
        what a killed process left half written is removed."""
        found, foreign, twice = {}, [], []
        entries = sorted(os.scandir(self.path), key=lambda entry: entry.name) if self.path.is_dir() else []
        for entry in entries:
            if entry.is_dir() or entry.name == schemas.FILENAME:
                continue
            if entry.name.startswith('.') and entry.name.endswith('.npz.tmp'):
                if not self._read_only:
                    os.unlink(entry.path)
                continue
            try:
                name = ChunkName.parse(entry.name)
            except ChunkError:
                foreign.append(entry.name)
                continue
            if name.uuid in found:
                twice.append(entry.name)
                continue
            found[name.uuid] = Chunk.on_disk(Path(entry.path), name, entry.stat().st_size)
        if foreign:
            self._on_event(f'{self.path}: not chunks, left alone: {listing(foreign)}.')
        if twice:
            self._on_event(f'{self.path}: ids of chunks that are there under an older name, left alone: {listing(twice)}.')
        return found

    def set_aside(self, chunks: Iterable[Chunk], subfolder: str, why: str) -> None:
        """Move files to a subfolder and say so; in a read-only folder only say so."""
        chunks = list(chunks)
        names = listing([chunk.path.name for chunk in chunks])
        if self._read_only:
            self._on_event(f'{self.path}: ignored {names}: {why}')
            return
        target = self.path / subfolder
        try:
            target.mkdir(exist_ok=True)
            for chunk in chunks:
                os.replace(chunk.path, _unused(target / chunk.path.name))
            self._on_event(f'{self.path}: moved to {subfolder}/: {names}: {why}')
        except OSError as error:
            self._on_event(f'{self.path}: {names} should be moved to {subfolder}/ but cannot be ({error}): {why}')

    def unlink(self, chunk: Chunk) -> None:
        """Delete the file of a chunk that the budget has no room for."""
        try:
            chunk.path.unlink(missing_ok=True)
        except OSError as error:
            self._on_event(f'{chunk.path}: cannot be deleted, so the disk budget does not hold: {error}.')

    def write_meta(self, content: bytes) -> None:
        """Put meta.json there, whole.

        Raises:
          ReplayWriteError: it cannot be written.
        """
        path = self.path / schemas.FILENAME
        hidden = path.with_name(f'.{path.name}.tmp')
        try:
            with open(hidden, 'wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(hidden, path)
            sync_folder(self.path)
        except OSError as error:
            raise ReplayWriteError(f'{path}: cannot be written: {error}.') from error

    def warn_of_other_meta(self, ours: dict, theirs: dict) -> None:
        """Say which facts about the run differ from those in meta.json; the seed may."""
        ours = json.loads(json.dumps(ours))
        keys = [key for key in ours if key != 'seed' and ours[key] != theirs.get(key, ours[key])]
        if keys:
            differences = ', '.join(f'{key} {theirs[key]!r} there, {ours[key]!r} here' for key in keys)
            self._on_event(f'{self.path / schemas.FILENAME}: the rows there come from another run: {differences}.')


def listing(names: list[str]) -> str:
    """A few names, and how many more there are."""
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


def _unused(path: Path) -> Path:
    number, candidate = 1, path
    while candidate.exists():
        candidate, number = path.with_name(f'{path.name}.{number}'), number + 1
    return candidate
