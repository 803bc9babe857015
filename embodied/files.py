"""What the system may refuse a program that reads and writes files, and what that says of them."""

import errno
import resource

from .errors import EmbodiedError, OutOfResources

STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)

DESCRIPTOR_SHARE = 4           # a store of files holds one in so many of the descriptors allowed
MAX_DESCRIPTORS = 1 << 14      # and never more: the system also limits mappings, to some 65,000


def starved(error: BaseException) -> bool:
    """Whether descriptors or memory ran out, so that the file asked for is not at fault."""
    return isinstance(error, MemoryError) or getattr(error, 'errno', None) in STARVED


def refusal(
        error: OSError | MemoryError, what: str, otherwise: type[EmbodiedError]) -> EmbodiedError:
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
        f'-n is {soft}, ulimit -v may be set); nothing is wrong with the file.')


def descriptor_share() -> int:
    """Descriptors that one store of files may hold open, at least 8."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_DESCRIPTORS
    return max(8, min(MAX_DESCRIPTORS, soft // DESCRIPTOR_SHARE))
