"""In which units images and numbers are read: those of what was seen while the tokenizer learned
alone, of each of several tasks its own.

A task whose camera hardly moves, beside one in which everything does, would be faint in their
common spread, and their mean image one that neither of them shows.
Letters: B batch, T time, N tasks.
"""

import torch

from ...tasks import Measured

PIXEL_STD = 0.2  # of pixels in [0, 1] before any has been seen
LEAST_STD = 0.02  # five of 255 steps: what differs less is noise and is not blown up
LEAST_NUMBER_STD = 1e-3  # likewise of observed numbers, at the start
BEND = 2 / 3  # of the range (-1, 1) of a number: where its scale stops to be linear


class PixelScale(Measured):
    """Images less their mean image, in standard deviations; of each of several tasks its own.

    What never changes need not pass the bottleneck, and what changes little must not be faint: on
    frames of a wide static scene in which one small body moves, latents of unscaled pixels saturate
    before the decoder has learned the scene, and stay so.

    Args:
        shape: (H, W, C). tasks: N.
    """

    def __init__(self, shape: tuple[int, ...], tasks: int = 1):
        mean, variance = torch.zeros(shape), torch.tensor(PIXEL_STD**2)
        super().__init__(tasks, mean=mean, variance=variance, count=torch.zeros(()))

    @property
    def std(self) -> torch.Tensor:
        """() or, of several tasks, (N,)."""
        return self.variance.sqrt().clamp(min=LEAST_STD)

    @torch.no_grad()
    def measure(
        self, image: torch.Tensor, task: torch.Tensor | None = None, but_dark: bool = False
    ) -> None:
        """Fold uint8 images (B, T, H, W, C) of tasks (B, T) into mean and variance; every image
        ever given weighs alike, but black ones nothing where but_dark is set.
        """
        image = image.float() / 255
        shown = image.flatten(2).amax(2).gt(0) if but_dark else torch.ones_like(image[..., 0, 0, 0])
        seen, mean = self.fold(task, shown.float())
        self.count += seen
        share = seen / self.count.clamp(min=1)
        self.mean.lerp_(mean(image), share[..., None, None, None])
        away = image - self.of(self.mean, task)
        self.variance.lerp_(mean(away.square().mean((-1, -2, -3))), share)

    def forward(self, image: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 (B, T, H, W, C) of tasks (B, T) -> float32."""
        mean, std = self._known(task)
        return (image / 255 - mean) / std

    def invert(self, image: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        """Float32 in standard deviations -> about [0, 1]."""
        mean, std = self._known(task)
        return torch.addcmul(mean, image, std)

    def alike(self, square: torch.Tensor, task: torch.Tensor | None) -> torch.Tensor:
        """Squared differences (B, T, H, W, C) of pixels in [0, 1], those of each task in shares of
        its own variance: where little moves little can be missed, and of an error of all tasks the
        lively ones would be all that is learned. In units of the mean variance; of one task as they
        are.
        """
        if self.tasks == 1:
            return square
        usual = self.std.square()
        return square * (usual.mean() / self.of(usual, task))[..., None, None, None]

    def _known(self, task: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        return self.of(self.mean, task), self.of(self.std, task)[..., None, None, None]


class NumberScale(Measured):
    """Numbers (B, T, size) in standard deviations, bounded to (-1, 1); of each of several tasks
    its own.

    Up to four deviations the scale is linear, which leaves the laws of motion as simple as they
    are; beyond, the bound is approached so slowly that values far from what was seen at the start
    can still be told apart.
    """

    def __init__(self, size: int, tasks: int = 1):
        mean, variance = torch.zeros(size), torch.ones(size)
        super().__init__(tasks, mean=mean, variance=variance, count=torch.zeros(()))

    @property
    def unit(self) -> torch.Tensor:
        """Six standard deviations, (size,) or, of several tasks, (N, size)."""
        return 6 * self.variance.sqrt().clamp(min=LEAST_NUMBER_STD)

    @torch.no_grad()
    def measure(self, x: torch.Tensor, task: torch.Tensor | None = None) -> None:
        """Fold numbers (B, T, size) of tasks (B, T) into mean and variance; every frame ever given
        weighs alike.
        """
        seen, mean = self.fold(task, torch.ones_like(x[..., 0]))
        middle = mean(x)
        centre = self.of(middle, task)
        share = (seen / (self.count + seen).clamp(min=1))[..., None]
        gap = middle - self.mean
        spread = mean((x - centre).square())
        self.variance.lerp_(spread, share).add_(share * (1 - share) * gap.square())
        self.mean.lerp_(middle, share)
        self.count += seen

    def forward(self, x: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        x = (x - self.of(self.mean, task)) / self.of(self.unit, task)
        size = x.abs()
        return torch.where(
            size <= BEND,
            x,
            x.sign() * (1 - (1 - BEND) ** 2 / (size.clamp(min=BEND) + 1 - 2 * BEND)),
        )

    def invert(self, x: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        size = x.abs()
        far = (1 - BEND) ** 2 / (1 - size.clamp(min=BEND)).clamp(min=1e-6) - 1 + 2 * BEND
        mean, unit = self.of(self.mean, task), self.of(self.unit, task)
        return mean + unit * torch.where(size <= BEND, x, x.sign() * far)
