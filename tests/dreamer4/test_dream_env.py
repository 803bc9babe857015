"""A dream as an env: gymnasium's own checker, seeds, ends, and many at once."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dreamer4


@pytest.mark.parametrize('world', ['dreamer4', 'rssm'])
def test_gymnasiums_checker_finds_nothing(played, world, recwarn):
    env = gymnasium.make('dreamer4/Dream-v0', checkpoint=str(played(world)), device='cpu')
    check_env(env.unwrapped)
    assert not [str(w.message) for w in recwarn if 'env_checker' in str(w.filename)]


def test_it_is_made_from_the_package_and_rendered(played):
    env = dreamer4.DreamEnv(played(), render_mode='rgb_array', samples=2)
    obs, info = env.reset(seed=3)
    assert obs.shape == (16, 16, 3) and env.action_space.shape == (2,)
    assert np.array_equal(env.render(), obs), 'the first frame is a real one'
    obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert np.array_equal(env.render(), obs) and isinstance(reward, float)
    assert {'cont', 'value', 'spread'} == set(info) and 0 <= info['spread'] < 1


def test_it_ends_where_the_model_says_so_and_is_cut_at_the_horizon(played):
    env = dreamer4.DreamEnv(played(), horizon=3)
    env.reset(seed=0)
    assert [env.step(np.zeros(2))[2:4] for _ in range(3)][-1] == (False, True)
    env = dreamer4.DreamEnv(played(), horizon=3, ending=1.1)
    env.reset(seed=0)
    assert env.step(np.zeros(2))[2:4] == (True, False)


def test_many_dreams_begin_anew_each_by_itself(played):
    envs = gymnasium.make_vec('dreamer4/Dream-v0', 3, checkpoint=str(played()), horizon=4)
    obs, info = envs.reset(seed=5)
    assert obs.shape == (3, 16, 16, 3) and envs.action_space.shape == (3, 2)
    ended = []
    for _ in range(11):
        obs, reward, terminated, truncated, info = envs.step(envs.action_space.sample())
        ended.append(truncated.tolist())
        assert obs in envs.observation_space and info['value'].shape == (3,)
    assert [row[0] for row in ended] == [False] * 3 + [True] + [False] * 4 + [True] + [False] * 2


def test_a_seed_decides_all(played):
    envs = dreamer4.DreamVectorEnv(played(), num_envs=2)
    found = []
    for _ in range(2):
        obs, _ = envs.reset(seed=9)
        found.append((obs, *envs.step(np.ones((2, 2), np.float32))[:2]))
    for first, second in zip(*found):
        assert np.array_equal(first, second)


def test_ppo_of_another_library_learns_in_it(played):
    ppo = pytest.importorskip('stable_baselines3').PPO
    env = dreamer4.DreamEnv(played(), horizon=8)
    found = ppo('MlpPolicy', env, n_steps=16, batch_size=16, n_epochs=1, device='cpu').learn(32)
    assert found.num_timesteps == 32
    assert found.predict(env.reset(seed=0)[0])[0].shape == (2,)


def test_lanes_of_dreams_begin_anew_within_the_step(played):
    pytest.importorskip('stable_baselines3')
    from benchmarks.dream_ppo import Lanes
    from dreamer4.dream_env import Dreams

    lanes = Lanes(Dreams(played(), 3, horizon=4, first=True), seed=0)
    begun = lanes.reset()
    for _ in range(3):
        seen, reward, over, infos = lanes.step(np.ones((3, 2), np.float32))
        assert not over.any() and infos == [{}] * 3
    seen, reward, over, infos = lanes.step(np.ones((3, 2), np.float32))
    assert over.all() and infos[0]['TimeLimit.truncated']
    last = infos[0]['terminal_observation']
    assert last.shape == seen[0].shape == begun[0].shape and not np.array_equal(last, seen[0])
    assert (lanes.dreams.ages == 0).all()


def test_what_the_package_lacks_is_said():
    with pytest.raises(AttributeError, match='Nightmare'):
        dreamer4.Nightmare  # noqa: B018
