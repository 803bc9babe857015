"""Rows that hold NaN or infinities: none is stored.

What stands in the place of an action or a reward that nobody recorded may be anything (labels.py).
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..contract import nonfinite, spoken
from ..errors import ReplayNonFinite
from .schema import Schema


class Finite:
    """Looks at the floats of rows of one schema."""

    def __init__(self, schema: Schema, actions: Collection[str] = ()):
        """Args: the schema; which of its keys are actions."""
        self._floats = [
            (index, key, excuses(key, actions))
            for index, (key, dtype, _) in enumerate(schema.specs)
            if dtype.kind == 'f'
        ]

    def check(self, values: list[Any], row: Mapping[str, Any], worker: int) -> None:
        """Refuse a row.

        Args:
          values: of the row, in the order of the schema. row: the same by key. worker: whose row it
            is, for the message.

        Raises:
          ReplayNonFinite: names the key and the worker.
        """
        for index, key, excuses in self._floats:
            value = values[index]
            if (
                math.isfinite(value)
                if np.ndim(value) == 0
                else np.logical_and.reduce(np.isfinite(value), axis=None)
            ):
                continue
            if not any(row.get(flag, False) for flag in excuses):
                raise ReplayNonFinite(
                    f'A row of worker {worker}: {spoken(key)} is not finite: '
                    f'{nonfinite(np.asarray(value))}.'
                )


def excuses(key: str, actions: Collection[str]) -> tuple[str, ...]:
    """Flags of a row that let a key hold anything."""
    if key == 'reward':
        return 'unlabeled', 'unlabeled_reward'
    return ('unlabeled', 'unlabeled_action') if key in actions else ()
