"""Shortcut forcing: noise schedule, loss and K-step sampler (Dreamer 4, Sections 2 and 3.2, Eq. 3
to 7).

Signal level tau runs from 0 (noise) to 1 (clean) on a grid of K_max levels, the step size d over
1/K_max, 2/K_max .. 1.
Letters: B batch, T time, S tokens, W channels, K sampling steps.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ... import ranks
from ...nets.memory import Beside
from ...nets.transformer import View
from .dynamics import Context, Dynamics, Frames, Given
from .moves import Origin, Whole

NEWEST = slice(-1, None)
RAMP = 0.1  # weight of the loss at tau = 0; at tau = 1 it is 1


@dataclass(frozen=True)
class Forced:
    """What one pass of shortcut forcing gives.

    Attributes:
        losses: 'bootstrap', of sequences that train large steps, and 'flow', of the others, where
            there are any: (rows, T) float32.
        guess: (B, T, S, W) what the dynamics say the frames are without noise, in coordinates that
            begin at `origin`; with gradient.
        blind: bool (B, T), guesses of frames of which nothing was told (tau = 0, d = d_min): the
            mean of what may come, which is what a dream of one step a frame goes on from.
    """

    losses: dict[str, torch.Tensor]
    guess: torch.Tensor
    origin: Origin | None
    blind: torch.Tensor

    def view(self, coordinates: Whole) -> torch.Tensor:
        """What the heads read of the frames as they are guessed, (B, T, S, V)."""
        latent = coordinates.decode(self.guess, self.origin).clamp(-1, 1)
        return coordinates.view(latent, self.guess)


@dataclass(frozen=True)
class ShortcutConfig:
    """Block `agent.shortcut` of the configuration; meanings and sources stand there."""

    history: str
    steps: int
    bootstrap: float
    anchor: float


def draw_schedule(
    batch: int, time: int, bootstrap: int, dynamics: Dynamics, config: ShortcutConfig, device
):
    """Signal levels and step sizes of every frame.

    The first `bootstrap` rows draw d uniformly from the powers of two above d_min and tau from the
    grid of that d; the others have d = d_min and tau uniform, but a share `anchor` of their frames
    has tau = 0: there alone the model must predict and cannot denoise, and uniform levels give that
    case almost no weight.

    Returns:
        level, size: long (B, T).
    """
    levels = dynamics.config.levels
    level = torch.randint(0, levels, (batch, time), device=device)
    level = level * (torch.rand(batch, time, device=device) >= config.anchor)
    size = torch.zeros_like(level)
    if bootstrap:
        size[:bootstrap] = torch.randint(1, dynamics.step_sizes, (bootstrap, time), device=device)
        step = 2 ** size[:bootstrap]
        level[:bootstrap] = (
            torch.rand(bootstrap, time, device=device) * (levels // step)
        ).long() * step
    return level, size


def loss(
    dynamics: Dynamics,
    context: Context,
    given: Given,
    is_first: torch.Tensor,
    config: ShortcutConfig,
    large: int,
    predicted: torch.Tensor | None = None,
) -> Forced:
    """Shortcut-forcing losses with x-prediction in the coordinates of the dynamics (Dreamer 4, Eq.
    7).

    flow       w(tau) ||x^ - x||^2                                        frames with d = d_min
    bootstrap  w(tau) ||x^ - (x_tau + (1 - tau) sg(b' + b'') / 2)||^2     frames with d > d_min
    The second is (1 - tau)^2 ||v^ - sg(b' + b'') / 2||^2 with the division by (1 - tau) taken out;
    w(tau) = .9 tau + .1 (Section 3.2).

    With history 'commit' every frame is denoised against committed frames of its past, exactly as
    the sampler does; with 'forcing' against the noisy frames beside it (diffusion forcing, the
    paper).

    Args:
        context: the committed sequence, with gradient. given: of its frames. is_first: bool (B, T).
        large: so many sequences, the first ones, train steps larger than d_min.
        predicted: bool (B, T), frames that count; None for all.
    """
    (batch, time), coordinates = context.latent.shape[:2], dynamics.coordinates
    rows = large if dynamics.step_sizes > 1 else 0
    level, size = draw_schedule(batch, time, rows, dynamics, config, is_first.device)
    origin = coordinates.origin(context.seen, is_first, given.task)
    # latents that learn must not learn to be predicted; the frame before, where a move begins, is
    # what they are predicted from: stopped as well, the loss would push it away from what follows
    target = coordinates.encode(context.latent.detach(), origin)
    noisy = dynamics.noised(target.detach(), level)
    positions = torch.arange(time, device=is_first.device)[None]
    view = beside(context) if config.history == 'commit' else View(context.mask, positions)
    guess, _ = dynamics(Frames(coordinates.tell(noisy, origin), level, size, given), view)
    known = coordinates.known(is_first)
    if predicted is not None:
        known = known & predicted
    weight = ((1 - RAMP) * level / dynamics.config.levels + RAMP) * known
    weight = weight / ranks.mean(known.float().mean()).clamp(min=1e-6)
    out = (
        {'flow': (weight * (guess - target).square().mean((-1, -2)))[rows:]} if rows < batch else {}
    )
    if rows:
        part = slice(0, rows)
        base, past, own = origin and origin.rows(part), view.rows(part), given.rows(part)
        teach = lambda x, at, e: dynamics(Frames(coordinates.tell(x, base), at, e, own), past)[0]
        target = bootstrap_target(
            teach, noisy[part], level[part], size[part], dynamics.config.levels
        )
        target = target.clamp(-coordinates.bound, coordinates.bound)
        out['bootstrap'] = weight[part] * (guess[part] - target).square().mean((-1, -2))
    return Forced(out, guess, origin, (level == 0) & (size == 0) & known)


def beside(context: Context) -> View:
    """The view of frames that see the committed frames before them and, of their own row of frames,
    themselves: mask (B, T, 2 T).
    """
    (batch, time), device = context.latent.shape[:2], context.latent.device
    eye = torch.eye(time, dtype=torch.bool, device=device).expand(batch, -1, -1)
    mask = torch.cat([context.mask & ~eye, eye], -1)
    return View(mask, torch.arange(time, device=device)[None], Beside(context.present))


def noised_features(
    dynamics: Dynamics, context: Context, given: Given, is_first: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What heads would learn from without a pass of their own: frames at random signal levels,
    beside their committed past.

    Returns:
        agent feature (B, T, D), what heads read of the noisy frames (B, T, S, V).
    """
    coordinates = dynamics.coordinates
    origin = coordinates.origin(context.seen, is_first, given.task)
    level = torch.randint(0, dynamics.config.levels, is_first.shape, device=is_first.device)
    noisy = dynamics.noised(coordinates.encode(context.latent, origin), level)
    frames = Frames(coordinates.tell(noisy, origin), level, torch.zeros_like(level), given)
    feature, _ = dynamics(frames, beside(context), agent=True)
    return feature, coordinates.view(coordinates.decode(noisy, origin), noisy)


@torch.no_grad()
def bootstrap_target(
    teach, z: torch.Tensor, level: torch.Tensor, size: torch.Tensor, levels: int
) -> torch.Tensor:
    """Where two half steps lead, without noise: z + (1 - tau) (b' + b'') / 2 (Dreamer 4, Eq. 4 and
    7).

    Args:
        teach: (z, level, size) -> prediction without noise. z: (B, T, S, W). level, size: long (B,
            T), size >= 1.
    """
    tau, half = (level / levels)[..., None, None], 2 ** (size - 1)
    d = (half / levels)[..., None, None]
    first = (teach(z, level, size - 1) - z) / (1 - tau)
    middle = z + d * first
    second = (teach(middle, level + half, size - 1) - middle) / (1 - tau - d)
    return z + (1 - tau) * (first + second) / 2


@torch.no_grad()
def sample(
    dynamics: Dynamics,
    origin: Origin | None,
    given: Given,
    view: View,
    steps: int,
    pending: torch.Tensor | None = None,
    smallest: bool = False,
) -> torch.Tensor:
    """Draw the next frame from noise in K = `steps` Euler steps of size 1/K: x <- x + (x^ - x) / (1
    - tau) / K.

    A model without shortcuts knows d_min alone and is asked for that: with K = 1 it gives the mean
    of what may come, in one look.

    Args:
        origin: of the frame, see moves.py.
        given: action that leads to the frame. view: of the frame on its past, a Cache.
        pending: (B, P, S, told) the P frames before, as tokens read them, where the cache does not
            know them yet: the first look takes them along and commits them. Given and view are then
            of all P + 1 frames.
        smallest: label every step d_min, as a model without shortcuts does.

    Returns:
        latents (B, 1, S, W) in [-1, 1].
    """
    levels, coordinates = dynamics.config.levels, dynamics.coordinates
    batch, device = given.action.shape[0], given.action.device
    x = torch.randn(batch, 1, dynamics.tokens, dynamics.channels, device=device)
    sizes = 1 if smallest else dynamics.step_sizes
    size = torch.full((batch, 1), min((levels // steps).bit_length(), sizes) - 1, device=device)
    for k in range(steps):
        level = torch.full((batch, 1), k * (levels // steps), device=device)
        frames = Frames(coordinates.tell(x, origin), level, size, given)
        if k == 0 and pending is not None:
            count = pending.shape[1]
            committed = torch.full((batch, count), dynamics.context_level, device=device)
            both = Frames(
                torch.cat([pending, frames.told], 1),
                torch.cat([committed, level], 1),
                F.pad(size, (count, 0)),
                given,
            )
            clean, _ = dynamics(both, view, wanted=NEWEST)
            view.memory.advance(count)
            given, view = given.at(NEWEST), view.at(NEWEST)
        else:
            clean, _ = dynamics(frames, view)
        x = x + (clean - x) / (steps - k)  # (1 / K) / (1 - k / K)
    return coordinates.decode(x, origin).clamp(-1, 1)


def check(config: ShortcutConfig, levels: int) -> None:
    """Refuse settings that would sample with a step size that training never sees.

    Raises:
        ValueError: naming the value and what it must be.
    """
    if config.history not in ('commit', 'forcing'):
        raise ValueError(f"shortcut.history must be 'commit' or 'forcing', got {config.history!r}")
    if config.steps < 1 or config.steps & (config.steps - 1) or config.steps > levels:
        raise ValueError(
            f'shortcut.steps must be a power of two up to dynamics.levels = {levels}, got'
            f' {config.steps}'
        )
