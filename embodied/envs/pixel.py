"""Small tasks drawn with NumPy alone: no rendering library, no simulator, microseconds per step.

    pixel_catch    discrete, 7 decisions    the ball that falls must meet the pad             paid
    once, at the end
    pixel_reach    2-d Box, 50 decisions    a blob is driven to another one                   paid
    at every step
    pixel_memory   discrete, 8 decisions    a cue is seen twice and must be recalled at the end
    paid once, at the end
    pixel_cameras  as pixel_reach           two cameras, each of which shows one coordinate
    pixel_above    as pixel_cameras         with one of them alone, which is not enough
Things are Gaussian blobs, each with a colour channel of its own, so that a frame tells the whole
state (save for the cue, which is the point of pixel_memory). Sizes and distances scale with the
frame.
"""

import copy
import dataclasses

import numpy as np
from gymnasium import spaces

from ..base import FLAG, OUTCOME, Env, Values, outcome
from ..errors import ConfigError
from . import unknown_task


@dataclasses.dataclass(frozen=True)
class PixelConfig:
    """size: height and width of the frames in pixels, a multiple of 8."""

    size: int


class PixelEnv(Env):
    """What the tasks share: frames, episodes, and a savable state of plain numbers. A task defines
    the methods below.

    Attributes:
      RANDOM_RETURN, OPTIMAL_RETURN: mean return of uniformly random actions and of
          optimal_action().
      world: the state of the task as JSON values.
    """

    RANDOM_RETURN: float
    OPTIMAL_RETURN: float
    action_space: spaces.Space

    def __init__(self, config: PixelConfig, seed: int):
        self.size = config.size
        self.world = {}
        self._rng = np.random.default_rng(seed)
        self._done = True

    def begin(self) -> dict:
        """The world at the start of an episode; draws from self._rng."""
        raise NotImplementedError

    def advance(self, action) -> tuple[float, bool, bool]:
        """Change the world by one decision; returns reward, is_last, is_terminal."""
        raise NotImplementedError

    def draw(self, frame: np.ndarray) -> None:
        """Draw the world onto a black frame uint8 (size, size, 3)."""
        raise NotImplementedError

    def best(self):
        """An optimal action in the current world."""
        raise NotImplementedError

    @property
    def obs_space(self):
        return {'image': spaces.Box(0, 255, (self.size, self.size, 3), np.uint8), **OUTCOME}

    @property
    def act_space(self):
        return {'action': self.action_space, 'reset': FLAG}

    def step(self, action: Values) -> Values:
        if action['reset'] or self._done:
            self.world, self._done = self.begin(), False
            result = outcome(is_first=True)
        else:
            reward, is_last, is_terminal = self.advance(action['action'])
            self._done = is_last
            result = outcome(reward, is_last=is_last, is_terminal=is_terminal)
        return {**self.images(), **result}

    def images(self) -> Values:
        """What the cameras see of the world."""
        frame = np.zeros((self.size, self.size, 3), np.uint8)
        self.draw(frame)
        return {'image': frame}

    def optimal_action(self) -> Values:
        """The action of a policy that sees the world, for step()."""
        action = self.best() if self.world else np.zeros(self.action_space.shape)
        return {'action': np.asarray(action, self.action_space.dtype), 'reset': np.bool_(False)}

    def save(self) -> Values:
        return {
            'world': copy.deepcopy(self.world),
            'done': self._done,
            'rng': self._rng.bit_generator.state,
        }

    def load(self, state: Values) -> None:
        self.world, self._done = copy.deepcopy(state['world']), state['done']
        self._rng.bit_generator.state = state['rng']


class Catch(PixelEnv):
    """A red ball falls one row of an 8 x 8 grid per decision; the green pad in the lowest row moves
    left, stays or moves right.

    Reward: +1 if the ball lands on the pad, -1 if beside it, only on the last row, which is
        terminal. Every start can be won.
    """

    RANDOM_RETURN = -0.75  # exact: the ball's column is uniform over 8 and independent of the pad
    OPTIMAL_RETURN = 1.0
    GRID = 8
    action_space = spaces.Discrete(3, dtype=np.int32)

    def __init__(self, config, seed):
        super().__init__(config, seed)
        cell = self.size / self.GRID
        centers = (np.arange(self.GRID) + 0.5) * cell
        self._profiles = bumps(np.arange(self.size) + 0.5, centers, cell / 2)

    def begin(self):
        ball, pad = self._rng.integers(self.GRID, size=2).tolist()
        return {'row': 0, 'ball': ball, 'pad': pad}

    def advance(self, action):
        world = self.world
        world['pad'] = min(max(world['pad'] + int(action) - 1, 0), self.GRID - 1)
        world['row'] += 1
        landed = world['row'] == self.GRID - 1
        return landed * (1.0 if world['pad'] == world['ball'] else -1.0), landed, landed

    def draw(self, frame):
        paint(frame, 0, self._profiles[self.world['row']], self._profiles[self.world['ball']])
        paint(frame, 1, self._profiles[-1], self._profiles[self.world['pad']])

    def best(self):
        return np.sign(self.world['ball'] - self.world['pad']) + 1


