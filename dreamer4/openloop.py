"""A prediction from some real frames on, with the actions really taken, beside what happened: how
right it is, whatever world model made it, and how it is drawn.

Letters: B sequences, T time, C context frames, H open-loop steps, S W the numbers of a frame, as
latents or as observed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from .batch import Batch
from .nets.outputs import TwoHot
from .scores import balanced_skill, correlation, mean, ratio, reward_rows, vary
from .tasks import centred
from .video import open_loop_video

FOREGROUND = 0.1  # a pixel that differs this much from the mean frame is foreground


@dataclass(frozen=True)
class OpenLoop:
    """H steps predicted from C real frames with the actions really taken, beside what happened.

    Attributes:
        start: (B, 1, S, W) the last real frame. latent: (B, H, S, W) predicted. truth: (B, H, S, W)
            real.
        valid: bool (B, H), see still_valid.
        reward: (B, H) predicted, None if it was not asked for.
    """

    start: torch.Tensor
    latent: torch.Tensor
    truth: torch.Tensor
    valid: torch.Tensor
    reward: torch.Tensor | None

    @property
    def error(self) -> torch.Tensor:
        """Squared error (B, H)."""
        return (self.latent - self.truth).square().mean((-1, -2))

    @property
    def copy_error(self) -> torch.Tensor:
        """The same of a model that repeats the last real frame."""
        return (self.start - self.truth).square().mean((-1, -2))


def last_given(batch: Batch, context: int) -> int:
    """Index of the last real frame: as many as acting looks back, or half of the batch (B, T)."""
    return min(context, batch.shape[1] // 2) - 1


def still_valid(batch: Batch, start: int, givers: torch.Tensor) -> torch.Tensor:
    """bool (B, H): the step still belongs to the episode of frame `start`, and all actions on the
    way are known; those are taken from the sequences `givers`, long (B,).
    """
    told = (batch.action_valid | batch.is_last)[givers, start:-1]
    return (batch.is_first[:, start + 1 :] | ~told).long().cumsum(1) == 0


def loop_metrics(
    loop: OpenLoop,
    mixed: OpenLoop,
    batch: Batch,
    start: int,
    real: torch.Tensor,
    scalar: TwoHot,
    gamma: float,
) -> dict[str, torch.Tensor]:
    """Diagnostics of dynamics and reward, detached scalars by name.

    error_1 and error are squared errors relative to repeating the last frame, of the first step and
    of all (below 1 is better than that); shuffle_ratio is the error under another sequence's
    actions over the error under its own (1: actions are ignored); reward_skill is balanced_skill
    open loop, reward_skill_real the same on real frames, both of rewards as the head can say them;
    return_corr compares discounted imagined and real returns on the same actions. frames_move,
    actions_vary and rewards_vary are 1 or, where what is measured gives nothing to measure, 0: no
    frame differs from the last real one, all sequences take the same actions, all rewards are the
    same.

    Args:
        loop: with rewards. mixed: under the actions of the sequence before. start: last real frame.
        real: (B, T) rewards predicted from real frames. scalar: output of the reward head. gamma:
            of returns.
    """
    truth, learned = batch.reward[:, start + 1 :], scalar.clip(batch.reward)
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
    effect = action_effect(loop, mixed)
    out['action_effect'] = effect.mean()
    for step in range(loop.error.shape[1]):
        out[f'action_effect_step/{step + 1}'] = effect[step]
        where = loop.valid[:, step : step + 1]
        out[f'error_step/{step + 1}'] = ratio(
            loop.error[:, step : step + 1], loop.copy_error[:, step : step + 1], where
        )
    out['reward_skill_real'] = balanced_skill(real, learned, batch.reward_valid & ~batch.is_first)
    out |= reward_rows(batch) | return_metrics(loop, truth, paid, gamma)
    return {k: v.detach() for k, v in out.items()}


def action_effect(loop: OpenLoop, mixed: OpenLoop) -> torch.Tensor:
    """Share of what the model says that actions change which does happen, of each step (H,).

        effect = (|mixed - truth|^2 - |loop - truth|^2) / |loop - mixed|^2

    1: the frames under the right actions differ from those under other ones as they should, however
    wrong both are for other reasons. 0: the difference is noise. More than 1: actions do more
    than the model says. 0 where both are the same.

    Args:
        loop: under the actions really taken. mixed: under those of another sequence.
    """
    where = (loop.valid & mixed.valid).float()
    gained = ((mixed.error - loop.error) * where).sum(0)
    said = ((loop.latent - mixed.latent).square().mean((-1, -2)) * where).sum(0)
    return torch.where(said > 0, gained / said.clamp(min=1e-12), 0.0)


def return_metrics(
    loop: OpenLoop, truth: torch.Tensor, paid: torch.Tensor, gamma: float
) -> dict[str, torch.Tensor]:
    """Means of imagined and real rewards and discounted returns, and how far the returns agree.

    Args:
        truth: (B, H) rewards. paid: bool (B, H), where they are known.
    """
    discount = gamma ** torch.arange(loop.reward.shape[1], device=truth.device) * paid
    met = paid.any(1)
    imagined, happened = ((x * discount).sum(1)[met] for x in (loop.reward, truth))
    return {
        'reward_imagined': mean(loop.reward, paid),
        'reward_real': mean(truth, paid),
        'return_imagined': imagined.sum() / met.sum().clamp(min=1),
        'return_real': happened.sum() / met.sum().clamp(min=1),
        'return_corr': (
            correlation(imagined, happened) if len(imagined) else torch.zeros_like(truth[0, 0])
        ),
    }


def moved(batch: Batch, start: int) -> torch.Tensor:
    """bool (B, H): what is observed there differs from frame `start`, in any key and by however
    little.
    """
    changed = torch.zeros_like(batch.is_first[:, start + 1 :])
    for x in batch.obs.values():
        x = x.reshape(*batch.shape, -1)
        changed |= (x[:, start + 1 :] != x[:, start : start + 1]).any(-1)
    return changed


def psnr_metrics(guess: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """PSNR in dB of the foreground of images, and the same of predicting the mean frame.

    Args:
        guess: image key -> (B, T, H, W, C) in about [0, 1], of every frame of the batch.
    """
    out, tasks = {}, 0 if batch.task is None else int(batch.task.max()) + 1
    for key, image in guess.items():
        truth = batch.obs[key].float() / 255
        # of each task its own: what differs between tasks is no foreground
        away = centred(truth, batch.task, tasks)
        background, front = truth - away, (away.abs() > FOREGROUND).float()
        psnr = lambda x: -10 * torch.log10(mean((x - truth).square(), front).clamp(min=1e-8))
        out[f'psnr/{key}'] = psnr(image)
        out[f'psnr_mean_frame/{key}'] = psnr(background)
        out[f'foreground_share/{key}'] = front.mean()
    return out


def told_apart(valid: torch.Tensor, rows: int) -> torch.Tensor:
    """Numbers, long (rows or fewer,), of the first sequences; those whose actions are not known,
    valid bool (B, H) False at once, only where there are no others.
    """
    return valid[:, 0].long().argsort(descending=True, stable=True)[:rows]


def draw(
    guess: Mapping[str, torch.Tensor], batch: Batch, start: int, valid: torch.Tensor
) -> dict[str, np.ndarray]:
    """Open-loop videos by image key, uint8 (T, height, width, 3).

    Args:
        guess: image key -> (B, T, H, W, C) in about [0, 1]: reconstructions up to frame `start`,
            predictions after it.
        batch: the same sequences. valid: bool (B, H) of the predictions.
    """
    given = valid.new_ones(len(valid), start + 1)
    valid = torch.cat([given, valid], 1).cpu().numpy()
    out = {}
    for key, image in guess.items():
        pred = (image.clamp(0, 1) * 255).round().byte().cpu().numpy()
        out[key] = open_loop_video(key, batch.obs[key].cpu().numpy(), pred, start, valid)
    return out
