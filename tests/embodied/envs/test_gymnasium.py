"""Any Gymnasium environment: kinds of spaces, ends, images, seeds."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from embodied import envs
from embodied.config import configs_dir, parse
from embodied.envs.gymnasium import from_gymnasium
from embodied.errors import ConfigError, EnvContractError
from embodied.wrappers import wrap
from pathlib import Path

CONFIG = parse([], configs_dir(Path(__file__).parents[3])).env.to_dict()


class Zoo(gymnasium.Env):
    """Every kind of space; ends terminally after 3 steps if the gear is odd, else truncated after 5."""

    observation_space = spaces.Dict({
        'arm': spaces.Dict({'angle': spaces.Box(-np.inf, np.inf, (2,), np.float64), 'grip': spaces.Discrete(3, start=5)}),
        'lamps': spaces.MultiBinary(4), 'pair': spaces.Tuple((spaces.Box(0, 1, (), np.float32), spaces.MultiDiscrete([2, 3])))})
    action_space = spaces.Dict({'gear': spaces.Discrete(4, start=1), 'push': spaces.Box(-2.0, 6.0, (2,), np.float64), 'keys': spaces.MultiBinary(2)})

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.given = 0, None
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.time, self.given = self.time + 1, action
        return self.observe(), 1.5, self.time == 3 and action['gear'] % 2 == 1, self.time == 5, {}

    def observe(self):
        return {'arm': {'angle': self.np_random.normal(size=2), 'grip': 6}, 'lamps': np.ones(4, np.int8),
                'pair': (np.float32(0.5), np.array([1, 2]))}


def act(gear, first=False):
    return {'gear': np.int32(gear), 'push': np.array([-1, 1], np.float32), 'keys': np.ones(2, np.int8), 'reset': np.bool_(first)}


def test_nested_spaces_become_flat_keys_counted_from_zero():
    env = wrap(from_gymnasium(Zoo()))
    assert set(env.obs_space) >= {'arm/angle', 'arm/grip', 'lamps', 'pair/0', 'pair/1'}
    obs = env.step(act(0, True))
    assert obs['arm/grip'] == 1 and obs['arm/angle'].dtype == np.float32 and obs['pair/1'].tolist() == [1, 2]


def test_actions_arrive_in_the_envs_own_units():
    inner = Zoo()
    env = wrap(from_gymnasium(inner))
    env.step(act(0, True))
    env.step(act(3))
    assert inner.given['gear'] == 4 and inner.given['push'].tolist() == [-2.0, 6.0]


@pytest.mark.parametrize('gear,length,terminal', [(0, 3, True), (1, 5, False)])
def test_terminated_and_truncated_are_told_apart(gear, length, terminal):
    env = wrap(from_gymnasium(Zoo()))
    rows = [env.step(act(gear, i == 0)) for i in range(length + 2)]
    assert rows[length]['is_last'] and bool(rows[length]['is_terminal']) == terminal
    assert rows[length + 1]['is_first'] and rows[length + 1]['reward'] == 0


def test_the_seed_reaches_the_env_and_later_episodes_differ():
    first = [wrap(from_gymnasium(Zoo(), seed=s)).step(act(0, True))['arm/angle'] for s in (1, 1, 2)]
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])
    env = wrap(from_gymnasium(Zoo(), seed=1))
    starts = [env.step(act(0, True))['arm/angle'] for _ in range(2)]
    assert not np.array_equal(*starts)


def test_unbounded_actions_are_refused_by_name():
    class Wild(Zoo):
        action_space = spaces.Dict({'push': spaces.Box(-np.inf, np.inf, (1,))})
    with pytest.raises(EnvContractError, match="'push' is unbounded"):
        from_gymnasium(Wild())


def test_unknown_ids_name_the_nearest():
    with pytest.raises(ConfigError, match='gym_CartPole-v'):
        envs.make('gym_CartPol-v1', CONFIG, 0)


def test_a_single_observation_is_called_state():
    env = envs.make('gym_CartPole-v1', CONFIG, 0)
    assert env.obs_space['state'].shape == (4,)


def test_rendered_frames_are_observed_where_the_env_shows_none():
    class Painter(Zoo):
        render_mode = 'rgb_array'

        def render(self):
            return np.full((40, 60, 3), 30 * self.time, np.uint8)
    env = wrap(from_gymnasium(Painter(), image=True, size=16))
    first, second = env.step(act(0, True))['image'], env.step(act(0))['image']
    assert first.shape == (16, 16, 3) and first.max() == 0 and (second == 30).all()
    with pytest.raises(EnvContractError, match="render_mode 'rgb_array'"):
        from_gymnasium(Zoo(), image=True)
