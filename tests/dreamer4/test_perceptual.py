"""LPIPS: the real class behind a stand-in package with random weights, and a clear message where it is missing."""

import sys
import types

import pytest
import torch

from dreamer4.perceptual import Perceptual


class RandomLPIPS(torch.nn.Module):
    """Same call as lpips.LPIPS: images (B, 3, H, W) in [-1, 1] -> (B, 1, 1, 1)."""

    def __init__(self, net, verbose):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 8, 3)

    def forward(self, a, b):
        assert a.shape[1] == 3 and a.min() >= -1.5 and a.max() <= 1.5, 'expected RGB in about [-1, 1]'
        return (self.net(a) - self.net(b)).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', types.SimpleNamespace(LPIPS=RandomLPIPS))


def test_equal_images_have_no_distance_and_gradients_reach_the_guess_alone(package):
    perceptual = Perceptual('vgg')
    image = torch.rand(2, 3, 16, 16, 3)
    assert perceptual(image, image) == 0
    guess = torch.rand(2, 3, 16, 16, 3, requires_grad=True)
    perceptual(guess, image).backward()
    assert guess.grad.abs().sum() > 0
    assert all(p.grad is None for p in perceptual.parameters())


def test_gray_images_are_repeated_and_other_channels_refused(package):
    gray = torch.rand(1, 1, 16, 16, 1)
    assert Perceptual('vgg')(gray, 1 - gray) > 0
    with pytest.raises(ValueError, match='got 4'):
        Perceptual('vgg')(torch.rand(1, 1, 16, 16, 4), torch.rand(1, 1, 16, 16, 4))


def test_a_missing_package_names_the_extra_and_the_switch(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(ImportError, match='extra "lpips".*--agent.tokenizer.lpips 0'):
        Perceptual('vgg')
