"""A world model as a Gymnasium environment: whoever can learn in an env can learn in a dream.

    env = gymnasium.make('dreamer4/Dream-v0', checkpoint='logdir/reach')

Letters: N envs.
"""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from embodied.base import Spaces, Values
from embodied.config import Value
from embodied.pictures import displayable
from embodied.seeds import derive

from . import runs
from .dream import Dream
from .load import restored, stored
from .starts import Starts
from .worlds import Sampling

FPS = 15  # of a film that is made of rendered frames
METADATA = {'render_modes': ['rgb_array'], 'render_fps': FPS}


class Dreams:
    """N dreams that begin at replay frames and end where the model says so: what both envs share.

    Args:
        checkpoint: folder of a run. frames: a replay folder, '' for that of the run.
        num_envs: N. horizon: steps after which a dream is cut, 0: never; a model goes astray.
        first: begin only where episodes begin. ending: a dream ends where the probability of going
            on is below this.
        steps, mean, noise: see worlds.Sampling. samples: see dream.Dream.
        machine: keys of the block `machine`, such as device='cpu'.

    Raises:
        ConfigError, CheckpointError: as load(); or there are no frames to begin at.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        num_envs: int,
        *,
        frames: str | Path = '',
        horizon: int = 64,
        first: bool = False,
        ending: float = 0.5,
        steps: int = 0,
        mean: bool = False,
        noise: float | None = None,
        samples: int = 0,
        **machine: Value,
    ):
        logdir = runs.folder_of(checkpoint)
        config, known = stored(logdir, machine), runs.read_spaces(logdir)
        agent = restored(logdir, config, *known, seed=0)
        self.dream = Dream(agent, *known, 0, Sampling(steps, mean, noise), samples)
        self.starts = Starts(frames or logdir, *known)
        self.num_envs, self.horizon, self.first, self.ending = num_envs, horizon, first, ending
        self.moment, self.ages = None, np.zeros(num_envs, np.int64)

    def reset(self, rng: np.random.Generator, rows: np.ndarray | None = None) -> None:
        """Begin the dreams in `rows`, bool (N,), anew; all without."""
        count = self.num_envs if rows is None else int(rows.sum())
        drawn = self.starts.draw(rng, count, self.dream.context, self.first)
        if rows is None:
            self.moment, self.ages = self.dream.begin(drawn), np.zeros(self.num_envs, np.int64)
            return
        index = np.cumsum(rows) - 1  # every env its own start; the others any, which is not taken
        begun = self.dream.begin(drawn).take(np.clip(index, 0, count - 1))
        self.moment = self.moment.put(rows, begun)
        self.ages[rows] = 0

    def step(self, action: Values) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """reward, terminated, truncated, each (N,)."""
        self.moment = self.dream.step(self.moment, action)
        self.ages += 1
        terminated = self.moment.cont < self.ending
        truncated = ~terminated & (self.horizon > 0) & (self.ages >= self.horizon)
        return self.moment.reward.astype(np.float64), terminated, truncated

    def beliefs(self) -> dict[str, np.ndarray]:
        """What else the model says of the frames, each (N,)."""
        told = {'cont': self.moment.cont, 'value': self.moment.value}
        return told | ({'spread': self.moment.spread} if self.dream.samples else {})

    def pictures(self) -> list[np.ndarray]:
        """A frame (H, W, 3) of every dream: its images side by side."""
        images = [displayable(v) for _, v in sorted(self.moment.obs.items()) if v.ndim == 4]
        if not images:
            raise gymnasium.error.Error('render: this env observes no image')
        high = max(image.shape[1] for image in images)
        grown = [np.pad(x, ((0, 0), (0, high - x.shape[1]), (0, 0), (0, 0))) for x in images]
        coloured = [np.repeat(x, 3, -1) if x.shape[-1] == 1 else x for x in grown]
        return list(np.concatenate(coloured, 2))


class DreamEnv(gymnasium.Env):
    """One dream.

    A single observation or action is its space itself, several are a Dict. They are those of the
    run's env as its agent knows them: float actions in [-1, 1], images uint8 (H, W, C).
    info holds 'cont', 'value' and, with samples, 'spread' of the frame, see dream.Moment.

    Args:
        checkpoint: folder of a run. render_mode: 'rgb_array' or None. settings: further arguments
            of Dreams, such as horizon=32 or device='cpu'.
    """

    metadata = METADATA

    def __init__(
        self, checkpoint: str | Path, render_mode: str | None = None, **settings: Value | None
    ):
        self.render_mode = render_mode
        self._dreams = Dreams(checkpoint, 1, **settings)
        self.observation_space = single(self._dreams.dream.obs_space)
        self.action_space = single(self._dreams.dream.act_space)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Begin at a replay frame; a seed decides which, and what is dreamt from it on."""
        super().reset(seed=seed)
        if seed is not None:
            self._dreams.dream.reseed(derive(seed, 'dream'))
        self._dreams.reset(self.np_random)
        return self._told()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        space = self._dreams.dream.act_space
        batch = {key: np.asarray(value)[None] for key, value in named(space, action).items()}
        reward, terminated, truncated = self._dreams.step(batch)
        obs, info = self._told()
        return obs, float(reward[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray | None:
        """uint8 (H, W, 3) of the present frame."""
        return self._dreams.pictures()[0] if self.render_mode == 'rgb_array' else None

    def _told(self) -> tuple[Any, dict]:
        obs = {key: value[0] for key, value in self._dreams.moment.obs.items()}
        info = {key: float(value[0]) for key, value in self._dreams.beliefs().items()}
        return unnamed(self._dreams.dream.obs_space, obs), info


class DreamVectorEnv(gymnasium.vector.VectorEnv):
    """N dreams in one pass of the model; an ended one begins anew at the next step (gymnasium's
    NEXT_STEP).

    Args:
        num_envs: N. The others are those of DreamEnv.
    """

    metadata = METADATA | {'autoreset_mode': AutoresetMode.NEXT_STEP}

    def __init__(
        self,
        checkpoint: str | Path,
        num_envs: int = 1,
        render_mode: str | None = None,
        **settings: Value | None,
    ):
        self.num_envs, self.render_mode = num_envs, render_mode
        self._dreams = Dreams(checkpoint, num_envs, **settings)
        self.single_observation_space = single(self._dreams.dream.obs_space)
        self.single_action_space = single(self._dreams.dream.act_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._over = np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        """Begin all dreams; a list of seeds, which other vector envs take, cannot be followed."""
        super().reset(seed=seed)
        if seed is not None:
            self._dreams.dream.reseed(derive(seed, 'dream'))
        self._dreams.reset(self.np_random)
        self._over[:] = False
        return self._told()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict]:
        over = self._over.copy()
        reward, terminated, truncated = self._dreams.step(
            named(self._dreams.dream.act_space, actions)
        )
        if over.any():
            self._dreams.reset(self.np_random, over)
            reward[over], terminated[over], truncated[over] = 0.0, False, False
        self._over = terminated | truncated
        obs, info = self._told()
        return obs, reward, terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A frame uint8 (H, W, 3) of every dream."""
        return tuple(self._dreams.pictures()) if self.render_mode == 'rgb_array' else None

    def _told(self) -> tuple[Any, dict]:
        info = {}
        for key, value in self._dreams.beliefs().items():
            info |= {key: value.copy(), f'_{key}': np.ones(self.num_envs, bool)}
        return unnamed(self._dreams.dream.obs_space, self._dreams.moment.obs), info


def single(known: Spaces) -> spaces.Space:
    """The space of an env that has these: the only one itself, or a Dict of them."""
    return next(iter(known.values())) if len(known) == 1 else spaces.Dict(known)


def named(known: Spaces, value: Any) -> Values:
    """A value of single(known) by key."""
    return {next(iter(known)): value} if len(known) == 1 else dict(value)


def unnamed(known: Spaces, values: Values) -> Any:
    """Inverse of named."""
    return next(iter(values.values())) if len(known) == 1 else values
