"""PSNR, SSIM, AUC and calibration against values worked out by hand."""

import math

import pytest
import torch

from dreamer4.report.measures import LARGEST_PSNR, auc, brier, psnr, reliability, ssim


def images(seed=0, size=16):
    return torch.rand(3, size, size, 3, generator=torch.Generator().manual_seed(seed))


def test_psnr_is_that_of_the_mean_squared_error():
    truth = torch.full((2, 8, 8, 3), 0.5)
    assert torch.allclose(psnr(truth + 0.1, truth), torch.tensor(20.0))
    assert torch.allclose(psnr(truth, truth), torch.tensor(LARGEST_PSNR))
    assert torch.allclose(psnr(truth + 9, truth), torch.tensor(-20 * math.log10(0.5)).abs())


@pytest.mark.parametrize('size', [4, 16])
def test_ssim_is_one_for_the_same_image_and_falls_with_noise_not_with_brightness(size):
    truth = images(size=size) * 0.5 + 0.2
    noise = 0.2 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    brighter = truth + noise.std()  # as far away, pixel by pixel
    same, noisy, bright = (ssim(x, truth) for x in (truth, truth + noise, brighter))
    assert torch.allclose(same, torch.ones(3), atol=1e-5)
    assert (noisy < bright).all() and (bright < 1).all() and (noisy > 0).all()


def test_ssim_of_constant_images_is_that_of_their_means():
    x, y = torch.full((1, 16, 16, 1), 0.2), torch.full((1, 16, 16, 1), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(x, y).item() == pytest.approx(expected, abs=1e-4)


def test_auc_counts_pairs_in_the_right_order_and_ties_half():
    score, positive = torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 1, 0, 1]).bool()
    assert auc(score, positive) == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert auc(-score, positive) == pytest.approx(0.5 / 4)
    assert auc(torch.zeros(4), positive) == 0.5
    assert auc(score, positive | True) is None, 'of one kind there is nothing to tell apart'


def test_brier_is_the_squared_distance_to_what_happened():
    assert brier(torch.tensor([0.9, 0.2]), torch.tensor([True, False])) == pytest.approx(0.025)
    assert brier(torch.zeros(0), torch.zeros(0).bool()) is None


def test_calibration_compares_confidence_with_how_often_it_is_right():
    chance = torch.tensor([0.95] * 10 + [0.55] * 10)
    right = torch.tensor([True] * 9 + [False] + [True] * 2 + [False] * 8)
    found = reliability(chance, right)
    assert found['confidence'] == pytest.approx([0.55, 0.95]) and found['share'] == [0.5, 0.5]
    assert found['accuracy'] == pytest.approx([0.2, 0.9])
    assert found['error'] == pytest.approx(0.5 * 0.35 + 0.5 * 0.05)
