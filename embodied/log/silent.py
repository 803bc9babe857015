"""The outputs of a process that leaves them to another."""

import time
from collections.abc import Mapping
from typing import Any

from .progress import Returns


class Silent:
    """A Logger that writes nothing."""

    def __init__(self):
        self.returns, self._start = Returns(), time.monotonic()

    def add(self, metrics: Mapping[str, Any], prefix: str = '') -> None:
        pass

    def score(self, score: float, length: int, *more: Any) -> None:
        pass

    def text(self, name: str, text: str) -> None:
        pass

    def write(self, *told: Any) -> None:
        pass

    def line(self, share: float, *told: Any, **more: Any) -> None:
        pass

    def save(self) -> dict[str, Any]:
        return {}

    def load(self, tree: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass

    @property
    def seconds(self) -> float:
        """That this process has taken."""
        return time.monotonic() - self._start
