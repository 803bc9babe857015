"""Actions between a page and an env: what there is to choose, and choices as a page says them."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from embodied.base import Spaces, Values


def describe(act_space: Spaces) -> list[dict[str, Any]]:
    """What there is to choose, as JSON: for each action its key, its kind, `size` components, of
    which discrete ones have `counts` choices, and `rest`, what is done where nobody chooses.
    """
    out = []
    for key, space in act_space.items():
        told = {'key': key, 'size': int(np.prod(space.shape)), 'rest': rest(space)}
        match space:
            case spaces.Discrete():
                told |= {'kind': 'discrete', 'counts': [int(space.n)]}
            case spaces.MultiDiscrete():
                counts = [int(n) for n in space.nvec.reshape(-1)]
                told |= {'kind': 'multidiscrete', 'counts': counts}
            case spaces.MultiBinary():
                told |= {'kind': 'multibinary'}
            case spaces.Box():
                low, high = (bound.reshape(-1).tolist() for bound in (space.low, space.high))
                told |= {'kind': 'box', 'low': low, 'high': high}
        out.append(told)
    return out


def rest(space: spaces.Space) -> list[float]:
    """What is done where nobody chooses: the middle of a range, the middle one of three choices,
    which is to stay in most envs that have three, and else the first.
    """
    if isinstance(space, spaces.Box):
        return ((space.low.astype(np.float64) + space.high) / 2).reshape(-1).tolist()
    if isinstance(space, spaces.Discrete):
        return [1 if space.n == 3 else 0]
    return [0] * int(np.prod(space.shape))


def resting(act_space: Spaces) -> Values:
    """The action where nobody chooses."""
    return read({key: rest(space) for key, space in act_space.items()}, act_space)


def read(said: Mapping[str, Any], act_space: Spaces) -> Values:
    """An action from JSON: key -> a number or a flat list of them.

    Numbers beyond a range are cut to it.

    Raises:
        ValueError: names the key and what it must be.
    """
    if unknown := sorted(said.keys() - act_space.keys()):
        raise ValueError(f'action: there is no {unknown[0]!r:.40}; there is {", ".join(act_space)}')
    return {key: _value(key, said.get(key), space) for key, space in act_space.items()}


def _value(key: str, said: Any, space: spaces.Space) -> np.ndarray:
    size = int(np.prod(space.shape))
    numbers = said if isinstance(said, list) else [said]
    if len(numbers) != size or not all(_is_number(n) for n in numbers):
        raise ValueError(f'action: {key!r} must be {size} finite numbers, got {said!r:.80}')
    value = np.array(numbers, np.float64).reshape(space.shape)
    if isinstance(space, spaces.Box):
        return np.clip(value, space.low, space.high).astype(space.dtype)
    counts = getattr(space, 'nvec', getattr(space, 'n', 2))
    counts = 2 if isinstance(space, spaces.MultiBinary) else counts
    if (value != np.round(value)).any() or (value < 0).any() or (value >= counts).any():
        raise ValueError(f'action: {key!r} must be a choice of {space}, got {said!r:.80}')
    return value.astype(space.dtype)


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # whole numbers of JSON may be larger
