"""What a saved tree must look like before a part of a run takes it up.

A checkpoint with valid sums can still be of another version, or crafted. Every part says of its
own tree what it relies on, in these words:

    COUNT  NUMBER  REAL  FLAG  TEXT  ANYTHING     a leaf; REAL may be NaN or infinite
    {'a': spec, ...}              a mapping with these keys; more are no matter
    Each(spec)                    a mapping from any text, or a list, of values that are like this
    Maybe(spec)                   None, or like this
    Array(kind, *shape)           an array of this kind of dtype; None in the shape is any length
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import CheckpointError

LARGEST = 2**53  # of a count; JSON and float64 hold all up to it


@dataclass(frozen=True)
class Leaf:
    """One value, tested by a function."""

    text: str
    fits: Any


COUNT = Leaf('a count', lambda value: type(value) is int and 0 <= value <= LARGEST)
NUMBER = Leaf('a finite number', lambda value: REAL.fits(value) and math.isfinite(value))
REAL = Leaf(
    'a number', lambda value: type(value) is float or type(value) is int and abs(value) <= LARGEST
)
FLAG = Leaf('true or false', lambda value: type(value) is bool)
TEXT = Leaf('a text', lambda value: type(value) is str)
ANYTHING = Leaf('anything', lambda value: True)


@dataclass(frozen=True)
class Each:
    """All values of a mapping or of a list."""

    spec: Any
    kind: type = Mapping


@dataclass(frozen=True)
class Maybe:
    """None or something."""

    spec: Any


class Array:
    """An array."""

    def __init__(self, kinds: str, *shape: int | None):
        """Args: letters of numpy's dtype.kind; the shape."""
        self.kinds, self.shape = kinds, shape

    def fits(self, value: Any) -> bool:
        return (
            isinstance(value, np.ndarray)
            and value.dtype.kind in self.kinds
            and value.ndim == len(self.shape)
            and all(want in (None, have) for want, have in zip(self.shape, value.shape))
        )

    @property
    def text(self) -> str:
        return f'an array {list(self.shape)} of {self.kinds!r}'


def demand(tree: Any, spec: Any, where: str) -> None:
    """Check a tree.

    Args:
      tree: of a checkpoint.
      spec: what it must look like; see the module.
      where: whose it is, for the message.

    Raises:
      CheckpointError: names the place, what must be there and what is.
    """
    if isinstance(spec, Maybe):
        if tree is not None:
            demand(tree, spec.spec, where)
    elif isinstance(spec, Each):
        _demand_kind(tree, spec.kind, where)
        for key, value in tree.items() if spec.kind is Mapping else enumerate(tree):
            demand(value, spec.spec, f'{where}.{key}')
    elif isinstance(spec, Mapping):
        _demand_kind(tree, Mapping, where)
        for key, inner in spec.items():
            if key not in tree:
                raise CheckpointError(
                    f'{where}: {key} is missing, there is only {list(tree)!r:.200}'
                )
            demand(tree[key], inner, f'{where}.{key}')
    elif not spec.fits(tree):
        raise CheckpointError(f'{where}: must be {spec.text}, is {_shown(tree)}')


def _demand_kind(tree: Any, kind: type, where: str) -> None:
    if not isinstance(tree, kind):
        raise CheckpointError(f'{where}: must be a {kind.__name__.lower()}, is {_shown(tree)}')


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f'an array {list(value.shape)} of {value.dtype}'
    return f'{value!r:.80}'
