"""The driver beside gymnasium's vector envs on the same counting envs, in the same run; a part of
benchmarks/runtime.py.

Speed: env steps per second over all envs, median of rounds in which the contestants alternate.
Lateness: how much longer a step takes after a pause, such as an update of the learner; median.
"""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable

import gymnasium
import numpy as np
from gymnasium import spaces

from embodied.drive import Driver, DriverConfig
from embodied.envs.dummy import Dummy, DummyConfig

NUM_ENVS = 16
PAUSE = 0.15  # seconds
OUTCOME = ('is_first', 'is_last', 'is_terminal', 'reward')


def make_env(index: int = 0) -> Dummy:
    return Dummy('discrete+box', DummyConfig(length=100, terminal=True, size=64), index)


class GymDummy(gymnasium.Env):
    """The same env behind gymnasium's interface."""

    def __init__(self, index=0):
        self._env = make_env(index)
        self._none = {
            key: np.zeros(space.shape, space.dtype) for key, space in self._env.act_space.items()
        }
        self.action_space = spaces.Dict(
            {k: space for k, space in self._env.act_space.items() if k != 'reset'}
        )
        self.observation_space = spaces.Dict(
            {k: space for k, space in self._env.obs_space.items() if k not in OUTCOME}
        )

    def reset(self, *, seed=None, options=None):
        return self._split({**self._none, 'reset': True})[0], {}

    def step(self, action):
        obs, outcome = self._split({**action, 'reset': False})
        last, terminal = bool(outcome['is_last']), bool(outcome['is_terminal'])
        return obs, float(outcome['reward']), terminal, last and not terminal, {}

    def _split(self, action):
        values = self._env.step(action)
        outcome = {key: values.pop(key) for key in OUTCOME}
        return values, outcome


@contextlib.contextmanager
def ours(parallel: bool, envs_per_worker: int):
    """A function that steps all envs once: policy, copies and rows included."""
    config = DriverConfig(
        parallel=parallel,
        overlap=True,
        timeout=60,
        start_timeout=60,
        envs_per_worker=envs_per_worker,
        max_restarts=0,
        restart_window=60,
    )
    driver = Driver([functools.partial(make_env, index) for index in range(NUM_ENVS)], config)
    action = {
        key: np.zeros((NUM_ENVS, *space.shape), space.dtype)
        for key, space in driver.act_space.items()
        if key != 'reset'
    }
    driver.reset(lambda num_envs: None)
    driver.on_row(lambda row, index: None)
    try:
        yield lambda: driver(lambda carry, obs: (carry, action), steps=1)
    finally:
        driver.close()


@contextlib.contextmanager
def theirs(vector_class: type, **kwargs):
    """A function that steps a gymnasium vector env once."""
    vector = vector_class(
        [functools.partial(GymDummy, index) for index in range(NUM_ENVS)], **kwargs
    )
    action = vector.action_space.sample()
    vector.reset()
    try:
        yield lambda: vector.step(action)
    finally:
        vector.close()


ASYNC, SYNC = gymnasium.vector.AsyncVectorEnv, gymnasium.vector.SyncVectorEnv

CONTESTANTS = {
    'Driver, workers spread over the cores': functools.partial(ours, True, 0),
    'Driver, one worker per env': functools.partial(ours, True, 1),
    'Driver, in the calling process': functools.partial(ours, False, 1),
    'AsyncVectorEnv, shared memory': functools.partial(theirs, ASYNC, shared_memory=True),
    'AsyncVectorEnv, shared memory, copy=False': functools.partial(
        theirs, ASYNC, shared_memory=True, copy=False
    ),
    'SyncVectorEnv': functools.partial(theirs, SYNC),
}


def measure(
    peers: dict, rounds: int = 5, seconds: float = 0.5, pauses: int = 7
) -> dict[str, dict[str, float]]:
    """Contestant -> steps_per_second, late_ms. All live at the same time and alternate, so all see
    the same machine.

    Args:
        peers: name -> benchmarks.runtime.Peer, more contestants in processes of their own.
    """
    with contextlib.ExitStack() as stack:
        steppers = {name: stack.enter_context(make()) for name, make in CONTESTANTS.items()}
        rates = {name: functools.partial(speed, step, seconds) for name, step in steppers.items()}
        rates |= {
            name: functools.partial(peer.ask, 'drive', seconds) for name, peer in peers.items()
        }
        late = {name: functools.partial(lateness, step, pauses) for name, step in steppers.items()}
        late |= {
            name: functools.partial(peer.ask, 'late', pauses, PAUSE) for name, peer in peers.items()
        }
        rounds = [{name: rate() for name, rate in rates.items()} for _ in range(rounds)]
        return {
            name: {
                'steps_per_second': statistics.median(turn[name] for turn in rounds),
                'late_ms': late[name](),
            }
            for name in rates
        }


def speed(step: Callable[[], None], seconds: float) -> float:
    """Env steps per second of all envs together."""
    step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += NUM_ENVS
    return count / (time.perf_counter() - start)


def lateness(step: Callable[[], None], pauses: int) -> float:
    """Milliseconds by which a step after a pause is slower than one without."""

    def duration(pause):
        time.sleep(pause)
        start = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - start)

    prompt = statistics.median(duration(0) for _ in range(50))
    return statistics.median(duration(PAUSE) for _ in range(pauses)) - prompt
