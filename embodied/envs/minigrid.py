"""MiniGrid and BabyAI: minigrid_Empty-8x8, minigrid_BabyAI-GoToObj, with image, direction and
mission.

The mission is a sentence; its words become classes of a fixed vocabulary, the same for all tasks.
"""

import dataclasses
import re

import gymnasium
import numpy as np
from gymnasium import spaces

from ..base import Env
from ..errors import ConfigError
from ..extras import require
from . import unknown, unknown_task
from .gymnasium import from_gymnasium

VIEWS = ('symbols', 'partial', 'full')
# Of all missions that the package's tasks give. Class 0: no word; class 1: one that is not here.
WORDS = (
    'a after and at avoid ball behind blue box door end fetch find from front get go goal green'
    ' grey hallway in key lava left matching must near next object of on open opening pick purple'
    ' put reach red right room rooms square the then to traverse unlock up use yellow you your'
).split()
CLASSES = {word: number for number, word in enumerate(WORDS, 2)}
KINDS, COLOURS, STATES = 11, 6, 4  # of a field; the state of a seen agent is its direction
TILE = 8  # pixels of a field, for the two views in pixels


@dataclasses.dataclass(frozen=True)
class MiniGridConfig:
    """What can be set.

    Attributes:
      view: 'symbols', the fields before the agent as classes; 'partial', the same as pixels; or
        'full', the whole grid in pixels.
      size: height and width of the pixels.
      words: of the mission that are observed; 0 for none.
    """

    view: str
    size: int
    words: int


def check(name: str, config: MiniGridConfig) -> None:
    """Refuse what make() would refuse, without importing the package.

    Raises:
      ConfigError: unknown value. EnvMissing: the package minigrid is not installed.
    """
    if config.view not in VIEWS:
        raise ConfigError(unknown('view', config.view, VIEWS, ' in env.minigrid.view'))
    if config.size < 1 or config.words < 0:
        raise ConfigError(
            'env.minigrid.size must be at least 1 and env.minigrid.words at least 0, got'
            f' {config.size} and {config.words}.'
        )
    require('minigrid', 'minigrid')


def make(name: str, config: MiniGridConfig, seed: int) -> Env:
    """The task minigrid_<name>: the id without 'MiniGrid-' and without its version.

    Raises:
      ConfigError: unknown task. EnvMissing: as check().
    """
    check(name, config)
    import minigrid  # registers its ids

    grid = gymnasium.make(
        find(name, gymnasium.registry), disable_env_checker=True, render_mode='rgb_array'
    )
    if config.view != 'symbols':
        kind = 'RGBImgPartialObsWrapper' if config.view == 'partial' else 'RGBImgObsWrapper'
        grid = getattr(minigrid.wrappers, kind)(grid, tile_size=TILE)
    size = 0 if config.view == 'symbols' else config.size
    return from_gymnasium(Readable(grid, config.view, config.words), seed, size=size)


def find(name: str, known) -> str:
    """The id of a task. Raises ConfigError."""
    ours = [id for id in known if id.startswith(('MiniGrid-', 'BabyAI-'))]
    short = {re.sub(r'^MiniGrid-|-v\d+$', '', id): id for id in sorted(ours)}
    if name not in short and name not in ours:
        raise unknown_task('minigrid', name, short)
    return short.get(name, name)


class Readable(gymnasium.ObservationWrapper):
    """Fields and mission as classes."""

    def __init__(self, env: gymnasium.Env, view: str, words: int):
        super().__init__(env)
        self._symbols, self._words = view == 'symbols', words
        image = env.observation_space['image']
        if self._symbols:
            counts = np.broadcast_to([KINDS, COLOURS, STATES], image.shape)
            image = spaces.MultiDiscrete(counts.reshape(-1))
        space = {'fields' if self._symbols else 'image': image, 'direction': spaces.Discrete(4)}
        if words:
            space['mission'] = spaces.MultiDiscrete([len(WORDS) + 2] * words)
        self.observation_space = spaces.Dict(space)

    def observation(self, obs):
        image = obs['image']
        seen = {'fields': image.reshape(-1)} if self._symbols else {'image': image}
        if self._words:
            seen['mission'] = classes(obs['mission'], self._words)
        return {**seen, 'direction': obs['direction']}


def classes(mission: str, count: int) -> np.ndarray:
    """The first `count` words of a mission as classes (count,) of WORDS."""
    found = re.findall(r'[a-z]+', mission.lower())[:count]
    numbers = [CLASSES.get(word, 1) for word in found]
    return np.array(numbers + [0] * (count - len(numbers)), np.int64)
