"""What the contract of base.py asks of spaces and values, in words: used where envs are wrapped and
where they are checked.
"""

import numpy as np
from gymnasium import spaces

from .base import FLAG, OUTCOME, Env, Spaces
from .errors import EnvContractError, EnvNonFinite

RESERVED = ('row_id', 'stepid')  # columns that the replay adds


class Guard:
    """Holds observations against their spaces: what no agent could read raises, what leaves its
    declared box is noted.

    Attributes:
      notes: (topic, sentence) of what was noted and not yet taken; one for each key.
    """

    def __init__(self, observed: Spaces, name: str, fate: str = 'used as it is'):
        """Args: the spaces by key; the env's name, and what happens to a value beyond its box, for
        messages.
        """
        self.notes: list[tuple[str, str]] = []
        self._spaces, self._name, self._fate = observed, name, fate
        boxes = {key: space for key, space in observed.items() if isinstance(space, spaces.Box)}
        self._finite = {
            key
            for key, space in boxes.items()
            if space.dtype.kind == 'f' and not key.startswith('log/')
        }
        self._bounded = {key for key, space in boxes.items() if is_tight(space)}
        self._forms = {key: (space.dtype, space.shape) for key, space in boxes.items()}

    def __call__(self, key: str, value) -> None:
        """Check one value.

        Raises:
          EnvContractError: it has another dtype or shape, or is no class of its space.
          EnvNonFinite: it holds NaN or an infinity. Keys 'log/' may: no agent reads them.
        """
        space = self._spaces[key]
        form = (getattr(value, 'dtype', None), getattr(value, 'shape', None))
        if form != self._forms.get(key) and (fault := value_fault(space, value)):
            raise EnvContractError(f'{self._name}: observation {key!r}: {fault}')
        if key in self._finite and (fault := nonfinite(value)):
            raise EnvNonFinite(f'{self._name}: {spoken(key)} is not finite: {fault}.')
        if key in self._bounded and (fault := beyond(space, value)):
            self._bounded.discard(key)
            self.notes.append(
                (
                    f'bounds {key}',
                    (
                        f'{self._name}: {spoken(key)} leaves its declared box: {fault} '
                        f'It is {self._fate}, and not reported again.'
                    ),
                )
            )

    def take(self) -> list[tuple[str, str]]:
        """The notes, which are forgotten."""
        taken, self.notes = self.notes, []
        return taken


def spoken(key: str) -> str:
    """What to call a key of an observation in a sentence."""
    return 'the reward' if key == 'reward' else f'observation {key!r}'


def is_tight(space: spaces.Box) -> bool:
    """Whether values of its dtype can lie outside of a box."""
    if space.dtype.kind == 'b':
        return False
    if space.dtype.kind == 'f':
        return bool(np.isfinite(space.low).any() or np.isfinite(space.high).any())
    limits = np.iinfo(space.dtype)
    return bool((space.low > limits.min).any() or (space.high < limits.max).any())


def value_fault(space: spaces.Space, value) -> str | None:
    """Why value cannot be read as a member of space, in words; None when it can. The bounds of a
    Box do not matter here.
    """
    if not isinstance(value, (np.ndarray, np.generic)):
        return f'expected a numpy array or scalar, got {type(value).__name__}.'
    if value.dtype != space.dtype or value.shape != space.shape:
        return f'expected {space.dtype}{list(space.shape)}, got {value.dtype}{list(value.shape)}.'
    match space:
        case spaces.Box():
            return None
        case spaces.Discrete():
            low, high = space.start, space.start + space.n - 1
        case spaces.MultiDiscrete():
            low, high = space.start, space.start + space.nvec - 1
        case spaces.MultiBinary():
            low, high = 0, 1
        case _:
            return f'a space of the kind {type(space).__name__} is not supported.'
    if not ((low <= value) & (value <= high)).all():
        return f'expected values in {preview(low)} .. {preview(high)}, got {preview(value)}.'
    return None


