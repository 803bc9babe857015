"""Envs that can only be stepped together: what a group of envs and those of them that are lanes of
one vectorised env have to know of each other.

A lane is an Env like any other, but for one thing: step() raises NotYet until all lanes of its
vectorised env have been given their actions in this step. It is then asked again with the same
action.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any

_found: dict[Hashable, Any] | None = None  # of the group that is being built


class NotYet(Exception):  # noqa: N818 - nothing is wrong
    """Other lanes have not been given their actions yet."""


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Envs that are made meanwhile may share what they are lanes of."""
    global _found
    _found = {}
    try:
        yield
    finally:
        _found = None


def shared(key: Hashable, make: Callable[[], Any]) -> Any:
    """What the envs of a group that ask with one key share; made anew outside of a group."""
    if _found is None:
        return make()
    if key not in _found:
        _found[key] = make()
    return _found[key]
