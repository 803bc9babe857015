"""Nested spaces as flat dictionaries and back: which leaves an agent can read or choose, their
names and their units.

Observations an agent cannot read (text, graphs, sequences) are left out; actions it cannot choose
take a fixed value.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import OUTCOME, UNLABELED, Spaces, Values
from ..contract import nonfinite, valid_key
from ..errors import EnvContractError, EnvNonFinite

LONGEST = 180  # characters of a key
MOST_CHOICES = 1 << 16  # of an integer in an action
# keys with another meaning in a row
RESERVED = (*OUTCOME, *UNLABELED, 'reset', 'row_id', 'stepid')
RESERVED_PREFIXES = ('log/', 'dyn/', 'enc/', 'dec/')
UNSEEN = (spaces.Text, spaces.Sequence)  # action spaces with an empty value


@dataclass(frozen=True)
class Leaf:
    """A space without subspaces.

    Attributes:
      path: keys and positions on the way to it.
      space: the space.
    """

    path: tuple
    space: spaces.Space

    def pick(self, value: Any) -> Any:
        """Its part of a value of the whole space. Raises KeyError, IndexError or TypeError if there
        is none.
        """
        for step in self.path:
            value = value[step]
        return value


def leaves(space: spaces.Space, what: str, path: tuple = ()) -> list[Leaf]:
    """All leaves of a space, in order; `what` it is, for the error.

    Raises:
      EnvContractError: not a Gymnasium space.
    """
    if not isinstance(space, spaces.Space):
        kind = f'{type(space).__module__}.{type(space).__qualname__}'
        hint = ' of the old package gym, which shimmy converts' if kind.startswith('gym.') else ''
        raise EnvContractError(f'{what}: expected a space of gymnasium.spaces, got {kind}{hint}.')
    match space:
        case spaces.Dict():
            inner = space.spaces.items()
        case spaces.Tuple():
            inner = enumerate(space.spaces)
        case _:
            return [Leaf(path, space)]
    return [leaf for key, child in inner for leaf in leaves(child, what, (*path, key))]


def named(
    found: Iterable[Leaf], single: str, prefix: str, taken: Iterable[str] = ()
) -> dict[str, Leaf]:
    """Leaves by valid row keys, distinct from each other and from keys already taken.

    Args:
      single: the key of a space that is no container.
      prefix: put before a key that has another meaning in a row, or is taken.
    """
    names, taken = {}, set(taken)
    for leaf in found:
        name = clean('/'.join(map(str, leaf.path))) if leaf.path else single
        if name in RESERVED or name.startswith(RESERVED_PREFIXES) or name in taken:
            name = f'{prefix}{name}'
        # an agent expects a task number under this key
        if name == 'task_id' and not isinstance(leaf.space, spaces.Discrete):
            name = f'{prefix}{name}'
        free, number = name, 2
        while free in names or free in taken:
            free, number = f'{name}_{number}', number + 1
        names[free] = leaf
    return names


def clean(name: str) -> str:
    """A name with '_' in place of characters that a row key cannot have."""
    plain = ''.join('_' if c in '\\:' or not c.isprintable() else c for c in name)[:LONGEST]
    plain = '/'.join(
        part if valid_key(part) else f'_{part}'.replace('.', '_') for part in plain.split('/')
    )
    assert valid_key(plain), name
    return plain


def renamed(names: Mapping[str, Leaf]) -> dict[str, str]:
    """Original spelling -> key, for the leaves where they differ."""
    spelt = {key: '/'.join(map(str, leaf.path)) for key, leaf in names.items() if leaf.path}
    return {name: key for key, name in spelt.items() if name != key}


def readable(space: spaces.Space) -> bool:
    """Whether an agent can observe a leaf."""
    if isinstance(space, spaces.Box):
        return space.dtype.kind in 'biuf' and 0 not in space.shape
    return isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary))


def chosen(space: spaces.Space) -> spaces.Space:
    """The space from which the agent chooses a leaf's action: integers count from 0.

    Raises:
      EnvContractError: there is none; says why.
    """
    if isinstance(space, spaces.Box) and space.dtype.kind in 'iub':
        counts = space.high.astype(object) - space.low.astype(object) + 1
        if space.dtype.kind == 'b':
            counts = np.full(space.shape, 2)
        if (most := max(np.ravel(counts), default=1)) > MOST_CHOICES:
            raise EnvContractError(
                f'an integer of it has {most:,} values, up to {MOST_CHOICES:,} can be chosen from'
            )
        return (
            spaces.MultiDiscrete(np.array(counts, np.int64))
            if space.shape
            else spaces.Discrete(int(counts))
        )
    if isinstance(space, spaces.Box) and not space.is_bounded():
        raise EnvContractError(
            'is unbounded; give its Box a finite low and high: '
            'gymnasium.wrappers.TransformAction(env, lambda action: action, spaces.Box(-1, 1, '
            f'{space.shape})) declares them'
        )
    if isinstance(space, spaces.Box) and space.dtype.kind != 'f' or not readable(space):
        raise EnvContractError('is no Box, Discrete, MultiDiscrete or MultiBinary, as expected')
    return counted(space)


def native(space: spaces.Space, value: Any) -> Any:
    """An action counted from 0 in the env's own units and dtype."""
    if isinstance(space, spaces.Discrete):
        return space.dtype.type(int(value) + int(space.start))
    if isinstance(space, spaces.MultiDiscrete):
        return (np.asarray(value) + space.start).astype(space.dtype)
    if isinstance(space, spaces.Box) and space.dtype.kind in 'iu':
        return (np.asarray(value, np.int64) + space.low.astype(np.int64)).astype(space.dtype)
    return np.asarray(value, space.dtype)


