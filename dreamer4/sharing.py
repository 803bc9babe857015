"""Transformers whose parameters the ranks share (FSDP2): `machine.shard fsdp`.

Each rank keeps a part of every block, with its gradient and its moments, and gathers the block
where it computes. What stands outside of transformers each has whole, as with ddp. In one process
nothing here does anything.

When blocks are whole:
  in an update, while they compute; they are parted again after each pass and on the way back
  in a dream, from its first step to its last, as every step passes through all of them
  between updates, as acting and evaluating are no steps that ranks make together

All ranks must come to the same calls in the same order.
"""

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from . import ranks
from .nets.transformer import Transformer, View

MOMENTS = ('exp_avg', 'exp_avg_sq')  # of an optimizer, each of the shape of its parameter


def share(module: nn.Module, machine) -> None:
    """Let the ranks share the transformers of a module, as rank 0 has them; none in one process, or
    where the machine does not ask for it. To be called before an optimizer takes the parameters.
    """
    if machine.config.shard != 'fsdp' or ranks.count() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # keys and values are views, to which nobody writes
    warnings.filterwarnings('ignore', 'FSDP2-wrapped module .* returned a view tensor')
    half = torch.bfloat16 if machine.half else None
    how = {
        'mesh': init_device_mesh(machine.device.type, (ranks.count(),)),
        # the stream between blocks stays float32, gradients are added up in float32
        'mp_policy': MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=False),
        'reshard_after_forward': True,
    }
    for transformer in [m for m in module.modules() if isinstance(m, Transformer)]:
        ranks.align(transformer.parameters())
        for block in transformer.blocks:
            fully_shard(block, **how)
        fully_shard(transformer, **how)
        first = torch.ones(1, 1, 1, dtype=torch.bool, device=machine.device)
        x = torch.zeros(1, 1, 1, transformer.norm.gain.numel(), device=machine.device)
        with torch.no_grad(), machine.autocast():  # torch prepares itself at the first pass
            transformer(x, first[0], View(first, torch.zeros(1, 1, device=machine.device)))


def is_shared(x: torch.Tensor) -> bool:
    """Whether it is the part that a rank has of a parameter."""
    return hasattr(x, 'full_tensor')


def own(x: torch.Tensor) -> torch.Tensor:
    """This rank's part of a parameter or gradient, which is what is stored; all of one that is not
    shared.
    """
    return x.to_local() if is_shared(x) else x


def whole(x: torch.Tensor) -> torch.Tensor:
    """All of what the ranks have parts of."""
    return x.full_tensor() if is_shared(x) else x


def widened(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What goes with this rank's part of a parameter, such as a moment, as a part of a tensor."""
    if not is_shared(like) or not x.dim():
        return x
    from torch.distributed.tensor import DTensor

    where = like.device_mesh, like.placements
    return DTensor.from_local(x, *where, run_check=False, shape=like.shape, stride=like.stride())


def like_part(shape: torch.Size, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor to be filled: this rank's part where `like` is shared and has that shape."""
    if like is None or not is_shared(like) or like.shape != shape:
        return torch.empty(shape, dtype=dtype)
    return widened(torch.empty_like(own(like.detach()), dtype=dtype), like)


def parted(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which every rank has, as this rank's part of it, where `like` is shared; one
    that is a part already as it is.
    """
    if not is_shared(like) or is_shared(x):
        return x
    from torch.distributed.tensor import distribute_tensor

    where = like.device_mesh, like.placements
    return distribute_tensor(x.to(like.device), *where, src_data_rank=None)


def fitted(part: Any, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state of whole tensors that a module, or what has one, is to load."""
    if isinstance(module := getattr(part, 'module', None), nn.Module):
        return {**state, 'module': fitted(module, state['module'])}
    if not isinstance(part, nn.Module):
        return state
    known = dict(part.named_parameters())
    return {k: parted(x, known[k]) if k in known else x for k, x in state.items()}


def shared_paths(parts: Mapping[str, Any]) -> Iterator[tuple[str, nn.Parameter]]:
    """Where in a state there are tensors of which each rank has the part that it has of a
    parameter, and that parameter.

    Args:
        parts: name -> what has a state: a module, what has one, or an Optimizer.
    """
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            yield from ((f'{name}/{key}', p) for key, p in part.named_parameters())
        elif isinstance(module := getattr(part, 'module', None), nn.Module):
            yield from shared_paths({f'{name}/module': module})
        elif numbered := getattr(part, 'numbered', None):
            for i, p in numbered().items():
                yield from ((f'{name}/moments/{i}/{key}', p) for key in MOMENTS)


def clip(parameters: Iterable[nn.Parameter], shared: Iterable[nn.Parameter], most: float):
    """Scale gradients so that their norm is at most `most`; their norm before, over all ranks.

    Args:
        parameters: that all ranks have, with the same gradients. shared: parts of this rank.
    """
    parameters, shared = list(parameters), list(shared)
    if not shared:
        return nn.utils.clip_grad_norm_(parameters, most)
    norm = lambda some: nn.utils.get_total_norm([p.grad for p in some if p.grad is not None])
    length = (norm(parameters).square() + ranks.total(norm(shared).square())).sqrt()
    nn.utils.clip_grads_with_norm_([*parameters, *shared], most, length)
    return length


def norms(
    parameters: Iterable[torch.Tensor], of: Iterable[torch.Tensor], shared: Collection[int]
) -> list[torch.Tensor]:
    """Norm of each of some tensors that go with parameters, over all ranks of those that are parts.

    Args:
        parameters: as they are stored here. of: of them, such as gradients. shared: id() of those
            that are parts.
    """
    found = [x.norm() for x in of]
    parts = [i for i, p in enumerate(parameters) if id(p) in shared]
    if parts:  # all of them in one message
        squares = ranks.total(torch.stack([found[i].square() for i in parts]))
        for i, square in zip(parts, squares):
            found[i] = square.sqrt()
    return found


class Blocks:
    """The transformers, among some modules, that the ranks share.

    Args:
        modules: on which share() was called.
    """

    def __init__(self, *modules: nn.Module):
        layers = [m for module in modules for m in module.modules() if hasattr(m, 'unshard')]
        self._roots = [m for m in layers if isinstance(m, Transformer)]
        self._layers = layers

    def __bool__(self) -> bool:
        return bool(self._layers)

    def gather(self) -> None:
        """Make all whole, until further notice, for calls that not all ranks make together."""
        self.part()
        for layer in self._layers:
            layer.set_reshard_after_forward(False, recurse=False)
            layer.unshard()

    def part(self) -> None:
        """Let every rank have its part again, and blocks be gathered where they compute."""
        for root in self._roots:
            root.reset_iter_state()  # passes without gradient would be counted for ever
        for layer in self._layers:
            layer.set_reshard_after_forward(True, recurse=False)

    @contextmanager
    def learning(self) -> Iterator[None]:
        """An update. What is whole at its beginning is what its first passes need."""
        for layer in self._layers:
            layer.set_reshard_after_forward(True, recurse=False)
        yield
        self.gather()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Passes without gradient, in the middle of an update, before which all are gathered."""
        for layer in self._layers:
            layer.set_reshard_after_forward(False, recurse=False)
            layer.unshard()
        yield
        for layer in self._layers:
            layer.reshard()
            layer.set_reshard_after_forward(True, recurse=False)
