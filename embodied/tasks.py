"""Several tasks as one: a space that numbers them and knows what each of them has, and the union of
their observations and actions, to which those of every task are padded.

        task 0   position (4,)   action: Discrete 3          union   position (9,)
        task 1   position (9,)   action: Box (2,)                    action/discrete: Discrete 3
                                                                     action/box: Box (2,)
Keys of one kind share a key, of the largest size; keys of several kinds get that of their kind as a
second name. Padding is zero, and TaskId.present() says what is none: nobody learns from it.
"""

import math
from collections.abc import Sequence

import numpy as np
from gymnasium import spaces

from .base import OUTCOME, REWARD, Spaces, Values, is_image, sample
from .errors import ConfigError
from .pictures import resize

KEY = 'task_id'  # of a row


class TaskId(spaces.Discrete):
    """The number of a task among several.

    Attributes:
      names: of the tasks, by number.
      obs_spaces, act_spaces: of each task what it has itself, by the keys of the union.
      repeats: frames per decision of each.
      text: float32 (tasks, features), an embedding of what each task asks for; None for none.
      obs_space, act_space: the union, this space and 'reset' included.
    """

    def __init__(
        self,
        names: Sequence[str],
        obs_spaces: Sequence[Spaces],
        act_spaces: Sequence[Spaces],
        repeats: Sequence[int],
        text: np.ndarray | None = None,
    ):
        super().__init__(len(names), dtype=np.int32)
        self.names, self.repeats = tuple(names), tuple(int(each) for each in repeats)
        self.obs_spaces = tuple(dict(each) for each in obs_spaces)
        self.act_spaces = tuple(dict(each) for each in act_spaces)
        self.text = None if text is None else np.asarray(text, np.float32)

    def __eq__(self, other: object) -> bool:
        mine, theirs = (
            (each.names, each.repeats, each.obs_spaces, each.act_spaces)
            if isinstance(each, TaskId)
            else None
            for each in (self, other)
        )
        return mine == theirs and np.array_equal(self.text, other.text)

    __hash__ = None

    @property
    def obs_space(self) -> Spaces:
        return union(self.obs_spaces) | OUTCOME | {KEY: self}

    @property
    def act_space(self) -> Spaces:
        return union(self.act_spaces)

    def present(self, key: str) -> np.ndarray | None:
        """Which numbers of a key each task has: bool (tasks, size), of an image (tasks, 1), of
        classes a number for every choice; None where every task has all of them.
        """
        acts = key in self.act_space
        whole = (self.act_space if acts else self.obs_space)[key]
        own = [each.get(key) for each in (self.act_spaces if acts else self.obs_spaces)]
        found = np.stack([there(whole, each) for each in own])
        return None if found.all() else found

    def draw(self, task: int, rng: np.random.Generator) -> Values:
        """A uniform action of a task, padded."""
        return {
            key: pad(space, own, sample(own, rng, 1)[0]) if own else zeros(space)
            for key, space in self.act_space.items()
            if key != 'reset'
            for own in [self.act_spaces[task].get(key)]
        }


def join(
    names: Sequence[str],
    obs_spaces: Sequence[Spaces],
    act_spaces: Sequence[Spaces],
    repeats: Sequence[int],
    size: int = 0,
    text: np.ndarray | None = None,
) -> TaskId:
    """The space of several tasks from the spaces of their envs.

    Args:
      size: height and width of all images that more than one task has; 0: of the largest.

    Raises:
      ConfigError: images of one key have channels that cannot be joined.
    """
    renamed = [
        [{new: each[old] for old, new in keys(each, all_).items()} for each in all_]
        for all_ in (
            [{k: s for k, s in each.items() if not ignored(k, s)} for each in obs_spaces],
            list(act_spaces),
        )
    ]
    observed, acted = renamed
    return TaskId(names, share_images(names, observed, size), acted, repeats, text)


def names_of(obs_space: Spaces) -> tuple[str, ...]:
    """Names of several tasks, by number; none for one."""
    return getattr(obs_space.get(KEY), 'names', ())


def repeats_of(obs_space: Spaces) -> tuple[int, ...]:
    """Frames per decision of several tasks, by number; none for one."""
    return getattr(obs_space.get(KEY), 'repeats', ())


def ignored(key: str, space: spaces.Space) -> bool:
    """Whether the union takes no notice of a key: the outcome, which all have, and pictures for
    metrics.
    """
    return key in OUTCOME or key.startswith('log/') and space.shape != ()


def keys(own: Spaces, all_: Sequence[Spaces]) -> dict[str, str]:
    """Key of a task -> its name in the union."""
    found = {}
    for key, space in own.items():
        kinds = {kind(each[key]) for each in all_ if key in each}
        found[key] = f'{key}/{kind(space)}' if len(kinds) > 1 else key
    return found


