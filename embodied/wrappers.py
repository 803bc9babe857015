"""Envs around an env. wrap() gives every env the same face: actions in [-1, 1] or counted from 0,
float32, int32, uint8 and bool, pictures as uint8 (height, width, channels), checked at every step.
TimeLimit and ActionRepeat are for those who build an env of their own.
"""

import math

import numpy as np
from gymnasium import spaces

from .base import OUTCOME, Env, Values
from .contract import Guard, action_value_fault, preview, space_faults
from .dtypes import cast, unified
from .errors import EnvContractError
from .pictures import LARGE_PICTURE, LARGE_VECTOR, picture, reading, resize


def wrap(env: Env) -> Env:
    """The chain that the driver expects around every env; embodied.envs.make() applies it.

    Outside, Box actions are float32 in [-1, 1] (what lies beyond is clipped), other floats float32,
    integers int32 (a MultiBinary stays int8, the dtype of its space), pictures uint8 (H, W, C),
    flags bool; what no agent could read raises EnvContractError, what is not finite EnvNonFinite,
    and what leaves its declared box is noted.
    """
    return ClipAction(CheckSpaces(ReadImages(UnifyDtypes(NormalizeAction(env)))))


class Wrapper(Env):
    """Passes everything on to the env inside; public attributes that it does not have are looked
    up there.
    """

    def __init__(self, env: Env):
        self.env = env

    @property
    def obs_space(self):
        return self.env.obs_space

    @property
    def act_space(self):
        return self.env.act_space

    @property
    def repeat(self):
        return self.env.repeat

    def step(self, action: Values) -> Values:
        return self.env.step(action)

    def save(self) -> Values | None:
        return self.env.save()

    def load(self, state: Values) -> None:
        self.env.load(state)

    def notes(self) -> list[tuple[str, str]]:
        return self.env.notes()

    def close(self) -> None:
        self.env.close()

    def __getattr__(self, name):
        # Reached only for what is not found in the usual way. 'env' itself is missing while an
        # instance is unpickled.
        if name.startswith('_') or name == 'env':
            raise AttributeError(f'{type(self).__name__} has no attribute {name!r}')
        return getattr(self.env, name)


class NormalizeAction(Wrapper):
    """Maps [-1, 1] to the bounds of each float Box action.

    Raises:
      EnvContractError: a Box action without finite bounds, of which no policy could cover the
          range.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        boxes = {name: space for name, space in env.act_space.items() if is_float_box(space)}
        for name, space in boxes.items():
            if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
                raise EnvContractError(
                    f'The action {name!r} has no finite bounds: {space}. Give its Box a finite low'
                    ' and high.'
                )
        self._bounds = {name: (space.low, space.high) for name, space in boxes.items()}
        self._act_space = env.act_space | {
            name: spaces.Box(-1, 1, space.shape, space.dtype) for name, space in boxes.items()
        }

    @property
    def act_space(self):
        return self._act_space

    def step(self, action):
        scaled = dict(action)
        for name, (low, high) in self._bounds.items():
            # The clip removes rounding errors only: -1 and 1 are to be exactly the bounds.
            scaled[name] = np.clip(
                low + (action[name] + 1) * (0.5 * high - 0.5 * low), low, high
            ).astype(low.dtype)
        return self.env.step(scaled)


class UnifyDtypes(Wrapper):
    """Outside float32, int32, uint8 and bool, inside whatever the env has. MultiBinary keeps the
    int8 of its space.

    Observed integers beyond int32 become its largest or smallest number, which is noted.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        self._obs_space = {name: unified(space) for name, space in env.obs_space.items()}
        self._act_space = {name: unified(space) for name, space in env.act_space.items()}
        self._inner = {name: space.dtype for name, space in env.act_space.items()}
        self._dtypes = {name: space.dtype for name, space in self._obs_space.items()}
        self._notes, self._saturated = [], set()

    @property
    def obs_space(self):
        return self._obs_space

    @property
    def act_space(self):
        return self._act_space

    def step(self, action):
        obs = self.env.step(
            {name: cast(name, value, self._inner.get(name)) for name, value in action.items()}
        )
        return {name: self._unify(name, value) for name, value in obs.items()}

    def notes(self):
        notes, self._notes = self._notes, []
        return notes + self.env.notes()

    def _unify(self, name, value):
        dtype, value = self._dtypes.get(name), np.asarray(value)
        if value.dtype == dtype:
            return value
        if dtype == np.int32 and value.dtype.kind in 'iu' and value.dtype.itemsize >= 4:
            limits = np.iinfo(dtype)
            fitting = np.clip(value, limits.min, limits.max)
            if name not in self._saturated and not np.array_equal(fitting, value):
                self._saturated.add(name)
                self._notes.append(
                    (
                        f'saturates {name}',
                        (
                            f'{env_name(self)}: observation {name!r} holds integers beyond int32'
                            f' ({preview(value)}), which become its largest number; a float Box'
                            ' keeps their size.'
                        ),
                    )
                )
            value = fitting
        return cast(name, value, dtype)


