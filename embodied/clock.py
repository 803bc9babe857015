"""Every "is it time?" of a run: how many updates are due, whether an interval has passed."""

import math
import time


class Ratio:
    """Updates due for a number of decisions, with the fraction that is left over kept for the next call.

    Args:
      ratio: updates per decision, at least 0.
      cap: updates that may be owed at most; what is owed beyond is forgotten, so that a stall is not followed by a storm.
    """

    def __init__(self, ratio: float, cap: float):
        self.ratio, self.cap = ratio, cap
        self._last, self._owed = None, 0.0

    def __call__(self, step: int) -> int:
        """Number of updates to make now; `step` counts decisions and never falls. The first call starts the count."""
        if self._last is None:
            self._last = step
        self._owed = min(self._owed + (step - self._last) * self.ratio, self.cap)
        self._last = step
        due = math.floor(self._owed + 1e-9)  # thirds must add up to one
        self._owed -= due
        return due

    def save(self) -> dict:
        return {'last': self._last, 'owed': self._owed}

    def load(self, tree: dict) -> None:
        self._last, self._owed = tree['last'], tree['owed']


class Every:
    """True once per interval, first after a whole one; an interval of 0 never comes.

    Args:
      steps: interval of a counter that is passed to the call, or
      seconds: interval of the wall clock.
    """

    def __init__(self, steps: int = 0, seconds: float = 0):
        if steps and seconds:
            raise ValueError('Every counts steps or seconds, not both')
        self._steps, self._seconds = steps, seconds
        self._last = time.monotonic() if seconds else 0

    def __call__(self, step: int = 0) -> bool:
        """Whether it is time. After a jump over several intervals it is true once."""
        if self._seconds:
            now = time.monotonic()
            if now - self._last < self._seconds:
                return False
            self._last = now
            return True
        if not self._steps or step // self._steps <= self._last // self._steps:
            return False
        self._last = step
        return True

    def save(self) -> dict:
        """The counter of the last time; a wall clock begins anew in another process."""
        return {'last': self._last if self._steps else 0}

    def load(self, tree: dict) -> None:
        if self._steps:
            self._last = tree['last']