class Reach(PixelEnv):
    """A red blob in the arena [-1, 1]^2 moves by 0.2 times the action (x, y) and should reach the
    green blob, which stands still.

    Reward: exp(-3 distance) after each decision. Episodes are cut by a time limit of 50 decisions:
        the last row is not terminal.
    """

    RANDOM_RETURN = 5.75
    OPTIMAL_RETURN = 47.60
    STEPS, SPEED, START, SHARPNESS = 50, 0.2, 0.9, 3.0
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, config, seed):
        super().__init__(config, seed)
        self._grid = np.linspace(-1.1, 1.1, self.size)

    def begin(self):
        start, goal = self._rng.uniform(-self.START, self.START, (2, 2)).tolist()
        return {'step': 0, 'position': start, 'goal': goal}

    def advance(self, action):
        world = self.world
        moved = np.add(world['position'], self.SPEED * np.clip(action, -1, 1, dtype=np.float64))
        world['position'] = np.clip(moved, -1, 1).tolist()
        world['step'] += 1
        distance = np.hypot(*np.subtract(world['position'], world['goal']))
        return np.exp(-self.SHARPNESS * distance), world['step'] == self.STEPS, False

    def draw(self, frame):
        for channel, name in enumerate(('position', 'goal')):
            across, down = bumps(self._grid, self.world[name], 0.13)
            paint(frame, channel, down, across)

    def best(self):
        return np.clip(np.subtract(self.world['goal'], self.world['position']) / self.SPEED, -1, 1)


class Cameras(Reach):
    """Reach before two cameras, of which 'above' shows only x and 'side' only y of both blobs: a
    policy that sees one of them cannot do more than guess the other coordinate.
    """

    VIEWS = {'above': 0, 'side': 1}

    @property
    def obs_space(self):
        image = spaces.Box(0, 255, (self.size, self.size, 3), np.uint8)
        return {**dict.fromkeys(self.VIEWS, image), **OUTCOME}

    def images(self):
        found = {}
        for view, axis in self.VIEWS.items():
            frame = found[view] = np.zeros((self.size, self.size, 3), np.uint8)
            for channel, name in enumerate(('position', 'goal')):
                across, middle = bumps(self._grid, [self.world[name][axis], 0.0], 0.13)
                paint(frame, channel, middle, across)
        return found


class Above(Cameras):
    """The same before one of the two cameras."""

    VIEWS = {'above': 0}


class Memory(PixelEnv):
    """One of three coloured blobs is shown; after a corridor in which nothing can be done, the door
    on its side must be chosen.

    Rows 0-1 show the cue, rows 2-6 only the agent's white dot, which walks up by itself, row 7
    three grey doors. The action taken at row 7 (0 left, 1 middle, 2 right) moves the dot into a
    door and ends the episode: the last row is terminal and pays +1 for the door on the cue's side,
    -1 otherwise. Actions before that do nothing. No frame after row 1 depends on the cue.
    """

    RANDOM_RETURN = -1 / 3  # exact: one door in three is right
    OPTIMAL_RETURN = 1.0
    DOORS, CUE_ROWS, CORRIDOR_ROWS = 3, 2, 5
    action_space = spaces.Discrete(3, dtype=np.int32)

    def __init__(self, config, seed):
        super().__init__(config, seed)
        pixels = (np.arange(self.size) + 0.5) / self.size
        self._sides = bumps(pixels, np.array([1, 3, 5]) / 6, 1 / 12)
        self._heights = bumps(
            pixels, np.linspace(0.9, 0.15, self.CUE_ROWS + self.CORRIDOR_ROWS + 2), 1 / 24
        )
        self._dots = bumps(pixels, np.array([1, 3, 5]) / 6, 1 / 24)

    def begin(self):
        return {'step': 0, 'cue': int(self._rng.integers(self.DOORS)), 'door': 1}

    def advance(self, action):
        world, choice_row = self.world, self.CUE_ROWS + self.CORRIDOR_ROWS
        chooses = world['step'] == choice_row
        world['step'] += 1
        if not chooses:
            return 0.0, False, False
        world['door'] = int(action)
        return (1.0 if world['door'] == world['cue'] else -1.0), True, True

    def draw(self, frame):
        step, cue = self.world['step'], self.world['cue']
        if step < self.CUE_ROWS:
            paint(frame, cue, self._sides[1], self._sides[cue])
        if step >= self.CUE_ROWS + self.CORRIDOR_ROWS:
            paint(frame, slice(None), self._sides[0], 0.5 * self._sides.max(0))
        dot = np.multiply.outer(255 * self._heights[step], self._dots[self.world['door']]).astype(
            np.uint8
        )
        np.maximum(frame, dot[..., None], out=frame)

    def best(self):
        return self.world['cue']


TASKS = {
    'catch': Catch,
    'reach': Reach,
    'memory': Memory,
    'cameras': Cameras,
    'above': Above,
}


def check(name: str, config: PixelConfig) -> None:
    """ConfigError for an unknown task pixel_<name> or an impossible size."""
    if name not in TASKS:
        raise unknown_task('pixel', name, TASKS)
    if config.size < 8 or config.size % 8:
        raise ConfigError(f'env.pixel.size must be a positive multiple of 8, got {config.size}.')


def make(name: str, config: PixelConfig, seed: int) -> PixelEnv:
    """The task pixel_<name>."""
    check(name, config)
    return TASKS[name](config, seed)


def bumps(grid: np.ndarray, centers, width: float) -> np.ndarray:
    """Gaussian profiles of height 1 over grid (S,), one per center (N,) -> (N, S)."""
    return np.exp(-((grid - np.asarray(centers)[:, None]) ** 2) / (2 * width**2)).astype(np.float32)


def paint(frame: np.ndarray, channel, down: np.ndarray, across: np.ndarray) -> None:
    """Fill channel(s) of frame with the product of two profiles, brightness 255 at their peaks."""
    blob = np.multiply.outer(255 * down, across)
    frame[..., channel] = blob[..., None] if isinstance(channel, slice) else blob
