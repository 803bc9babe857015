"""DeepMind Lab: dmlab_<level> such as dmlab_rooms_watermaze, through its Python module."""

import dataclasses
import importlib.util
import zlib
from typing import Any

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError, EnvMissing

# Look left/right, look up/down, strafe, forward, fire, jump, crouch; the set of IMPALA.
ACTIONS = (
    (0, 0, 0, 1, 0, 0, 0),
    (0, 0, 0, -1, 0, 0, 0),
    (0, 0, -1, 0, 0, 0, 0),
    (0, 0, 1, 0, 0, 0, 0),
    (-20, 0, 0, 0, 0, 0, 0),
    (20, 0, 0, 0, 0, 0, 0),
    (-20, 0, 0, 1, 0, 0, 0),
    (20, 0, 0, 1, 0, 0, 0),
    (0, 0, 0, 0, 1, 0, 0),
)
CLASSES = 1000  # that a word of an instruction is hashed to
FPS = 60  # of the game


@dataclasses.dataclass(frozen=True)
class DMLabConfig:
    """What can be set.

    Attributes:
      repeat: frames per decision.
      size: height and width of the image in pixels.
      words: of the instruction that are observed, as classes of their hashes; 0 for none.
      length: frames after which an episode is cut.
    """

    repeat: int
    size: int
    words: int
    length: int


def check(name: str, config: DMLabConfig) -> None:
    """Refuse what make() would refuse, without importing the game.

    Raises:
      ConfigError: a value out of range. EnvMissing: the module deepmind_lab is not installed; it
          is built from its source.
    """
    if min(config.repeat, config.size, config.length) < 1 or config.words < 0:
        raise ConfigError(
            'env.dmlab: repeat, size and length must be at least 1 and words at least 0.'
        )
    if importlib.util.find_spec('deepmind_lab') is None:
        raise EnvMissing(
            'the module deepmind_lab is not installed; no package index has it for this Python:'
            ' build it from the source of DeepMind Lab.'
        )


def make(name: str, config: DMLabConfig, seed: int) -> Env:
    """The level dmlab_<name>, of contributed/dmlab30 unless it names its folder; raises as
    check().
    """
    check(name, config)
    import deepmind_lab

    watched = ['RGB_INTERLEAVED', *['INSTR'] * bool(config.words)]
    settings = {'width': str(config.size), 'height': str(config.size), 'fps': str(FPS)}
    level = name if '/' in name else f'contributed/dmlab30/{name}'
    return DMLab(deepmind_lab.Lab(level, watched, settings), config, seed)


class DMLab(Env):
    """A Lab. It does not say why an episode ends, so that only its own end is terminal; one that
    reaches `length` is cut.
    """

    def __init__(self, lab: Any, config: DMLabConfig, seed: int):
        self._lab, self._config, self._frames, self._done = lab, config, 0, True
        self._rng, self._seen = np.random.default_rng(seed), None
        self.repeat = config.repeat
        self.obs_space = {
            'image': spaces.Box(0, 255, (config.size, config.size, 3), np.uint8),
            **OUTCOME,
        }
        if config.words:
            self.obs_space['instruction'] = spaces.MultiDiscrete([CLASSES] * config.words)
        self.act_space = {'action': spaces.Discrete(len(ACTIONS)), 'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            self._lab.reset(seed=int(self._rng.integers(2**31)))
            self._done, self._frames = False, 0
            return self._observe(outcome(is_first=True))
        moves = np.array(ACTIONS[int(action['action'])], np.intc)
        reward = self._lab.step(moves, num_steps=self._config.repeat)
        self._frames += self._config.repeat
        over = not self._lab.is_running()
        self._done = over or self._frames >= self._config.length
        return self._observe(outcome(float(reward), is_last=self._done, is_terminal=over))

    def _observe(self, result: Values) -> Values:
        if self._lab.is_running():  # it shows nothing after its end
            seen = self._lab.observations()
            self._seen = {'image': np.array(seen['RGB_INTERLEAVED'], np.uint8)}
            if self._config.words:
                self._seen['instruction'] = hashed(seen['INSTR'], self._config.words)
        return {key: value.copy() for key, value in self._seen.items()} | result

    def close(self) -> None:
        self._lab.close()


def hashed(text: str, count: int) -> np.ndarray:
    """The first `count` words as classes (count,); 0 for no word."""
    found = [1 + zlib.crc32(word.encode()) % (CLASSES - 1) for word in text.lower().split()[:count]]
    return np.array(found + [0] * (count - len(found)), np.int64)
