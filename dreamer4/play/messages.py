"""What a page may say, and that all else is refused in words."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

WHO = ('you', 'sample', 'mode', 'recorded')
LARGEST = 1 << 16  # bytes of a message


class MessageError(ValueError):
    """A message that is none, or asks for what there is not."""


def number(low: float, high: float) -> Callable[[Any], bool]:
    """Whether a value is a number in a range."""
    return lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and low <= x <= high


def whole(low: int, high: int) -> Callable[[Any], bool]:
    """Whether a value is an integer in a range."""
    return lambda x: isinstance(x, int) and not isinstance(x, bool) and low <= x <= high


def one_of(*words: str) -> Callable[[Any], bool]:
    """Whether a value is one of these words."""
    return lambda x: isinstance(x, str) and x in words


FLAG = lambda x: isinstance(x, bool)
NOISE = lambda x: x is None or number(0, 0.95)(x)
TIME = number(0, 1e15)  # of the page's own clock, ms
NODE = whole(0, 2**53)

# Who may say it -> its type -> its fields, all of which must be there.
PLAYER = {
    'act': {'action': lambda x: isinstance(x, dict), 'sent': TIME},
    'who': {'who': one_of(*WHO)},
    'play': {},
    'pause': {},
    'step': {},
    'speed': {'value': number(0, 1000)},
    'goto': {'node': NODE},
    'restart': {},
    'fresh': {},
    'begin': {'episode': NODE, 'frame': NODE},
    'settings': {
        'steps': whole(0, 1024),
        'mean': FLAG,
        'noise': NOISE,
        'seed': whole(0, 2**31 - 1),
        'samples': whole(0, 32),
        'auto': FLAG,
    },
    'record': {'on': FLAG},
    'save': {'what': one_of('rows', 'gif', 'mp4')},
    'leave': {},
    'latency': {'p50': number(0, 1e6), 'p95': number(0, 1e6)},
}
ANYBODY = {'claim': {}, 'starts': {'first': NODE}, 'frames': {'episode': NODE}}


def read(text: str | bytes) -> dict[str, Any]:
    """A message as a page sent it.

    Raises:
        MessageError: it is no JSON object of a known type with its fields.
    """
    try:
        if isinstance(text, bytes):
            raise ValueError('bytes')
        said = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise MessageError(f'a message must be JSON text, got {text[:60]!r}') from error
    if not isinstance(said, dict) or not isinstance(said.get('type'), str):
        raise MessageError(f"a message must be an object with a 'type', got {text[:60]!r}")
    known = PLAYER | ANYBODY
    if said['type'] not in known:
        raise MessageError(f'there is no message of type {said["type"]!r:.40}')
    _check(said, known[said['type']])
    return said


def _check(said: Mapping[str, Any], fields: Mapping[str, Callable[[Any], bool]]) -> None:
    for name, fits in fields.items():
        if name not in said or not fits(said[name]):
            got = repr(said[name])[:60] if name in said else 'nothing'
            raise MessageError(f'{said["type"]}: {name} does not fit, got {got}')
    if extra := sorted(said.keys() - fields.keys() - {'type'}):
        raise MessageError(f'{said["type"]}: there is no field {extra[0]!r:.40}')


def _refuse(constant: str) -> float:
    raise ValueError(constant)


def finite(value: float | None) -> float | None:
    """A number for JSON, which has none for what is not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)
