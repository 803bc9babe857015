"""The physics as a function: it continues stored states exactly; laws reach their goals in it."""

import numpy as np
import pytest

from benchmarks.controllers import Script, law
from benchmarks.simulator import Simulator

pytestmark = pytest.mark.dmc


def played(simulator, decisions, seed=0):
    """States (decisions + 1, S), actions and rewards of an episode of the suite's own env."""
    env, rng = simulator._env, np.random.default_rng(seed)
    env.reset()
    states, actions, rewards = (
        [simulator.state()],
        rng.uniform(-1, 1, (decisions, simulator.actions)),
        [],
    )
    for action in actions:
        rewards.append(sum(env.step(action).reward for _ in range(simulator.repeat)))
        states.append(simulator.state())
    return np.stack(states), actions, np.array(rewards)


@pytest.mark.parametrize(
    'task',
    ['cartpole_swingup', 'reacher_easy', 'walker_walk', 'finger_turn_easy', 'ball_in_cup_catch'],
)
def test_any_stored_state_goes_on_exactly_as_the_env_did(task):
    simulator = Simulator.of(f'dmc_{task}', 2)
    first, second = (
        played(simulator, 20),
        played(simulator, 20),
    )  # two episodes: what a reset moves differs between them
    states, actions, rewards = (np.concatenate([a[:20], b[:20]]) for a, b in zip(first, second))
    after = np.concatenate([first[0][1:], second[0][1:]])
    order = np.random.default_rng(1).permutation(40)
    found, gained = simulator.step(states[order], actions[order])
    np.testing.assert_array_equal(found, after[order])
    np.testing.assert_array_equal(gained, rewards[order])
    np.testing.assert_array_equal(
        simulator.rollout(states[:1], actions[None, :5]), rewards[None, :5]
    )


def test_quantities_are_joints_velocities_and_what_a_reset_moves():
    simulator = Simulator.of('dmc_reacher_easy', 2)
    found = simulator.quantities(simulator.resets(3))
    assert list(found) == [
        'shoulder rad',
        'shoulder velocity',
        'wrist rad',
        'wrist velocity',
        'geom_pos 0',
        'geom_pos 1',
    ]
    radius = np.hypot(found['geom_pos 0'], found['geom_pos 1'])
    assert np.all((radius > 0.05) & (radius < 0.2)) and np.ptp(radius) > 0, (
        'the target of reacher stands at .05 to .20'
    )
    assert not found['wrist velocity'].any(), 'a reset is at rest'


@pytest.mark.parametrize(
    'task, least', [('cartpole_balance', 190), ('reacher_easy', 120), ('cartpole_swingup', 60)]
)
def test_a_law_without_noise_reaches_its_goal(task, least):
    simulator = Simulator.of(f'dmc_{task}', 2)
    env = simulator._env
    env.reset()
    script, total = (
        Script(law(f'dmc_{task}', env.physics, 2), simulator.actions, np.random.default_rng(0)),
        0,
    )
    script._scale = 0
    for _ in range(100):
        action = script.act()
        total += sum(env.step(action).reward for _ in range(2))
    assert total > least, f'{total:.0f} of 200 frames'
