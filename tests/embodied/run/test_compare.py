"""Players play the same episodes: what differs is the player."""

import contextlib

from embodied.base import RandomAgent
from embodied.run.compare import compare, over_tasks, table


def test_every_episode_has_an_env_of_its_own_and_differences_are_those_of_pairs(world):
    run = world('compare', eval_episodes=5, eval_envs=2)
    with contextlib.closing(run.make_env('spaces', 0)()) as env:
        players = {
            'one': run.make_agent(env.obs_space, env.act_space),
            'two': RandomAgent(env.act_space, 1),
            'three': RandomAgent(env.act_space, 1),
        }
    found = compare(players, run.make_env, run.setup.eval, run.setup.driver)
    assert [number for kind, number in run.made if kind == 'eval'] == [0, 1, 2, 3, 4] * 3
    one, two = (found['players'][name]['returns'] for name in ('one', 'two'))
    assert len(one) == len(two) == found['episodes'] == 5
    gaps = [a - b for a, b in zip(one, two)]
    assert abs(found['differences']['one - two']['mean'] - sum(gaps) / 5) < 1e-9
    same = found['differences']['two - three']
    assert same == {'mean': 0.0, 'ci95': 0.0}, 'who acts alike earns alike'
    assert 'one - two' in table(found) and '5 episodes each' in table(found)


def test_each_of_several_tasks_is_played_and_told_apart(world):
    run, made = world('compare', eval_episodes=2, eval_envs=2), []
    with contextlib.closing(run.make_env('spaces', 0)()) as env:
        players = {name: RandomAgent(env.act_space, 1) for name in ('one', 'two')}
    make = lambda kind, index, task: made.append((task, index)) or run.make_env(kind, index)
    found = compare(players, make, run.setup.eval, run.setup.driver, ('walk', 'run'))
    assert made == [(task, index) for task in ('walk', 'run') for _ in players for index in (0, 1)]
    assert list(found['tasks']) == ['walk', 'run'] and found['episodes'] == 2
    means = [part['players']['one']['mean'] for part in found['tasks'].values()]
    assert found['players']['one']['mean'] == sum(means) / 2
    assert table(found).count('2 episodes each') == 3 and 'run: 2 episodes' in table(found)


def test_the_interval_of_a_mean_over_tasks_follows_from_those_of_the_tasks():
    parts = [{'mean': 1.0, 'ci95': 3.0}, {'mean': 2.0, 'ci95': 4.0}]
    assert over_tasks(parts) == {'mean': 1.5, 'ci95': 2.5}
    assert over_tasks([*parts, {'mean': 3.0, 'ci95': None}]) == {'mean': 2.0, 'ci95': None}
