"""What a source folder holds, in order. There may be a million files, so they are looked up anew
whenever they are gone through; memory holds the names of one folder, and of those that it is in.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import ReplayError


class Files:
    """The files that a source is: itself, or all below it with one of some suffixes, by name."""

    def __init__(self, source: Path, *suffixes: str, name: str | None = None):
        """
        Args:
          suffixes: in lower case, with their dot.
          name: of the files, where all are called the same.

        Raises:
          ReplayError: there is none.
        """
        self._source, self._suffixes, self._name = source, suffixes, name
        if next(iter(self), None) is None:
            wanted = name or ', '.join(suffixes)
            raise ReplayError(f'{source}: there is no file {wanted} in it.')

    def __iter__(self) -> Iterator[Path]:
        if self._source.is_file():
            yield self._source
        else:
            yield from self._below(self._source)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _below(self, folder: Path) -> Iterator[Path]:
        inner, found = _content(folder, self._suffixes)
        for name in sorted([*inner, *found]):
            if name in inner:
                yield from self._below(folder / name)
            elif self._name in (None, name):
                yield folder / name


class Folders:
    """The folders below a source, and itself, that hold a file with one of some suffixes; folder10
    comes after folder9."""

    def __init__(self, source: Path, *suffixes: str):
        """Raises ReplayError where there is none."""
        self._source, self._suffixes = source, suffixes
        if not source.is_dir():
            raise ReplayError(f'{source}: expected a folder, found a file.')
        if next(iter(self), None) is None:
            raise ReplayError(f'{source}: there is no file {", ".join(suffixes)} in it.')

    def __iter__(self) -> Iterator[Path]:
        return self._below(self._source)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _below(self, folder: Path) -> Iterator[Path]:
        inner, found = _content(folder, self._suffixes)
        if found:
            yield folder
        del found
        for name in sorted(inner, key=natural):
            yield from self._below(folder / name)


def names(folder: Path, *suffixes: str) -> list[str]:
    """Of the files in a folder with one of some suffixes; frame10 comes after frame9."""
    return sorted(_content(folder, suffixes)[1], key=natural)


def _content(folder: Path, suffixes: tuple[str, ...]) -> tuple[set[str], list[str]]:
    """Names of the folders, and of the files with one of the suffixes, in a folder."""
    inner, found = set(), []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                inner.add(entry.name)
            elif entry.name.lower().endswith(suffixes) and not entry.name.startswith('.'):
                if entry.is_file():
                    found.append(entry.name)
    return inner, found


def natural(name: str) -> tuple[str, str]:
    """A sort key that puts frame9 before frame10: how many digits stands before them."""
    return re.sub('[0-9]+', _counted, name), name


def _counted(found: re.Match) -> str:
    digits = found[0].lstrip('0')
    return f'{len(digits):03}{digits}'


def relative(path: Path, source: Path) -> str:
    """The name of a file within its source."""
    return path.name if path == source else path.relative_to(source).as_posix()
