"""Any Gymnasium environment: gym_<Id> makes one by name, gym_<module>:<Id> first imports the module
that registers it, and from_gymnasium() wraps an existing one.

terminated becomes is_last with is_terminal, truncated only is_last. Nested observations and actions
become one flat dict with keys joined by '/'. A single observation is called 'image' if it is one,
else 'state'; a single action 'action'.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image

from ..base import FLAG, OUTCOME, REWARD, Env, Spaces, Values, outcome
from ..errors import ConfigError, EnvContractError
from ..pictures import picture
from ..wrappers import ActionRepeat, ReadImages, UnifyDtypes
from . import unknown
from .arguments import leave_out, needs, takes
from .ids import unknown_id
from .imports import demand, load_module
from .leaves import (
    UNSEEN,
    assemble,
    chosen,
    fixed,
    leaves,
    named,
    native,
    observe,
    observed_space,
    readable,
    renamed,
)

RENDERED = 64  # height and width of rendered frames if no size is given
OLD = (
    'It speaks the old Gym API: let reset(seed=None) return (observation, info) and step() '
    'return (observation, reward, '
    'terminated, truncated, info), or convert it with the package shimmy.'
)


@dataclasses.dataclass(frozen=True)
class GymConfig:
    """What can be set.

    Attributes:
      image: render the env (render_mode 'rgb_array') as observation 'image', where it observes
        none.
      size: height and width that images are resized to; 0 leaves observed ones as they are and
        renders 64.
      repeat: frames per decision, >= 1.
      vector: all envs of a worker are lanes of one vectorised env, see vectors.py.
    """

    image: bool
    size: int
    repeat: int
    vector: bool


def check(name: str, config: GymConfig) -> None:
    """Refuse what cannot be made, as far as possible without importing anything.

    Raises:
      ConfigError: unknown id, unknown module, or a value out of range.
    """
    check_values(config)
    module, _, identifier = name.rpartition(':')
    if module:
        demand(module, f'gym_{name}')
    elif identifier not in gymnasium.registry:
        raise ConfigError(unknown_id(identifier))


def check_values(config: GymConfig) -> None:
    """ConfigError for a value out of range."""
    if config.size < 0 or config.repeat < 1:
        raise ConfigError(
            f'env.gym.repeat must be at least 1 and env.gym.size at least 0, got {config.repeat} '
            f'and {config.size}.'
        )
    if config.vector and config.repeat > 1:
        raise ConfigError(
            f'env.gym.vector true steps all envs once per decision; env.gym.repeat must be 1 then,'
            f' got {config.repeat}.'
        )


def make(name: str, config: GymConfig, seed: int) -> Env:
    """The env gym_<name>, such as gym_CartPole-v1.

    Raises:
      ConfigError: unknown id, or the env cannot be made; says why.
    """
    check(name, config)
    module, _, identifier = name.rpartition(':')
    pooled = module == 'envpool'
    if pooled and not config.vector:
        raise ConfigError(f'gym_{name}: envpool steps many envs as one; say --env.gym.vector true')
    if module:
        imported = load_module(module, f'gym_{name}')
        if not pooled and identifier not in gymnasium.registry:
            raise ConfigError(
                unknown('id', identifier, list(gymnasium.registry), f' in the task gym_{name}')
            )
    render = {'render_mode': 'rgb_array'} if config.image else {}
    try:
        if pooled:
            from .pools import lane

            env = lane(imported, identifier, f'gym_{name}')
        elif config.vector:
            from .vectors import lane

            env = lane(identifier, render)
        else:
            # this module checks every step itself
            env = gymnasium.make(identifier, disable_env_checker=True, **render)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ConfigError(f'gym_{name} cannot be made: {error}') from error
    return repeated(
        from_gymnasium(env, seed=seed, image=config.image, size=config.size), config.repeat
    )


def repeated(env: Env, repeat: int) -> Env:
    """An env that takes each action `repeat` times."""
    return ActionRepeat(env, repeat) if repeat > 1 else env


def from_gymnasium(
    env: gymnasium.Env,
    seed: int = 0,
    image: bool = False,
    size: int = 0,
    logs: Sequence[str] = (),
) -> Env:
    """A gymnasium env as an Env.

    Args:
      env: its action Boxes must be bounded. Observations that are not numbers, such as texts, are
        left out with a note. One whose step takes several frames says so as `frames_per_step`.
      seed: passed to its first reset; later resets continue its generator.
      image: render it as the observation 'image' where it has none; needs render_mode 'rgb_array'.
      size: height and width that images are resized to; 0 leaves observed ones as they are and
        renders 64.
      logs: numbers of its info that become 'log/' keys of the rows, 0 where one is missing.

    Raises:
      EnvContractError: nothing to observe or to choose, or an action that cannot be chosen; names
        its key.
    """
    adapted = Gymnasium(env, seed, image, size or RENDERED, logs)
    return ReadImages(UnifyDtypes(adapted), size) if size else adapted


class Gymnasium(Env):
    """See from_gymnasium()."""

    def __init__(
        self, env: gymnasium.Env, seed: int, image: bool, size: int, logs: Sequence[str] = ()
    ):
        self._env, self._seed, self._size, self._notes, self._noted = env, seed, size, [], set()
        self._logs, self.repeat = logs, int(getattr(env, 'frames_per_step', 1))
        self.title, self._told = title(env), getattr(env, 'told', [])
        self._read_actions(env)
        self._read_observations(env)
        self._renders = image and not any(picture(leaf.space) for leaf in self._observed.values())
        if self._renders and getattr(env, 'render_mode', None) != 'rgb_array':
            raise EnvContractError(
                f"{self.title}: expected render_mode 'rgb_array' to observe images, got "
                f'{getattr(env, "render_mode", None)!r}'
            )
        if not self._observed and not self._renders:
            raise EnvContractError(
                f'{self.title}: there is nothing that an agent could observe in '
                f'{env.observation_space}; '
                'env.gym.image true renders it.'
            )
        self.obs_space: Spaces = observed_space(self._observed) | OUTCOME
        if self._renders:
            self._rendered = (
                'image' if 'image' not in {**self._observed, **self.act_space} else 'rendered'
            )
            self.obs_space[self._rendered] = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.obs_space |= {f'log/{name}': REWARD for name in logs}
        self._done, self._seeded = True, False
        inner = getattr(env, 'unwrapped', env)
        self._takes_seed = takes(env.reset, 'seed') and takes(inner.reset, 'seed')
        names = {each.name for each in needs(env.reset)}
        self._asked = dict.fromkeys(names & {'seed', 'options'})  # None, as Gymnasium hands them on
        if inner is not env:
            leave_out(inner, ('seed', 'options'))
        if not self._takes_seed:
            self._note(
                'seed',
                'reset() takes no seed: its episodes do not follow from the seed of the run.',
            )

    def _read_actions(self, env):
        """Which leaves of an action are chosen, and which take a fixed value."""
        self._action_space = bounded(env)
        found = leaves(self._action_space, f'{self.title}: action_space')
        self._fixed = {
            leaf.path: fixed(leaf.space) for leaf in found if isinstance(leaf.space, UNSEEN)
        }
        for leaf in found:
            if leaf.path in self._fixed:
                self._note(
                    f'fixed {leaf.path}',
                    f'action {"/".join(map(str, leaf.path))!r} is a '
                    f'{type(leaf.space).__name__}, which '
                    f'no agent here can choose: it is always {self._fixed[leaf.path]!r}.',
                )
        self._acted = named(
            [leaf for leaf in found if leaf.path not in self._fixed], 'action', 'act_'
        )
        self.act_space: Spaces = {'reset': FLAG}
        for key, leaf in self._acted.items():
            try:
                self.act_space[key] = chosen(leaf.space)
            except EnvContractError as error:
                raise EnvContractError(
                    f'{self.title}: the action {key!r} {error}. Its space is {leaf.space}.'
                ) from error
        if not self._acted:
            raise EnvContractError(
                f'{self.title}: there is no action to choose in {self._action_space}.'
            )
        self._note_names(self._acted, 'action')

    def _read_observations(self, env):
        """Which leaves of an observation are read, and which are left out."""
        found = leaves(getattr(env, 'observation_space', None), f'{self.title}: observation_space')
        if left := [leaf for leaf in found if not readable(leaf.space)]:
            words = ', '.join(
                f'{"/".join(map(str, leaf.path)) or "observation"} ({type(leaf.space).__name__})'
                for leaf in left
            )
            self._note(
                'left out', f'what no agent here can read is left out of the observation: {words}.'
            )
        single = 'image' if picture(env.observation_space) else 'state'
        self._observed = named(
            [leaf for leaf in found if readable(leaf.space)], single, 'obs_', self.act_space
        )
        self._note_names(self._observed, 'observation')

    def _note_names(self, names, what):
        for spelt, key in renamed(names).items():
            self._note(
                f'name {key}',
                f'{what} {spelt!r} is called {key!r}: its own name means something else in a '
                'row, or cannot be stored.',
            )

    def _note(self, topic, text):
        if topic not in self._noted:
            self._noted.add(topic)
            self._notes.append((topic, f'{self.title}: {text}'))

    def notes(self):
        notes, self._notes = self._notes, []
        told, self._told[:] = list(self._told), []
        return notes + told

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            return self._reset()
        inner = {leaf.path: native(leaf.space, action[key]) for key, leaf in self._acted.items()}
        result = self._env.step(assemble(self._action_space, self._fixed | inner))
        if not isinstance(result, tuple) or len(result) != 5:
            raise EnvContractError(
                f'{self.title}: step() returned {described(result)}, expected (observation, '
                'reward, terminated, truncated, info).'
                + (f' {OLD}' if isinstance(result, tuple) and len(result) == 4 else '')
            )
        obs, reward, terminated, truncated, info = result
        terminated, truncated = (
            self._single('terminated', terminated),
            self._single('truncated', truncated),
        )
        self._done = bool(terminated or truncated)
        return self._observe(
            obs,
            outcome(
                self._single('reward', reward), is_last=self._done, is_terminal=bool(terminated)
            ),
            info,
        )

    def _reset(self):
        seed = {} if self._seeded or not self._takes_seed else {'seed': self._seed % 2**32}
        result = self._env.reset(**self._asked | seed)
        pair = isinstance(result, tuple) and len(result) == 2
        if not pair or not isinstance(result[1], dict | None):
            came = f', the second a {described(result[1])} and no dict' if pair else ''
            raise EnvContractError(
                f'{self.title}: reset() returned {described(result)}{came}, expected (observation, '
                f'info). {OLD}'
            )
        self._done, self._seeded = False, True
        return self._observe(result[0], outcome(is_first=True), {})

    def _single(self, what, value):
        """A reward or flag as a number."""
        if isinstance(value, (bool, int, float)):
            return value
        try:
            array = np.asarray('None' if value is None else value, np.float64)
        except (TypeError, ValueError) as error:
            raise EnvContractError(
                f'{self.title}: {what} must be a number, got {value!r:.80}.'
            ) from error
        if array.size != 1:
            raise EnvContractError(
                f'{self.title}: {what} must be one number, got shape {array.shape}: give the env '
                'one of them, or their sum.'
            )
        if array.shape:
            self._note(
                f'shape {what}', f'{what} comes with shape {array.shape}; its one number is taken.'
            )
        return array.item()

    def _observe(self, obs, result: Values, info) -> Values:
        try:
            values = observe(self._observed, obs)
        except EnvContractError as error:
            raise EnvContractError(f'{self.title}: {error}') from error
        if self._renders:
            values[self._rendered] = self._render()
        logs = {
            f'log/{name}': np.float32(self._single(name, info.get(name, 0))) for name in self._logs
        }
        return {**values, **result, **logs}

    def _render(self):
        frame = np.asarray(self._env.render())
        if frame.dtype != np.uint8 or frame.ndim != 3:
            raise EnvContractError(
                f'{self.title}: render() must return uint8 (height, width, 3), got {frame.dtype} '
                f'{frame.shape}.'
            )
        frame = Image.fromarray(frame[..., :3])
        return np.array(frame.resize((self._size, self._size), Image.Resampling.BILINEAR))

    def close(self) -> None:
        if hasattr(self._env, 'close'):  # what only looks like a Gymnasium env may have none
            self._env.close()


def title(env: Any) -> str:
    """Name of an env in messages: its id, or its class."""
    spec = getattr(env, 'spec', None)
    return getattr(spec, 'id', None) or type(getattr(env, 'unwrapped', env)).__name__


def bounded(env: Any) -> spaces.Space | None:
    """The action space of an env. ClipAction declares no bounds; those that it clips to, of the
    env below it, hold.
    """
    space = getattr(env, 'action_space', None)
    while isinstance(env, gymnasium.Wrapper) and env.action_space == space:
        if isinstance(env, gymnasium.wrappers.ClipAction):
            space = env.env.action_space
        env = env.env
    return space


def described(result: Any) -> str:
    """What a method returned, in a few words."""
    if isinstance(result, tuple):
        return f'{len(result)} values'
    shape = f' of shape {result.shape}' if hasattr(result, 'shape') else ''
    return f'{type(result).__name__}{shape}'
