"""The true physics of a few dm_control tasks for hundreds of states at once.

States are those of benchmarks/simulator.py, which does the same for every task of the suite, one
state after the other. Here mujoco.rollout moves all states in one call, and observations and
rewards are the suite's formulas over arrays. Tests hold the two to each other.
Letters: N states, S size of a state, A action dimensions, Q positions, V velocities, O observation.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodied.errors import ConfigError

from .simulator import Simulator

TASKS = (
    'dmc_cartpole_balance',
    'dmc_cartpole_balance_sparse',
    'dmc_cartpole_swingup',
    'dmc_cartpole_swingup_sparse',
    'dmc_pendulum_swingup',
    'dmc_reacher_easy',
    'dmc_reacher_hard',
)


@dataclass(frozen=True)
class Frame:
    """What observations and rewards are computed from.

    Attributes:
        q: (N, Q) positions. v: (N, V) velocities. moved: name -> (N,) what resets move. control:
            (N, A) as applied in the frame that ends here.
    """

    q: np.ndarray
    v: np.ndarray
    moved: Mapping[str, np.ndarray]
    control: np.ndarray | None = None


class Batched:
    """The physics of one task of TASKS.

    Args:
        task: dmc_<domain>_<name>. repeat: physics frames per decision. seed: of resets.

    Raises:
        ConfigError: the task is not one of TASKS. EnvMissing: dm_control is not installed.
    """

    def __init__(self, task: str, repeat: int, seed: int = 0):
        if task not in TASKS:
            raise ConfigError(f'--task must be one of {", ".join(TASKS)}; got {task!r}')
        import mujoco
        from mujoco import rollout

        self.simulator, self.repeat = Simulator.of(task, repeat, seed), repeat
        self.model = self.simulator.physics.model.ptr
        self._data, self._rollout = mujoco.MjData(self.model), rollout.rollout
        self._full = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_FULLPHYSICS)
        self._substeps = self.simulator.substeps
        _, domain, name = task.split('_', 2)
        self.rules = {'cartpole': Cartpole, 'pendulum': Pendulum, 'reacher': Reacher}[domain](
            name, self.simulator.physics.model
        )

    @property
    def actions(self) -> int:
        """A."""
        return self.simulator.actions

    def resets(self, count: int) -> np.ndarray:
        """States (count, S) at the start of episodes."""
        return self.simulator.resets(count)

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One decision; see Simulator.step. The solver starts cold, from zero forces, so that
        states differ from the simulator's by its tolerance where a joint touches its limit."""
        control = self.simulator.controls(actions)
        held = np.repeat(control[:, None], self.repeat * self._substeps, 1)
        path, _ = self._rollout(
            self.model, self._data, np.ascontiguousarray(states[:, : self._full]), held
        )
        after, rewards = states.copy(), np.zeros(len(states))
        after[:, self._full : self._full + self.model.nv] = 0
        for frame in range(self._substeps - 1, path.shape[1], self._substeps):
            after[:, : self._full] = path[:, frame]
            rewards += self.rules.reward(self._frame(after, control))
        return after, rewards

    def observe(self, states: np.ndarray) -> np.ndarray:
        """The suite's observation of every state as one vector, float32 (N, O)."""
        return self.rules.observe(self._frame(states)).astype(np.float32)

    def _frame(self, states: np.ndarray, control: np.ndarray | None = None) -> Frame:
        count = 1 + self.model.nq
        moved = self.simulator.moved(states)
        return Frame(states[:, 1:count], states[:, count : count + self.model.nv], moved, control)


class Cartpole:
    """One pole on a cart: balance or swingup, smooth or sparse reward."""

    def __init__(self, name: str, model):
        self.sparse = name.endswith('_sparse')

    def observe(self, frame: Frame) -> np.ndarray:
        cart, angle = frame.q.T
        return np.column_stack([cart, np.cos(angle), np.sin(angle), frame.v])

    def reward(self, frame: Frame) -> np.ndarray:
        cart, upright = frame.q[:, 0], np.cos(frame.q[:, 1])
        if self.sparse:
            return tolerance(cart, (-0.25, 0.25)) * tolerance(upright, (0.995, 1))
        small = tolerance(frame.control[:, 0], margin=1, value_at_margin=0, sigmoid='quadratic')
        calm = tolerance(frame.v[:, 1], margin=5)
        centred = tolerance(cart, margin=2)
        return (1 + upright) / 2 * (1 + centred) / 2 * (4 + small) / 5 * (1 + calm) / 2


class Pendulum:
    """A pole to be swung up by a weak motor: reward within 8 degrees of the top."""

    def __init__(self, name: str, model):
        pass

    def observe(self, frame: Frame) -> np.ndarray:
        return np.column_stack([np.cos(frame.q), np.sin(frame.q), frame.v])

    def reward(self, frame: Frame) -> np.ndarray:
        return tolerance(np.cos(frame.q[:, 0]), (np.cos(np.deg2rad(8)), 1))


class Reacher:
    """A planar arm of two links: reward while the fingertip touches the target."""

    def __init__(self, name: str, model):
        self.links = [model.body_pos[model.name2id(body, 'body'), 0] for body in ('hand', 'finger')]
        sizes = [model.geom_size[model.name2id(geom, 'geom'), 0] for geom in ('target', 'finger')]
        self.reach = sum(sizes)

    def observe(self, frame: Frame) -> np.ndarray:
        return np.column_stack([frame.q, self.to_target(frame), frame.v])

    def reward(self, frame: Frame) -> np.ndarray:
        return tolerance(np.linalg.norm(self.to_target(frame), axis=1), (0, self.reach))

    def to_target(self, frame: Frame) -> np.ndarray:
        """(N, 2), from the fingertip."""
        turns = np.cumsum(frame.q, 1)
        tip = np.stack([np.cos(turns) @ self.links, np.sin(turns) @ self.links], 1)
        return np.column_stack([frame.moved['geom_pos 0'], frame.moved['geom_pos 1']]) - tip


def tolerance(x: np.ndarray, *args, **kwargs) -> np.ndarray:
    """dm_control's, over an array."""
    from dm_control.utils import rewards

    return rewards.tolerance(x, *args, **kwargs)