def fixed(space: spaces.Space) -> Any:
    """The fixed value of an action that cannot be chosen: the shortest text, an empty sequence."""
    if isinstance(space, spaces.Text):
        return (space.character_list or ('',))[0] * space.min_length
    return ()


def counted(space: spaces.Space) -> spaces.Space:
    """Discrete spaces counted from 0; others as they are."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec)
    return space


def count(space: spaces.Space, value: np.ndarray) -> np.ndarray:
    """An observation of a leaf; classes count from 0."""
    return (
        value - space.start if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) else value
    )


def assemble(space: spaces.Space, values: Mapping[tuple, Any], path: tuple = ()) -> Any:
    """A value of a nested space, from its leaves by path."""
    match space:
        case spaces.Dict():
            return {
                key: assemble(child, values, (*path, key)) for key, child in space.spaces.items()
            }
        case spaces.Tuple():
            return tuple(
                assemble(child, values, (*path, index)) for index, child in enumerate(space.spaces)
            )
    return values[path]


def as_array(key: str, space: spaces.Space, value: Any) -> np.ndarray:
    """An observed value as a new array in the dtype of its space; also in its shape if only axes of
    length one differ.

    Raises:
      EnvContractError: the array does not fit. EnvNonFinite: NaN or an infinity in place of an
        integer.
    """
    try:
        array = np.array(value)  # a copy: the env may keep writing to its own array
        if array.dtype.kind == 'c' or value is None and space.shape:
            raise TypeError('no real number')
        if array.dtype.kind not in 'biuf':
            # None in a list becomes NaN, which is refused by name; text raises
            array = array.astype(np.float64)
        if array.dtype.kind == 'f' and space.dtype.kind != 'f':
            if fault := nonfinite(array):
                raise EnvNonFinite(f'observation {key!r} is not finite: {fault}.')
            array = array.astype(np.int64) if (array == np.rint(array)).all() else array
        if array.dtype.kind in 'iu' and space.dtype.kind in 'iu' and array.dtype != space.dtype:
            array = np.clip(array, np.iinfo(space.dtype).min, np.iinfo(space.dtype).max)
        if array.dtype.kind != 'f' or space.dtype.kind == 'f':
            array = array.astype(space.dtype)
    except (TypeError, ValueError) as error:
        raise EnvContractError(
            f'observation {key!r}: expected {space.dtype}{list(space.shape)}, got '
            f'{value!r:.80} ({error})'
        ) from error
    if (
        array.shape != space.shape
        and array.size == math.prod(space.shape)
        and squeezed(array.shape) == squeezed(space.shape)
    ):
        return array.reshape(space.shape)
    return array


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def observe(names: Mapping[str, Leaf], value: Any) -> Values:
    """The leaves of an observed value by key.

    Raises:
      EnvContractError: a leaf is missing or not a number.
    """
    row = {}
    for key, leaf in names.items():
        try:
            part = leaf.pick(value)
        except (KeyError, IndexError, TypeError) as error:
            raise EnvContractError(
                f'observation {key!r} is missing in what the env returned: {value!r:.120}'
            ) from error
        row[key] = count(leaf.space, as_array(key, leaf.space, part))
    return row


def observed_space(names: Mapping[str, Leaf]) -> Spaces:
    """The spaces of observe()."""
    return {key: counted(leaf.space) for key, leaf in names.items()}
