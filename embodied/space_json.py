"""Spaces as JSON and back."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from .errors import EmbodiedError
from .tasks import TaskId

LARGEST = 2**31  # entries of a space
DTYPES = {
    name: np.dtype(name)
    for name in (
        'bool',
        'int8',
        'int16',
        'int32',
        'int64',
        'uint8',
        'uint16',
        'uint32',
        'uint64',
        'float16',
        'float32',
        'float64',
    )
}


def shape_of(numbers: list, largest: int = LARGEST) -> tuple[int, ...]:
    """A shape out of JSON. Raises ValueError: it is none, or has more than `largest` entries."""
    if not all(isinstance(number, int) and 0 <= number < 2**31 for number in numbers):
        raise ValueError(f'{numbers} is not a shape')
    if math.prod(numbers) > largest:
        raise ValueError(f'{numbers} is too large')
    return tuple(numbers)


def encode_space(space: spaces.Space) -> dict[str, Any]:
    """A space as JSON. Raises EmbodiedError: it is of another kind."""
    kind = type(space).__name__
    spec = {'kind': kind, 'dtype': space.dtype.name, 'shape': list(space.shape)}
    if isinstance(space, spaces.Box):
        return spec | {'low': _encode_bound(space.low), 'high': _encode_bound(space.high)}
    if isinstance(space, TaskId):
        return spec | _encode_tasks(space)
    if isinstance(space, spaces.Discrete):
        return spec | {'n': int(space.n), 'start': int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return spec | {'nvec': space.nvec.tolist(), 'start': space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return spec
    raise EmbodiedError(
        f'A {kind} space cannot be stored; Box, Discrete, MultiDiscrete and MultiBinary can.'
    )


def _encode_tasks(space: TaskId) -> dict[str, Any]:
    encode = lambda all_: [{key: encode_space(each[key]) for key in each} for each in all_]
    return {
        'names': list(space.names),
        'observes': encode(space.obs_spaces),
        'acts': encode(space.act_spaces),
        'repeats': list(space.repeats),
        'text': None if space.text is None else space.text.tolist(),
    }


def _decode_tasks(spec: Mapping[str, Any], largest: int) -> TaskId:
    decode = lambda all_: [
        {key: decode_space(own, largest) for key, own in each.items()} for each in all_
    ]
    lists = spec['names'], decode(spec['observes']), decode(spec['acts']), spec['repeats']
    if len({len(each) for each in lists}) > 1 or not all(isinstance(n, str) for n in lists[0]):
        raise ValueError('the lists of a TaskId differ in length')
    text = None if spec['text'] is None else np.array(spec['text'], np.float32)
    return TaskId(*lists, text)


def _encode_bound(bound: np.ndarray) -> Any:
    """One number where all are equal, else nested lists; infinities as text, which JSON has no
    numbers for.
    """
    values = (
        bound.reshape(-1)[:1].tolist()
        if bound.size and (bound == bound.flat[0]).all()
        else bound.reshape(-1).tolist()
    )
    values = [value if np.isfinite(value) else str(value) for value in values]
    return values[0] if len(values) == 1 else values


def decode_space(spec: Mapping[str, Any], largest: int = LARGEST) -> spaces.Space:
    """A space out of JSON, of at most `largest` entries.

    Raises:
      AssertionError, KeyError, OverflowError, TypeError, ValueError: it is none.
    """
    dtype, shape = DTYPES[spec['dtype']], shape_of(spec['shape'], largest)
    match spec['kind']:
        case 'Box':
            low, high = (_decode_bound(spec[name], dtype, shape) for name in ('low', 'high'))
            return spaces.Box(low, high, shape, dtype.type)
        case 'TaskId':
            return _decode_tasks(spec, largest)
        case 'Discrete':
            space = spaces.Discrete(spec['n'], start=spec['start'], dtype=dtype.type)
        case 'MultiDiscrete':
            space = spaces.MultiDiscrete(
                np.array(spec['nvec'], dtype),
                dtype=dtype.type,
                start=np.array(spec['start'], dtype),
            )
        case 'MultiBinary':
            space = spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
        case kind:
            raise ValueError(f'unknown kind of space {kind!r}')
    # UnifyDtypes narrows the dtype of spaces whose constructors do not offer that.
    space.dtype = dtype
    return space


def _decode_bound(values: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    parsed = [
        float(value) if isinstance(value, str) else value
        for value in (values if isinstance(values, list) else [values])
    ]
    array = np.array(parsed, dtype)
    return np.full(shape, array[0], dtype) if array.size == 1 else array.reshape(shape)
