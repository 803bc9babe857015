"""How fast a game goes: what a step takes, how many there are in a second."""

from collections import deque

import numpy as np

REMEMBERED = 512  # steps that percentiles are of
RECENT = 32  # that the rate is of


class Pace:
    """Of the last steps.

    Attributes:
        browser: (p50, p95) in ms from a key to its picture, as the page measures it; None before.
    """

    def __init__(self):
        self._took, self._when = deque(maxlen=REMEMBERED), deque(maxlen=RECENT)
        self.browser: tuple[float, float] | None = None

    def add(self, begun: float, ended: float) -> None:
        """A step, by its beginning and end in seconds of one clock."""
        self._took.append(ended - begun)
        self._when.append(ended)

    def rest(self) -> None:
        """Nothing is played: what comes next does not follow what came before."""
        self._when.clear()

    def numbers(self) -> dict[str, float]:
        """fps; p50 and p95 of a step in ms."""
        p50, p95 = 1000 * np.percentile(self._took or [0.0], (50, 95))
        span = self._when[-1] - self._when[0] if len(self._when) > 1 else 0.0
        fps = (len(self._when) - 1) / span if span > 0 else 0.0
        return {'fps': round(fps, 1), 'p50': round(float(p50), 1), 'p95': round(float(p95), 1)}

    def __str__(self) -> str:
        told = self.numbers()
        text = (
            f'{told["fps"]} frames/s; a step takes {told["p50"]} ms (p50), {told["p95"]} ms (p95)'
        )
        if self.browser:
            text += f'; key to picture {self.browser[0]:.0f} ms, {self.browser[1]:.0f} ms'
        return text
