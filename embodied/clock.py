"""All decisions of the kind "is it time?": how many updates are due, every so many steps or
seconds, at powers of ten.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigError
from .tree_spec import COUNT, FLAG, NUMBER, Each, Maybe, demand


class Ratio:
    """How many updates are due so that they keep a fixed ratio to decisions.

    The fractional rest is kept from call to call, so the ratio holds exactly in the long run. What
    is owed beyond `cap` is forgotten: a stall, or a resume at a higher count, is not followed by a
    storm of updates.
    """

    def __init__(self, ratio: float, cap: float = math.inf):
        """Args: updates per decision, >= 0, where 0 means never; the most updates that may be owed
        at once, at least 1.

        Raises:
          ConfigError: one of them is out of range.
        """
        if not 0 <= ratio < math.inf:
            raise ConfigError(
                f'The ratio of updates to decisions must be finite and not negative, got {ratio}.'
            )
        if not cap >= 1:
            raise ConfigError(f'The cap of owed updates must be at least 1, got {cap}.')
        self.ratio, self.cap = ratio, cap
        self._count = None  # None: the next call tells where the count begins
        self._owed = 0.0

    def __call__(self, count: int) -> int:
        """Updates due now that `count` decisions have been made; the first call sets the
        beginning, and nothing is due then.
        """
        if self._count is None:
            self._count = count
        self._owed = min(self._owed + (count - self._count) * self.ratio, self.cap)
        self._count = count
        due = math.floor(self._owed + 1e-9)  # ten times a tenth is one
        self._owed = max(self._owed - due, 0.0)
        return due

    def save(self) -> dict[str, Any]:
        return {'count': self._count, 'owed': self._owed}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what save() returned, at this ratio and cap."""
        demand(state, {'count': Maybe(COUNT), 'owed': NUMBER}, 'The state of Ratio')
        self._count, self._owed = state['count'], min(max(float(state['owed']), 0.0), self.cap)


class Every:
    """Whether so many steps, or so many seconds, have passed since it was last so.

    Steps are compared on a fixed grid (multiples of the interval), so a run that was interrupted
    has its events at the same counts as one that was not. Seconds are counted from the last event
    on a monotonic clock and start anew in each process.
    """

    def __init__(
        self,
        steps: float | str | None = None,
        seconds: float | str | None = None,
        *,
        first: bool = False,
        now: Callable[[], float] = time.monotonic,
    ):
        """Choose steps or seconds.

        Args:
          steps, seconds: the interval, exactly one of them; 0 or 'off' means never.
          first: also at the first call, unless off.
          now: the clock, in seconds.

        Raises:
          ConfigError: none or both are given, or the interval is negative or no number.
        """
        if (steps is None) == (seconds is None):
            raise ConfigError(
                f'Every needs either steps or seconds, got steps={steps!r} and seconds={seconds!r}.'
            )
        interval = steps if seconds is None else seconds
        self.interval = 0 if interval == 'off' else interval
        if isinstance(self.interval, str) or not 0 <= self.interval < math.inf:
            raise ConfigError(
                f"An interval is a number >= 0 (0: never) or 'off', got {interval!r}."
            )
        self._timed = steps is None
        self._now = now
        self._due_now = first
        self._last = now() if self._timed else None

    def __call__(self, count: int | None = None) -> bool:
        """Whether it is time. Args: the present count of steps; not used for seconds."""
        if not self.interval:
            return False
        if self._timed:
            present = self._now()
            due = self._due_now or present - self._last >= self.interval
            if due:
                self._last = present
        else:
            present = count // self.interval
            due = self._due_now or present > (0 if self._last is None else self._last)
            self._last = present
        self._due_now = False
        return due

    def save(self) -> dict[str, Any]:
        return {'last': None if self._timed else self._last, 'first': self._due_now}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what save() returned; an interval in seconds starts anew."""
        demand(state, {'last': Maybe(COUNT), 'first': FLAG}, 'The state of Every')
        self._due_now = state['first']
        if not self._timed:
            self._last = state['last']


class Decades:
    """Whether one of some counts has reached another power of ten below a limit: what is shown
    every so many steps is shown at 1, 10, 100 ... of the first ones too.
    """

    def __init__(self, limit: float = math.inf):
        self.limit, self._next = limit, {}

    def __call__(self, *counts: int) -> bool:
        """Whether one of the counts, in their order, is the first one that is at least 1, 10,
        100 ..., and below the limit.
        """
        reached = False
        for place, count in enumerate(counts):
            power = self._next.get(place, 1)
            reached |= power <= count < self.limit
            while power <= count:
                power *= 10
            self._next[place] = power
        return reached

    def save(self) -> dict[str, Any]:
        return {'next': {str(place): power for place, power in self._next.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from what save() returned, below this limit."""
        demand(state, {'next': Each(COUNT)}, 'The state of Decades')
        self._next = {int(place): max(power, 1) for place, power in state['next'].items()}
