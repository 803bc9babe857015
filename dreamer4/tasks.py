"""What the networks know of several tasks: how many there are, what each asks for, and which
numbers of an observation it has, as the others are padding that nobody learns from.

Letters: N tasks, B sequences, T time.
"""

import math
from collections.abc import Callable, Mapping

import torch
from gymnasium import spaces
from torch import nn

from embodied.base import is_image
from embodied.tasks import KEY, TaskId

from . import ranks
from .scores import shared_mean

Weights = Mapping[str, torch.Tensor]


class Tasks(nn.Module):
    """The tasks of an observation space; one where it numbers none.

    Args:
        obs_space: key -> space of what is observed, with the TaskId of several tasks.

    Attributes:
        count: N. text: (N, features) embeddings of what they ask for, or None.
        padded: whether some of them lack a part of the observation.
    """

    def __init__(self, obs_space: Mapping[str, spaces.Space]):
        super().__init__()
        space = obs_space.get(KEY)
        self.count = int(space.n) if space is not None else 1
        self._names, text = {}, None
        if isinstance(space, TaskId):
            text = None if space.text is None else torch.from_numpy(space.text)
            for number, (key, known) in enumerate(sorted(space.obs_space.items())):
                present = space.present(key) if key in obs_space and key != KEY else None
                if present is not None and not key.startswith('log/'):
                    self._names[key] = f'present_{number}', is_image(known)
                    table = torch.from_numpy(present).float()
                    self.register_buffer(f'present_{number}', table, persistent=False)
        self.register_buffer('text', text, persistent=False)
        self.padded = bool(self._names)

    def present(self, task: torch.Tensor | None) -> Weights:
        """Key -> weights 1 and 0 of its numbers: (B, T, size), of images (B, T, 1, 1, 1); only of
        keys that some task lacks.

        Args:
            task: long (B, T); None where there is one task.
        """
        if task is None:
            return {}
        found = {k: (getattr(self, name)[task], image) for k, (name, image) in self._names.items()}
        return {k: x[..., None, None] if image else x for k, (x, image) in found.items()}


class Measured(nn.Module):
    """What is measured of data and kept in buffers, of each of several tasks by itself: what is
    usual in one is not in another. With several their number is the first axis of the buffers.

    Args:
        tasks: N. buffers: name -> its value before anything was measured, for one task.
    """

    def __init__(self, tasks: int, **buffers: torch.Tensor):
        super().__init__()
        self.tasks = tasks
        for name, x in buffers.items():
            several = tasks > 1
            self.register_buffer(name, x.expand(tasks, *x.shape).clone() if several else x)

    def of(self, x: torch.Tensor, task: torch.Tensor | None) -> torch.Tensor:
        """x (N, ...), or of one task (...), for frames: (B, T, ...), with one task (...).

        Args:
            task: numbers (B, T); None for task 0.
        """
        if self.tasks == 1:
            return x
        return x[0] if task is None else x[task.long()]

    def fold(self, task: torch.Tensor | None, weight: torch.Tensor):
        """How frames are averaged by task, over those of all ranks.

        Args:
            task: numbers, as many as `weight` (...), which is 1 for frames that count and else 0.

        Returns:
            frames that count, with the axis of tasks if there are several; and the function from x
            (..., *rest) to its means over them, likewise.
        """
        chosen, lead = weight.reshape(-1, 1), ()
        if self.tasks > 1:
            index = torch.zeros_like(weight) if task is None else task
            chosen = chosen * nn.functional.one_hot(index.flatten().long(), self.tasks)
            lead = (self.tasks,)
        count = ranks.total(chosen.sum(0)).reshape(lead)

        def mean(x: torch.Tensor) -> torch.Tensor:
            rest = x.shape[weight.dim() :]
            x = x.reshape(len(chosen), -1)  # no matrix product, which a GPU rounds
            total = ranks.total(torch.stack([(x * w[:, None]).sum(0) for w in chosen.T]))
            size = count.clamp(min=1).reshape((*lead, *[1] * len(rest)))
            return total.reshape((*lead, *rest)) / size

        return count, mean

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        # in runs of older versions all tasks were measured together
        for name, x in self.named_buffers(recurse=False):
            old = state_dict.get(prefix + name)
            if self.tasks > 1 and old is not None and old.shape == x.shape[1:]:
                state_dict[prefix + name] = old.expand_as(x).clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)


def weighted_mean(x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Mean of x where weight is 1, of all ranks as in shared_mean; zero where it nowhere is."""
    return x.mean() if weight is None else shared_mean(x, weight.expand_as(x))


def centred(
    x: torch.Tensor,
    task: torch.Tensor | None,
    count: int,
    over: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> torch.Tensor:
    """x (B, T, ...) less its mean over the frames of the same task: what differs between tasks is
    not to be explained.

    Args:
        task: long (B, T); None where there is one task. count: N.
        over: ranks.mean, where the frames of all ranks are meant.
    """
    if task is None:
        return x - over(x.mean((0, 1)))
    one_hot = nn.functional.one_hot(task.flatten(), count).to(x.dtype)
    flat = x.flatten(0, 1).flatten(1)
    means = over(one_hot.T @ flat) / over(one_hot.sum(0)).clamp(min=1e-6)[:, None]
    return (flat - one_hot @ means).reshape(x.shape)


def vary(x: torch.Tensor, task: torch.Tensor | None, count: int) -> torch.Tensor:
    """bool: whether frames x (B, T, ...) of one task differ, of all ranks; arguments as of
    centred().
    """
    flat = x.flatten(0, 1).flatten(1)
    if task is None:
        highest = lambda x: ranks.largest(x.amax(0))
    else:
        index = task.flatten()[:, None].expand_as(flat)
        none = flat.new_full((count, flat.shape[1]), -math.inf)
        highest = lambda x: ranks.largest(none.scatter_reduce(0, index, x, 'amax'))
    return (highest(flat) > -highest(-flat)).any()
