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


class Future:
    """Frames generated one after another behind committed ones.

    Nothing is computed twice for the past: a start's history is what the committed pass already
    left in its time layers, which is the history the heads were trained on. A generated frame is
    committed as real frames are.

    With `feature` a frame costs K + 1 passes, the last of which commits it and makes its feature.
    Where nobody waits for that, K are enough: the first look at the next frame takes this one along
    and commits it. Both draw the same random numbers.

    Args:
        context: committed sequences (B, T). rows, frames: long (W,), frames of them that are
            continued.
        horizon: H, frames that will be asked for. steps: K denoising steps a frame.
        task: long (B, T) or None. feature: whether the features of the frames are wanted.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        context: Context,
        rows: torch.Tensor,
        frames: torch.Tensor,
        horizon: int,
        steps: int,
        task: torch.Tensor | None = None,
        feature: bool = True,
    ):
        self.dynamics, self.steps, self.feature = dynamics, steps, feature
        # without a feature no pass here has an agent token
        heads = dynamics.bare.size * dynamics.config.kv_heads
        known = (
            context.present
            if feature
            else [(k[:, :heads], v[:, :heads]) for k, v in context.present]
        )
        cache, device, size = Cache(known, horizon, rows), rows.device, context.mask.shape[2]
        # what the frame that is continued could see, and the new frames so far
        new = torch.ones(horizon, horizon, dtype=torch.bool, device=device).tril()
        mask = F.pad(context.mask[rows, frames], (0, horizon))[:, None] | F.pad(new, (size, 0))
        self._view = View(
            mask, frames[:, None] + torch.arange(1, horizon + 1, device=device), cache
        )
        self._task = None if task is None else task[rows, frames][:, None]
        self._origin = dynamics.coordinates.after(context.seen[rows, frames][:, None], self._task)
        self._pending: tuple[torch.Tensor, Given] | None = None
        self._made = 0

    def next(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The next frame.

        Args:
            action: (W, 1, A) features of the action that leads to it.

        Returns:
            latents (W, 1, S, W') in [-1, 1]; what heads read of them, (W, 1, S, V); its feature
            (W, 1, D), None where not wanted.
        """
        dynamics, coordinates, origin = self.dynamics, self.dynamics.coordinates, self._origin
        valid = torch.ones(action.shape[:2], dtype=torch.bool, device=action.device)
        given, at = Given(action, valid, self._task), slice(self._made, self._made + 1)
        if self._pending is None:
            z = shortcut.sample(dynamics, origin, given, self._view.at(at), self.steps)
        else:
            told, before = self._pending
            both, pair = before.then(given), self._view.at(slice(self._made - 1, at.stop))
            z = shortcut.sample(dynamics, origin, both, pair, self.steps, told)
        seen = dynamics.blurred(z, self._task)
        target, feature = coordinates.encode(seen, origin), None
        told = coordinates.tell(target, origin)
        if self.feature:
            level = torch.full(action.shape[:2], dynamics.context_level, device=action.device)
            frame, view = Frames(told, level, torch.zeros_like(level), given), self._view.at(at)
            feature, _ = dynamics(frame, view, agent=True)
            view.memory.advance()
        else:
            self._pending = told, given
        self._origin, self._made = coordinates.after(seen, self._task), self._made + 1
        return z, coordinates.view(z, target), feature


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
    """Continue real sequences from given frames by actions that are chosen on the way.

    Args:
        context, rows, frames, horizon, steps, task: see Future.
        act: (head inputs (W, F), t) -> action code (W, M).

    Returns:
        Trajectory without gradient.
    """
    known = context, rows, frames, horizon, steps, task
    future = Future(dynamics, *known, feature=heads.reads_features)
    x, latent, codes = (
        [heads.inputs(context.feature[rows, frames], context.view[rows, frames])],
        [],
        [],
    )
    for t in range(horizon):
        codes.append(act(x[-1], t))
        z, view, feature = future.next(heads.actions.embed(codes[-1])[:, None])
        x.append(heads.inputs(feature, view)[:, 0])
        latent.append(z[:, 0])
    latent = [context.latent[rows, frames], *latent]
    return Trajectory(torch.stack(x, 1), torch.stack(latent, 1), torch.stack(codes, 1))


@torch.no_grad()
def predict(
    dynamics: Dynamics,
    context: Context,
    rows: torch.Tensor,
    frames: torch.Tensor,
    action: torch.Tensor,
    steps: int,
    task: torch.Tensor | None = None,
) -> torch.Tensor:
    """Continue real sequences by actions that are known: the latents that `imagine` would make of
    the same random numbers, and nothing else.

    Args:
        context, rows, frames, steps, task: see Future. action: (W, H, A) features of the actions
            that lead to the H frames.

    Returns:
        (W, H, S, W') in [-1, 1].
    """
    horizon = action.shape[1]
    future = Future(dynamics, context, rows, frames, horizon, steps, task, feature=False)
    return torch.cat([future.next(action[:, t : t + 1])[0] for t in range(horizon)], 1)
