"""Rollouts inside the world model (Dreamer 4, Section 3.3): from committed real frames, with a
cache of keys and values.

Letters: B sequences, T context frames, W starts, H horizon, S W' packed latent, M action code, F
head inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...heads import Heads
from ...nets.memory import Cache
from ...nets.transformer import View
from . import shortcut
from .dynamics import Context, Dynamics, Frames, Given


@dataclass(frozen=True)
class Trajectory:
    """H imagined frames after a real one; index 0 is the real frame.

    Attributes:
        inputs: (W, H+1, F) what the heads read. latent: (W, H+1, S, W').
        action: (W, H, M) code; action[t] was taken at frame t and led to frame t + 1.
    """

    inputs: torch.Tensor
    latent: torch.Tensor
    action: torch.Tensor


@torch.no_grad()
def imagine(
    dynamics: Dynamics,
    heads: Heads,
    context: Context,
    rows: torch.Tensor,
    frames: torch.Tensor,
    horizon: int,
    steps: int,
    act: Callable[[torch.Tensor, int], torch.Tensor],
    task: torch.Tensor | None = None,
) -> Trajectory:
    """Continue real sequences from given frames.

    Nothing is computed twice for the past: a start's history is what the committed pass already
    left in its time layers, which is the history the heads were trained on. A generated frame is
    committed by the very pass that real frames go through.

    Args:
        context: committed sequences (B, T). rows, frames: long (W,), where the W trajectories
            start.
        horizon: H. steps: K denoising steps a frame.
        act: (head inputs (W, F), t) -> action code (W, M).
        task: long (B, T) or None.

    Returns:
        Trajectory without gradient.
    """
    count, device = len(rows), context.latent.device
    cache = Cache(context.present, horizon, rows)
    # (W, 1, T + H): what the start frame could see, then nothing yet
    mask = F.pad(context.mask[rows, frames][:, None], (0, horizon))
    task = None if task is None else task[rows, frames][:, None]
    valid = torch.ones(count, 1, dtype=torch.bool, device=device)
    level = torch.full((count, 1), dynamics.context_level, device=device)
    latent, x = (
        [context.latent[rows, frames]],
        [heads.inputs(context.feature[rows, frames], context.view[rows, frames])],
    )
    codes, coordinates, seen = [], dynamics.coordinates, context.seen[rows, frames][:, None]
    for t in range(horizon):
        codes.append(act(x[-1], t))
        given = Given(heads.actions.embed(codes[-1])[:, None], valid, task)
        mask.index_fill_(2, cache.frame, True)
        view = View(mask, frames[:, None] + t + 1, cache)
        origin = coordinates.after(seen)
        z = shortcut.sample(dynamics, origin, given, view, steps)
        seen = dynamics.blurred(z)
        target = coordinates.encode(seen, origin)
        told = coordinates.tell(target, origin)
        feature, _ = dynamics(Frames(told, level, torch.zeros_like(level), given), view, agent=True)
        cache.advance()
        latent.append(z[:, 0])
        x.append(heads.inputs(feature[:, 0], coordinates.view(z, target)[:, 0]))
    return Trajectory(torch.stack(x, 1), torch.stack(latent, 1), torch.stack(codes, 1))


@torch.no_grad()
def predict(
    dynamics: Dynamics,
    context: Context,
    rows: torch.Tensor,
    frames: torch.Tensor,
    action: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Continue real sequences by actions that are known: the latents that `imagine` would make of
    the same random numbers, and nothing else.

    A frame costs K passes instead of K + 1. Where nobody waits for its feature, the first look at
    the next frame takes it along and commits it.

    Args:
        context, rows, frames, steps: as in imagine. action: (W, H, A) features of the actions that
            lead to the H frames.

    Returns:
        (W, H, S, W') in [-1, 1].
    """
    (count, horizon), device, known = action.shape[:2], action.device, context.mask.shape[2]
    # all but the agent token's, which no pass here has
    heads = dynamics.bare.size * dynamics.config.kv_heads
    cache = Cache([(k[:, :heads], v[:, :heads]) for k, v in context.present], horizon, rows)
    grown = F.pad(torch.ones(horizon, horizon, dtype=torch.bool, device=device).tril(), (known, 0))
    # what the start frame could see, and the new frames so far
    mask = F.pad(context.mask[rows, frames], (0, horizon))[:, None] | grown
    positions = frames[:, None] + torch.arange(1, horizon + 1, device=device)
    given = Given(action, torch.ones(count, horizon, dtype=torch.bool, device=device))
    view = View(mask, positions, cache)
    latent, coordinates, pending = [], dynamics.coordinates, None
    origin = coordinates.after(context.seen[rows, frames][:, None])
    for t in range(horizon):
        part = slice(max(t - 1, 0), t + 1)
        z = shortcut.sample(dynamics, origin, given.at(part), view.at(part), steps, pending)
        seen = dynamics.blurred(z)
        pending, origin = (
            coordinates.tell(coordinates.encode(seen, origin), origin),
            coordinates.after(seen),
        )
        latent.append(z)
    return torch.cat(latent, 1)
