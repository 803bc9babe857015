"""What a report says of pictures, probabilities and returns: pure functions, for every world model.

Letters: N images or frames, H height, W width, C channels.
"""

import torch
import torch.nn.functional as F

LARGEST_PSNR = 80.0  # dB, of an image without an error
WINDOW, SIGMA = 11, 1.5  # of SSIM (Wang et al. 2004)
BINS = 10  # of a reliability diagram


def psnr(guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """PSNR in dB (N,) of images (N, H, W, C) in [0, 1], at most LARGEST_PSNR."""
    error = (guess.clamp(0, 1) - truth).square().flatten(1).mean(1)
    return -10 * error.clamp(min=10 ** (-LARGEST_PSNR / 10)).log10()


def ssim(guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Structural similarity (N,) of images (N, H, W, C) in [0, 1], 1 where they are the same.

    Means and variances are those of a Gaussian window, smaller where an image has no room for it;
    channels are averaged (Wang et al. 2004).
    """
    size = min(WINDOW, *truth.shape[1:3])
    x, y = (z.clamp(0, 1).movedim(-1, 1).flatten(0, 1)[:, None] for z in (guess, truth))
    place = torch.arange(size, device=truth.device) - (size - 1) / 2
    line = torch.exp(-place.square() / (2 * SIGMA**2))
    window = (line[:, None] * line)[None, None] / line.sum() ** 2
    mean = lambda z: F.conv2d(z, window)
    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    found = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return found.flatten(1).mean(1).unflatten(0, (len(truth), -1)).mean(1)


def auc(score: torch.Tensor, positive: torch.Tensor) -> float | None:
    """Probability that a positive (bool (N,)) has a higher score (N,) than a negative; None where
    there are none of one kind.
    """
    count, other = int(positive.sum()), int((~positive).sum())
    if not count or not other:
        return None
    values, place = torch.unique(score.double(), return_inverse=True)
    sizes = torch.bincount(place, minlength=len(values)).double()
    ranks = (sizes.cumsum(0) - (sizes - 1) / 2)[place]  # equal scores share their mean rank
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * other))


def brier(chance: torch.Tensor, happened: torch.Tensor) -> float | None:
    """Mean squared difference of a probability (N,) and of what happened, bool (N,)."""
    return float((chance - happened.float()).square().mean()) if len(chance) else None


def reliability(chance: torch.Tensor, right: torch.Tensor) -> dict[str, list[float] | float]:
    """How often what is said with some confidence is right.

    Args:
        chance: (N,) in [0, 1], confidence. right: bool (N,).

    Returns:
        'confidence', 'accuracy' and 'share' of each of BINS equal bins that has any; 'error', the
        mean distance of the first two (expected calibration error).
    """
    place = (chance * BINS).long().clamp(max=BINS - 1)
    out = {'confidence': [], 'accuracy': [], 'share': []}
    for index in range(BINS):
        here = place == index
        if here.any():
            out['confidence'].append(float(chance[here].mean()))
            out['accuracy'].append(float(right[here].float().mean()))
            out['share'].append(float(here.float().mean()))
    pairs = zip(out['confidence'], out['accuracy'], out['share'])
    return out | {'error': sum(abs(a - b) * share for a, b, share in pairs)}
