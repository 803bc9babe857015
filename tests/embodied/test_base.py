"""The two contracts: the outcome keys, named seeds, and the random agent."""

import json
import pickle

import numpy as np
import pytest
from gymnasium import spaces

from embodied import FLAG, REWARD, Agent, Env, RandomAgent, errors
from embodied.base import OUTCOME, outcome, sample
from embodied.seeds import derive

ACTIONS = {
    'reset': FLAG,
    'move': spaces.Box(-1, 2, (3,)),
    'turn': spaces.Discrete(4),
    'keys': spaces.MultiDiscrete([2, 5]),
    'buttons': spaces.MultiBinary(6),
}


def batch(num_envs):
    return {'is_first': np.zeros(num_envs, bool)}


def test_outcome_lies_in_its_spaces_with_their_dtypes():
    values = outcome(2, is_last=True)
    assert values.keys() == OUTCOME.keys()
    for name, value in values.items():
        assert value.dtype == OUTCOME[name].dtype and value.shape == (), name
    assert values == {'reward': 2, 'is_first': False, 'is_last': True, 'is_terminal': False}
    assert OUTCOME['reward'] == REWARD and OUTCOME['is_first'] == FLAG


def test_env_without_save_says_so():
    env = Env()
    assert env.save() is None and env.repeat == 1
    with pytest.raises(errors.EnvError, match='does not support'):
        env.load({})


def test_random_agent_is_an_agent_and_draws_within_each_space():
    agent = RandomAgent(ACTIONS, seed=0)
    assert isinstance(agent, Agent)
    carry, action = agent.policy(agent.init_policy(50), batch(50))
    assert action.keys() == ACTIONS.keys() - {'reset'}
    for name, values in action.items():
        assert values.shape == (50, *ACTIONS[name].shape) and values.dtype == ACTIONS[name].dtype, (
            name
        )
        assert all(ACTIONS[name].contains(value) for value in values), name
    assert set(action['turn']) == {0, 1, 2, 3} and set(action['keys'][:, 1]) == {0, 1, 2, 3, 4}
    assert action['move'].min() < -0.8 and action['move'].max() > 1.8


def test_random_agent_continues_exactly_from_a_saved_tree():
    first, second = RandomAgent(ACTIONS, seed=0), RandomAgent(ACTIONS, seed=1)
    first.policy({}, batch(3))
    second.load(json.loads(json.dumps(first.save())))
    expected, got = first.policy({}, batch(3))[1], second.policy({}, batch(3))[1]
    for name in expected:
        np.testing.assert_array_equal(expected[name], got[name])


def test_random_agent_refuses_to_train():
    with pytest.raises(errors.EmbodiedError, match='no parameters'):
        RandomAgent(ACTIONS, seed=0).train(None)


@pytest.mark.parametrize(
    'space',
    [
        spaces.Box(-np.inf, 1, (2,)),
        spaces.Box(0, 9, (2,), np.int64),
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([2, 2], start=[0, 1]),
        spaces.Text(5),
    ],
)
def test_what_is_no_action_space_cannot_be_sampled(space):
    with pytest.raises(errors.EnvContractError, match='finite bounds'):
        sample(space, np.random.default_rng(0), 1)


def test_derived_seeds_are_fixed_for_ever_and_all_different():
    assert derive(0, 'env', 0) == 3992701930574016962
    assert derive(0, 'env', 1) == 2898608784459871636
    seeds = {
        derive(seed, name, index)
        for seed in range(5)
        for name in ('env', 'eval', 'replay', 'agent')
        for index in range(20)
    }
    assert len(seeds) == 5 * 4 * 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_negative_seed_is_a_config_error():
    with pytest.raises(errors.ConfigError, match='-1'):
        derive(-1, 'env')


def test_every_error_derives_from_the_root_and_survives_pickling():
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in found if kind.__module__ == errors.__name__]
    assert len(kinds) >= 13
    for kind in kinds:
        root = KeyboardInterrupt if kind is errors.EnvInterrupted else errors.EmbodiedError
        assert issubclass(kind, root)
        copy = pickle.loads(pickle.dumps(kind('what and where')))
        assert type(copy) is kind and str(copy) == 'what and where'