def kind(space: spaces.Space) -> str:
    """What spaces must have in common to share a key."""
    if is_image(space):
        return 'image'
    if isinstance(space, spaces.Box) and space.dtype.kind != 'f':
        return f'box_{space.dtype}'
    return type(space).__name__.lower()


def share_images(names: Sequence[str], observed: list[Spaces], size: int) -> list[Spaces]:
    """The same with one size and number of channels for every image."""
    for key in {key for each in observed for key, space in each.items() if is_image(space)}:
        having = [n for n, each in enumerate(observed) if key in each]
        shapes = [observed[n][key].shape for n in having]
        channels = {shape[2] for shape in shapes}
        if len(channels) > 1 and channels != {1, 3}:
            told = ', '.join(f'{names[n]} {shape[2]}' for n, shape in zip(having, shapes))
            raise ConfigError(
                f'The images {key!r} of these tasks have numbers of channels that cannot be joined'
                f' ({told}): give the key another name in one of them, or take tasks whose images'
                ' have 1 or 3 channels.'
            )
        side = (size, size) if size else max((shape[:2] for shape in shapes), key=math.prod)
        if len(set(shapes)) > 1 or size:
            image = spaces.Box(0, 255, (*side, max(channels)), np.uint8)
            for n in having:
                observed[n] = observed[n] | {key: image}
    return observed


def union(all_: Sequence[Spaces]) -> Spaces:
    """Key -> the space that holds the values of every task that has it."""
    found = {}
    for key in dict.fromkeys(key for each in all_ for key in each):
        having = [each[key] for each in all_ if key in each]
        if key.startswith('log/'):
            found[key] = REWARD
        else:
            found[key] = having[0] if all(s == having[0] for s in having) else largest(having)
    return found


def largest(having: Sequence[spaces.Space]) -> spaces.Space:
    """A space of one kind that holds the values of several, flat and padded."""
    first, size = having[0], max(math.prod(space.shape) for space in having)
    if isinstance(first, spaces.Discrete):
        return spaces.Discrete(max(int(s.start + s.n) for s in having), dtype=first.dtype.type)
    if isinstance(first, spaces.MultiDiscrete):
        counts = [extended(s.start + s.nvec, size, 1) for s in having]
        return spaces.MultiDiscrete(np.max(counts, 0), first.dtype.type)
    if isinstance(first, spaces.MultiBinary):
        return spaces.MultiBinary(size)
    if len({space.shape for space in having}) == 1:
        low, high = np.min([s.low for s in having], 0), np.max([s.high for s in having], 0)
        return spaces.Box(low, high, dtype=first.dtype.type)
    low = np.min([extended(s.low, size, 0) for s in having], 0)
    high = np.max([extended(s.high, size, 0) for s in having], 0)
    return spaces.Box(low, high, dtype=first.dtype.type)


def extended(value: np.ndarray, size: int, fill) -> np.ndarray:
    """A flat array of `size` entries that begins with a value."""
    flat = np.asarray(value).reshape(-1)
    return np.concatenate([flat, np.full(size - flat.size, fill, flat.dtype)])


def there(whole: spaces.Space, own: spaces.Space | None) -> np.ndarray:
    """Which numbers of a space of the union are those of a task; see TaskId.present()."""
    if is_image(whole):
        return np.array([own is not None])
    if isinstance(whole, spaces.Discrete):
        return np.arange(whole.n) < (0 if own is None else own.start + own.n)
    if isinstance(whole, spaces.MultiDiscrete):
        own = [] if own is None else (own.start + own.nvec).reshape(-1)
        counts = whole.nvec.reshape(-1)
        own = extended(own, counts.size, 0)
        return np.concatenate([np.arange(n) < mine for n, mine in zip(counts, own)])
    count = 0 if own is None else math.prod(own.shape)
    return np.arange(math.prod(whole.shape)) < count


def zeros(space: spaces.Space):
    """The padding of a space."""
    return np.zeros(space.shape, space.dtype)[()]


def pad(whole: spaces.Space, own: spaces.Space, value):
    """A value of a task in the space of the union."""
    if is_image(whole):
        if value.shape[:2] != whole.shape[:2]:
            value = resize(value, whole.shape[:2])
        return value if value.shape == whole.shape else np.repeat(value, 3, -1)
    if own == whole or isinstance(whole, spaces.Discrete):
        return np.asarray(value, whole.dtype)[()]
    return extended(np.asarray(value, whole.dtype), math.prod(whole.shape), 0).reshape(whole.shape)


def cut(own: spaces.Space, value):
    """The action of a task from one of the union; a choice that the task has not becomes one that
    it has.
    """
    flat = np.asarray(value).reshape(-1)[: math.prod(own.shape)]
    if isinstance(own, (spaces.Discrete, spaces.MultiDiscrete)):
        flat = flat % np.asarray(getattr(own, 'nvec', getattr(own, 'n', None))).reshape(-1)
    return flat.reshape(own.shape).astype(own.dtype)[()]
