"""What the world model knows, measured on sequences it can be checked against: errors, skills,
open-loop videos.

A falling loss is no evidence; these are. Letters: B sequences, T time, C context frames, H
open-loop steps, S W packed latent.
"""

from dataclasses import dataclass

import numpy as np
import torch

from ...batch import Batch
from ...heads import Heads
from ...scores import balanced_skill, correlation, mean, ratio, reward_rows, vary
from ...video import open_loop_video
from .dynamics import Context, Dynamics
from .rollout import imagine, predict
from .tokenizer import Tokenizer

FOREGROUND = 0.1  # a pixel that differs this much from the mean frame is foreground


@dataclass(frozen=True)
class OpenLoop:
    """H steps predicted from C real frames with the actions really taken, beside what happened.

    Attributes:
        start: (B, 1, S, W) latent of the last real frame. latent: (B, H, S, W) predicted. truth:
            (B, H, S, W) real.
        valid: bool (B, H), the step still belongs to the start's episode, and all actions on the
            way are known.
        reward: (B, H) predicted, None if it was not asked for.
    """

    start: torch.Tensor
    latent: torch.Tensor
    truth: torch.Tensor
    valid: torch.Tensor
    reward: torch.Tensor | None

    @property
    def error(self) -> torch.Tensor:
        """Squared latent error (B, H)."""
        return (self.latent - self.truth).square().mean((-1, -2))

    @property
    def copy_error(self) -> torch.Tensor:
        """The same of a model that repeats the last real frame."""
        return (self.start - self.truth).square().mean((-1, -2))


def open_loop(
    dynamics: Dynamics,
    heads: Heads,
    context: Context,
    batch: Batch,
    start: int,
    steps: int,
    shuffle: bool = False,
    rewards: bool = False,
    task: torch.Tensor | None = None,
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
    told = (batch.action_valid | batch.is_last)[givers, start : time - 1]
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
            task,
        )
        latent, reward = dream.latent[:, 1:], heads.reward(dream.inputs[:, 1:])
    else:
        latent = predict(dynamics, context, rows, frames, heads.actions.embed(action), steps)
    later = slice(start + 1, None)
    valid = (batch.is_first[:, later] | ~told).long().cumsum(1) == 0
    return OpenLoop(
        context.latent[:, start : start + 1], latent, context.latent[:, later], valid, reward
    )


