"""What an environment and an agent are: the two contracts that everything else in this package is
written against.

One row of experience is what the env returned at time t together with what the policy chose after
seeing it. An episode of three decisions, and the first row of the next one:

    t             0       1       2       3     |   0
    observation   o0      o1      o2      o3    |   o0
    reward        0       r1      r2      r3    |   0        r_t came together with o_t; it was
    earned by a_{t-1}
    is_first      True    .       .       .     |   True     reward is 0 here
    is_last       .       .       .       True  |   .        the episode ended here, for any reason
    is_terminal   .       .       .       (*)   |   .        (*) True: the future is worth zero.
    False: a time limit, it is not
    action        a0      a1      a2      0     |   a0       zeros where is_last, never executed
                     \\______/ \\_____/ \\_____/                  a_t leads from row t to row t+1

`reset` is a key of the action, not a method: a step with reset=True ignores the rest of the action
and returns a first row. Such a step is neither a decision nor a frame. After a last row the env
starts anew at the next step, whether that asks for a reset or not.

Rows may lack labels: where `unlabeled_action` is set the action is not known, where
`unlabeled_reward` is set neither the reward nor is_terminal, where `unlabeled` is set none of them
(labels.py). What stands there instead is never learned from.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from gymnasium import spaces

from .errors import EmbodiedError, EnvContractError, EnvError

FLAG = spaces.Box(0, 1, (), bool)
REWARD = spaces.Box(-np.inf, np.inf, (), np.float32)
OUTCOME = {'reward': REWARD, 'is_first': FLAG, 'is_last': FLAG, 'is_terminal': FLAG}
# keys of a row that may be there, bool
UNLABELED = ('unlabeled', 'unlabeled_action', 'unlabeled_reward')
# keys that a draw of a replay may add, bool: the action of a row is to be imitated; the dynamics
# are to predict the row
MIX = ('imitated', 'predicted')

Spaces = dict[str, spaces.Space]
Values = dict[str, Any]


def is_image(what: spaces.Space | np.ndarray) -> bool:
    """Whether a space or an array is an image: uint8 (height, width, channels), with any number
    of channels.
    """
    if isinstance(what, spaces.Space) and not isinstance(what, spaces.Box):
        return False
    return what.dtype == np.uint8 and len(what.shape) == 3


def outcome(
    reward: float = 0.0, *, is_first: bool = False, is_last: bool = False, is_terminal: bool = False
) -> Values:
    """The four keys that every observation has, in their dtypes; an env adds its own keys to
    them.
    """
    with np.errstate(over='ignore'):  # what float32 cannot hold is found not to be finite
        reward = np.float32(reward)
    return {
        'reward': reward,
        'is_first': np.bool_(is_first),
        'is_last': np.bool_(is_last),
        'is_terminal': np.bool_(is_terminal),
    }


class Env:
    """One environment, stepped with dicts of arrays.

    Attributes:
      obs_space: name -> space; always holds reward: REWARD and is_first, is_last, is_terminal:
        FLAG. Names that begin with 'log/' are numbers for metrics: the policy does not see them and
        the replay does not store them. Nested observations are flattened with '/', such as
        'arm/joints'.
      act_space: name -> space; always holds reset: FLAG, and at least one action: a float Box with
        finite bounds, or a Discrete or MultiDiscrete that counts from 0, or a MultiBinary. No name
        is both an action and an observation.
      repeat: env frames per decision; more than 1 where actions are repeated.

    Both spaces may be attributes of the class or of the instance, or properties.
    """

    obs_space: Spaces
    act_space: Spaces
    repeat: int = 1

    def step(self, action: Values) -> Values:
        """Take one step, or start an episode where action['reset'] is true or the last one ended;
        see the table above.

        Args:
          action: a value for each key of act_space.

        Returns:
          A value for each key of obs_space, in arrays that the env does not write to afterwards.
        """
        raise NotImplementedError

    def save(self) -> Values | None:
        """Everything that load() needs to continue exactly, mid-episode, random state included, as
        a JSON-able dict.

        None (the default) says that the env cannot do this.
        """
        return None

    def load(self, state: Values) -> None:
        """Continue from what save() of an env with the same task, config and repeat returned."""
        raise EnvError(
            f'{type(self).__name__} cannot load a state: it does not support save() and load().'
        )

    def notes(self) -> list[tuple[str, str]]:
        """What a person should know of this env: (topic, sentence), each handed out once; a
        topic is told once in a run.
        """
        return []

    def close(self) -> None:
        """Give back what the env holds: processes, graphics contexts, files. May be called more
        than once.
        """


class Status(NamedTuple):
    """What an agent is doing, for the terminal line.

    Attributes:
      stage: one word, '' when there is nothing to say.
      waits: what the stage waits for, in words, '' for nothing.
      settled: the pace will stay: no later stage costs more.
      metrics: names of what train() returns that matter in this stage.
      over: there is nothing left that this run is to learn.
      before: fewest updates until the policy learns; 0 where it does, or is not to.
    """

    stage: str = ''
    waits: str = ''
    settled: bool = True
    metrics: tuple[str, ...] = ()
    over: bool = False
    before: int = 0


class Feed(Protocol):
    """Batches of a replay in the form that an agent wants them."""

    def take(self, count: int) -> Iterator[Any]:
        """What the next `count` updates are made of. One may be prepared while the agent learns
        from the one before; what is drawn is decided by the replay's seed and the number of its
        draws alone. Raises ReplayEmptyError.
        """

    def fresh(self, draw: int) -> Any:
        """What a report is made of: the draw of this number, which does not take part in the
        sequence of draws.
        """

    def describe(self) -> str:
        """One line for the start of a run, '' for nothing to say."""


@dataclass(frozen=True)
class Shards:
    """A tree to be saved of which every one of several processes writes what it has, because no
    one could hold all of it.

    Attributes:
      tree: the rest, which is as any other.
      write: write(folder), called by all processes at once, returns the safetensors files there
        that are of this one.
    """

    tree: Any
    write: Callable[[Path], list[Path]]


@dataclass(frozen=True)
class Stored:
    """What was saved as Shards.

    Attributes:
      tree: the rest. folder: of the files, which are those that were written.
    """

    tree: Any
    folder: Path


@runtime_checkable
class Agent(Protocol):
    """Acts and learns; numpy in, numpy out. Trees are nested dicts whose leaves are numpy arrays
    or JSON scalars, lists, strings.
    """

    @property
    def updates(self) -> int:
        """Calls of train() that this agent's parameters have seen, over all runs."""

    @property
    def frames_per_update(self) -> int:
        """Replayed rows per call of train(): batch size times length."""

    @property
    def sequence_rows(self) -> int:
        """Rows of the longest sequence that a feed draws: before there is one, nothing can
        be learned.
        """

    def init_policy(self, num_envs: int) -> Any:
        """The carry (memory of the policy) of `num_envs` envs before their first row."""

    def policy(self, carry: Any, obs: Values, mode: str = 'train') -> tuple[Any, Values]:
        """Choose actions.

        Args:
          carry: from init_policy() or the last call. Where obs['is_first'] is set, the memory of
              that env starts anew.
          obs: dict of arrays (N, ...), one entry per env, without 'log/' keys.
          mode: 'train' collects and may explore; 'sample' samples the policy; 'mode' takes its most
              likely action.

        Returns:
          The next carry, and a dict of arrays (N, ...) for each key of the act_space but 'reset'.
        """

    def feed(self, replay: Any) -> Feed:
        """The stream of what train() and report() are given, drawn from a Replay."""

    def train(self, batch: Any) -> dict[str, float]:
        """One update on what the feed handed out last; metrics."""

    def report(self, batch: Any) -> Values:
        """Slow diagnostics of Feed.fresh(): name -> float, uint8 image (H, W, 3) or uint8 video (T,
        H, W, 3).
        """

    def save(self) -> Values | Shards:
        """Parameters, optimizer, counters and random states as a tree, or as Shards of it."""

    def load(self, tree: Values | Stored) -> None:
        """Take over what save() returned; raises CheckpointError where it does not fit."""

    def save_carry(self, carry: Any) -> Values:
        """A carry as a tree, so that a run can be continued mid-episode."""

    def load_carry(self, tree: Values) -> Any:
        """The carry that save_carry() was given."""

    def status(self) -> Status:
        """What somebody who watches the run should see."""

    def events(self) -> list[str]:
        """Sentences that a person should read, each once: those since the last call."""

    def take(self, phases: tuple[str, ...], anew: bool) -> None:
        """Learn some phases of what there is to learn; status() says when they are over.

        Args:
          phases: their names, none for all.
          anew: begin with the first of them; else go on where the agent is.

        Raises:
          ConfigError: there is no such phase, or it needs what was not learned.
        """


