"""What the contract of base.py asks of spaces and values, in words: used where envs are wrapped and where they are checked."""

import numpy as np
from gymnasium import spaces

from .base import FLAG, OUTCOME, Env


def value_fault(space: spaces.Space, value) -> str | None:
    """What is wrong with value as a member of space, in words; None when it is one."""
    if not isinstance(value, (np.ndarray, np.generic)):
        return f'expected a numpy array or scalar, got {type(value).__name__}.'
    if value.dtype != space.dtype or value.shape != space.shape:
        return f'expected {space.dtype}{list(space.shape)}, got {value.dtype}{list(value.shape)}.'
    match space:
        case spaces.Box():
            if value.dtype.kind == 'b' or value.dtype == np.uint8 and space.low.min(initial=0) == 0 and space.high.min(initial=255) == 255:
                return None
            low, high = space.low, space.high
        case spaces.Discrete():
            low, high = space.start, space.start + space.n - 1
        case spaces.MultiDiscrete():
            low, high = space.start, space.start + space.nvec - 1
        case spaces.MultiBinary():
            low, high = 0, 1
        case _:
            return f'a space of the kind {type(space).__name__} is not supported.'
    if value.dtype.kind == 'f' and np.isnan(value).any():
        return f'expected numbers, got NaN in {preview(value)}.'
    if not ((low <= value) & (value <= high)).all():
        return f'expected values in {preview(low)} .. {preview(high)}, got {preview(value)}.'
    return None


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
    for name, space in obs_space.items():
        if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            faults.append(f'The observation {name!r} has the space {space}; flatten it to Box, Discrete, MultiDiscrete, MultiBinary.')
    for name, space in act_space.items():
        if name != 'reset' and (fault := action_fault(space)):
            faults.append(f'The action {name!r} has the space {space}; {fault}')
    return faults


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