def model_metrics(
    dynamics: Dynamics,
    heads: Heads,
    context: Context,
    batch: Batch,
    start: int,
    steps: int,
    gamma: float,
    task: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Diagnostics of dynamics and reward, detached scalars by name.

    error_1 and error_<h> are latent errors relative to repeating the last frame (below 1 is better
    than that); shuffle_ratio is the error under another sequence's actions over the error under its
    own (1: actions are ignored); reward_on_first is the mean size of rewards on rows that begin an
    episode over that on all (0 where rewards stand in the right rows); reward_missed_on_last is how
    many last rows would hold a reward if they were like those between first and last, where none
    does, else 0; reward_skill is balanced_skill open loop, reward_skill_real the same on real
    frames, both of rewards as the bins can say them; return_corr compares discounted imagined and
    real returns on the same actions. frames_move, actions_vary and rewards_vary are 1 or, where
    what is measured gives nothing to measure, 0: no frame differs from the last real one, all
    sequences take the same actions, all rewards are the same.
    """
    loop = open_loop(dynamics, heads, context, batch, start, steps, rewards=True, task=task)
    mixed = open_loop(dynamics, heads, context, batch, start, steps, shuffle=True)
    truth, learned = batch.reward[:, start + 1 :], heads.twohot.clip(batch.reward)
    paid = loop.valid & batch.reward_valid[:, start + 1 :]
    other = (batch.action != batch.action.roll(1, 0)).any(-1)[:, start:-1]
    out = {
        'error_1': ratio(loop.error[:, :1], loop.copy_error[:, :1], loop.valid[:, :1]),
        'error': ratio(loop.error, loop.copy_error, loop.valid),
        'shuffle_ratio': ratio(mixed.error, loop.error, loop.valid & mixed.valid),
        'reward_skill': balanced_skill(loop.reward, learned[:, start + 1 :], paid),
        'frames_move': (moved(batch, start) & loop.valid).any().float(),
        'actions_vary': (other & loop.valid & mixed.valid).any().float(),
        'rewards_vary': vary(learned[:, start + 1 :][paid]).float(),
    }
    for step in range(loop.error.shape[1]):
        where = loop.valid[:, step : step + 1]
        out[f'error_step/{step + 1}'] = ratio(
            loop.error[:, step : step + 1], loop.copy_error[:, step : step + 1], where
        )
    real = heads.reward(heads.inputs(context.feature, context.view))
    out['reward_skill_real'] = balanced_skill(real, learned, batch.reward_valid & ~batch.is_first)
    out |= reward_rows(batch)
    discount = gamma ** torch.arange(loop.reward.shape[1], device=real.device) * paid
    met = paid.any(1)
    imagined, happened = ((x * discount).sum(1)[met] for x in (loop.reward, truth))
    out |= {
        'reward_imagined': mean(loop.reward, paid),
        'reward_real': mean(truth, paid),
        'return_imagined': imagined.sum() / met.sum().clamp(min=1),
        'return_real': happened.sum() / met.sum().clamp(min=1),
        'return_corr': (
            correlation(imagined, happened) if len(imagined) else torch.zeros_like(real[0, 0])
        ),
    }
    return {k: v.detach() for k, v in out.items()}


def moved(batch: Batch, start: int) -> torch.Tensor:
    """bool (B, H): what is observed there differs from frame `start`, in any key and by however
    little.
    """
    changed = torch.zeros_like(batch.is_first[:, start + 1 :])
    for x in batch.obs.values():
        x = x.reshape(*batch.shape, -1)
        changed |= (x[:, start + 1 :] != x[:, start : start + 1]).any(-1)
    return changed


def image_metrics(
    tokenizer: Tokenizer, batch: Batch, latent: torch.Tensor
) -> dict[str, torch.Tensor]:
    """PSNR in dB of the foreground of every image key, and the same of predicting the mean
    frame; latent (B, T, L, Z).
    """
    out = {'latent_std': latent.std(), 'latent_spread': latent.flatten(0, 1).std(0).mean()}
    guess = tokenizer.decode(latent, batch.is_first)
    for key in tokenizer.images:
        truth = batch.obs[key].float() / 255
        background = truth.mean((0, 1))
        front = ((truth - background).abs() > FOREGROUND).float()
        psnr = lambda x: -10 * torch.log10(mean((x - truth).square(), front).clamp(min=1e-8))
        out[f'psnr/{key}'], out[f'psnr_mean_frame/{key}'] = (
            psnr(guess[key]),
            psnr(background.expand_as(truth)),
        )
        out[f'foreground_share/{key}'] = front.mean()
    return out


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
    chosen = loop.valid[:, 0].long().argsort(descending=True, stable=True)[:rows]
    part = batch.at(chosen)
    known = tokenizer.encode(part.obs, part.is_first)
    latent = torch.cat([known[:, : start + 1], dynamics.unpack(loop.latent[chosen])], 1)
    guess = tokenizer.decode(latent, part.is_first)
    given = loop.valid.new_ones(len(chosen), start + 1)
    valid = torch.cat([given, loop.valid[chosen]], 1).cpu().numpy()
    out = {}
    for key in tokenizer.images:
        pred = (guess[key].clamp(0, 1) * 255).round().byte()
        truth = part.obs[key].cpu().numpy()
        out[key] = open_loop_video(key, truth, pred.cpu().numpy(), start, valid)
    return out
