"""A recorded episode, and how it becomes rows of the row table: the one place where conventions of
time meet.

    taken   row t holds the action that was taken at its frame; it led to the next frame
    led     row t holds the action that led to its frame; that of row 0 means nothing
    earned  row t holds the reward that its action earned, which comes with the next frame
    came    row t holds the reward that came with its frame; that of row 0 means nothing
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from ..base import UNLABELED
from ..errors import ReplayError

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Episode:
    """One episode as its format stores it.

    Attributes:
      observations: what was seen, one dict per frame; read once, in order, or not at all.
      actions: key -> (K, *shape); empty where nobody recorded them. Boolean ones are a MultiBinary.
      led: the convention of the actions; False is 'taken'.
      rewards: (K,); None where nobody recorded them.
      came: the convention of the rewards; False is 'earned'.
      terminal: the future after the last frame is worth zero.
      idle: the last row's action was never executed, although it holds one.
      constants: columns that are the same in every row: labels, the number of the task.
      blank: what stands in for actions that other episodes of the source have and this one lacks.
    """

    observations: Iterable[Row]
    actions: Mapping[str, np.ndarray] = field(default_factory=dict)
    led: bool = False
    rewards: np.ndarray | None = None
    came: bool = False
    terminal: bool = False
    idle: bool = False
    constants: Row = field(default_factory=dict)
    blank: Row = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """Rows of the row table, observations untouched.

        N frames have N actions, or one fewer, since nothing follows the last frame. Where a source
        holds an action taken at the last frame and no frame that it led to, that action and what it
        earned are left out; but where it ended the episode, or earned all that there is, the last
        frame stands twice.

        Raises:
          ReplayError: there is no frame, or the numbers of frames, actions and rewards do not fit.
        """
        frames = iter(self.observations)
        frame = next(frames, None)
        if frame is None:
            raise ReplayError('holds no frame.')
        for index in itertools.count():
            after = next(frames, None)
            if after is None and index == 0 and not self._has_more(1):
                raise ReplayError('holds one frame, which is no episode.')
            if after is None:
                break
            yield self._row(index, frame)
            frame = after
        count = index + 1
        self._check(count)
        if self._has_more(count):
            yield self._row(index, frame)
            index += 1
        yield self._row(index, frame, last=True)

    def _has_more(self, frames: int) -> bool:
        """Whether the action taken at the last frame takes something with it."""
        rewards = self.rewards is not None and len(self.rewards) == frames and not self.came
        acted = self.actions and not self.led and not self.idle
        whole = acted and all(len(values) == frames for values in self.actions.values())
        earned = rewards and self.rewards[-1] and not self.rewards[:-1].any()
        return bool(whole and (self.terminal or earned))

    def _check(self, frames: int) -> None:
        lengths = {f'actions {key!r}': (len(v), self.led) for key, v in self.actions.items()}
        if self.rewards is not None:
            lengths['rewards'] = len(self.rewards), self.came
        for what, (length, arrived) in lengths.items():
            allowed = {frames} if arrived else {frames, frames - 1}
            if length not in allowed:
                raise ReplayError(
                    f'{frames} frames need {" or ".join(map(str, sorted(allowed)))} {what},'
                    f' there are {length}.'
                )

    def _row(self, index: int, frame: Row, last: bool = False) -> Row:
        row = {'is_first': np.bool_(index == 0), 'is_last': np.bool_(last)}
        for key, values in self.actions.items():
            place = index + self.led
            void = last or place >= len(values)
            row[key] = np.zeros_like(values[0]) if void else values[place]
        labels = 'unlabeled_reward' in self.constants or self.rewards is not None
        if self.actions or self.blank or labels:
            row |= self._outcome(index, last)
        return row | frame | self.blank | self.constants

    def _outcome(self, index: int, last: bool) -> Row:
        """Reward and end; where there are actions and no rewards, rows say so."""
        end = {'is_terminal': np.bool_(last and self.terminal)}
        if self.rewards is None:
            return end | {'reward': np.float32(0), 'unlabeled_reward': np.bool_(True)}
        place = index if self.came else index - 1
        reward = self.rewards[place] if 0 < index and place < len(self.rewards) else 0
        if last and self.idle and not self.came and len(self.rewards) == index + 1:
            reward = reward + self.rewards[index]  # no action of its own that could have earned it
        return end | {'reward': np.float32(reward)}


class Unit(NamedTuple):
    """An episode that is not opened yet.

    Attributes:
      name: tells it from the others of its source, in every run.
      open: reads it; called once, before the next unit is asked for, or not at all.
    """

    name: str
    open: Callable[[], Episode]


@dataclass(frozen=True)
class Recording:
    """A source, opened.

    Attributes:
      units: its episodes, in an order that is the same each time it is opened.
      total: how many, where that is known before they are read.
      facts: what is known of all of it, JSON-able; kept in meta.json.
      act_space: spaces of the actions, where the source declares them.
    """

    units: Iterable[Unit]
    total: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    act_space: Mapping[str, spaces.Space] = field(default_factory=dict)


@dataclass(frozen=True)
class Options:
    """What a person says of a source.

    Attributes:
      key: name of frames that have none.
      led: convention of the actions, None for that of the format.
      bgr: whether the frames on disk have blue first, None for what the format does.
      onehot: actions are one-hot codes of choices.
      action: columns that are actions, where the format does not tell; empty for its own.
      keys: observations that are kept; empty for all.
      rename: name of an observation -> its name in the rows.
      size: height and width that images are resized to, in pixels; None as they are.
      timed: episodes end because their time is over, whatever the source says.
    """

    key: str = 'image'
    led: bool | None = None
    bgr: bool | None = None
    onehot: bool = False
    action: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None
    timed: bool = False

    def convention(self, led: bool) -> bool:
        """Whether actions led to their frame: as said, or else as the format has it."""
        return led if self.led is None else self.led

    def wanted(self, key: str) -> bool:
        """Whether an observation is kept."""
        return not self.keys or key in self.keys or key in UNLABELED


def row_names(seen: Mapping[str, bool], options: Options) -> dict[str, str]:
    """Names in rows for observations, given whether each is an image: a single image has the name
    that the options say, what has no name is called observation.
    """
    images = [name for name, is_image in seen.items() if is_image]
    return {name: options.key if images == [name] else name or 'observation' for name in seen}
