"""Scripted behaviour for fixed replays: a world model is also measured where good policies go.

cartpole   near the top a linear-quadratic regulator, elsewhere a swing-up by the energy of the pole
           (Astrom and Furuta, 2000)
pendulum   near the top a proportional-derivative (PD) law, elsewhere the same swing-up
reacher    a PD law of the fingertip towards the target, turned into torques by the Jacobian
others     no law: random actions that wander slowly, unlike the held ones of random episodes
Every law has noise of a size drawn for each episode, so that good and bad versions of it are seen.
Letters: A action dimensions.
"""

from collections.abc import Callable

import numpy as np

from .simulator import Simulator

Law = Callable[
    [], np.ndarray
]  # reads the current state of a simulator's physics -> action (A,), not yet clipped

HOLD = 4  # mean number of decisions a random action, or the noise of a law, is held


class Script:
    """Actions of one scripted episode: a law with held noise, or a random walk if there is no law.

    Args:
        law: of the task, or None. size: A. rng: draws the size of the noise, U(0.1, 1), and the
            noise.
    """

    def __init__(self, law: Law | None, size: int, rng: np.random.Generator):
        self._law, self._rng = law, rng
        self._scale, self._noise = rng.uniform(0.1, 1.0), rng.normal(size=size)

    def act(self) -> np.ndarray:
        """The action (A,) in [-1, 1] for the current state."""
        fresh = self._rng.normal(size=self._noise.shape)
        if self._law is None:
            self._noise = 0.9 * self._noise + (1 - 0.9**2) ** 0.5 * fresh
            return np.clip(self._noise, -1, 1)
        if self._rng.random() < 1 / HOLD:
            self._noise = fresh
        return np.clip(self._law() + self._scale * self._noise, -1, 1)


class Held:
    """Actions of one random episode: uniform, each held for HOLD decisions on average."""

    def __init__(self, size: int, rng: np.random.Generator):
        self._rng, self._action = rng, rng.uniform(-1, 1, size)

    def act(self) -> np.ndarray:
        """The next action (A,)."""
        if self._rng.random() < 1 / HOLD:
            self._action = self._rng.uniform(-1, 1, self._action.shape)
        return self._action


def law(task: str, physics, repeat: int) -> Law | None:
    """The law of a task dmc_<domain>_<name>; it reads `physics`, that of the controlled env."""
    make = {'cartpole': cartpole, 'pendulum': pendulum, 'reacher': reacher}.get(task.split('_')[1])
    return make(task, physics, repeat) if make else None


def cartpole(task: str, physics, repeat: int) -> Law:
    """Regulator within 0.5 rad of the top, energy swing-up elsewhere."""
    gains = regulator(Simulator.of(task, repeat))

    def act() -> np.ndarray:
        state = np.concatenate([physics.data.qpos, physics.data.qvel])
        state[1] = wrapped(state[1])
        if abs(state[1]) < 0.5:
            return -gains @ state
        push = -np.sign(state[3] * np.cos(state[1])) * np.clip(
            lacking(state[1], state[3], 14.7) / 5, -1, 1
        )
        return np.array([push - 0.5 * state[0] - 0.2 * state[2]])

    return act


def pendulum(task: str, physics, repeat: int) -> Law:
    """PD law within 0.5 rad of the top, energy swing-up elsewhere."""

    def act() -> np.ndarray:
        angle, speed = wrapped(physics.data.qpos[0]), physics.data.qvel[0]
        if abs(angle) < 0.5:
            return np.array([-20 * angle - 4 * speed])
        return np.array([np.sign(speed) * np.sign(lacking(angle, speed, 19.6))])

    return act


def reacher(task: str, physics, repeat: int) -> Law:
    """Fingertip towards the target."""
    import mujoco

    jacobian, finger = np.zeros((3, physics.model.nv)), physics.model.name2id('finger', 'geom')

    def act() -> np.ndarray:
        mujoco.mj_jacGeom(physics.model.ptr, physics.data.ptr, jacobian, None, finger)
        return jacobian[:2].T @ physics.finger_to_target() * 60 - 0.3 * physics.data.qvel

    return act


def lacking(angle: float, speed: float, gravity: float) -> float:
    """Energy per inertia that a pole lacks to rest at the top; `gravity` is m g l / inertia."""
    return gravity * (1 - np.cos(angle)) - speed**2 / 2


def wrapped(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def regulator(simulator: Simulator, effort: float = 0.1) -> np.ndarray:
    """Gains (A, 4) of the regulator of a cartpole at its upright rest, by central differences."""
    from scipy.linalg import solve_discrete_are

    rest, move = simulator.resets(1)[0], 1e-4
    rest[1:5] = 0

    def after(offset: np.ndarray) -> np.ndarray:
        state = rest.copy()
        state[1:5] = offset[:4]
        return simulator.step(state[None], offset[None, 4:])[0][0, 1:5]

    both = np.stack([(after(step) - after(-step)) / (2 * move) for step in move * np.eye(5)], 1)
    a, b, cost, price = both[:, :4], both[:, 4:], np.diag([1.0, 10, 0.1, 0.1]), effort * np.eye(1)
    value = solve_discrete_are(a, b, cost, price)
    return np.linalg.solve(b.T @ value @ b + price, b.T @ value @ a)
