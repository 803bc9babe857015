"""What values a key takes, and how text becomes such a value."""

from dataclasses import dataclass
from typing import Any, Self

from ..errors import nearest
from ..yaml_tree import read_bool, read_number, shorten

Value = bool | int | float | str | tuple
SCALARS = (bool, int, float, str)


@dataclass(frozen=True)
class Kind:
    """What values a key takes.

    Attributes:
      options: 'bool', 'int', 'float', 'str', 'any', or words that stand for themselves; the first
          that fits, in the order bool to any.
      many: the value is a list of such.
    """

    options: tuple[str, ...]
    many: bool = False

    @classmethod
    def of(cls, default: Value, mark: str = '') -> Self:
        """The kind of a key with this default and, where its comment holds one, this mark
        ('auto|int').
        """
        if mark:
            return cls(tuple(mark.split('|')), many=isinstance(default, tuple))
        if isinstance(default, tuple):
            return cls((type(default[0]).__name__ if default else 'any',), many=True)
        return cls(('any' if default == 'auto' else type(default).__name__,))

    def __str__(self) -> str:
        return ('list of ' if self.many else '') + ' or '.join(self.options)

    def cast(self, value: Any) -> Value:
        """The value in the type of this key; strings are read as on the command line. ValueError
        where it does not fit.
        """
        if not self.many:
            return self._single(value)
        if isinstance(value, str):
            inner = value.strip().removeprefix('[').removesuffix(']')
            value = (
                [part.strip().strip('\'"') for part in inner.split(',')] if inner.strip() else []
            )
        if not isinstance(value, (list, tuple)):
            value = [value]
        return tuple(self._single(part) for part in value)

    def _single(self, value: Any) -> Value:
        if value in self.options and value not in _OPTIONS:
            return value
        for option, cast in _OPTIONS.items():
            if option in self.options:
                try:
                    return cast(value)
                except ValueError:
                    continue
        words = [option for option in self.options if option not in _OPTIONS]
        hint = f'; {nearest(value, words)}' if isinstance(value, str) and words else ''
        raise ValueError(f'expected {self}, got {shorten(value)}{hint}')


def _bool(value: Any) -> bool:
    if isinstance(value, str):
        return read_bool(value)
    if not isinstance(value, bool):
        raise ValueError
    return value


def _int(value: Any) -> int:
    value = _number(value)
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _number(value: Any) -> int | float:
    """A number, not yet converted, so that a whole one keeps all its digits."""
    if isinstance(value, str):
        return read_number(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise ValueError
    return value


def _str(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _any(value: Any) -> bool | int | float | str:
    """What YAML would read: the text true is a bool, 2 an int, 2.0 a float."""
    for cast in (_bool, _number, _str):
        try:
            return cast(value)
        except ValueError:
            continue
    raise ValueError


_OPTIONS = {
    'bool': _bool,
    'int': _int,
    'float': lambda value: float(_number(value)),
    'str': _str,
    'any': _any,
}
