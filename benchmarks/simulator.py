"""The true physics of a dm_control task as a function: from any stored state, with any actions.

A state is one float64 vector: what MuJoCo needs to go on exactly (time, positions, velocities,
activations, warm start of the solver), then the entries of the model that a reset moves, such as
the target of reacher. Rewards and observations are the suite's own.
Letters: N states, S size of a state, A action dimensions.
"""

import numpy as np

from embodied.base import Env
from embodied.envs.dmc import find, import_suite
from embodied.wrappers import Wrapper

MOVED = (
    'body_pos',
    'body_quat',
    'geom_pos',
    'geom_size',
    'site_pos',
    'wrap_prm',
)  # arrays of the model that the suite's resets write to


class Simulator:
    """The physics of one task.

    Args:
        env: a dm_control suite environment; the simulator moves its physics and leaves its clock
            alone.
        repeat: physics frames per decision, as in the env that made the states.
    """

    def __init__(self, env, repeat: int):
        import mujoco

        self._mujoco, self._env, self.repeat = mujoco, env, repeat
        spec = env.action_spec()
        self._low, self._high = (
            np.broadcast_to(x, spec.shape) for x in (spec.minimum, spec.maximum)
        )
        self._kept = mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_WARMSTART
        self._size = mujoco.mj_stateSize(self.physics.model.ptr, self._kept)
        self._moved = moved(env)

    @classmethod
    def of(cls, task: str, repeat: int, seed: int = 0) -> 'Simulator':
        """Simulator of the task dmc_<domain>_<name>.

        Raises:
            ConfigError: unknown task. EnvMissing: dm_control is not installed.
        """
        suite = import_suite(render=False)
        domain, name = find(task.removeprefix('dmc_'), suite.ALL_TASKS)
        return cls(suite.load(domain, name, task_kwargs={'random': seed}), repeat)

    @property
    def physics(self):
        return self._env.physics

    @property
    def actions(self) -> int:
        """A."""
        return len(self._low)

    @property
    def substeps(self) -> int:
        """Physics steps per frame."""
        return round(self._env.control_timestep() / self.physics.timestep())

    def controls(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., A) in [-1, 1], clipped and scaled to the range of the motors."""
        return self._low + (np.clip(actions, -1, 1) + 1) / 2 * (self._high - self._low)

    def state(self) -> np.ndarray:
        """The current state (S,)."""
        found = np.empty(self._size)
        self._mujoco.mj_getState(self.physics.model.ptr, self.physics.data.ptr, found, self._kept)
        model = self.physics.model
        return np.concatenate(
            [
                found,
                *(getattr(model, name).reshape(-1)[index] for name, index in self._moved.items()),
            ]
        )

    def go_to(self, state: np.ndarray) -> None:
        """Set the current state (S,)."""
        model, at = self.physics.model, self._size
        for name, index in self._moved.items():
            getattr(model, name).reshape(-1)[index] = state[at : at + len(index)]
            at += len(index)
        self._mujoco.mj_setState(model.ptr, self.physics.data.ptr, state[: self._size], self._kept)
        self._mujoco.mj_step1(
            model.ptr, self.physics.data.ptr
        )  # what depends on positions and velocities, as after a step

    def resets(self, count: int) -> np.ndarray:
        """States (count, S) at the start of episodes."""
        found = []
        for _ in range(count):
            self._env.reset()
            found.append(self.state())
        return np.stack(found)

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One decision.

        Args:
            states: (N, S). actions: (N, A) in [-1, 1], clipped and scaled as the wrappers of the
                env do.

        Returns:
            next states (N, S), rewards (N,) summed over the frames of the decision.
        """
        after, rewards, env = np.empty_like(states), np.zeros(len(states)), self._env
        for i, (state, control) in enumerate(zip(states, self.controls(actions))):
            self.go_to(state)
            for _ in range(self.repeat):
                env.task.before_step(control, env.physics)
                env.physics.step(self.substeps)
                rewards[i] += env.task.get_reward(env.physics)
            after[i] = self.state()
        return after, rewards

    def rollout(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Rewards (N, H) of the actions (N, H, A) from states (N, S)."""
        rewards = np.empty(actions.shape[:2])
        for t in range(actions.shape[1]):
            states, rewards[:, t] = self.step(states, actions[:, t])
        return rewards

    def observe(self, states: np.ndarray) -> np.ndarray:
        """The suite's observation of every state as one vector, float32 (N, O)."""
        return np.stack([self._observe(state) for state in states])

    def _observe(self, state: np.ndarray) -> np.ndarray:
        self.go_to(state)
        found = self._env.task.get_observation(self.physics)
        return np.concatenate([np.ravel(value) for value in found.values()]).astype(np.float32)

    def quantities(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """Quantities a probe should read, by name: (N,) each; names of angles end in ' rad'.

        Positions and velocities of every joint, and the entries of the model that a reset moves.
        """
        model, kinds = self.physics.model, self._mujoco.mjtJoint
        count = 1 + model.nq
        out, positions, velocities = {}, states[:, 1:count], states[:, count : count + model.nv]
        for joint in range(model.njnt):
            name, q, v = (
                model.id2name(joint, 'joint') or f'joint {joint}',
                model.jnt_qposadr[joint],
                model.jnt_dofadr[joint],
            )
            kind = kinds(int(model.jnt_type[joint]))
            if kind == kinds.mjJNT_HINGE:
                out[f'{name} rad'] = positions[:, q]
            else:
                width = {kinds.mjJNT_SLIDE: 1, kinds.mjJNT_BALL: 4, kinds.mjJNT_FREE: 7}[kind]
                out |= numbered(name, positions[:, q : q + width])
            width = {kinds.mjJNT_BALL: 3, kinds.mjJNT_FREE: 6}.get(kind, 1)
            out |= numbered(f'{name} velocity', velocities[:, v : v + width])
        return out | self.moved(states)

    def moved(self, states: np.ndarray) -> dict[str, np.ndarray]:
        """The entries of the model that a reset moves, '<array> <number>' -> (N,)."""
        rest = states[:, self._size :]
        names = [name for name, index in self._moved.items() for _ in index]
        return {f'{name} {i}': rest[:, i] for i, name in enumerate(names)}


def numbered(name: str, columns: np.ndarray) -> dict[str, np.ndarray]:
    """Columns (N, n) by name, numbered if there are several."""
    return {
        name if columns.shape[1] == 1 else f'{name} {i}': columns[:, i]
        for i in range(columns.shape[1])
    }


def moved(env) -> dict[str, np.ndarray]:
    """Array of the model -> flat indices of the entries that differ between episodes."""
    seen = []
    for _ in range(4):
        env.reset()
        seen.append({name: getattr(env.physics.model, name).reshape(-1).copy() for name in MOVED})
    found = {name: np.flatnonzero(np.ptp([each[name] for each in seen], 0)) for name in MOVED}
    return {name: index for name, index in found.items() if len(index)}


def suite_env(env: Env):
    """The dm_control environment inside an env of the suite dmc."""
    while isinstance(env, Wrapper):
        env = env.env
    return env._env
