"""Envs of several tasks: padded to the union of their spaces, dealt over the envs of a driver, and
taken in turn where there are more tasks than envs.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..base import Env, Values
from ..errors import ConfigError, EnvContractError
from ..tasks import KEY, TaskId, cut, join, kind, pad, zeros
from ..wrappers import Wrapper

Make = Callable[[], Env]


@dataclass(frozen=True)
class TasksConfig:
    """Block `env.tasks` of the config; meanings stand in configs/defaults.yaml."""

    size: int
    text: str

    def __post_init__(self):
        if self.size < 0:
            raise ConfigError(f'env.tasks.size must not be negative, got {self.size}.')


class Padded(Wrapper):
    """An env of one of several tasks in the union of their spaces, with `task_id` observed."""

    def __init__(self, env: Env, space: TaskId, number: int):
        """Args: the env; the tasks; which of them it is.

        Raises:
          EnvContractError: the env has other spaces than the tasks were joined with.
        """
        super().__init__(env)
        self._space, self._number, self.task = space, number, space.names[number]
        self._obs_space, self._act_space = space.obs_space, space.act_space
        self._observes, self._acts = space.obs_spaces[number], space.act_spaces[number]
        self._seen, self._done = (
            names(env.obs_space, self._observes),
            names(env.act_space, self._acts),
        )
        for own, known, what in (
            (env.act_space, self._acts, 'actions'),
            (env.obs_space, self._observes, 'observations'),
        ):
            if len(names(own, known)) < len(known):
                raise EnvContractError(
                    f'{self.task}: the {what} of this env are {sorted(own)}; those that the tasks'
                    f' were joined with are {sorted(known)}.'
                )
        self._notes = [
            (
                f'padded {self.task} {key}',
                f'{self.task}: the image {key!r} is resized from'
                f' {"x".join(map(str, env.obs_space[key].shape))} to'
                f' {"x".join(map(str, self._obs_space[new].shape))}, as the tasks have one size.',
            )
            for key, new in self._seen.items()
            if kind(own := env.obs_space[key]) == 'image' and own != self._obs_space[new]
        ]

    @property
    def obs_space(self):
        return self._obs_space

    @property
    def act_space(self):
        return self._act_space

    @property
    def repeat(self):
        return max(self._space.repeats)

    def step(self, action: Values) -> Values:
        own = {key: cut(self._acts[new], action[new]) for key, new in self._done.items()}
        obs = self.env.step(own)
        found = {key: obs[key] for key in ('reward', 'is_first', 'is_last', 'is_terminal')}
        for key, new in self._seen.items():
            found[new] = pad(self._obs_space[new], self._observes[new], obs[key])
        for key, space in self._obs_space.items():
            if key not in found:
                found[key] = np.float32(np.nan) if key.startswith('log/') else zeros(space)
        return found | {KEY: np.int32(self._number)}

    def notes(self):
        notes, self._notes = self._notes, []
        return notes + self.env.notes()


def names(own: dict, known: dict) -> dict[str, str]:
    """Key of an env -> its name in the union, for those that have one."""
    both = {key: (key, f'{key}/{kind(space)}') for key, space in own.items()}
    return {key: new for key, news in both.items() for new in news if new in known}


class Turns(Env):
    """Envs of one pair of spaces that take turns: an episode of each, again and again. One is made
    when its first turn comes.
    """

    def __init__(self, makers: Sequence[Make], space: TaskId):
        self._makers, self._envs, self._turn, self._over = list(makers), {}, -1, True
        self.obs_space, self.act_space = space.obs_space, space.act_space
        self.repeat = max(space.repeats)

    def step(self, action: Values) -> Values:
        begins = bool(self._over or action['reset'])
        turn = (self._turn + begins) % len(self._makers)
        obs = self._env(turn).step({**action, 'reset': np.bool_(begins)})
        self._turn, self._over = turn, bool(obs['is_last'])  # here, for a lane may say NotYet
        return obs

    def _env(self, turn: int) -> Env:
        if turn not in self._envs:
            self._envs[turn] = self._makers[turn]()
        return self._envs[turn]

    @property
    def renderer(self) -> str:
        return next((str(getattr(env, 'renderer', '') or '') for env in self._envs.values()), '')

    def save(self) -> Values | None:
        states = {str(turn): env.save() for turn, env in self._envs.items()}
        if None in states.values():
            return None
        return {'turn': self._turn, 'over': self._over, 'envs': states}

    def load(self, state: Values) -> None:
        self._turn, self._over = int(state['turn']), bool(state['over'])
        for turn, inner in state['envs'].items():
            self._env(int(turn)).load(inner)

    def notes(self):
        return [note for env in self._envs.values() for note in env.notes()]

    def close(self) -> None:
        envs, self._envs = self._envs, {}
        with contextlib.ExitStack() as stack:
            for env in envs.values():
                stack.callback(env.close)


@dataclass(frozen=True)
class OneOf:
    """Constructor of the env of one of several tasks. Args: its own; the tasks; which it is."""

    make: Make
    space: TaskId
    number: int

    def __call__(self) -> Padded:
        return Padded(self.make(), self.space, self.number)

    @property
    def task(self) -> str:
        return self.space.names[self.number]

    @property
    def together(self) -> bool:
        return getattr(self.make, 'together', False)

    def renewed(self, count: int) -> 'OneOf':
        """The constructor of replacement number `count`, as in envs.Maker."""
        return replace(self, make=self.make.renewed(count))


@dataclass(frozen=True)
class InTurn:
    """Constructor of an env that takes turns in tasks."""

    makers: tuple[OneOf, ...]

    def __call__(self) -> Turns:
        return Turns(self.makers, self.makers[0].space)

    @property
    def task(self) -> str:
        return ', '.join(maker.task for maker in self.makers)

    def renewed(self, count: int) -> 'InTurn':
        """As in envs.Maker."""
        return InTurn(tuple(maker.renewed(count) for maker in self.makers))


def dealt(makers: Sequence[OneOf], index: int, count: int) -> OneOf | InTurn:
    """The constructor of env `index` of `count`: every env has one of the tasks, or a share of them
    that it takes turns in where there are more tasks than envs.
    """
    parts = [makers[index % len(makers)]] if count >= len(makers) else makers[index::count]
    return parts[0] if len(parts) == 1 else InTurn(tuple(parts))


@dataclass(frozen=True)
class Prober:
    """Constructor that makes an env of every task, one after another, to learn their spaces, and
    returns that of the first, padded.
    """

    tasks: tuple[str, ...]
    makers: tuple[Make, ...]
    config: TasksConfig

    def __call__(self) -> Padded:
        return Padded(self.makers[0](), self.space(), 0)

    def space(self) -> TaskId:
        """The tasks.

        Raises:
          ConfigError: their images cannot be joined, or the file of texts does not fit.
        """
        text = read_text(self.config.text, self.tasks)
        found = []
        for make in self.makers:
            with contextlib.closing(make()) as env:
                found.append((dict(env.obs_space), dict(env.act_space), int(env.repeat)))
        return join(self.tasks, *map(list, zip(*found)), self.config.size, text)

    @property
    def task(self) -> str:
        return ', '.join(self.tasks)


def read_text(path: str, tasks: Sequence[str]) -> np.ndarray | None:
    """Embeddings of tasks, float32 (tasks, features); None for no file.

    Args:
      path: of an .npy array (tasks, features) in their order, or of an .npz with one (features,)
        for each name.

    Raises:
      ConfigError: it cannot be read, or does not fit.
    """
    if not path:
        return None
    try:
        content = np.load(Path(path).expanduser(), allow_pickle=False)
        if isinstance(content, np.ndarray):
            text = content
        else:
            if missing := [name for name in tasks if name not in content]:
                raise ConfigError(
                    f'env.tasks.text {path} has no array {missing[0]!r}; it has'
                    f' {", ".join(content.files[:8])}.'
                )
            text = np.stack([np.ravel(content[name]) for name in tasks])
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f'env.tasks.text {path} cannot be read: {error}.') from error
    if text.ndim != 2 or len(text) != len(tasks) or not np.isfinite(text.astype(float)).all():
        raise ConfigError(
            f'env.tasks.text {path}: expected finite numbers ({len(tasks)}, features), a row for'
            f' each task, got {text.dtype} {text.shape}.'
        )
    return text.astype(np.float32)