class ReadImages(Wrapper):
    """Outside, what pictures.picture() recognises is an image, uint8 (H, W, C); notes say which
    observations came otherwise.

    Raises:
      EnvContractError, EnvNonFinite: as in CheckSpaces, of pictures that have to be converted.
    """

    def __init__(self, env: Env, size: int = 0):
        """Args: size: height and width that images are resized to; 0 leaves them as they are."""
        super().__init__(env)
        observed = {
            name: space
            for name, space in env.obs_space.items()
            if name not in OUTCOME and not name.startswith('log/')
        }
        found = {name: image for name, space in observed.items() if (image := picture(space))}
        self._size, self._resized = (
            size,
            {
                name
                for name, image in found.items()
                if size and image.space.shape[:2] != (size, size)
            },
        )
        self._pictures = {
            name: image
            for name, image in found.items()
            if not image.unchanged or name in self._resized
        }
        self._guard = Guard(
            {name: image.source for name, image in self._pictures.items()}, env_name(env), 'cut off'
        )
        self._obs_space = env.obs_space | {
            name: self._space(name, image.space) for name, image in self._pictures.items()
        }
        self._notes = [
            (
                f'picture {name}',
                f'{env_name(env)}: observation {name!r}: {image}'
                + (f', resized to {size}x{size}.' if name in self._resized else '.'),
            )
            for name, image in self._pictures.items()
        ]
        self._notes += [
            (
                f'large {name}',
                (
                    f'{env_name(env)}: observation {name!r}: {space.dtype}'
                    f' {"x".join(map(str, space.shape))} is read as {reading(space)}; if it is a'
                    ' picture, declare it as (height, width, channels) of uint8, or with bounds'
                    ' such as 0 .. 1 or 0 .. 255.'
                ),
            )
            for name, space in observed.items()
            if name not in found and len(space.shape) > 1 and np.prod(space.shape) > LARGE_VECTOR
        ]
        self._notes += [
            (
                f'large {name}',
                f'{env_name(env)}: observation {name!r} has {pixels:,} pixels, which cost memory'
                ' and time; the size of its suite, as --env.gym.size 64, makes fewer of them.',
            )
            for name, image in found.items()
            if name not in self._resized
            and (pixels := math.prod(image.space.shape[:2])) > LARGE_PICTURE
        ]

    @property
    def obs_space(self):
        return self._obs_space

    def step(self, action):
        obs = self.env.step(action)
        if not self._pictures:
            return obs
        images = {}
        for name, image in self._pictures.items():
            if name in obs:  # that one is missing is for CheckSpaces to say
                self._guard(name, obs[name])
                images[name] = image.read(obs[name])
                if name in self._resized:
                    images[name] = resize(images[name], self._size)
        return {**obs, **images}

    def notes(self):
        notes, self._notes = self._notes, []
        return notes + self._guard.take() + self.env.notes()

    def _space(self, name, space):
        return (
            spaces.Box(0, 255, (self._size, self._size, space.shape[2]), np.uint8)
            if name in self._resized
            else space
        )


