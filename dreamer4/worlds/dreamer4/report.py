"""What the world model knows, measured on sequences it can be checked against: errors, skills,
open-loop videos.

A falling loss is no evidence; these are. Letters: B sequences, T time, C context frames, H
open-loop steps, S W packed latent.
"""

import numpy as np
import torch

from ...batch import Batch
from ...heads import Heads
from ...openloop import (
    OpenLoop,
    draw,
    last_given,
    loop_metrics,
    psnr_metrics,
    still_valid,
    told_apart,
)
from .dynamics import Context, Dynamics
from .rollout import imagine, predict
from .tokenizer import Tokenizer


def open_loop(
    dynamics: Dynamics,
    heads: Heads,
    context: Context,
    batch: Batch,
    start: int,
    steps: int,
    shuffle: bool = False,
    rewards: bool = False,
) -> OpenLoop:
    """Predict from frame `start` of every sequence to its end.

    Args:
        context: the committed batch (B, T). start: index of the last real frame the model may use.
        steps: K denoising steps. shuffle: give every sequence the actions of another one.
        rewards: whether to predict rewards too, which takes a pass more for every frame.
    """
    count, time = batch.shape
    rows = torch.arange(count, device=batch.is_first.device)
    givers = rows.roll(1) if shuffle else rows
    frames, action = rows * 0 + start, batch.action[givers, start : time - 1]
    reward = None
    if rewards:
        dream = imagine(
            dynamics,
            heads,
            context,
            rows,
            frames,
            time - 1 - start,
            steps,
            lambda x, t: action[:, t],
            batch.task,
        )
        latent, reward = dream.latent[:, 1:], heads.reward(dream.inputs[:, 1:])
    else:
        code = heads.actions.embed(action)
        latent = predict(dynamics, context, rows, frames, code, steps, batch.task)
    truth, valid = context.latent[:, start:], still_valid(batch, start, givers)
    return OpenLoop(truth[:, :1], latent, truth[:, 1:], valid, reward)


def model_metrics(
    dynamics: Dynamics,
    heads: Heads,
    context: Context,
    batch: Batch,
    start: int,
    steps: int,
    gamma: float,
) -> dict[str, torch.Tensor]:
    """openloop.loop_metrics of a committed batch; see open_loop for the arguments."""
    loop = open_loop(dynamics, heads, context, batch, start, steps, rewards=True)
    mixed = open_loop(dynamics, heads, context, batch, start, steps, shuffle=True)
    real = heads.reward(heads.inputs(context.feature, context.view))
    return loop_metrics(loop, mixed, batch, start, real, heads.scalar, gamma)


def measured(world, batch: Batch) -> tuple[dict[str, torch.Tensor], Context, int]:
    """Diagnostics of a Dreamer4, the context that they were made in, and the last real frame of
    it.
    """
    c = world.config
    with world.machine.autocast():
        context = world.commit(batch)
        start = last_given(batch, c.actor.context)
        known = world.dynamics, world.heads, context, batch, start
        metrics = model_metrics(*known, c.shortcut.steps, c.value.gamma)
    return metrics, context, start


def measured_and_shown(
    world, batch: Batch
) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    """World.report of a Dreamer4."""
    metrics, context, start = measured(world, batch)
    with world.machine.autocast():
        latent, tokenizer = world.dynamics.unpack(context.latent), world.tokenizer
        metrics |= image_metrics(tokenizer, batch, latent)
        steps = world.config.shortcut.steps
        loop = open_loop(world.dynamics, world.heads, context, batch, start, steps)
        videos = video(tokenizer, world.dynamics, loop, batch, start)
    return metrics, videos


def score(world, stage: str, batch: Batch) -> torch.Tensor:
    """World.score of a Dreamer4: share of what differs among frames that reconstructions leave
    unexplained; open-loop error relative to repeating the last frame; loss of reward and behaviour.
    """
    if stage == 'tokenizer':
        obs, tokenizer = world.frames(batch), world.tokenizer
        latent = tokenizer.encode(obs, batch.is_first)
        known = None, latent, world.tasks, batch.task
        return tokenizer.losses(obs, batch.is_first, *known)[1]['unexplained']
    if stage == 'dynamics':
        return world.measure(batch)['error']
    context = world.commit(batch)
    x = world.heads.inputs(context.feature, context.view)
    parts = world.heads.losses(x, batch, world.dynamics.coordinates.known(batch.is_first))
    return parts['reward'] + parts['behaviour'] + parts['cont']


def image_metrics(
    tokenizer: Tokenizer, batch: Batch, latent: torch.Tensor
) -> dict[str, torch.Tensor]:
    """PSNR in dB of the foreground of every image key, and the same of predicting the mean
    frame; latent (B, T, L, Z).
    """
    out = {'latent_std': latent.std(), 'latent_spread': latent.flatten(0, 1).std(0).mean()}
    guess = tokenizer.decode(latent, batch.is_first, batch.task)
    return out | psnr_metrics({k: guess[k] for k in tokenizer.images}, batch)


@torch.no_grad()
def video(
    tokenizer: Tokenizer,
    dynamics: Dynamics,
    loop: OpenLoop,
    batch: Batch,
    start: int,
    rows: int = 4,
) -> dict[str, np.ndarray]:
    """Open-loop videos of the first sequences by image key, uint8 (T, height, width, 3).

    Up to frame `start` the prediction shows the reconstruction of real frames; later frames are
    imagined. Sequences whose actions are not known are shown only where there are no others.
    """
    chosen = told_apart(loop.valid, rows)
    part = batch.at(chosen)
    known = tokenizer.encode(part.obs, part.is_first)
    latent = torch.cat([known[:, : start + 1], dynamics.unpack(loop.latent[chosen])], 1)
    guess = tokenizer.decode(latent, part.is_first, part.task)
    return draw({k: guess[k] for k in tokenizer.images}, part, start, loop.valid[chosen])
