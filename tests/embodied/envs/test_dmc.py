"""dm_control: names, seeds, action repeat, keys, and frames that show the present."""

from pathlib import Path

import numpy as np
import pytest

from embodied import envs
from embodied.config import configs_dir, parse
from embodied.envs.dmc import Camera
from embodied.errors import ConfigError

pytestmark = pytest.mark.dmc
CONFIG = parse([], configs_dir(Path(__file__).parents[3])).env.to_dict()


def make(task, seed=0, **changes):
    return envs.make(task, CONFIG | {'dmc': CONFIG['dmc'] | changes}, seed)


def walk(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    size = env.act_space['action'].shape
    return [
        env.step({'action': rng.uniform(-1, 1, size).astype(np.float32), 'reset': np.bool_(i == 0)})
        for i in range(steps)
    ]


def test_every_task_of_the_suite_is_found_by_name_and_aliases_too():
    from dm_control import suite

    from embodied.envs.dmc import find

    for domain, task in suite.ALL_TASKS:
        assert find(f'{domain}_{task}', suite.ALL_TASKS) == (domain, task)
    assert find('cup_catch', suite.ALL_TASKS) == ('ball_in_cup', 'catch')


def test_the_names_that_are_known_without_the_simulator_are_those_of_the_suite():
    from dm_control import suite

    from embodied.envs.dmc import TASKS

    known = {(domain, task) for domain, tasks in TASKS.items() for task in tasks.split()}
    assert known == set(suite.ALL_TASKS)


def test_equal_seeds_give_equal_frames_and_others_differ():
    a, b, c = (walk(make('dmc_reacher_easy', seed, proprio=True), 5) for seed in (1, 1, 2))
    assert all(np.array_equal(x['image'], y['image']) for x, y in zip(a, b))
    assert not np.array_equal(a[0]['image'], c[0]['image'])


def test_episodes_last_a_thousand_frames_and_are_cut_not_terminal():
    env = make('dmc_cartpole_balance', repeat=8, image=False, proprio=True)
    rows = walk(env, 126)
    assert env.repeat == 8 and rows[125]['is_last'] and not rows[125]['is_terminal']
    assert not any(row['is_last'] for row in rows[:125])
    assert 'image' not in rows[0] and rows[0]['position'].dtype == np.float32


def test_rewards_of_repeated_frames_add_up():
    rows = {
        repeat: walk(make('dmc_cartpole_balance', repeat=repeat, image=False, proprio=True), 3)
        for repeat in (1, 4)
    }
    assert 3.0 < rows[4][1]['reward'] <= 4.0 and 0.75 < rows[1][1]['reward'] <= 1.0


@pytest.mark.parametrize('quality', ['standard', 'fast'])
def test_frames_show_the_scene_and_change_with_it(quality):
    rows = walk(make('dmc_cheetah_run', quality=quality), 12)
    assert rows[0]['image'].shape == (64, 64, 3) and rows[0]['image'].std() > 5
    assert (rows[0]['image'] != rows[-1]['image']).mean() > 0.01


@pytest.mark.parametrize('quality', ['standard', 'fast'])
def test_edges_move_smoothly_across_pixels(quality):
    """A thin pole tells its place by how much of a pixel it covers; without multisampling a pixel
    jumps at once, here by 177."""
    env = make('dmc_cartpole_balance', quality=quality)
    walk(env, 1)
    while not isinstance(env, Camera):
        env = env.env
    shown = []
    for place in np.linspace(0, 0.06, 13):  # metres, one pixel in all
        env._physics.data.qpos[:] = place, 0
        env._physics.forward()
        shown.append(env.render().astype(int))
    assert np.abs(np.diff(shown, axis=0)).max() < 100


def test_stacked_frames_end_with_the_newest_and_begin_anew_with_an_episode():
    env, plain = make('dmc_reacher_easy', stack=3), make('dmc_reacher_easy')
    assert env.obs_space['image'].shape == (64, 64, 9)
    seen, frames = [], []
    for step in range(5):
        action = {'action': np.full(2, 0.7, np.float32), 'reset': np.bool_(step in (0, 3))}
        seen.append(env.step(action)['image'])
        frames.append(plain.step(action)['image'])
    stacks = [(0, 0, 0), (0, 0, 1), (0, 1, 2), (3, 3, 3), (3, 3, 4)]
    for image, numbers in zip(seen, stacks):
        assert np.array_equal(image, np.concatenate([frames[i] for i in numbers], -1))


def test_the_renderer_is_named_once_there_is_a_frame():
    env = make('dmc_reacher_easy')
    assert env.renderer == ''
    walk(env, 1)
    assert len(env.renderer) > 3


def test_without_images_nothing_is_rendered():
    env = make('dmc_reacher_easy', image=False, proprio=True)
    rows = walk(env, 3)
    assert not hasattr(env, 'renderer'), 'a renderer was started'
    assert 'image' not in rows[0] and 'image' not in env.obs_space


def test_mistakes_name_the_nearest_task():
    with pytest.raises(ConfigError, match='dmc_cheetah_run'):
        make('dmc_cheetah_rum')
