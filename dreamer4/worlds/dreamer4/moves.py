"""In which coordinates the dynamics are told a frame and predict it: whole latents, or moves from
the frame before.

Where bodies move slowly, a frame differs from the one before by a hundredth of the spread of the
latents. A model of whole latents spends its capacity on repeating the frame and ignores the action;
it ends up worse than copying. In units of the usual move, the part that an action changes has the
size of the noise that is removed.

        origin t    (before, unit): latents of frame t-1 and the usual move; zero and one where an
        episode begins
        move t      (latents t - before) / unit, compressed beyond LINEAR units
Each of several tasks has units of its own: those of a lively one would leave the moves of a still
one as small as they were.
Letters: B batch, T time, S spatial tokens, W channels, N tasks.
"""

from typing import NamedTuple

import torch

from ...tasks import Measured

# usual moves up to which a move is a plain quotient; beyond them it grows with the logarithm
LINEAR = 4.0
LEAST = 1e-4  # smallest unit: latents live in (-1, 1), and what moves less than this is float noise
KEEP = 0.999  # decay of the running mean square of moves


class Origin(NamedTuple):
    """Where the move of every frame begins; broadcastable to (B, T, S, W)."""

    before: torch.Tensor
    unit: torch.Tensor

    def rows(self, rows: slice) -> 'Origin':
        """The same for a part of the batch."""
        return Origin(self.before[rows], self.unit[rows])


class Whole(Measured):
    """Whole latents (Dreamer 4): the tokens of a frame read its latents, which are what is
    denoised.

    Args:
        tokens, channels, tasks: S, W and N. buffers: what is measured of them, see Measured.

    Numbers of tasks that methods take are long, broadcastable to (B, T); None for one task.
    """

    bound = 4.0  # of bootstrap targets; latents live in (-1, 1)

    def __init__(self, tokens: int, channels: int, tasks: int = 1, **buffers: torch.Tensor):
        super().__init__(tasks, **buffers)
        self.told = self.viewed = channels  # channels per token that tokens and heads read

    def measure(
        self, latent: torch.Tensor, is_first: torch.Tensor, task: torch.Tensor | None = None
    ) -> None:
        """Learn the units from latents (B, T, S, W); whole latents have none."""

    def origin(
        self, seen: torch.Tensor, is_first: torch.Tensor, task: torch.Tensor | None = None
    ) -> Origin | None:
        """Origins of the frames of a sequence: latents as history shows them (B, T, S, W),
        is_first bool (B, T).
        """

    def after(self, seen: torch.Tensor, task: torch.Tensor | None = None) -> Origin | None:
        """Origin of the frame that follows `seen` (B, 1, S, W) within an episode."""

    def known(self, is_first: torch.Tensor) -> torch.Tensor:
        """bool (B, T): frames whose origin the sequence holds."""
        return torch.ones_like(is_first)

    def encode(self, latent: torch.Tensor, origin: Origin | None) -> torch.Tensor:
        """Latents (B, T, S, W) -> what is denoised, the same shape."""
        return latent

    def decode(self, target: torch.Tensor, origin: Origin | None) -> torch.Tensor:
        """Inverse of encode."""
        return target

    def tell(self, target: torch.Tensor, origin: Origin | None) -> torch.Tensor:
        """What the tokens of a frame read, (B, T, S, told)."""
        return target

    def view(self, latent: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """What the heads read of a frame beside its feature, (B, T, S, viewed)."""
        return latent

    def blur(
        self, latent: torch.Tensor, signal: float, task: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Latents as history shows them at a signal level in [0, 1] (Dreamer 4, Eq. 1)."""
        return latent if signal == 1 else signal * latent + (1 - signal) * torch.randn_like(latent)


class Moves(Whole):
    """Moves: the tokens of a frame read the latents before and the move from them; the move is what
    is denoised.

    The first frame of an episode is a move from zero in units of one, that is, its whole latents.
    """

    bound = 40.0  # of a move across the whole range in the smallest unit

    def __init__(self, tokens: int, channels: int, tasks: int = 1):
        none = {'square': torch.zeros(tokens, channels), 'count': torch.zeros(())}
        super().__init__(tokens, channels, tasks, **none)
        self.told = self.viewed = 2 * channels

    @property
    def usual(self) -> torch.Tensor:
        """Root mean square of the moves seen so far, (S, W) in latent units; of several tasks (N,
        S, W).
        """
        return self.square.sqrt().clamp(min=LEAST)

    @torch.no_grad()
    def measure(self, latent, is_first, task=None):
        """Fold the moves of a batch into the usual ones."""
        there = (~is_first[:, 1:]).float()
        total, mean = self.fold(None if task is None else task[:, 1:], there)
        found = mean(latent.diff(dim=1).float().square())
        # a refused batch leaves the units as they were, and so does one without a task
        sound = (total > 0) & found.isfinite().all(-1).all(-1)
        self.count += sound.float()
        share = (1 / self.count.clamp(min=1)).clamp(min=1 - KEEP)[..., None, None]
        moved = self.square.lerp(found, share)
        self.square.copy_(torch.where(sound[..., None, None], moved, self.square))

    def origin(self, seen, is_first, task=None):
        first = is_first[..., None, None]
        # a sequence cut from an episode begins as if at rest
        before = torch.cat([seen[:, :1], seen[:, :-1]], 1)
        unit = self.of(self.usual, task)
        return Origin(torch.where(first, 0.0, before), torch.where(first, 1.0, unit))

    def after(self, seen, task=None):
        return Origin(seen, self.of(self.usual, task).expand_as(seen))

    def known(self, is_first):
        known = torch.ones_like(is_first)
        known[:, 0] = is_first[:, 0]
        return known

    def encode(self, latent, origin):
        move = (latent - origin.before) / origin.unit
        size = move.abs()
        far = LINEAR * (1 + (size.clamp(min=LINEAR) / LINEAR).log())
        return torch.where(size <= LINEAR, move, move.sign() * far)

    def decode(self, target, origin):
        size = target.abs()
        far = LINEAR * (size.clamp(min=LINEAR) / LINEAR - 1).exp()
        return origin.before + origin.unit * torch.where(
            size <= LINEAR, target, target.sign() * far
        )

    def tell(self, target, origin):
        return torch.cat([origin.before.expand_as(target), target], -1)

    def view(self, latent, target):
        return torch.cat([latent, target], -1)

    def blur(self, latent, signal, task=None):
        if signal == 1:
            return latent
        return latent + (1 - signal) * self.of(self.usual, task) * torch.randn_like(latent)
