"""Which arguments functions of others take: what makes an env, and its reset."""

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
REST = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# a lone argument is taken for a seed, unless its name says that it is something else
NO_SEED = re.compile('arg|cfg|conf|env|file|mode|name|option|param|path|setting|size|spec', re.I)


def parameters(function: Any) -> dict[str, inspect.Parameter] | None:
    """The parameters of a function; None where nobody can tell."""
    try:
        return dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return None


def takes(function: Any, name: str) -> bool:
    """Whether a function takes an argument of this name."""
    known = parameters(function)
    return (
        known is None
        or name in known
        or any(each.kind is each.VAR_KEYWORD for each in known.values())
    )


def needs(function: Any) -> list[inspect.Parameter]:
    """What a function cannot be called without."""
    known = (parameters(function) or {}).values()
    return [each for each in known if each.default is each.empty and each.kind not in REST]


def seed_among(needed: Sequence[inspect.Parameter]) -> inspect.Parameter | None:
    """The argument that a seed is given to by its place: a lone one that can be a number."""
    if len(needed) != 1 or needed[0].kind not in POSITIONAL:
        return None
    number = needed[0].annotation in (inspect.Parameter.empty, int, 'int')
    return needed[0] if number and not NO_SEED.search(needed[0].name) else None


def leave_out(env: Any, names: Sequence[str]) -> None:
    """Let the reset of an env pass over those arguments that it does not take: wrappers hand on
    all of them.
    """
    reset: Callable = env.reset
    unknown = {name for name in names if not takes(reset, name)}
    if unknown:
        env.reset = lambda **given: reset(
            **{key: value for key, value in given.items() if key not in unknown}
        )
