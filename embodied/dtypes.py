"""The dtypes that values have outside of an env: float32, int32, uint8 and bool."""

import numpy as np
from gymnasium import spaces

from .errors import EnvContractError


def unified(space: spaces.Space) -> spaces.Space:
    """The same space in float32, int32, uint8 or bool."""
    match space:
        case spaces.Box() if space.dtype.kind == 'f':
            with np.errstate(over='ignore'):  # float64 bounds beyond float32 become infinite
                return spaces.Box(
                    space.low.astype(np.float32),
                    space.high.astype(np.float32),
                    space.shape,
                    np.float32,
                )
        case spaces.Box() if space.dtype.kind in 'iu' and space.dtype != np.uint8:
            bounds = np.iinfo(np.int32)
            low, high = (
                np.clip(bound, bounds.min, bounds.max) for bound in (space.low, space.high)
            )
            return spaces.Box(low.astype(np.int32), high.astype(np.int32), space.shape, np.int32)
        case spaces.Discrete():
            return spaces.Discrete(space.n, start=space.start, dtype=np.int32)
        case spaces.MultiDiscrete():
            return spaces.MultiDiscrete(space.nvec, np.int32, start=space.start)
    return space


def cast(name: str, value, dtype: np.dtype | None) -> np.ndarray:
    """A value as an array, in `dtype` where that is another size of its kind, or floats where
    integers came; what is of another kind stays as it is, for CheckSpaces to refuse.

    Raises:
      EnvContractError: integers that do not fit; names the key.
    """
    value = np.asarray(value)
    if dtype is None or value.dtype == dtype:
        return value
    if dtype.kind == 'f' and value.dtype.kind in 'fiu':
        with np.errstate(over='ignore'):  # what float32 cannot hold is found not to be finite
            return value.astype(dtype)
    if value.dtype.kind in 'iu' and dtype.kind in 'iu':
        result = value.astype(dtype)
        if not np.array_equal(result, value):
            raise EnvContractError(f'{name!r} does not fit {dtype}: {value}')
        return result
    return value