def action_value_fault(space: spaces.Space, value) -> str | None:
    """Why value is no action of space, in words; None when it is one."""
    if fault := value_fault(space, value):
        return fault
    if not isinstance(space, spaces.Box):
        return None
    return value.dtype.kind == 'f' and nonfinite(value) or beyond(space, value)


def nonfinite(value) -> str | None:
    """Where a float array or number is NaN or infinite, in words; None where it nowhere is."""
    finite = np.isfinite(value)
    # twice as fast as finite.all()
    if finite if finite.shape == () else np.logical_and.reduce(finite, axis=None):
        return None
    value, places = np.asarray(value), np.argwhere(~finite)
    text = str(value[tuple(places[0])])
    if value.ndim:
        text += f' at {places[0].tolist()}'
    return text + (
        f' and {len(places) - 1} more of {value.size} entries' if len(places) > 1 else ''
    )


def beyond(space: spaces.Box, value) -> str | None:
    """How a value leaves its box, in words; None where it does not."""
    outside = (value < space.low) | (value > space.high)
    if not np.logical_or.reduce(outside, axis=None):
        return None
    place = tuple(np.argwhere(outside)[0])
    return (
        f'{np.asarray(value)[place]} '
        f'came{f" at {[int(index) for index in place]}" if place else ""}, '
        f'{space.low[place]} .. {space.high[place]} was declared.'
    )


def preview(value) -> str:
    """A value short enough for one line."""
    value = np.asarray(value)
    if value.size and (value == value.flat[0]).all():
        return str(value.flat[0])
    return np.array2string(value, threshold=8, precision=6, separator=', ').replace('\n', '')


def space_faults(env: Env) -> list[str]:
    """What the spaces of an env lack of the contract of Env, one sentence each."""
    obs_space, act_space = env.obs_space, env.act_space
    faults = []
    for name, expected in OUTCOME.items():
        if obs_space.get(name) != expected:
            faults.append(f'obs_space[{name!r}] must be {expected}, it is {obs_space.get(name)}.')
    if act_space.get('reset') != FLAG:
        faults.append(f"act_space['reset'] must be {FLAG}, it is {act_space.get('reset')}.")
    if not act_space.keys() - {'reset'}:
        faults.append("act_space has no action beside 'reset'.")
    if both := sorted(obs_space.keys() & act_space.keys()):
        faults.append(f'{both} are both observations and actions.')
    for name in [*obs_space, *act_space]:
        if not valid_key(name) or name in RESERVED:
            faults.append(
                f'{name!r} cannot be a key: it means something else in a row, or cannot be '
                'stored; rename it.'
            )
    for name, space in obs_space.items():
        if not isinstance(
            space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        ):
            faults.append(
                f'The observation {name!r} has the space {space}; flatten it to Box, Discrete, '
                'MultiDiscrete, MultiBinary.'
            )
    for name, space in act_space.items():
        if name != 'reset' and (fault := action_fault(space)):
            faults.append(f'The action {name!r} has the space {space}; {fault}')
    return faults


def valid_key(key: str) -> bool:
    """Whether a column may be called this: plain names, nested with '/', that no tool could
    extract outside of its folder.
    """
    parts = key.split('/')
    plain = all(
        part.strip() and part not in ('.', '..') and '\\' not in part and ':' not in part
        for part in parts
    )
    return plain and key.isprintable() and len(key) <= 200


def action_fault(space: spaces.Space) -> str | None:
    """Why the space cannot be an action, in words; None when it can."""
    match space:
        case spaces.Box() if space.dtype.kind == 'f':
            finite = np.isfinite(space.low).all() and np.isfinite(space.high).all()
            return None if finite else 'a Box action needs finite bounds.'
        case spaces.Discrete() | spaces.MultiDiscrete():
            return 'it must count from 0.' if np.any(space.start) else None
        case spaces.MultiBinary():
            return None
    return 'an action is a float Box, Discrete, MultiDiscrete or MultiBinary.'
