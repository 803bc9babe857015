"""What a recurrent state-space model knows, measured in the space of what is observed: its
latents mean nothing to another model, and a posterior that says nothing would be easy to predict.

Letters: B sequences, T time, H open-loop steps, P numbers of an observation, all keys together.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ...batch import Batch
from ...openloop import (
    OpenLoop,
    draw,
    last_given,
    loop_metrics,
    psnr_metrics,
    still_valid,
    told_apart,
)
from .model import State


@dataclass(frozen=True)
class Forecast:
    """What was predicted of a batch from frame `start` on, with the actions really taken.

    Attributes:
        seen: states (B, T) with every frame. ahead: states (B, H) without those after `start`.
        loop: the same beside what happened. start: the last frame given.
    """

    seen: State
    ahead: State
    loop: OpenLoop
    start: int


@torch.no_grad()
def measure(world, batch: Batch) -> tuple[dict[str, torch.Tensor], Forecast]:
    """Diagnostics of an RSSMWorld on a batch; see openloop.loop_metrics."""
    start = last_given(batch, world.config.actor.context)
    with world.machine.autocast():
        observed = world.see(batch)
        forecast, mixed = (open_loop(world, observed.state, batch, start, s) for s in (0, 1))
        real = world.net.reward(observed.state.feature)
        gamma = world.config.value.gamma
        metrics = loop_metrics(
            forecast.loop, mixed.loop, batch, start, real, world.net.scalar, gamma
        )
        metrics |= world.state_metrics(observed)
        guess = world.net.decode(observed.state)
        metrics |= psnr_metrics({k: guess[k] for k in world.net.decoder.images}, batch)
        metrics['unexplained'] = unexplained(guess, world.net.targets(batch.obs))
    return {k: v.detach() for k, v in metrics.items()}, forecast


def open_loop(world, state: State, batch: Batch, start: int, shift: int) -> Forecast:
    """Predict from frame `start` of every sequence to its end.

    Args:
        state: (B, T) seen. shift: give every sequence the actions of the one so many before it.
    """
    givers = torch.arange(len(batch.is_first), device=batch.is_first.device).roll(shift)
    action = world.actions.embed(batch.action[givers, start:-1])
    imagined = world.net.rssm.imagine(
        state.at(slice(None), start), lambda before, t: action[:, t], action.shape[1]
    )
    ahead = imagined.at(slice(None), slice(1, None))
    truth = flatten(world.net.targets(batch.obs))
    loop = OpenLoop(
        truth[:, start : start + 1],
        flatten(world.net.decode(ahead)),
        truth[:, start + 1 :],
        still_valid(batch, start, givers),
        world.net.reward(ahead.feature),
    )
    return Forecast(state, ahead, loop, start)


def flatten(obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Observations as they are decoded, (B, T, ...) by key -> (B, T, 1, P), in which every key has
    the same weight, whatever its size.
    """
    parts = [v.flatten(2) / v[0, 0].numel() ** 0.5 for _, v in sorted(obs.items())]
    return torch.cat(parts, -1)[:, :, None]


def unexplained(guess: Mapping[str, torch.Tensor], truth: Mapping[str, torch.Tensor]):
    """Share (scalar) of the variance of observations that the decoder leaves, the mean over keys
    that vary; 0 where nothing does.
    """
    shares = []
    for key, x in truth.items():
        spread = (x - x.mean((0, 1))).square().mean()
        share = (guess[key] - x).square().mean() / spread.clamp(min=1e-8)
        shares.append(torch.where(spread > 1e-8, share, torch.nan))
    return torch.stack(shares).nanmean().nan_to_num()


@torch.no_grad()
def videos(world, forecast: Forecast, batch: Batch, rows: int = 4) -> dict[str, np.ndarray]:
    """Open-loop videos of the first sequences by image key, uint8 (T, height, width, 3)."""
    chosen = told_apart(forecast.loop.valid, rows)
    seen, ahead = forecast.seen.at(chosen), forecast.ahead.at(chosen)
    join = lambda x, y: torch.cat([x[:, : forecast.start + 1], y], 1)
    guess = world.net.decode(State(join(seen.deter, ahead.deter), join(seen.stoch, ahead.stoch)))
    guess = {k: guess[k] for k in world.net.decoder.images}
    return draw(guess, batch.at(chosen), forecast.start, forecast.loop.valid[chosen])