class RandomAgent:
    """Draws every action uniformly from its space; satisfies Agent, except that it cannot learn."""

    updates = 0
    frames_per_update = 0
    sequence_rows = 0

    def __init__(self, act_space: Spaces, seed: int, tasks: Any = None):
        """Args: act_space as an Env has it ('reset' is ignored; Boxes must have finite bounds);
        seed of its own generator, >= 0; the tasks.TaskId of several tasks, each of which is given
        actions of its own.
        """
        self._tasks = tasks
        self._act_space = {name: space for name, space in act_space.items() if name != 'reset'}
        self._rng = np.random.default_rng(seed)

    def init_policy(self, num_envs: int) -> dict:
        return {}

    def policy(self, carry: dict, obs: Values, mode: str = 'train') -> tuple[dict, Values]:
        num_envs = len(obs['is_first'])
        if self._tasks is not None:
            drawn = [self._tasks.draw(int(task), self._rng) for task in obs['task_id']]
            return carry, {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
        return carry, {
            name: sample(space, self._rng, num_envs) for name, space in self._act_space.items()
        }

    def feed(self, replay: Any) -> Feed:
        raise EmbodiedError('A RandomAgent cannot be trained: it has no parameters.')

    def train(self, batch: Any) -> dict[str, float]:
        raise EmbodiedError('A RandomAgent cannot be trained: it has no parameters.')

    def report(self, batch: Any) -> Values:
        return {}

    def save(self) -> Values:
        return {'rng': self._rng.bit_generator.state}

    def load(self, tree: Values) -> None:
        self._rng.bit_generator.state = tree['rng']

    def save_carry(self, carry: dict) -> Values:
        return {}

    def load_carry(self, tree: Values) -> dict:
        return {}

    def take(self, phases: tuple[str, ...], anew: bool) -> None:
        raise EmbodiedError('A RandomAgent cannot be trained: it has no parameters.')

    def status(self) -> Status:
        return Status('random')

    def events(self) -> list[str]:
        return []


def sample(space: spaces.Space, rng: np.random.Generator, num: int) -> np.ndarray:
    """`num` independent uniform draws (num, *space.shape) from an action space.

    The space's own sample() is not used: it draws from a generator that lives in the space, so that
    everybody who shares the space would move it.

    Raises:
      EnvContractError: the space is none that an action may have.
    """
    shape = (num, *(space.shape or ()))
    match space:
        case spaces.Box() if space.dtype.kind == 'f' and space.is_bounded('both'):
            return rng.uniform(space.low, space.high, shape).astype(space.dtype)
        case spaces.Discrete() if space.start == 0:
            return rng.integers(0, space.n, shape, space.dtype)
        case spaces.MultiDiscrete() if not np.any(space.start):
            return rng.integers(0, space.nvec, shape, space.dtype)
        case spaces.MultiBinary():
            return rng.integers(0, 2, shape, space.dtype)
    raise EnvContractError(
        'An action is a float Box with finite bounds, a Discrete or MultiDiscrete that counts from'
        f' 0, or a MultiBinary space; got {space}.'
    )
