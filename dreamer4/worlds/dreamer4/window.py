"""What acting remembers: the last frames of every env, which are read again at every step.

Weights change between steps, and keys and values that were kept would not.
Letters: N envs, C frames of the window, S W packed latent, M action code, F features of a frame.
"""

from collections.abc import Mapping

import numpy as np
import torch

from .. import Carry
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
    push = lambda old, new: torch.cat([old[:, 1:], new[:, None]], 1)
    carry = dict(carry)
    carry['is_first'] = push(carry['is_first'], seen['is_first'])
    carry['code'] = push(carry['code'], action)
    frames, is_first = {k: seen[k][:, None] for k in world.keys}, carry['is_first'][:, -1:]
    if world.config.tokenizer.time_every:
        carry |= {f'obs/{k}': push(carry[f'obs/{k}'], seen[k]) for k in world.keys}
        frames, is_first = {k: carry[f'obs/{k}'] for k in world.keys}, carry['is_first']
    carry['latent'] = push(carry['latent'], world.encode(frames, is_first, NEWEST)[:, -1])
    if world.tasks > 1:
        carry['task'] = push(carry['task'], seen['task_id'].long())
    return carry


def features(world, carry: Carry) -> torch.Tensor:
    """(N, F) of the newest frame, its past without the noise of training."""
    first, action = carry['is_first'], world.actions.embed(carry['code'])
    given = Given(action, ~first, carry['task'])
    context = world.dynamics.commit(carry['latent'], given, first, noise=False, wanted=NEWEST)
    return world.heads.inputs(context.feature[:, -1], context.view[:, -1])
