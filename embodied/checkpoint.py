"""Checkpoints: a folder per save that is complete or invisible, and that can execute nothing.

    ckpt/20261120T193749F833588-000000012000/     time (UTC) and step
        agent.safetensors   the arrays of the tree 'agent', by '/'-joined keys
        agent.json          the rest of it
        agent.shards/       instead of agent.safetensors: what each of several processes has of them
        ...
        done.json           sizes and checksums of all the others, and the meta data; written last

A save is written into a folder with another name and renamed when it is whole. See save.py for its
files.
"""

import os
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .errors import CheckpointError
from .files import refusal, sync
from .save import DAMAGE, DONE, NO_SUMS, Sums, Trees, describe, read, verify, write_save

PARTIAL = '.partial-'
STAMP = '%Y%m%dT%H%M%SF%f'
SAVE_NAME = re.compile(r'\d{8}T\d{6}F\d{6}-\d+')
WANTED = 'expected a save, a ckpt folder or a logdir that holds one'
LAST_YEAR = 9000  # a later one is a mistake, and nothing could come after the last of them


class Checkpoint:
    """The saves of one run.

    Attributes:
      loaded: the one that load() has found.
    """

    loaded: Path | None = None

    def __init__(self, directory: str | Path, keep: int, on_event: Callable[[str], None] = print):
        """Nothing is touched before the first save.

        Args:
          directory: of the saves; made when the first one is written.
          keep: newest saves to keep, at least 1.
          on_event: receives a text for every damaged save that is passed over.
        """
        self.directory, self.keep, self._on_event = Path(directory), keep, on_event

    def saves(self) -> list[Path]:
        """Folders of all saves, oldest first; whatever else lies in the directory is not counted
        and never touched.
        """
        return self._listed()[0]

    def odd(self) -> list[str]:
        """What has the name of a save and is none, as text: no folder, or of a time that cannot
        be.
        """
        return self._listed()[1]

    def _listed(self) -> tuple[list[Path], list[str]]:
        saves, odd = [], []
        try:
            for path in sorted(self.directory.iterdir()):
                if not SAVE_NAME.fullmatch(path.name):
                    continue
                if not path.is_dir():
                    odd.append(f'{path.name} (no folder)')
                elif not _possible(path.name):
                    odd.append(f'{path.name} (no possible time)')
                else:
                    saves.append(path)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise refusal(
                error, f'{self.directory}: expected a folder of checkpoints', CheckpointError
            ) from error
        return saves, odd

    def save(self, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> Path:
        """Write one save and remove those beyond `keep`.

        Args:
          trees: name (letters, digits, '_', '-') -> nested dicts whose leaves are numpy arrays or
            JSON values. They are loaded as they are, except that numpy scalars become arrays () and
            tuples become lists.
          meta: JSON values; 'step' enters the folder's name.

        Returns:
          its folder.

        Raises:
          CheckpointError: it could not be written; earlier saves are untouched.
        """
        return self.finish(self.begin(meta), trees, meta)

    def begin(self, meta: Mapping[str, Any]) -> Path:
        """The folder that finish() makes a save of; files of shards are written there before.

        Args, Raises: as save().
        """
        partial = self.directory / f'{PARTIAL}{self._stamp()}-{int(meta.get("step", 0)):012d}'
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._clean()
            partial.mkdir()
        except OSError as error:
            raise self._unwritten(error) from error
        return partial

    def finish(
        self, partial: Path, trees: Mapping[str, Any], meta: Mapping[str, Any], sums: Sums = NO_SUMS
    ) -> Path:
        """Write the rest of a save, make it visible, and remove those beyond `keep`.

        Args:
          partial: from begin(). trees, meta: as for save(). sums: of the files of shards, which
            are there already.

        Returns, Raises: as save().
        """
        name = partial.name.removeprefix(PARTIAL)
        try:
            write_save(partial, trees, meta, sums)
            os.rename(partial, self.directory / name)
            sync(self.directory)
        except DAMAGE as error:
            self.drop(partial)
            raise self._unwritten(error) from error
        for old in self.saves()[: -self.keep]:
            self._remove(old)
        return self.directory / name

    def drop(self, partial: Path) -> None:
        """Remove a save that will not be finished."""
        shutil.rmtree(partial, ignore_errors=True)

    def _unwritten(self, error: BaseException) -> CheckpointError:
        return CheckpointError(
            f'{self.directory}: this save could not be written: {describe(error)}'
        )

    def load(self, path: str | Path | None = None) -> tuple[Trees, dict[str, Any]] | None:
        """(trees, meta) of the newest undamaged save, or None if there is no save at all.

        Args:
          path: folder of one save; then nothing else is tried.

        Raises:
          CheckpointError: the save at `path`, or every save there is, is damaged; says what is
              wrong with each.
          OutOfResources: descriptors or memory ran out; an older save would be the wrong one.
        """
        if path is not None:
            return read(Path(path))
        problems = []
        self.say_what_is_odd()
        for save in reversed(self.saves()):
            try:
                found, self.loaded = read(save), save
                return found
            except CheckpointError as error:
                problems.append(str(error))
                self._on_event(f'Passing over a damaged checkpoint: {error}')
        if problems:
            raise CheckpointError('No checkpoint can be read: ' + '; '.join(problems))
        return None

    def say_what_is_odd(self) -> None:
        """Name what has the name of a save and is none; it is left alone."""
        if odd := self.odd():
            self._on_event(f'{self.directory}: not saves, left alone: {", ".join(odd[:10])}.')

    def _stamp(self) -> str:
        """The time, or just after that of the newest save where the clock was set back: names
        must sort by age.
        """
        now, saves = datetime.now(UTC), self.saves()
        if saves:
            newest = datetime.strptime(saves[-1].name.partition('-')[0], STAMP).replace(tzinfo=UTC)
            now = max(now, newest + timedelta(microseconds=1))
        return now.strftime(STAMP)

    def _clean(self) -> None:
        """Remove what interrupted saves and removals have left."""
        for stale in self.directory.glob(f'{PARTIAL}*'):
            shutil.rmtree(stale, ignore_errors=True)

    def _remove(self, save: Path) -> None:
        """Make a save invisible first, so that none is ever seen half removed. A disk that
        refuses is asked again at the next save.
        """
        hidden = save.with_name(f'{PARTIAL}{save.name}')
        try:
            os.rename(save, hidden)
        except OSError:
            return
        shutil.rmtree(hidden, ignore_errors=True)


def find_save(path: str | Path, on_event: Callable[[str], None] = print) -> Path:
    """The newest undamaged save of a logdir or ckpt folder, or the save that `path` is itself.

    Raises:
      CheckpointError: there is none, or all there are, are damaged.
    """
    path, problems = Path(path), []
    for folder in (path / 'ckpt', path):
        Checkpoint(folder, 1, on_event).say_what_is_odd()
    for save in saves_of(path):
        if save == path:
            return save
        try:
            verify(save)
            return save
        except CheckpointError as error:
            problems.append(str(error))
            on_event(f'Passing over a damaged checkpoint: {error}')
    raise CheckpointError(f'{path}: {WANTED}; {"; ".join(problems)}')


def saves_of(path: str | Path) -> list[Path]:
    """The saves of a logdir or ckpt folder, the newest first, or the one that `path` is itself;
    none of them is read.

    Raises:
      CheckpointError: there is none.
    """
    path = Path(path)
    if (path / DONE).exists() or SAVE_NAME.fullmatch(path.name):
        return [path]
    folders = [folder for folder in (path / 'ckpt', path) if folder.is_dir()]
    found = [save for folder in folders for save in reversed(Checkpoint(folder, 1).saves())]
    if not found:
        none = 'there is none' + ('' if path.exists() else ', nor such a folder')
        raise CheckpointError(f'{path}: {WANTED}; {none}')
    return found


def _possible(name: str) -> bool:
    """Whether a save can have been made at the time in its name."""
    try:
        return datetime.strptime(name.partition('-')[0], STAMP).year <= LAST_YEAR
    except ValueError:
        return False
