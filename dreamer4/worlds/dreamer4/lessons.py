"""What the heads of the Dreamer 4 world model learn from: real frames, and those that the dynamics
make of them (Dreamer 4, Eq. 9).

The dynamics say the mean of what may come. It is no frame that exists: details that are not known
are missing, and what a head says of it is not the mean of what it says of the frames that may come.
Hence the heads are also shown frames of dreams in which the actions really taken lead on, with what
was really paid.

Letters: B sequences, T time, W dreams, H horizon, F head inputs.
"""

import torch

from ...batch import Batch, draw_starts
from . import shortcut
from .dynamics import Context, Given


def heads_loss(
    world,
    batch: Batch,
    given: Given,
    context: Context,
    forced: shortcut.Forced,
    usable: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted sum and its parts, 'reward', 'cont', 'behaviour' and, where heads learn from frames
    that the dynamics make, 'reward_ahead' and 'reward_dreamed'.

    Args:
        world: Dreamer4. given: of the batch (B, T). context: its committed frames, forced: what the
            dynamics guess of them, both with gradient. usable: bool (B, T), frames with a past.
    """
    c, heads, rms = world.config, world.heads, world.rms
    feature, view = context.feature, context.view
    if c.heads.learn_on == 'noised':
        noised = world.dynamics, context, given, batch.is_first
        feature, view = shortcut.noised_features(*noised)
    parts = heads.losses(heads.inputs(feature, view), batch, usable)
    total = (
        rms('reward', parts['reward'])
        + c.scales.behaviour * rms('behaviour', parts['behaviour'])
        + parts['cont']
    )
    made = {}
    if c.heads.learn_on in ('predicted', 'dreamed'):
        inputs = heads.inputs(None, forced.view(world.dynamics.coordinates))
        made['reward_ahead'] = inputs, batch, usable & forced.blind
    if c.heads.learn_on == 'dreamed':
        made['reward_dreamed'] = dreamed(world, batch, context.detach(), usable)
    for name, known in made.items():
        found = heads.losses(*known, behaviour=False)
        parts[name] = found['reward']
        total = total + rms('reward', found['reward']) + found['cont']
    return total, parts


@torch.no_grad()
def dreamed(
    world, batch: Batch, context: Context, usable: torch.Tensor
) -> tuple[torch.Tensor, Batch, torch.Tensor]:
    """Frames of dreams as long as those of the policy, in which the actions really taken lead on.

    Args:
        context: the committed batch (B, T). usable: bool (B, T), frames that a dream may begin at.

    Returns:
        head inputs (W, H, F), the frames that really came (W, H), and bool (W, H): so far the
        episode went on and its actions are known. H is at most half of T.
    """
    c = world.config
    horizon = min(c.imagination.horizon, batch.shape[1] // 2)
    count = max(1, c.imagination.starts // c.imagination.every)  # as many as the policy's
    rows, frames = draw_starts(usable[:, :-horizon], count)
    came = batch.after(rows, frames, horizon)
    taken = lambda x, t: came.prev_action[:, t]
    dream = world.follow(context, rows, frames, horizon, taken, batch.task)
    whole = usable[rows, frames][:, None] & came.prev_valid
    return dream.inputs[:, 1:], came, whole.cumprod(1).bool()
