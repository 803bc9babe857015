"""Confidence intervals: Student's t by hand, and none of a single value."""

import math

import pytest

from embodied.interval import interval


@pytest.mark.parametrize(
    'values, quantile',
    [([1.0, 2.0, 3.0], 4.303), ([0.0, 1.0], 12.706), (list(range(41)), 1.96 + 2.4 / 40)],
)
def test_the_half_width_is_the_quantile_times_the_error_of_the_mean(values, quantile):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert interval(values) == pytest.approx(quantile * deviation / math.sqrt(len(values)))


def test_a_single_value_has_no_interval():
    assert interval([1.0]) is None
