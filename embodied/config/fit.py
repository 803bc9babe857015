"""Values of the tree as fields of a dataclass."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any


def fit(value: Any, hint: Any) -> Any:
    """The value as a field with this type hint holds it. ValueError where it does not fit."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return value.build(hint)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(value, arguments)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError
        return value
    if (origin or hint) in (tuple, list) and isinstance(value, tuple):
        return _fit_list(value, origin or hint, arguments)
    if (
        isinstance(origin or hint, type)
        and issubclass(origin or hint, Mapping)
        and isinstance(value, Mapping)
    ):
        return value.to_dict() if (origin or hint) is dict else value
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is hint:
        return value
    raise ValueError


def _fit_union(value: Any, hints: tuple) -> Any:
    if type(value) in hints:
        return value
    for hint in hints:
        try:
            return fit(value, hint)
        except ValueError:
            continue
    raise ValueError


def _fit_list(value: tuple, container: type, hints: tuple) -> Any:
    if not hints:
        return container(value)
    if container is list or hints[-1] is Ellipsis:
        hints = hints[:1] * len(value)
    if len(hints) != len(value):
        raise ValueError
    return container(fit(part, hint) for part, hint in zip(value, hints))


def hint_name(hint: Any) -> str:
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace('typing.', '')
    )
