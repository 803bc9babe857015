"""Files of a run: how they appear whole, what the system refuses and what that says of a file,
names that something else has taken, names that are no text.
"""

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import EmbodiedError, OutOfResources

STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)

DESCRIPTOR_SHARE = 4  # a store of files holds one in so many of the descriptors allowed
MAX_DESCRIPTORS = 1 << 14  # and never more: the system also limits mappings, to some 65,000

KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFREG: 'a file',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFSOCK: 'a socket',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
}


def starved(error: BaseException) -> bool:
    """Whether descriptors or memory ran out, so that the file asked for is not at fault."""
    return isinstance(error, MemoryError) or getattr(error, 'errno', None) in STARVED


def refusal(
    error: OSError | MemoryError, what: str, otherwise: type[EmbodiedError]
) -> EmbodiedError:
    """The error to raise for what the system refused.

    Args:
      error: what it said.
      what: the file, and what was to be done with it.
      otherwise: the class where nothing ran out.
    """
    if not starved(error):
        return otherwise(f'{what}: {error}.')
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return OutOfResources(
        f'{what}: {str(error) or type(error).__name__}. File descriptors or memory ran out (ulimit '
        f'-n is {soft}, ulimit -v may be set); nothing is wrong with the file.'
    )


def descriptor_share() -> int:
    """Descriptors that one store of files may hold open, at least 8."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_DESCRIPTORS
    return max(8, min(MAX_DESCRIPTORS, soft // DESCRIPTOR_SHARE))


def open_regular(path: str | os.PathLike, follow: bool = True) -> BinaryIO:
    """Open a file for reading; opening a pipe that nobody writes to would never return.

    Args:
      path: the file.
      follow: whether it may be a link.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f'{printable(path)} is no regular file')
    return open(descriptor, 'rb')


@contextlib.contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under its name complete and on the disk, or not at all. Until
    then it is called .NAME.tmp.

    Raises:
      OSError: it cannot be written; nothing remains under either name then.
    """
    hidden = path.with_name(f'.{path.name}.tmp')
    try:
        with open(hidden, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    except BaseException:
        with contextlib.suppress(OSError):
            hidden.unlink()
        raise
    with contextlib.suppress(OSError):  # some network disks cannot; the file is there all the same
        sync(path.parent)


def sync(path: Path) -> None:
    """Have a file, or the renames in a folder, outlive a power failure.

    Raises:
      OSError: that cannot be done.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def claim(path: Path, on_event: Callable[[str], None], folder: bool = False) -> None:
    """Make sure that a name is free, or that of a file (a folder) as it should be. Whatever else
    stands there (a folder, a pipe, a link that leads nowhere) is renamed, with a word.

    Raises:
      OSError: it cannot be renamed.
    """
    if not os.path.lexists(path):
        return
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode):
            return
        found = KINDS.get(stat.S_IFMT(mode), 'something else')
    except OSError as error:
        found = f'a link that cannot be followed ({error.strerror})'
    aside = unused(path.with_name(f'{path.name}.aside'))
    os.replace(path, aside)
    expected = 'folder' if folder else 'file'
    on_event(f'{printable(path)} was {found} and no {expected}; it is {printable(aside.name)} now.')


def unused(path: Path) -> Path:
    """The path, with a number behind it where something has that name."""
    number, candidate = 1, path
    while os.path.lexists(candidate):
        candidate, number = path.with_name(f'{path.name}.{number}'), number + 1
    return candidate


def printable(name: str | os.PathLike) -> str:
    """A file name that neither breaks a line of text nor drives a terminal, whatever it holds."""
    return ''.join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in os.fspath(name))
