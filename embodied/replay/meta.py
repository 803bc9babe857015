"""meta.json of a replay folder: what a row is, the spaces of the env, and facts about the run, so
that an agent can be built from a replay folder alone.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from ..errors import ReplaySchemaError
from ..files import open_regular
from .schema import Schema

VERSION = 1
FILENAME = 'meta.json'


def encode(
    schema: Schema, obs_space: Mapping | None, act_space: Mapping | None, meta: Mapping
) -> bytes:
    """The text of meta.json."""
    content = {
        'version': VERSION,
        'keys': {
            key: {'dtype': dtype.name, 'shape': list(shape)} for key, dtype, shape in schema.specs
        },
        'obs_space': obs_space and {key: _encode_space(space) for key, space in obs_space.items()},
        'act_space': act_space and {key: _encode_space(space) for key, space in act_space.items()},
        'meta': dict(meta),
    }
    return (json.dumps(content, indent=1) + '\n').encode()


def read(directory: os.PathLike) -> tuple[Schema, dict | None, dict | None, dict] | None:
    """Schema, obs_space, act_space and meta of a replay folder; None where it has no meta.json, as
    DreamerV3's have none.

    Raises:
      ReplaySchemaError: meta.json is damaged or of another version.
    """
    path = Path(directory) / FILENAME
    try:
        with open_regular(path) as file:
            content = json.loads(file.read(1 << 24))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ReplaySchemaError(f'{path}: cannot be read: {error}.') from error
    try:
        if content['version'] != VERSION:
            raise ReplaySchemaError(
                f'{path}: expected version {VERSION}, found {content["version"]!r}.'
            )
        keys = {
            key: (_DTYPES[spec['dtype']], _shape(spec['shape']))
            for key, spec in content['keys'].items()
        }
        obs_space, act_space = (
            content[name] and {key: _decode_space(spec) for key, spec in content[name].items()}
            for name in ('obs_space', 'act_space')
        )
        return Schema(keys, str(path)), obs_space, act_space, dict(content['meta'])
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        AssertionError,
    ) as error:
        raise ReplaySchemaError(f'{path}: is damaged: {type(error).__name__}: {error}.') from error


_DTYPES = {
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


def _shape(numbers: list) -> tuple[int, ...]:
    if not all(isinstance(number, int) and 0 <= number < 2**31 for number in numbers):
        raise ValueError(f'{numbers} is not a shape')
    if math.prod(numbers) > 2**31:
        raise ValueError(f'{numbers} is too large')
    return tuple(numbers)


def _encode_space(space: spaces.Space) -> dict[str, Any]:
    kind = type(space).__name__
    spec = {'kind': kind, 'dtype': space.dtype.name, 'shape': list(space.shape)}
    if isinstance(space, spaces.Box):
        return spec | {'low': _encode_bound(space.low), 'high': _encode_bound(space.high)}
    if isinstance(space, spaces.Discrete):
        return spec | {'n': int(space.n), 'start': int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return spec | {'nvec': space.nvec.tolist(), 'start': space.start.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return spec
    raise ReplaySchemaError(
        f'A {kind} space cannot be stored; Box, Discrete, MultiDiscrete and MultiBinary can.'
    )


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


def _decode_space(spec: Mapping[str, Any]) -> spaces.Space:
    dtype, shape = _DTYPES[spec['dtype']], _shape(spec['shape'])
    match spec['kind']:
        case 'Box':
            low, high = (_decode_bound(spec[name], dtype, shape) for name in ('low', 'high'))
            return spaces.Box(low, high, shape, dtype.type)
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
