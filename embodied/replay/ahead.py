"""Draws that a thread prepares while the caller works on the one before."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Ahead:
    """What has been announced, and the draw that is being prepared.

    Attributes:
      next: (kind, future) of the draw that is being prepared, None for none.
      helper: the thread.
    """

    def __init__(self, prepare: Callable[..., Any], enabled: bool):
        """Args: makes a draw of a kind, in the thread; whether anything is prepared at all."""
        self._prepare, self._enabled = prepare, enabled
        self._expected = 0
        self.next: tuple[tuple, Future] | None = None
        self.helper: ThreadPoolExecutor | None = None

    def expect(self, draws: int) -> None:
        """So many draws of one kind come in a row."""
        self._expected, self.next = draws, None

    def take(self, kind: tuple) -> tuple[bool, Future | None]:
        """Whether a draw of a kind is one of those announced, and its preparation. A measurement
        that comes in between is none of them.
        """
        announced = self.next is None or self.next[0] == kind
        if not announced or self.next is None:
            return announced, None
        ahead, self.next = self.next[1], None
        return True, ahead

    def go_on(self, kind: tuple, announced: bool) -> None:
        """A draw was handed out: prepare the one that follows, if one is expected."""
        self._expected = max(0, self._expected - announced)
        if announced and self._expected and self._enabled:
            self.helper = self.helper or ThreadPoolExecutor(1, 'replay-prefetch')
            self.next = kind, self.helper.submit(self._prepare, *kind)

    def close(self) -> None:
        """Nothing is prepared any more."""
        self._enabled = False
        if self.helper is not None:
            self.helper.shutdown(wait=False)
