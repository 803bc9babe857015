"""Suites of others: what each adapter makes of the interface of its package, by stand-ins where the
package is not installed here, and with the package where it is.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from embodied import envs
from embodied.checks import check_env
from embodied.config import configs_dir, parse
from embodied.envs import dmlab, procgen, unity
from embodied.envs.atari import Atari, AtariConfig
from embodied.envs.dm_env import from_dm
from embodied.envs.functional import Functional, Functions
from embodied.envs.minigrid import CLASSES, WORDS, classes, find
from embodied.errors import ConfigError, EnvContractError, EnvMissing
from embodied.wrappers import wrap

CONFIG = parse([], configs_dir(Path(__file__).parents[3])).env.to_dict()
MISSING = {
    'procgen_coinrun': 'procgen',
    'minigrid_Empty-8x8': 'minigrid',
    'memmaze_9x9': 'memory_maze',
    'metaworld_reach': 'metaworld',
    'vizdoom_Basic': 'vizdoom',
    'retro_Airstriker-Genesis': 'stable_retro',
    'craftax_Classic-Pixels': 'craftax',
    'brax_ant': 'brax',
    'dmlab_rooms_watermaze': 'deepmind_lab',
    'unity_editor': 'mlagents_envs',
    'mujoco_ant': 'mujoco',
}
MISTAKES = [
    ('procgen_coinrunner', 'nearest: procgen_coinrun'),
    ('memmaze_9', 'nearest: memmaze_9x9'),
    ('metaworld_reech', 'nearest: metaworld_reach'),
    ('craftax_Pixel', 'nearest: craftax_Pixels'),
    ('brax_ants', 'nearest: brax_ant'),
    ('mujoco_cheetah', 'nearest: mujoco_half_cheetah'),
]


def contract(make):
    assert check_env(lambda seed: wrap(make(seed)), 120, lambda note: None) == []


@pytest.mark.parametrize('task', MISSING)
def test_a_suite_whose_package_is_absent_names_it_in_one_line(task, monkeypatch):
    real = importlib.util.find_spec
    hide = lambda name: None if name == MISSING[task] else real(name)
    monkeypatch.setattr(importlib.util, 'find_spec', hide)
    for refuse in (envs.check, lambda task, config: envs.make(task, config, 0)):
        with pytest.raises(EnvMissing, match=f'{MISSING[task]} is not installed') as error:
            refuse(task, CONFIG)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize('task, words', MISTAKES)
def test_a_task_that_a_suite_has_not_is_refused_by_the_nearest(task, words):
    with pytest.raises(ConfigError, match=words):
        envs.check(task, CONFIG)


@pytest.mark.parametrize('task', ['mujoco_inverted_pendulum', 'minigrid_Empty-5x5'])
def test_an_installed_suite_keeps_the_contract(task):
    pytest.importorskip(MISSING.get(task, task.partition('_')[0]))
    contract(lambda seed: envs.make(task, CONFIG, seed))


class Games:
    """As much of gym3 as Procgen uses: levels of five steps, the last of which pays."""

    ob_space = {'rgb': spaces.Box(0, 255, (8, 8, 3), np.uint8)}
    ac_space = types.SimpleNamespace(eltype=types.SimpleNamespace(n=15))

    def __init__(self, rand_seed=0, **settings):
        self.rng, self.settings = np.random.default_rng(rand_seed), settings
        self._level()

    def _level(self, reward=0.0):
        self.at, self.reward, self.first = 0, reward, True
        self.shade = int(self.rng.integers(200))

    def act(self, action):
        assert action.shape == (1,) and action.dtype == np.int32
        self.at, self.reward, self.first = self.at + 1, 0.0, False
        if self.at == 5 or action[0] == -1:
            self._level(float(action[0] >= 0))

    def observe(self):
        image = np.full((1, 8, 8, 3), self.shade + self.at, np.uint8)
        return np.array([self.reward]), {'rgb': image}, np.array([self.first])

    def close(self):
        pass


def test_procgen_ends_episodes_where_the_next_level_begins(monkeypatch):
    module = types.SimpleNamespace(ProcgenGym3Env=lambda num, **settings: Games(**settings))
    monkeypatch.setitem(sys.modules, 'procgen', module)
    monkeypatch.setattr(procgen, 'require', lambda *names: None)
    make = lambda seed: procgen.make('coinrun', procgen.ProcgenConfig(3, 0, 'easy'), seed)
    contract(make)
    env, rows = make(0), []
    for number in range(13):
        rows.append(env.step({'action': 3, 'reset': number in (0, 9)}))
    assert [i for i, row in enumerate(rows) if row['is_first']] == [0, 6, 9]
    assert [i for i, row in enumerate(rows) if row['is_last']] == [5]
    assert rows[5]['reward'] == 1 and rows[5]['is_terminal']
    # the frame before the end stands in for the one that is never shown
    assert np.array_equal(rows[5]['image'], rows[4]['image'])
    assert rows[9]['reward'] == 0 and not np.array_equal(rows[9]['image'], rows[8]['image'])


class Lab:
    """As much of deepmind_lab.Lab as the adapter uses: an instruction, ten frames a goal."""

    def __init__(self, level, watched, settings):
        self.level, self.watched, self.settings = level, watched, settings
        self.frames, self.seed = None, None

    def reset(self, seed):
        self.frames, self.seed = 0, seed

    def step(self, action, num_steps):
        assert action.dtype == np.intc and action.shape == (7,)
        self.frames += num_steps
        return float(action[3])

    def is_running(self):
        return self.frames < 40

    def observations(self):
        assert self.is_running()
        size = int(self.settings['width'])
        image = np.full((size, size, 3), (self.seed + self.frames) % 256, np.uint8)
        return {'RGB_INTERLEAVED': image, 'INSTR': 'find the red ball'}

    def close(self):
        pass


@pytest.mark.parametrize('length, rows, terminal', [(1000, 10, True), (12, 3, False)])
def test_lab_ends_terminally_and_its_limit_does_not(length, rows, terminal, monkeypatch):
    monkeypatch.setitem(sys.modules, 'deepmind_lab', types.SimpleNamespace(Lab=Lab))
    real = importlib.util.find_spec
    found = lambda name: True if name == 'deepmind_lab' else real(name)
    monkeypatch.setattr(importlib.util, 'find_spec', found)
    config = dmlab.DMLabConfig(repeat=4, size=8, words=3, length=length)
    contract(lambda seed: dmlab.make('rooms_watermaze', config, seed))
    env = dmlab.make('rooms_watermaze', config, 0)
    first = env.step({'action': 0, 'reset': True})
    assert len(set(first['instruction'])) == 3 and env.repeat == 4
    for number in range(1, rows + 1):
        row = env.step({'action': 0, 'reset': False})
        assert row['reward'] == 1 and bool(row['is_last']) == (number == rows)
    assert bool(row['is_terminal']) == terminal


class Steps(dict):
    """Decision or terminal steps of a Unity player, by agent."""

    @property
    def agent_id(self):
        return np.array(list(self))


class Player:
    """As much of UnityEnvironment as the adapter uses: decisions in every second step."""

    def __init__(self, seed):
        named = types.SimpleNamespace
        self.behavior_specs = {
            'Ball?team=0': named(
                observation_specs=[named(shape=(3, 6, 8)), named(shape=(2,))],
                action_spec=named(continuous_size=2, discrete_size=1, discrete_branches=(3,)),
            )
        }
        self.rng, self.at, self.agent = np.random.default_rng(seed), 0, 6

    def reset(self):
        self.at, self.agent = 0, self.agent + 1
        self.start = self.rng.random()

    def set_action_for_agent(self, name, agent, action):
        assert agent == self.agent and action.continuous.shape == (1, 2)
        assert action.discrete.shape == (1, 1) and action.discrete.dtype == np.int32

    def step(self):
        self.at += 1

    def get_steps(self, name):
        image = np.full((3, 6, 8), min(self.start + self.at / 50, 1), np.float32)
        seen = types.SimpleNamespace(
            obs=[image, np.float32([self.start, self.at])],
            reward=np.float32(self.at > 0),
            interrupted=self.start < 0.5,
        )
        ends = self.at == 8
        decides = self.at % 2 == 0 and not ends
        return Steps({self.agent: seen} if decides else {}), Steps(
            {self.agent: seen} if ends else {}
        )

    def close(self):
        pass


def test_a_unity_player_steps_until_its_agent_decides_or_ends():
    action = lambda **parts: types.SimpleNamespace(**parts)
    contract(lambda seed: unity.Unity(Player(seed), action))
    env = unity.Unity(Player(0), action)
    ends = []
    for number in range(40):
        chosen = {'continuous': np.zeros(2), 'discrete': np.zeros(1), 'reset': number == 0}
        row = env.step(chosen)
        assert row['obs_0'].shape == (6, 8, 3) and row['obs_0'].dtype == np.uint8
        if row['is_last']:
            ends.append((number, bool(row['is_terminal'])))
            assert row['is_terminal'] == (row['obs_1'][0] >= 0.5)  # else it was interrupted
    assert [number for number, _ in ends] == [4, 9, 14, 19, 24, 29, 34, 39]
    assert {terminal for _, terminal in ends} == {True, False}


class Chain:
    """A dm_env environment of four steps: its discount ends the future, or its time does."""

    def __init__(self, seed, discount=0.0):
        self.rng, self.discount, self.at = np.random.default_rng(seed), discount, None

    def observation_spec(self):
        spec = types.SimpleNamespace
        return {
            'arm/joints': spec(shape=(2,), dtype=np.dtype(float)),
            'camera': spec(shape=(4, 4, 3), dtype=np.dtype(np.uint8)),
            'nothing': spec(shape=(0,), dtype=np.dtype(float)),
        }

    def action_spec(self):
        return types.SimpleNamespace(shape=(2,), minimum=-2.0, maximum=np.array([1.0, 3.0]))

    def _step(self, reward):
        last = self.at == 4
        seen = {'arm/joints': self.rng.random(2), 'camera': np.zeros((4, 4, 3), np.uint8)}
        return types.SimpleNamespace(
            observation=seen | {'nothing': np.zeros(0)},
            reward=reward,
            discount=self.discount if last else 1.0,
            last=lambda: last,
        )

    def reset(self):
        self.at = 0
        return self._step(None)

    def step(self, action):
        self.at += 1
        return self._step(float(action.sum()))

    def close(self):
        pass


@pytest.mark.parametrize('discount', [0.0, 1.0])
def test_a_discount_of_zero_is_terminal_and_a_time_limit_is_not(discount):
    contract(lambda seed: from_dm(Chain(seed, discount)))
    env = from_dm(Chain(0, discount))
    assert set(env.obs_space) >= {'arm/joints', 'camera'} and 'nothing' not in env.obs_space
    assert env.act_space['action'].high.tolist() == [1, 3]
    rows = [env.step({'action': np.ones(2), 'reset': i == 0}) for i in range(5)]
    assert [float(row['reward']) for row in rows] == [0, 2, 2, 2, 2]
    assert bool(rows[-1]['is_last']) and bool(rows[-1]['is_terminal']) == (discount == 0)
    with pytest.raises(EnvContractError, match="there is no \\['legs'\\]"):
        from_dm(Chain(0), ['legs'])


def counting(length):
    """A functional simulator whose state is a number."""

    def step(key, state, action):
        state = state + 1
        ends = state >= length
        obs = {'image': np.full((2, 2, 3), state / length)}
        return key, state, obs, float(action), ends, False, {'achievement_end': float(ends)}

    return Functions(
        {'image': spaces.Box(0, 255, (2, 2, 3), np.uint8)},
        {'action': spaces.Discrete(3)},
        lambda seed: seed,
        lambda key: (key + 1, 0, {'image': np.zeros((2, 2, 3))}),
        step,
        ('achievement_end',),
    )


def test_a_functional_simulator_is_an_env():
    functions = counting(4)
    contract(lambda seed: Functional(functions, seed))
    env = Functional(functions, 0)
    rows = [env.step({'action': 2, 'reset': i == 0}) for i in range(5)]
    assert [int(row['image'][0, 0, 0]) for row in rows] == [0, 64, 128, 191, 255]
    assert [float(row['log/achievement_end']) for row in rows] == [0, 0, 0, 0, 1]
    assert bool(rows[-1]['is_last']) and not rows[-1]['is_terminal']


def test_a_mission_is_its_words_and_what_is_not_known_is_told_apart_from_nothing():
    mission = classes('Pick up the green ball, somehow', 8)
    words = [CLASSES[word] for word in ('pick', 'up', 'the', 'green', 'ball')]
    assert mission.tolist() == [*words, 1, 0, 0]
    assert classes('go to the red door', 2).tolist() == [CLASSES['go'], CLASSES['to']]
    assert len(set(CLASSES.values())) == len(WORDS)


def test_tasks_of_minigrid_are_named_without_prefix_and_version():
    known = ['MiniGrid-Empty-8x8-v0', 'MiniGrid-LockedRoom-v0', 'MiniGrid-LockedRoom-v1']
    known += ['BabyAI-GoToObj-v0', 'CartPole-v1']
    assert find('Empty-8x8', known) == 'MiniGrid-Empty-8x8-v0'
    assert find('LockedRoom', known) == 'MiniGrid-LockedRoom-v1'  # the newest
    assert find('LockedRoom-v0', ['MiniGrid-LockedRoom-v0-v0']) == 'MiniGrid-LockedRoom-v0-v0'
    assert find('BabyAI-GoToObj', known) == 'BabyAI-GoToObj-v0'
    with pytest.raises(ConfigError, match='nearest: minigrid_Empty-8x8'):
        find('Empty-8x9', known)


class Screens:
    """An Arcade Learning Environment whose screen has the brightness of its frame."""

    def __init__(self, brightness, over=99):
        self.brightness, self.over, self.frame = brightness, over, 0

    def act(self, action):
        self.frame += 1
        return 1

    def reset_game(self):
        self.frame = 0

    def game_over(self):
        return self.frame >= self.over

    def getMinimalActionSet(self):
        return [0, 1]

    def getScreenDims(self):
        return 4, 4

    def getScreenRGB(self, out):
        out[:] = self.brightness[self.frame]


@pytest.mark.parametrize(
    'repeat, over, shown',
    [(1, 99, [90, 90, 10, 20]), (2, 99, [90, 10, 20]), (3, 99, [90, 20]), (3, 4, [90, 20, 20])],
)
def test_an_atari_image_is_the_maximum_of_the_last_two_frames_seen(repeat, over, shown):
    config = AtariConfig(repeat, 4, True, False, 0, 100)
    env = Atari(Screens([90, 10, 5, 20, 15, 40, 30], over), config, 0)
    action = {'action': 0, 'reset': False}
    rows = [env.step(action) for _ in shown]
    assert [int(row['image'].max()) for row in rows] == shown
    assert bool(rows[-1]['is_terminal']) == (over < 99)
