"""Play without learning: known returns of the pixel tasks, and where zero actions exist."""

import numpy as np
from gymnasium import spaces

from benchmarks import baselines
from benchmarks.learning import BOUNDS, ROOT
from embodied import envs
from embodied.config import parse


def test_uniform_play_returns_what_is_known_of_the_task():
    env = envs.make('pixel_catch', parse([], ROOT / 'configs').env.to_dict(), 0)
    found = baselines.measure(env, 200, 0)
    assert 'zero' not in found, 'its actions are classes'
    low, uniform = BOUNDS['pixel_catch'][0], found['uniform']
    assert uniform['episodes'] == 200 and abs(uniform['mean'] - low) < 2 * uniform['ci95']


def test_zero_actions_stand_still_in_pixel_reach():
    env = envs.make('pixel_reach', parse([], ROOT / 'configs').env.to_dict(), 0)
    found = baselines.measure(env, 4, 0)
    assert set(found) == {'uniform', 'zero'}
    assert found == baselines.measure(
        envs.make('pixel_reach', parse([], ROOT / 'configs').env.to_dict(), 0), 4, 0
    )


def test_zero_actions_exist_only_where_every_action_holds_zero():
    box = spaces.Box(-1, 1, (2,), np.float32)
    assert baselines.zeros({'a': box})['a'].tolist() == [0, 0]
    assert baselines.zeros({'a': box, 'b': spaces.Discrete(2)}) is None
    assert baselines.zeros({'a': spaces.Box(0.5, 1, (2,), np.float32)}) is None
