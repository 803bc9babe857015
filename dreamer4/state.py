"""The parts of an agent <-> a tree of numpy arrays and JSON for a checkpoint; the word about one
that does not fit; and metrics on their way to the host.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from embodied.base import Shards, Stored
from embodied.errors import CheckpointError

from . import ranks, shards
from .sharing import fitted, is_shared, shared_paths, whole

# what a tree of another form runs into
MISFIT = (RuntimeError, LookupError, ArithmeticError, ValueError, TypeError, AttributeError)


def pack_tree(tree, keep: bool = True):
    """Nested dicts with tensors -> the same with numpy arrays (copies); other leaves stay.

    Args:
        keep: else there are None for tensors: this rank only helps others to make them whole.
    """
    if isinstance(tree, dict):
        return {str(k): pack_tree(v, keep) for k, v in tree.items()}
    if isinstance(tree, torch.Tensor):
        full = whole(tree.detach())
        return full.cpu().numpy().copy() if keep else None
    return tree


def unpack_tree(tree):
    """Inverse of pack_tree; tensors own their memory."""
    if isinstance(tree, dict):
        return {k: unpack_tree(v) for k, v in tree.items()}
    if isinstance(tree, np.ndarray):
        return torch.from_numpy(tree.copy())
    return tree


def pack(parts: Mapping, rest: dict, cut: bool) -> dict | Shards:
    """What a checkpoint holds of parts, and the rest beside them; all ranks call it.

    Args:
        parts: name -> with a state_dict. rest: of JSON values and arrays. cut: each rank writes
            what it has of the tensors, see shards.py; else they are whole on rank 0.
    """
    state = {name: part.state_dict() for name, part in parts.items()}
    if cut:
        tensors, small = shards.split(state)
        return Shards(pack_tree(small | rest), lambda folder: shards.write(folder, tensors))
    return pack_tree(state | rest, keep=not ranks.number())


def unpack(parts: Mapping, tree: Mapping | Stored) -> dict:
    """Inverse of pack: load the parts; the whole tree, with the rest. A model that travels comes
    without the optimizers, which begin anew.
    """
    if isinstance(tree, Stored):
        likes = dict(shared_paths(parts))
        tree = shards.merge(shards.read(tree.folder, likes), unpack_tree(tree.tree))
    else:
        tree = unpack_tree(tree)
    for name, part in parts.items():
        if name in tree or not name.startswith('optim_'):
            part.load_state_dict(fitted(part, tree[name]))
    return tree


def fetch(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Scalars on the device -> floats, means over the ranks, in one transfer."""
    if not metrics:
        return {}
    values = ranks.mean(torch.stack([v.float() for v in metrics.values()]))
    return dict(zip(metrics, values.tolist()))


def modules(*owners) -> Iterator[nn.Module]:
    """The networks of parts with a state()."""
    for part in (part for owner in owners for part in owner.state().values()):
        yield getattr(part, 'module', part)


def held(*owners) -> Iterator[torch.Tensor]:
    """What the networks of parts with a state() hold and all ranks have the same of."""
    for module in modules(*owners):
        yield from (x for x in (*module.parameters(), *module.buffers()) if not is_shared(x))


@contextmanager
def fitting() -> Iterator[None]:
    """A context in which a state is loaded.

    Raises:
        CheckpointError: parts or parameters are missing, unexpected or of another shape; names
            them.
    """
    try:
        yield
    except MISFIT as error:
        known = [line.strip() for line in str(error).splitlines()]
        text = ' '.join(known[:4]) + (f' and {len(known) - 4} more' if len(known) > 4 else '')
        raise CheckpointError(
            f'the checkpoint was made for another agent ({type(error).__name__}): {text}'
        ) from error
