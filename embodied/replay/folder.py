"""The folder of a replay: which chunk files are in it, and where files go that cannot or should not
be read. Files that are set aside count in the disk budget, and the oldest of them are the first to
be deleted when it is short of room.
"""

import contextlib
import json
import os
import re
import stat
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import ChunkError, ReplayError, ReplayWriteError
from ..files import KINDS, claim, printable, refusal, unused, whole
from ..lock import FILENAME as LOCK
from ..lock import SharedLock
from . import meta as metas
from .chunk import Chunk, ChunkName

NAMED = 10  # file names that a message lists before it counts the rest
# subfolders: chunks that are damaged, chunks that no checkpoint names
ASIDE = ('broken', 'unlisted')


class Folder:
    """One folder of chunks. One process at a time may write to it; any number may read.

    Attributes:
      moved: subfolder -> chunks that were set aside there.
      aside_bytes: of the files in these subfolders.
      aside_deleted: of these files, those deleted to make room.
    """

    def __init__(self, path: Path, read_only: bool, on_event: Callable[[str], None]):
        """Makes the folder, and holds its lock until close(), unless read_only.

        Raises:
          ReplayWriteError: it cannot be made.
          FolderInUse: another process writes to it.
        """
        self.path = path
        self._read_only, self._on_event = read_only, on_event
        self.moved, self.aside_bytes, self.aside_deleted = Counter(), 0, 0
        self._aside: dict[Path, int] = {}  # file -> bytes
        self.close = lambda: None
        if not read_only:
            try:
                path.mkdir(parents=True, exist_ok=True)
                lock = SharedLock(path, on_event)
                self.close = weakref.finalize(self, lock.close)  # runs once
                claim(path / metas.FILENAME, on_event)
            except OSError as error:
                raise ReplayWriteError(
                    f'{path}: the replay folder cannot be made: {error}.'
                ) from error

    def scan(self) -> dict[str, Chunk]:
        """uuid -> chunk for every chunk file, oldest first; none is opened. Whatever else is there
        is named in one warning and left alone; what a killed process left half written is removed.

        Raises:
          ReplayError, OutOfResources: the folder cannot be listed.
        """
        found, foreign, twice = {}, [], []
        for entry in self._entries(self.path):
            if entry.name in (metas.FILENAME, LOCK) or entry.name in ASIDE:
                continue
            if entry.name.startswith('.') and entry.name.endswith('.npz.tmp'):
                if not self._read_only:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
                continue
            chunk = _chunk(entry)
            if isinstance(chunk, str):
                foreign += [chunk] if chunk else []
            elif chunk.uuid in found:
                twice.append(printable(entry.name))
            else:
                found[chunk.uuid] = chunk
        if foreign:
            self._on_event(f'{self.path}: not chunks, left alone: {listing(foreign)}.')
        if twice:
            self._on_event(
                f'{self.path}: ids of chunks that are there under an older name, left alone:'
                f' {listing(twice)}.'
            )
        if not self._read_only:
            self._count_aside()
        return found

    def take_back(self, subfolder: str) -> dict[str, Chunk]:
        """Move the chunks in a subfolder back; where several have one id, the newest. Returns uuid
        -> chunk, oldest first.
        """
        newest = {}
        for entry in self._entries(self.path / subfolder):
            chunk = _chunk(entry)
            if isinstance(chunk, Chunk):
                newest[chunk.uuid] = chunk
        taken = {}
        for chunk in newest.values():
            target = unused(self.path / chunk.path.name)
            if target.name != chunk.path.name:
                continue
            try:
                os.replace(chunk.path, target)
            except OSError as error:
                self._on_event(f'{chunk.path}: cannot be taken back: {error}.')
                continue
            self._uncount(chunk.path)
            chunk.path, taken[chunk.uuid] = target, chunk
        return taken

    def set_aside(self, chunks: Iterable[Chunk], subfolder: str, why: str) -> None:
        """Move files to a subfolder and say so; in a read-only folder only say so."""
        chunks = list(chunks)
        names = listing([chunk.path.name for chunk in chunks])
        self.moved[subfolder] += len(chunks)
        if self._read_only:
            where = chunks[0].path.parent  # of several folders that are read as one
            self._on_event(f'{where}: ignored {names}: {why}')
            return
        target = self.path / subfolder
        try:
            claim(target, self._on_event, folder=True)
            target.mkdir(exist_ok=True)
            for chunk in chunks:
                aside = unused(target / chunk.path.name)
                os.replace(chunk.path, aside)
                self._aside[aside] = chunk.file_bytes
                self.aside_bytes += chunk.file_bytes
            self._on_event(f'{self.path}: moved to {subfolder}/: {names}: {why}')
        except OSError as error:
            self._on_event(
                f'{self.path}: {names} should be moved to {subfolder}/ but cannot be ({error}):'
                f' {why}'
            )

    def delete_oldest_aside(self) -> bool:
        """Delete the oldest of the files that were set aside; False where there is none."""
        oldest = min(self._aside, key=lambda path: path.name, default=None)
        if oldest is None:
            return False
        self._uncount(oldest)
        try:
            oldest.unlink(missing_ok=True)
        except OSError as error:
            self._on_event(
                f'{oldest}: cannot be deleted, so the disk budget does not hold: {error}.'
            )
            return True
        self.aside_deleted += 1
        if self.aside_deleted == 1:
            self._on_event(
                f'{self.path}: the disk budget is short of room, so the oldest files in '
                f'{" and ".join(f"{name}/" for name in ASIDE)} are deleted, first {oldest.name}.'
            )
        return True

    def unlink(self, chunk: Chunk) -> None:
        """Delete the file of a chunk that the budget has no room for."""
        try:
            chunk.path.unlink(missing_ok=True)
        except OSError as error:
            self._on_event(
                f'{chunk.path}: cannot be deleted, so the disk budget does not hold: {error}.'
            )

    def _entries(self, path: Path) -> list[os.DirEntry]:
        try:
            with os.scandir(path) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise refusal(error, f'{path}: cannot be listed', ReplayError) from error

    def _count_aside(self) -> None:
        """Note what lies in the subfolders; only what has the name of a chunk is ours to delete."""
        self._aside = {}
        for subfolder in ASIDE:
            for entry in self._entries(self.path / subfolder):
                if isinstance(chunk := _chunk(entry, numbered=True), Chunk):
                    self._aside[chunk.path] = chunk.file_bytes
        self.aside_bytes = sum(self._aside.values())

    def _uncount(self, path: Path) -> None:
        self.aside_bytes -= self._aside.pop(path, 0)

    def write_meta(self, content: bytes) -> None:
        """Put meta.json there, whole.

        Raises:
          ReplayWriteError: it cannot be written.
        """
        path = self.path / metas.FILENAME
        try:
            with whole(path) as file:
                file.write(content)
        except OSError as error:
            raise ReplayWriteError(f'{path}: cannot be written: {error}.') from error

    def warn_of_other_meta(self, ours: dict, theirs: dict) -> None:
        """Say which facts about the run differ from those in meta.json; the seed may."""
        ours = json.loads(json.dumps(ours))
        keys = [key for key in ours if key != 'seed' and ours[key] != theirs.get(key, ours[key])]
        if keys:
            differences = ', '.join(
                f'{key} {theirs[key]!r} there, {ours[key]!r} here' for key in keys
            )
            self._on_event(
                f'{self.path / metas.FILENAME}: the rows there come from another run:'
                f' {differences}.'
            )


def listing(names: list[str]) -> str:
    """A few names, which must be printable, and how many more there are."""
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more


def _chunk(entry: os.DirEntry, numbered: bool = False) -> Chunk | str:
    """The chunk that a folder entry is, or how to name what is none; '' for folders of any name.

    Args:
      entry: of the folder, which may have any kind and any name.
      numbered: whether a number may follow the name, as files that were set aside have it.
    """
    name = printable(entry.name)
    try:
        parsed = ChunkName.parse(re.sub(r'\.[0-9]+$', '', entry.name) if numbered else entry.name)
    except ChunkError:
        return '' if entry.is_dir() else name
    try:
        status = os.stat(entry.path)
    except OSError as error:
        return f'{name} ({error.strerror})'
    if not stat.S_ISREG(status.st_mode):
        return f'{name} ({KINDS.get(stat.S_IFMT(status.st_mode), "no file")})'
    return Chunk.on_disk(Path(entry.path), parsed, status.st_size)
