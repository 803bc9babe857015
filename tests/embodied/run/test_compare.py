"""Players play the same episodes: what differs is the player."""

import contextlib

from embodied.base import RandomAgent
from embodied.run.compare import compare, table


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
