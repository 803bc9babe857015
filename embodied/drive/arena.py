"""The arrays through which envs and driver exchange one step, laid out in one anonymous piece of
shared memory.

Nothing here has a name in the file system: the memory lives as long as a process that maps it, so
no end of a run, not even kill -9 of all of it, leaves a segment behind. Letters: N envs.
"""

import mmap
import os
import tempfile

import numpy as np

from ..base import Spaces
from ..errors import EnvContractError

# bytes; one cache line, so that envs on different cores do not write to the same one at array
# borders
ALIGNMENT = 64


class SharedMemory:
    """Anonymous memory that child processes inherit as a file descriptor.

    Attributes:
      fd: descriptor to hand to a child; valid in this process until close().
    """

    def __init__(self):
        if hasattr(os, 'memfd_create'):
            self.fd = os.memfd_create('embodied')
        else:
            with tempfile.TemporaryFile() as file:
                self.fd = os.dup(file.fileno())

    def resize(self, nbytes: int) -> None:
        """Give it a size; new bytes are zero."""
        os.ftruncate(self.fd, nbytes)

    def close(self) -> None:
        """Give up the descriptor; existing maps stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def map_memory(fd: int) -> mmap.mmap:
    """Returns the whole memory behind a descriptor as a writable buffer."""
    return mmap.mmap(fd, 0)


class Arena:
    """One row per env in each array.

    Attributes:
      obs: dict key -> (N, *shape) of the space's dtype; what the envs returned, written by them.
      action: dict key -> (N, *shape), 'reset' included; what the envs are to do, written by the
          driver.
      busy: (N,) bool; env i is inside step(). Read after a process died or hangs, to name the
          culprit of a group.
    """

    def __init__(self, obs_space: Spaces, act_space: Spaces, num_envs: int, buffer: mmap.mmap):
        fields, nbytes = _layout(obs_space, act_space, num_envs)
        if len(buffer) < nbytes:
            raise ValueError(
                f'arena of {num_envs} envs needs {nbytes} bytes, the buffer has {len(buffer)}'
            )
        arrays = {
            name: np.ndarray(shape, dtype, buffer, offset)
            for name, (offset, shape, dtype) in fields.items()
        }
        self.obs = {key: arrays['obs', key] for key in obs_space}
        self.action = {key: arrays['action', key] for key in act_space}
        self.busy = arrays['driver', 'busy']

    @staticmethod
    def nbytes(obs_space: Spaces, act_space: Spaces, num_envs: int) -> int:
        """Size of the buffer that such an arena needs."""
        return _layout(obs_space, act_space, num_envs)[1]


def _layout(obs_space, act_space, num_envs):
    arrays = {('obs', key): _array_of(key, space) for key, space in obs_space.items()}
    arrays |= {('action', key): _array_of(key, space) for key, space in act_space.items()}
    arrays['driver', 'busy'] = ((), np.dtype(bool))
    fields, offset = {}, 0
    for name, (shape, dtype) in arrays.items():
        shape = (num_envs, *shape)
        fields[name] = (offset, shape, dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        offset += -(-nbytes // ALIGNMENT) * ALIGNMENT
    return fields, offset


def _array_of(key, space):
    if space.shape is None or space.dtype is None or np.dtype(space.dtype).kind not in 'biuf':
        raise EnvContractError(
            f'space {key!r} must have a fixed shape and a numeric dtype, got {space}'
        )
    return tuple(space.shape), np.dtype(space.dtype)
