"""The built-in tasks: documented returns, frames that tell (or hide) what they should, exact
state.
"""

import numpy as np
import pytest

from embodied.base import RandomAgent, is_image
from embodied.envs import pixel
from embodied.errors import ConfigError

TASKS = list(pixel.TASKS)
DRIVEN = ('reach', 'cameras', 'above')  # by a Box


def make(task, seed=0, size=32):
    return pixel.make(task, pixel.PixelConfig(size), seed)


def returns(env, act, episodes):
    scores, total = [], 0.0
    while len(scores) < episodes:
        obs = env.step(act(env))
        total += float(obs['reward'])
        if obs['is_last']:
            scores.append(total)
            total = 0.0
    return np.array(scores)


def random_policy(env):
    agent = RandomAgent(env.act_space, 0)
    return lambda _: {
        **{k: v[0] for k, v in agent.policy({}, {'is_first': np.zeros(1)})[1].items()},
        'reset': np.bool_(False),
    }


@pytest.mark.parametrize('task', TASKS)
def test_documented_returns_are_those_that_are_measured(task):
    env = make(task)
    scores = returns(env, random_policy(env), 300 if task in DRIVEN else 1500)
    assert abs(scores.mean() - env.RANDOM_RETURN) < 4 * scores.std() / len(scores) ** 0.5
    best = returns(env, lambda env: env.optimal_action(), 200)
    assert abs(best.mean() - env.OPTIMAL_RETURN) < max(1e-6, 4 * best.std() / len(best) ** 0.5)


@pytest.mark.parametrize(
    'task,length,terminal', [('catch', 7, True), ('reach', 50, False), ('memory', 8, True)]
)
def test_lengths_and_ends(task, length, terminal):
    env = make(task)
    rows = [env.step(env.optimal_action()) for _ in range(length + 1)]
    assert (
        rows[0]['is_first'] and rows[-1]['is_last'] and not any(row['is_last'] for row in rows[:-1])
    )
    assert bool(rows[-1]['is_terminal']) == terminal


def test_memory_shows_its_cue_at_the_start_alone():
    """Episodes of different cues have equal frames in the corridor and at the doors, and
    different ones at the start.
    """
    episodes = {}
    for seed in range(30):
        env = make('memory', seed)
        rows = [
            env.step({'action': np.int32(1), 'reset': np.bool_(False)})['image'] for _ in range(8)
        ]
        episodes.setdefault(env.world['cue'], rows)
    assert set(episodes) == {0, 1, 2}
    for cue in (1, 2):
        equal = [np.array_equal(a, b) for a, b in zip(episodes[0], episodes[cue])]
        assert equal == [False, False] + [True] * 6


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('size', [32, 64])
def test_frames_change_with_the_action(task, size):
    frames = []
    for action in (0, 2):
        env = make(task, 3, size)
        env.step(env.optimal_action())
        steps = 8 if task == 'memory' else 1
        for _ in range(steps):
            value = np.full(2, action - 1, np.float32) if task in DRIVEN else np.int32(action)
            obs = env.step({'action': value, 'reset': np.bool_(False)})
        frames.append(next(x for x in obs.values() if is_image(x)))
    assert frames[0].shape == (size, size, 3) and not np.array_equal(*frames)


def test_a_size_that_is_no_multiple_of_eight_is_refused():
    with pytest.raises(ConfigError, match='multiple of 8'):
        make('catch', size=30)
