"""LPIPS: the real class behind a stand-in package with random weights, its weight, and a clear
message where it is missing.
"""

import sys
import types
import urllib.error

import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_agent import ACT, OBS, sampler
from tiny import tiny, train

from dreamer4.agent import Agent
from dreamer4.worlds.dreamer4.perceptual import WEIGHT, Perceptual, measure


class RandomLPIPS(torch.nn.Module):
    """Same call as lpips.LPIPS: images (B, 3, H, W) in [-1, 1] -> (B, 1, 1, 1)."""

    def __init__(self, net, verbose):
        super().__init__()
        self.net = torch.nn.Conv2d(3, 8, 3)

    def forward(self, a, b):
        assert a.shape[1] == 3 and a.min() >= -1.5 and a.max() <= 1.5, (
            'expected RGB in about [-1, 1]'
        )
        return (self.net(a) - self.net(b)).square().mean((1, 2, 3), keepdim=True)


@pytest.fixture
def package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', types.SimpleNamespace(LPIPS=RandomLPIPS))


def test_equal_images_have_no_distance_and_gradients_reach_the_guess_alone(package):
    perceptual = Perceptual()
    image = torch.rand(2, 3, 16, 16, 3)
    assert perceptual(image, image) == 0
    guess = torch.rand(2, 3, 16, 16, 3, requires_grad=True)
    perceptual(guess, image).backward()
    assert guess.grad.abs().sum() > 0
    assert all(p.grad is None for p in perceptual.parameters())


def test_gray_images_are_repeated_and_other_channels_refused(package):
    gray = torch.rand(1, 1, 16, 16, 1)
    assert Perceptual()(gray, 1 - gray) > 0
    with pytest.raises(ValueError, match='got 4'):
        Perceptual()(torch.rand(1, 1, 16, 16, 4), torch.rand(1, 1, 16, 16, 4))


def test_a_missing_package_says_how_to_install_it_and_names_the_switch(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)
    with pytest.raises(ImportError, match=r'install .*\[lpips\].*--agent.tokenizer.lpips 0'):
        Perceptual()


class NoWeights(RandomLPIPS):
    """As lpips does on a machine that neither has the weights of the backbone nor can fetch
    them.
    """

    def __init__(self, net, verbose):
        raise urllib.error.URLError('Name or service not known')


@pytest.fixture
def no_weights(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', types.SimpleNamespace(LPIPS=NoWeights))


@pytest.fixture
def no_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lpips', None)


def agent(lpips, obs_space=OBS):
    return Agent(obs_space, ACT, *tiny(**{'tokenizer.lpips': lpips}), seed=0)


def trained(lpips):
    made, sample = agent(lpips), sampler()
    for _ in range(4):
        metrics = train(made, sample)
    return metrics, torch.cat([p.detach().flatten() for p in made.world.tokenizer.parameters()])


def test_the_weight_scales_the_normalised_loss(package):
    (few, a), (some, b), (many, c) = trained(0.02), trained(0.2), trained(5.0)
    assert (a - b).abs().max() > 1e-6 and (b - c).abs().max() > 1e-6, (
        'every weight is a training of its own'
    )
    share = lambda x, y: y['tokenizer/total'] - x['tokenizer/total']
    assert share(some, many) / share(few, some) == pytest.approx(
        (5.0 - 0.2) / (0.2 - 0.02), rel=0.2
    ), 'normalised to about 1 each'


def test_auto_is_the_weight_of_the_paper_where_everything_is_there(package):
    (auto, a), (given, b) = trained('auto'), trained(WEIGHT)
    assert auto == given and torch.equal(a, b) and 'tokenizer/lpips' in auto
    assert agent('auto').events() == []


@pytest.mark.parametrize(
    'missing, words', [('no_package', '[lpips]'), ('no_weights', 'Name or service not known')]
)
def test_auto_is_off_with_one_sentence_where_something_is_missing(missing, words, request):
    request.getfixturevalue(missing)
    made = agent('auto')
    (told,) = made.events()
    assert words in told and 'learns without a perceptual loss' in told and made.events() == []
    assert 'tokenizer/lpips' not in train(made, sampler())


def test_a_weight_that_is_given_is_not_dropped_in_silence(no_weights):
    with pytest.raises(
        ValueError, match='weights of VGG.*Name or service not known.*--agent.tokenizer.lpips 0'
    ):
        agent(0.2)


@pytest.mark.parametrize(
    'shape, words', [((16, 16, 4), '1 or 3 channels, got 4'), ((2, 2, 3), 'Kernel size')]
)
def test_images_that_lpips_cannot_compare_are_named_at_the_start(package, shape, words):
    images = {'depth': spaces.Box(0, 255, shape, np.uint8)}
    with pytest.raises(ValueError, match=f"'depth' of .*{words}"):
        Perceptual().try_on(images)
    if shape[0] == 16:
        (told,) = agent('auto', OBS | images).events()
        assert "'depth'" in told
        with pytest.raises(ValueError, match="'depth'"):
            agent(0.2, OBS | images)


def test_an_observation_without_images_needs_no_lpips(no_package):
    assert agent(0.2, {k: s for k, s in OBS.items() if k != 'image'}).world.perceptual is None


@pytest.mark.parametrize('value', [-0.1, float('inf')])
def test_a_weight_that_is_none_is_refused(value):
    with pytest.raises(
        ValueError, match='agent.tokenizer.lpips must be a weight of at least 0 or auto'
    ):
        agent(value)


def test_as_a_measure_it_speaks_of_every_image_or_says_why_it_cannot(package, monkeypatch):
    config, images = tiny()[0].tokenizer, {'image': spaces.Box(0, 255, (16, 16, 3), np.uint8)}
    lpips, why = measure(config, images, torch.device('cpu'))
    x, y = torch.rand(5, 16, 16, 3), torch.rand(5, 16, 16, 3)
    y[2] = x[2]
    found = lpips(x, y)
    assert found.shape == (5,) and (found > 0).tolist() == [True, True, False, True, True]
    assert why == ''
    monkeypatch.setitem(sys.modules, 'lpips', None)
    lpips, why = measure(config, images, torch.device('cpu'))
    assert lpips is None and '[lpips]' in why
