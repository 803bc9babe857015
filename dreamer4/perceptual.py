"""LPIPS as a tokenizer loss (Dreamer 4, Section 3.1), kept behind one class because the package is optional."""

import torch
from torch import nn


class Perceptual(nn.Module):
    """Distance of images in the features of a pretrained network.

    Args:
        net: backbone of the `lpips` package: 'vgg', 'alex' or 'squeeze'.

    Raises:
        ImportError: lpips or torchvision cannot be imported; the message names the extra and the value that switches the loss off.
    """

    def __init__(self, net: str):
        super().__init__()
        try:
            import lpips
        except (ImportError, RuntimeError) as error:  # a torchvision that does not match torch fails with RuntimeError
            raise ImportError(
                    f'the perceptual loss needs the package lpips and a torchvision that matches torch ({error}); '
                    'install the extra "lpips", or set --agent.tokenizer.lpips 0') from error
        self.model = lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval()

    def forward(self, guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean distance (scalar) of images (B, T, H, W, C) in [0, 1]; one-channel images are repeated to three."""
        return self.model(*(self._input(x) for x in (guess, truth))).mean()

    @staticmethod
    def _input(image: torch.Tensor) -> torch.Tensor:
        x = image.flatten(0, 1).permute(0, 3, 1, 2)
        if x.shape[1] not in (1, 3):
            raise ValueError(f'the perceptual loss needs images of 1 or 3 channels, got {x.shape[1]}')
        return x.expand(-1, 3, -1, -1) * 2 - 1
