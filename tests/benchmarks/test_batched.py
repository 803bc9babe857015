"""The physics of many states at once is the physics of each of them."""

import numpy as np
import pytest

from benchmarks.batched import TASKS, Batched
from benchmarks.simulator import Simulator
from embodied.errors import ConfigError

pytestmark = pytest.mark.dmc


@pytest.mark.parametrize('task', TASKS)
def test_states_rewards_and_observations_are_those_of_the_suite(task):
    batched, rng = Batched(task, 2, seed=3), np.random.default_rng(0)
    simulator = Simulator.of(task, 2)
    states = batched.resets(8)
    assert (batched.resets(8) != states).any()
    states[:4, 1:3] = rng.uniform(-3, 3, states[:4, 1:3].shape)  # anywhere, and past the limits
    states[2:4, 3:5] = rng.normal(size=states[2:4, 3:5].shape) * 5
    expected, rewarded = states, 0.0
    for _ in range(20):
        actions = rng.uniform(-1.2, 1.2, (8, batched.actions))
        states, rewards = batched.step(states, actions)
        expected, known = simulator.step(expected, actions)
        np.testing.assert_allclose(rewards, known, atol=1e-9)
        np.testing.assert_allclose(batched.observe(states), simulator.observe(states), atol=1e-6)
        size = 1 + batched.model.nq + batched.model.nv
        np.testing.assert_allclose(states[:, :size], expected[:, :size], atol=1e-9)
        rewarded += known.sum()
    assert rewarded > 0 or 'sparse' in task or 'hard' in task or 'pendulum' in task


def test_states_at_the_goal_are_rewarded():
    for task, goal in {'dmc_pendulum_swingup': 0.1, 'dmc_cartpole_balance_sparse': 0.05}.items():
        batched = Batched(task, 2)
        states = batched.resets(1)
        states[:, 1:] = 0
        states[:, batched.model.nq] = goal
        assert batched.step(states, np.zeros((1, 1)))[1] == 2


def test_a_task_without_formulas_is_refused_with_the_list():
    with pytest.raises(ConfigError, match='dmc_reacher_easy.*walker'):
        Batched('dmc_walker_walk', 2)
