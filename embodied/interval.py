"""Confidence intervals of means."""

import math
from collections.abc import Sequence

import numpy as np

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond the table 1.96 +
# 2.4 / df is right to 0.002.
STUDENT_T = tuple(
    map(
        float,
        (
            '12.706 4.303 3.182 2.776 2.571 2.447 2.365 2.306 2.262 2.228 '
            '2.201 2.179 2.160 2.145 2.131 2.120 2.110 2.101 2.093 2.086 '
            '2.080 2.074 2.069 2.064 2.060 2.056 2.052 2.048 2.045 2.042 '
        ).split(),
    )
)


def interval(values: Sequence[float]) -> float | None:
    """Half the width of the 95 % interval of a mean (Student's t), None for a single value."""
    degrees = len(values) - 1
    if degrees < 1:
        return None
    quantile = STUDENT_T[degrees - 1] if degrees <= len(STUDENT_T) else 1.96 + 2.4 / degrees
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))
