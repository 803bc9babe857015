"""Several frames of a picture in one observation, so that one look tells how things move."""

import numpy as np
from gymnasium import spaces

from .base import Env, Values
from .wrappers import Wrapper


class StackFrames(Wrapper):
    """Stacks the last frames of pictures along the channels, the newest last (Mnih et al. 2015).

    An episode begins with its first frame as often as needed.
    """

    def __init__(self, env: Env, frames: int, keys: tuple[str, ...]):
        """Args: frames: of a stack, at least 1. keys: observations, Box (H, W, C) each."""
        super().__init__(env)
        if frames < 1:
            raise ValueError(f'A stack holds at least 1 frame, got {frames}.')
        self._frames, self._past = frames, dict.fromkeys(keys)
        self._obs_space = env.obs_space | {key: self._stacked(env.obs_space[key]) for key in keys}

    def _stacked(self, space: spaces.Box) -> spaces.Box:
        low, high = (
            np.concatenate([bound] * self._frames, -1) for bound in (space.low, space.high)
        )
        return spaces.Box(low, high, dtype=space.dtype.type)

    @property
    def obs_space(self):
        return self._obs_space

    def step(self, action: Values) -> Values:
        obs = self.env.step(action)
        for key in self._past:
            past = [obs[key]] * self._frames if obs['is_first'] else self._past[key]
            self._past[key] = [*past[1:], obs[key]]
        return obs | {key: np.concatenate(past, -1) for key, past in self._past.items()}

    def save(self):
        inner = self.env.save()
        return None if inner is None else {'past': dict(self._past), 'env': inner}

    def load(self, state):
        self.env.load(state['env'])
        self._past = dict(state['past'])
