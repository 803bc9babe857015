"""What acting remembers: the last frames of every env, which are read again at every step; and how
such a memory is dreamt on.

Weights change between steps, and keys and values that were kept would not. What is no longer in the
window is forgotten, so that a dream may go on without end.
Letters: N envs, C frames of the window, S W packed latent, M action code, F features of a frame.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from embodied.tasks import KEY

from ...nets.memory import Cache
from ...nets.transformer import View
from ...vectors import devectorize
from .. import Carry, Sampling
from . import shortcut
from .dynamics import Given

NEWEST = slice(-1, None)


def begin(world, num_envs: int) -> Carry:
    """An empty window: slots that no frame has filled are episodes of their own, which time
    attention masks out.

    Returns:
        latent (N, C, S, W), code (N, C, M), is_first and task (N, C), oldest first; and the frames
        themselves as 'obs/<key>' where the tokenizer looks back in time.
    """
    frames, device = world.config.actor.context, world.machine.device
    make = lambda *shape, **kw: torch.zeros(num_envs, frames, *shape, device=device, **kw)
    carry = {
        'latent': make(world.dynamics.tokens, world.dynamics.channels),
        'code': make(world.actions.code_size),
        'is_first': make(dtype=torch.bool) | True,
        'task': make(dtype=torch.long),
    }
    if world.config.tokenizer.time_every:
        for key, space in (world.tokenizer.images | world.tokenizer.vectors).items():
            kind = torch.from_numpy(np.zeros((), space.dtype)).dtype
            carry[f'obs/{key}'] = make(*space.shape, dtype=kind)
    return carry


def observe(world, carry: Carry, seen: Mapping[str, torch.Tensor], action: torch.Tensor) -> Carry:
    """Push one frame of every env into the window, and the action (N, M) that led to it."""
    carry = dict(carry)
    carry['is_first'] = push(carry['is_first'], seen['is_first'])
    carry['code'] = push(carry['code'], action)
    if world.tasks.count > 1:
        carry['task'] = push(carry['task'], seen[KEY].long())
    part, frames = NEWEST, {k: seen[k][:, None] for k in world.keys}
    if world.config.tokenizer.time_every:
        part, frames = slice(None), {k: push(carry[f'obs/{k}'], seen[k]) for k in world.keys}
        carry |= {f'obs/{k}': v for k, v in frames.items()}
    frames, is_first = frames | {KEY: carry['task'][:, part]}, carry['is_first'][:, part]
    carry['latent'] = push(carry['latent'], world.encode(frames, is_first, NEWEST)[:, -1])
    return carry


def push(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """A window (N, C, ...) with one more frame (N, ...) and without its oldest one."""
    return torch.cat([old[:, 1:], new[:, None]], 1)


def given(world, carry: Carry) -> Given:
    """What is known of the frames of a window besides what they show."""
    return Given(world.actions.embed(carry['code']), ~carry['is_first'], carry['task'])


def features(world, carry: Carry) -> torch.Tensor:
    """(N, F) of the newest frame, its past without the noise of training."""
    context = world.dynamics.commit(
        carry['latent'], given(world, carry), carry['is_first'], noise=False, wanted=NEWEST
    )
    return world.heads.inputs(context.feature[:, -1], context.view[:, -1])


def dream(world, carry: Carry, action: torch.Tensor, how: Sampling) -> Carry:
    """Push a frame that was not seen: drawn from what the window and the action (N, M) that leads
    to it say.
    """
    dynamics, count, device = world.dynamics, len(action), action.device
    level = None if how.noise is None else round((1 - how.noise) * dynamics.config.levels)
    context = dynamics.commit(
        carry['latent'], given(world, carry), carry['is_first'], wanted=slice(0), level=level
    )
    ahead = Given(
        world.actions.embed(action)[:, None],
        torch.ones(count, 1, dtype=torch.bool, device=device),
        carry['task'][:, NEWEST],
    )
    frames = carry['is_first'].shape[1]
    mask = F.pad(context.mask[:, NEWEST], (0, 1), value=True)
    position = torch.full((count, 1), frames, device=device)
    view = View(mask, position, Cache(context.present, 1))
    origin = dynamics.coordinates.after(context.seen[:, NEWEST], carry['task'][:, NEWEST])
    # one look in the smallest step: the mean of what may come, whatever the noise it begins with
    steps = 1 if how.mean else how.steps or world.config.shortcut.steps
    z = shortcut.sample(dynamics, origin, ahead, view, steps, smallest=how.mean)[:, 0]
    carry = carry | {
        'latent': push(carry['latent'], z),
        'code': push(carry['code'], action),
        'is_first': push(carry['is_first'], torch.zeros_like(carry['is_first'][:, 0])),
        'task': push(carry['task'], carry['task'][:, -1]),
    }
    if world.config.tokenizer.time_every:
        carry |= remembered(world, carry)
    return carry


def remembered(world, carry: Carry) -> Carry:
    """The frames 'obs/<key>' of a window whose newest latent was dreamt, as if it had been seen."""
    spaces = world.tokenizer.images | world.tokenizer.vectors
    frames = {k: devectorize(v, spaces[k]) for k, v in decode(world, carry).items()}
    return {f'obs/{k}': push(carry[f'obs/{k}'], frames[k]) for k in world.keys}


def decode(world, carry: Carry) -> dict[str, torch.Tensor]:
    """The newest frame, key -> (N, ...); the past is read where the tokenizer looks back."""
    part = slice(None) if world.config.tokenizer.time_every else NEWEST
    latent = world.dynamics.unpack(carry['latent'][:, part])
    found = world.tokenizer.decode(latent, carry['is_first'][:, part], carry['task'][:, part])
    return {k: v[:, -1] for k, v in found.items()}
