"""Checkpoints of which every rank writes and reads what it has: `machine.sharded_checkpoint`, for
models that are too large to be gathered in one process.

torch.distributed.checkpoint does the work, in the form of safetensors: a file per rank, whose
header says where in the whole tensors its parts belong. Its own form has a pickle, which nobody
should load. What several ranks have the same of, one of them writes.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from embodied.base import Stored
from embodied.errors import CheckpointError

from . import ranks
from .sharing import like_part

FILE = 'shard-{:05d}-*.safetensors'  # as torch names that of a rank, counted from 1

Tensors = dict[str, torch.Tensor]


def split(tree: Mapping[str, Any], path: str = '') -> tuple[Tensors, dict[str, Any]]:
    """A state as tensors by their '/'-joined path, and the rest of it."""
    tensors, rest = {}, {}
    for key, value in tree.items():
        assert '/' not in str(key), key
        name = f'{path}/{key}' if path else str(key)
        if isinstance(value, Mapping):
            inner, rest[str(key)] = split(value, name)
            tensors |= inner
        elif isinstance(value, torch.Tensor):
            tensors[name] = value.detach()
        else:
            rest[str(key)] = value
    return tensors, rest


def merge(tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of split."""
    tree = {k: merge({}, v) if isinstance(v, Mapping) else v for k, v in rest.items()}
    for path, tensor in tensors.items():
        *above, name = path.split('/')
        place = tree
        for key in above:
            place = place.setdefault(key, {})
        place[name] = tensor
    return tree


def write(folder: Path, tensors: Tensors) -> list[Path]:
    """Write what this rank has of them, parts or whole; all ranks call it. Returns its files.

    Raises:
        CheckpointError: a rank could not.
    """
    with _spoken(folder):
        dcp.save(tensors, storage_writer=HuggingFaceStorageWriter(folder, save_distributed=True))
    return sorted(folder.glob(FILE.format(ranks.number() + 1)))


def read(folder: Path, likes: Mapping[str, torch.Tensor]) -> Tensors:
    """What write() has written, by however many ranks; all ranks call it.

    Args:
        likes: path -> parameter; a tensor of its shape is read as this rank's part, where the
            parameter is one. Others are read whole, on the CPU.

    Raises:
        CheckpointError: a file is damaged.
    """
    with _spoken(folder):
        reader = HuggingFaceStorageReader(folder)
        known = reader.read_metadata().state_dict_metadata
        found = {k: like_part(m.size, m.properties.dtype, likes.get(k)) for k, m in known.items()}
        dcp.load(found, storage_reader=reader, no_dist=ranks.count() == 1)
    return found


def whole(stored: Stored) -> dict[str, Any]:
    """The tree of an agent with all its arrays, as one process saves it.

    Raises:
        CheckpointError: a file is damaged.
    """
    tensors = read(stored.folder, {})
    return merge({path: x.numpy() for path, x in tensors.items()}, stored.tree)


@contextmanager
def _spoken(folder: Path) -> Iterator[None]:
    """Torch's errors, which no `except Exception` catches, in one line."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'torch.distributed is disabled')  # one process
            yield
    except CheckpointException as error:
        number, (cause, _) = next(iter(error.failures.items()))
        raise CheckpointError(f'{folder}: rank {number}: {cause!r:.300}') from error
