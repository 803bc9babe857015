"""LPIPS as a tokenizer loss (Dreamer 4, Section 3.1), kept behind one class because the package
is optional.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from http.client import HTTPException

import torch
from gymnasium import spaces
from torch import nn

from embodied.extras import install_hint

from .tokenizer import TokenizerConfig

WEIGHT = 0.2  # of `tokenizer.lpips: auto` (Dreamer 4, Section 3.1)
# What torchvision and torch raise where pretrained weights are neither at hand nor to be fetched,
# or are damaged.
NO_WEIGHTS = (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError)


class Perceptual(nn.Module):
    """Distance of images in the features of a pretrained network.

    Args:
        net: backbone of the `lpips` package: 'vgg', 'alex' or 'squeeze'.

    Raises:
        ImportError: lpips or torchvision cannot be imported; the message names the extra and the
            values that do without.
        ValueError: the weights of the backbone cannot be loaded.
    """

    def __init__(self):
        super().__init__()
        try:
            import lpips
        # a torchvision that does not match torch fails with RuntimeError
        except (ImportError, RuntimeError) as error:
            raise ImportError(
                'the perceptual loss needs the package lpips and a torchvision that matches torch'
                f' ({error}); {install_hint("lpips")}, or set --agent.tokenizer.lpips 0 (off) or'
                ' auto (off where it is missing)'
            ) from error
        try:
            self.model = lpips.LPIPS(net='vgg', verbose=False).requires_grad_(False).eval()
        except NO_WEIGHTS as error:
            raise ValueError(
                f'the perceptual loss needs the pretrained weights of VGG, which cannot be loaded'
                f' ({error}); start once with access to the network, or set --agent.tokenizer.lpips'
                ' 0 (off) or auto (off where they are missing)'
            ) from error

    def forward(self, guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean distance (scalar) of images (B, T, H, W, C) in [0, 1]; one-channel images are
        repeated to three.
        """
        return self.model(*(self._input(x) for x in (guess, truth))).mean()

    def try_on(self, images: Mapping[str, spaces.Box]) -> None:
        """Compare blank images of every space.

        Raises:
            ValueError: one has neither 1 nor 3 channels, or is too small for the backbone; names
                its key.
        """
        for key, space in images.items():
            blank = torch.zeros(1, 1, *space.shape)
            try:
                with torch.no_grad():
                    self(blank, blank)
            except (ValueError, RuntimeError) as error:
                raise ValueError(
                    f'the perceptual loss cannot compare images {key!r} of {space.shape}: {error}; '
                    'set --agent.tokenizer.lpips 0 or auto'
                ) from error

    @staticmethod
    def _input(image: torch.Tensor) -> torch.Tensor:
        x = image.flatten(0, 1).permute(0, 3, 1, 2)
        if x.shape[1] not in (1, 3):
            raise ValueError(
                f'the perceptual loss needs images of 1 or 3 channels, got {x.shape[1]}'
            )
        return x.expand(-1, 3, -1, -1) * 2 - 1


def weight(config: TokenizerConfig) -> float:
    """Weight of the perceptual loss after it is divided by its running RMS."""
    return WEIGHT if config.lpips == 'auto' else config.lpips


def measure(
    config: TokenizerConfig, images: Mapping[str, spaces.Box], device: torch.device
) -> tuple[Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None, str]:
    """LPIPS as a measure of images (N, H, W, C) in [0, 1], each (N,); None where there is none to
    be had, and then why.
    """
    found, why = find_perceptual(replace(config, lpips='auto'), images)
    if found is None:
        return None, why.partition('; ')[2]
    found.to(device)
    each = lambda guess, truth: found.model(*(found._input(x[:, None]) for x in (guess, truth)))
    return lambda guess, truth: each(guess, truth).flatten(), ''


def find_perceptual(
    config: TokenizerConfig, images: Mapping[str, spaces.Box]
) -> tuple[Perceptual | None, str]:
    """What `tokenizer.lpips` asks for.

    Returns:
        The distance, None where none is asked for or, with `auto`, where there is none to be had;
        and in the last case why, else ''.

    Raises:
        ImportError, ValueError: a weight is given, but the distance cannot be used; see Perceptual.
    """
    if not images or not weight(config):
        return None, ''
    try:
        perceptual = Perceptual()
        perceptual.try_on(images)
        return perceptual, ''
    except (ImportError, ValueError) as error:
        if config.lpips != 'auto':
            raise
        return (
            None,
            f'agent.tokenizer.lpips auto: the tokenizer learns without a perceptual loss; {error}',
        )