class CheckSpaces(Wrapper):
    """Holds every action and observation against its space, and the spaces against the contract of
    Env.

    Raises:
      EnvContractError: naming the key, what its space expects and what came.
      EnvNonFinite: naming the key of an observation or reward that is NaN or infinite.
    """

    checked = True  # nobody needs to look at its values again

    def __init__(self, env: Env):
        super().__init__(env)
        if faults := space_faults(env):
            raise EnvContractError(
                f'The spaces of {env_name(env)} break the contract: ' + ' '.join(faults)
            )
        self._act_space, self._obs_space = env.act_space, env.obs_space
        self._guard = Guard(self._obs_space, env_name(env))

    def step(self, action):
        self._demand_keys('action', self._act_space, action)
        for name, value in action.items():
            if fault := action_value_fault(self._act_space[name], value):
                raise EnvContractError(f'{env_name(self)}: action {name!r}: {fault}')
        obs = self.env.step(action)
        self._demand_keys('observation', self._obs_space, obs)
        for name, value in obs.items():
            self._guard(name, value)
        return obs

    def notes(self):
        return self._guard.take() + self.env.notes()

    def _demand_keys(self, what, space, values):
        if space.keys() != values.keys():
            raise EnvContractError(
                f'{env_name(self)}: expected the {what} keys {sorted(space)}, got {sorted(values)}.'
            )


class ClipAction(Wrapper):
    """Clips float Box actions to their bounds before the env sees them; what a caller keeps of
    them stays unclipped.
    """

    def __init__(self, env: Env):
        super().__init__(env)
        self._bounds = {
            name: (space.low, space.high)
            for name, space in env.act_space.items()
            if is_float_box(space)
        }

    def step(self, action):
        clipped = {
            name: np.clip(action[name], low, high) for name, (low, high) in self._bounds.items()
        }
        return self.env.step({**action, **clipped})


class ActionRepeat(Wrapper):
    """Takes each action `repeat` times, or until the episode ends, and returns the last
    observation.

    Rewards are summed, and so are scalar log/ values. A step that begins an episode is not
    repeated.
    """

    def __init__(self, env: Env, repeat: int):
        super().__init__(env)
        if repeat < 1:
            raise ValueError(f'An action is repeated at least 1 time, got {repeat}.')
        self._repeat = repeat

    @property
    def repeat(self):
        return self._repeat * self.env.repeat

    def step(self, action):
        sums = {}
        for _ in range(self._repeat):
            obs = self.env.step(action)
            for name, value in obs.items():
                if name == 'reward' or name.startswith('log/') and np.ndim(value) == 0:
                    sums[name] = np.asarray(sums.get(name, 0) + value, np.asarray(value).dtype)[()]
            # is_first: the env began an episode by itself, so this was no frame of the action.
            if obs['is_first'] or obs['is_last']:
                break
        return {**obs, **sums}


class TimeLimit(Wrapper):
    """Cuts episodes after `steps` decisions. The last row of such a cut is is_last but not
    is_terminal: the world goes on.
    """

    def __init__(self, env: Env, steps: int):
        super().__init__(env)
        if steps < 1:
            raise ValueError(f'A time limit is at least 1 step, got {steps}.')
        self._steps = steps
        self._count = 0
        self._cut = False

    def step(self, action):
        # The env inside does not know that its episode was cut, so it has to be told to begin anew.
        obs = self.env.step({**action, 'reset': np.bool_(action['reset'] or self._cut)})
        self._count = 0 if obs['is_first'] else self._count + 1
        self._cut = self._count >= self._steps
        return {**obs, 'is_last': np.bool_(True)} if self._cut else obs

    def save(self):
        inner = self.env.save()
        return None if inner is None else {'count': self._count, 'cut': self._cut, 'env': inner}

    def load(self, state):
        self.env.load(state['env'])
        self._count, self._cut = state['count'], state['cut']


def env_name(env: Env) -> str:
    """What the env inside all wrappers calls itself, or its class, for messages."""
    while isinstance(env, Wrapper):
        env = env.env
    return getattr(env, 'title', '') or type(env).__name__


def is_float_box(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype.kind == 'f'
