"""Envs that are vectorised themselves, as gymnasium.make_vec makes them: every env of a worker is a
lane of one of them, and one call of its step() steps them all.

An episode that has ended begins anew as Gymnasium 1.x says it does (AutoresetMode):

    next step    the call after the end ignores the action and returns the first observation, which
                 is just how rows are ordered here
    same step    the call at the end returns the first observation of the next episode, and the last
    disabled     one aside; or nobody begins anew. In both the vectorised env cannot leave a lane
                 alone while its first row is handed out, so that an episode begins after one action
                 of zeros, of which a note tells. No last observation is lost.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from ..errors import EnvError
from ..together import NotYet, shared

RESET = object()  # in place of an action


class Lanes:
    """A vectorised env and its lanes, which is made when they all are known.

    Args:
      make: number of lanes -> the vectorised env. Made with one lane first, for its spaces.
      title: for messages.
    """

    def __init__(self, make, title: str):
        self._make, self.title = make, title
        self.lanes: list[Lane] = []
        self._env: VectorEnv | None = None
        with_one = make(1)
        self.observation_space = with_one.single_observation_space
        self.action_space = with_one.single_action_space
        self.metadata, self.render_mode = with_one.metadata, with_one.render_mode
        with_one.close()
        self._offers: dict[int, Any] = {}
        self._answers: dict[int, tuple] = {}
        self._done = np.zeros(0, bool)
        self._frames = None

    def join(self, lane: 'Lane') -> int:
        """The number of a further lane."""
        if self._env is not None:
            raise EnvError(
                f'{self.title}: lanes cannot join a vectorised env that is being stepped.'
            )
        self.lanes.append(lane)
        return len(self.lanes) - 1

    def take(self, lane: int, offer: Any) -> tuple:
        """(observation, reward, terminated, truncated) of a lane.

        Args:
          offer: its action, or RESET.

        Raises:
          NotYet: other lanes have not been given theirs; ask again.
        """
        if lane not in self._answers:
            self._offers[lane] = offer
            if len(self._offers) < len(self.lanes):
                raise NotYet
            self._advance()
        return self._answers.pop(lane)

    def frames(self) -> tuple:
        """The rendered frames of all lanes."""
        if self._frames is None:
            self._frames = tuple(self._env.render())
        return self._frames

    def close(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def _advance(self) -> None:
        """Step, or begin, with all offers; their answers are kept."""
        offers, self._offers, self._frames = self._offers, {}, None
        resets = np.array([offers[lane] is RESET for lane in range(len(self.lanes))])
        if self._env is None:
            self._env = self._make(len(self.lanes))
        if resets.all():
            none = np.zeros(len(resets), bool)
            self._keep(self._begin(), np.zeros(len(resets)), none, none, {})
            return
        mode = mode_of(self._env)
        forced = resets & ~(self._done & (mode is not AutoresetMode.DISABLED))
        if forced.any():
            self._begin_some(forced)
        fresh = resets & (forced | (mode is not AutoresetMode.NEXT_STEP))
        actions = [
            zero(self.action_space) if resets[lane] else offers[lane] for lane in range(len(resets))
        ]
        space, count = self.action_space, len(actions)
        batch = concatenate(space, actions, create_empty_array(space, count))
        found, reward, terminated, truncated, info = self._env.step(batch)
        ended = np.asarray(terminated | truncated, bool) & fresh
        if ended.any() and mode is not AutoresetMode.SAME_STEP:
            raise EnvError(
                f'{self.title}: an episode ended with the action of zeros that it begins with, as'
                f' its vectorised env ({mode.value}) cannot leave a lane alone that begins anew.'
            )
        if fresh.any():
            self.lanes[int(np.flatnonzero(fresh)[0])].note_zero()
        still = ~resets
        self._keep(found, reward * still, terminated & still, truncated & still, info)

    def _begin(self) -> Any:
        """The first observations of all lanes."""
        seeds = [lane.seed for lane in self.lanes]
        for lane in self.lanes:
            lane.seed = None
        if seeds[0] is None:
            return self._env.reset()[0]
        partly = takes_masks(self._env)  # others take one seed for all
        return self._env.reset(seed=seeds if partly else int(seeds[0]))[0]

    def _begin_some(self, forced: np.ndarray) -> None:
        if not takes_masks(self._env):
            raise EnvError(
                f'{self.title}: {type(self._env.unwrapped).__name__} cannot begin anew in some of'
                ' its envs before their episodes end; raise eval.length, or leave'
                ' env.gym.vector false.'
            )
        self._env.reset(options={'reset_mask': forced})

    def _keep(self, found, reward, terminated, truncated, info) -> None:
        """Keep the answers of all lanes; where an env has already begun anew, with the last
        observation that it put aside.
        """
        last = info.get('final_obs', info.get('final_observation'))
        parts = [copied(part) for part in iterate(self._env.observation_space, found)]
        self._done = np.asarray(terminated | truncated, bool)
        for lane, part in enumerate(parts):
            if self._done[lane] and last is not None and last[lane] is not None:
                part = copied(last[lane])
            flags = bool(terminated[lane]), bool(truncated[lane])
            self._answers[lane] = part, float(reward[lane]), *flags


class Lane(gymnasium.Env):
    """One env of a vectorised one, as a Gymnasium env whose step() and reset() may raise NotYet."""

    def __init__(self, lanes: Lanes):
        self.observation_space, self.action_space = lanes.observation_space, lanes.action_space
        self.metadata, self.render_mode = lanes.metadata, lanes.render_mode
        self.seed, self._lanes, self._number = None, lanes, lanes.join(self)
        self.told = []

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        return self._lanes.take(self._number, RESET)[0], {}

    def step(self, action):
        return *self._lanes.take(self._number, action), {}

    def render(self):
        return self._lanes.frames()[self._number]

    def close(self):
        self._lanes.close()

    def note_zero(self) -> None:
        """An episode begins with an action of zeros."""
        title = self._lanes.title
        self.told.append(
            (
                'zero action',
                f'{title}: an episode begins after one action of zeros, where the vectorised env'
                ' does not begin anew by itself in the next step.',
            )
        )


def lane(identifier: str, render: dict) -> Lane:
    """One of the envs that gymnasium.make_vec makes, those of a worker being made together."""
    make = lambda count: gymnasium.make_vec(identifier, count, **render)
    key = identifier, tuple(render)
    return Lane(shared(key, lambda: Lanes(make, identifier)))


def mode_of(env: VectorEnv) -> AutoresetMode:
    """When an env begins anew; the next step where it does not say."""
    told = env.metadata.get('autoreset_mode', AutoresetMode.NEXT_STEP)
    return told if isinstance(told, AutoresetMode) else AutoresetMode(told)


def takes_masks(env: VectorEnv) -> bool:
    """Whether reset() may begin anew in some of the envs, and takes a seed for each."""
    return isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))


def zero(space: gymnasium.Space) -> Any:
    """The action of zeros, or what is nearest to it."""
    return next(iter(iterate(batch_space(space, 1), create_empty_array(space, 1))))


def copied(value: Any) -> Any:
    """A nested observation whose arrays nobody writes to."""
    if isinstance(value, dict):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(copied(each) for each in value)
    return np.array(value) if isinstance(value, (np.ndarray, np.generic)) else value
