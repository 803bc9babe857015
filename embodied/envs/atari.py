"""Arcade Learning Environment: atari_<game>, such as atari_pong or atari_ms_pacman."""

import dataclasses

import numpy as np
from gymnasium import spaces
from PIL import Image

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError
from ..extras import require
from . import unknown_task


@dataclasses.dataclass(frozen=True)
class AtariConfig:
    """What can be set.

    Attributes:
      repeat: frames per decision; the image is the maximum of the last two.
      size: height and width of the image in pixels.
      gray: one channel instead of three.
      sticky: repeat the last action with probability 0.25.
      noops: most random no-ops after a reset.
      length: decisions after which an episode is cut.
    """

    repeat: int
    size: int
    gray: bool
    sticky: bool
    noops: int
    length: int


def check(name: str, config: AtariConfig) -> None:
    """Refuse what make() would refuse, without loading a game.

    Raises:
      ConfigError: unknown game or value. EnvMissing: the package ale-py is not installed.
    """
    if min(config.repeat, config.size, config.length) < 1 or config.noops < 0:
        raise ConfigError(
            'env.atari: repeat, size and length must be at least 1 and noops at least 0.'
        )
    require('ale_py', 'atari')
    from ale_py import roms

    games = roms.get_all_rom_ids()
    if name not in games:
        raise unknown_task('atari', name, games)


def make(name: str, config: AtariConfig, seed: int) -> Env:
    """The task atari_<name>; raises as check()."""
    check(name, config)
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt('random_seed', seed % 2**31)
    ale.setFloat('repeat_action_probability', 0.25 if config.sticky else 0.0)
    ale.loadROM(roms.get_rom_path(name))
    return Atari(ale, config, seed)


class Atari(Env):
    """Game over is terminal, the limit of decisions is not. A lost life is not an end."""

    def __init__(self, ale, config: AtariConfig, seed: int):
        self._ale, self._config, self._rng = ale, config, np.random.default_rng(seed)
        self._actions = list(ale.getMinimalActionSet())
        self._done, self._decisions = True, 0
        height, width = ale.getScreenDims()
        self._screens = np.zeros((2, height, width, 3), np.uint8)

    @property
    def repeat(self) -> int:
        return self._config.repeat

    @property
    def obs_space(self):
        channels = 1 if self._config.gray else 3
        return {
            'image': spaces.Box(0, 255, (self._config.size, self._config.size, channels), np.uint8),
            **OUTCOME,
        }

    @property
    def act_space(self):
        return {'action': spaces.Discrete(len(self._actions)), 'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            return self._begin()
        reward = 0.0
        for left in reversed(range(self._config.repeat)):
            reward += self._ale.act(self._actions[int(action['action'])])
            over = bool(self._ale.game_over())
            if left < 2 or over:
                self._look()
            if over:
                break
        self._decisions += 1
        self._done = over or self._decisions >= self._config.length
        return {
            'image': self._image(),
            **outcome(float(reward), is_last=self._done, is_terminal=over),
        }

    def _begin(self) -> Values:
        self._ale.reset_game()
        self._done, self._decisions = False, 0
        for _ in range(int(self._rng.integers(self._config.noops + 1))):
            self._ale.act(self._actions[0])
            if self._ale.game_over():
                self._ale.reset_game()
        self._look()
        self._screens[1] = self._screens[0]
        return {'image': self._image(), **outcome(is_first=True)}

    def _look(self) -> None:
        """See the present screen; it takes the place of the last but one that was seen."""
        self._screens = self._screens[::-1]
        self._ale.getScreenRGB(self._screens[0])

    def _image(self) -> np.ndarray:
        image = Image.fromarray(self._screens.max(0))
        image = image.convert('L') if self._config.gray else image
        size = self._config.size
        return np.array(image.resize((size, size), Image.Resampling.BILINEAR)).reshape(
            self.obs_space['image'].shape
        )
