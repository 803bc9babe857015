"""What one row of a replay is made of: key -> dtype and shape, checked where rows and files come
in.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ..base import is_image
from ..contract import valid_key
from ..errors import ReplaySchemaError

# What DreamerV3 stores beside the row: row ids, latents of its model, metrics.
FOREIGN_KEYS = ('stepid', 'reset')
FOREIGN_PREFIXES = ('log/', 'dyn/', 'enc/', 'dec/')

_SCALARS = {bool: 'b', int: 'iu', float: 'f'}


class Spec(NamedTuple):
    """One key of a row."""

    key: str
    dtype: np.dtype
    shape: tuple[int, ...]


class Schema:
    """Key -> dtype and shape of one row; keys in sorted order, so that equal schemas are equal
    column by column.

    Attributes:
      specs: of its keys.
      nbytes: bytes of one row.
    """

    def __init__(self, specs: Mapping[str, tuple[Any, tuple[int, ...]]], where: str):
        """Raises ReplaySchemaError, naming `where`, for a key or dtype that cannot be stored."""
        if not specs:
            raise ReplaySchemaError(f'{where}: a row needs at least one key.')
        self.specs = tuple(
            Spec(key, np.dtype(dtype), tuple(shape))
            for key, (dtype, shape) in sorted(specs.items())
        )
        for key, dtype, _shape in self.specs:
            if not valid_key(key):
                raise ReplaySchemaError(
                    f"{where}: {key!r} cannot be a key; plain names, nested with '/', can."
                )
            if dtype.kind not in 'biuf' or dtype.itemsize > 8 or not dtype.isnative:
                raise ReplaySchemaError(
                    f'{where}: {key!r} has dtype {dtype}; booleans, integers and floats up to 64'
                    ' bits are stored.'
                )
        self.nbytes = sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in self.specs)

    @classmethod
    def from_spaces(
        cls, obs_space: Mapping[str, spaces.Space], act_space: Mapping[str, spaces.Space]
    ) -> 'Schema':
        """Rows of an env: its observations without 'log/', its actions without 'reset'."""
        both = {**obs_space, **{key: space for key, space in act_space.items() if key != 'reset'}}
        return cls(
            {
                key: (space.dtype, space.shape)
                for key, space in both.items()
                if not key.startswith('log/')
            },
            'the env',
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> 'Schema':
        """Rows like this one."""
        values = {
            key: np.asarray(value) for key, value in row.items() if not key.startswith('log/')
        }
        return cls(
            {key: (value.dtype, value.shape) for key, value in values.items()}, 'the first row'
        )

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, tuple[np.dtype, tuple[int, ...]]], where: str
    ) -> 'Schema':
        """Rows of a chunk file that has such columns (length, *shape), without what only
        DreamerV3 stores.
        """
        return cls(
            {
                key: (dtype, shape[1:])
                for key, (dtype, shape) in columns.items()
                if shape and key not in FOREIGN_KEYS and not key.startswith(FOREIGN_PREFIXES)
            },
            where,
        )

    @property
    def images(self) -> dict[str, tuple[int, ...]]:
        """Key -> (height, width, channels) of the images of a row."""
        return {spec.key: spec.shape for spec in self.specs if is_image(spec)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.specs == other.specs

    def __contains__(self, key: str) -> bool:
        return any(key == name for name, _, _ in self.specs)

    def columns(self, length: int) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        """Key -> dtype and shape of the columns of a chunk of that many rows."""
        return {key: (dtype, (length, *shape)) for key, dtype, shape in self.specs}

    def check(self, row: Mapping[str, Any]) -> list[Any]:
        """The values of a row in the order of specs; 'log/' keys are dropped. Plain Python numbers
        fit any dtype of their kind.

        Raises:
          ReplaySchemaError: a key is missing or unknown, or a value has another dtype or shape.
        """
        values = []
        for key, dtype, shape in self.specs:
            value = row.get(key)
            try:
                fits = value.dtype == dtype and value.shape == shape
            except AttributeError:
                fits = shape == () and dtype.kind in _SCALARS.get(type(value), '')
            if not fits:
                raise ReplaySchemaError(self._misfit(row, key, dtype, shape))
            values.append(value)
        if len(row) != len(values):
            self._refuse_unknown(row)
        return values

    def compare(self, found: 'Schema', where: str, extra: bool = False) -> None:
        """Check that `found`, the rows of `where`, are like these.

        Args:
          found: the other schema.
          where: the folder or file, for the message.
          extra: whether further keys are allowed there.

        Raises:
          ReplaySchemaError: names the first key that is missing, unknown or different.
        """
        theirs = {key: (dtype, shape) for key, dtype, shape in found.specs}
        for key, dtype, shape in self.specs:
            if key not in theirs:
                raise ReplaySchemaError(
                    f'{where}: key {key!r} is missing; expected {dtype} {shape}, found'
                    f' {", ".join(theirs)}.'
                )
            if theirs[key] != (dtype, shape):
                raise ReplaySchemaError(
                    f'{where}: key {key!r}: expected {dtype} {shape}, found {theirs[key][0]}'
                    f' {theirs[key][1]}. Rows of different envs or sizes cannot share a replay;'
                    ' choose another folder.'
                )
        unknown = sorted(theirs.keys() - {key for key, _, _ in self.specs})
        if unknown and not extra:
            raise ReplaySchemaError(
                f'{where}: key {unknown[0]!r} is found there ({theirs[unknown[0]][0]}) but not'
                ' expected.'
            )

    def _misfit(
        self, row: Mapping[str, Any], key: str, dtype: np.dtype, shape: tuple[int, ...]
    ) -> str:
        if key not in row:
            return (
                f'Row lacks the key {key!r}: expected {dtype} {shape}; it has'
                f' {", ".join(map(repr, row))}.'
            )
        value = row[key]
        came = (
            f'{value.dtype} {value.shape}'
            if hasattr(value, 'dtype')
            else f'{type(value).__name__} {value!r:.80}'
        )
        return f'Row key {key!r}: expected {dtype} {shape}, got {came}.'

    def _refuse_unknown(self, row: Mapping[str, Any]) -> None:
        known = {key for key, _, _ in self.specs}
        unknown = [key for key in row if key not in known and not key.startswith('log/')]
        if unknown:
            raise ReplaySchemaError(
                f'Row has the unknown key {unknown[0]!r}; this replay stores'
                f' {", ".join(sorted(known))}.'
            )
