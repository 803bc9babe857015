"""Any Gymnasium environment: kinds of spaces, ends, images, seeds."""

import re
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from embodied import envs
from embodied.checks import check_env
from embodied.config import configs_dir, parse
from embodied.contract import valid_key
from embodied.envs import imports
from embodied.envs.gymnasium import from_gymnasium
from embodied.errors import ConfigError, EnvContractError, EnvNonFinite
from embodied.wrappers import wrap

CONFIG = parse([], configs_dir(Path(__file__).parents[3])).env.to_dict()


class Zoo(gymnasium.Env):
    """Every kind of space; ends terminally after 3 steps if the gear is odd, else truncated
    after 5.
    """

    observation_space = spaces.Dict(
        {
            'arm': spaces.Dict(
                {
                    'angle': spaces.Box(-np.inf, np.inf, (2,), np.float64),
                    'grip': spaces.Discrete(3, start=5),
                }
            ),
            'lamps': spaces.MultiBinary(4),
            'pair': spaces.Tuple((spaces.Box(0, 1, (), np.float32), spaces.MultiDiscrete([2, 3]))),
        }
    )
    action_space = spaces.Dict(
        {
            'gear': spaces.Discrete(4, start=1),
            'push': spaces.Box(-2.0, 6.0, (2,), np.float64),
            'keys': spaces.MultiBinary(2),
        }
    )

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.given = 0, None
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.time, self.given = self.time + 1, action
        return self.observe(), 1.5, self.time == 3 and action['gear'] % 2 == 1, self.time == 5, {}

    def observe(self):
        return {
            'arm': {'angle': self.np_random.normal(size=2), 'grip': 6},
            'lamps': np.ones(4, np.int8),
            'pair': (np.float32(0.5), np.array([1, 2])),
        }


def act(gear, first=False):
    return {
        'gear': np.int32(gear),
        'push': np.array([-1, 1], np.float32),
        'keys': np.ones(2, np.int8),
        'reset': np.bool_(first),
    }


def test_nested_spaces_become_flat_keys_counted_from_zero():
    env = wrap(from_gymnasium(Zoo()))
    assert set(env.obs_space) >= {'arm/angle', 'arm/grip', 'lamps', 'pair/0', 'pair/1'}
    obs = env.step(act(0, True))
    assert (
        obs['arm/grip'] == 1
        and obs['arm/angle'].dtype == np.float32
        and obs['pair/1'].tolist() == [1, 2]
    )


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


class Wild(Zoo):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def test_unbounded_actions_are_refused_by_name_with_a_remedy_that_works():
    class Pushed(Zoo):
        action_space = spaces.Dict({'push': Wild.action_space})

    with pytest.raises(EnvContractError, match="'push' is unbounded"):
        from_gymnasium(Pushed())
    with pytest.raises(EnvContractError) as refused:
        from_gymnasium(Wild())
    remedy = re.search(r'gymnasium.wrappers.TransformAction\(.*\)\)', str(refused.value)).group()
    mended = from_gymnasium(eval(remedy, {'env': Wild(), **globals()}))
    assert mended.act_space['action'] == spaces.Box(-1, 1, (1,), np.float32)


def test_the_bounds_that_a_wrapper_clips_to_are_those_of_the_action():
    class Narrow(Zoo):
        action_space = spaces.Box(-2.0, 6.0, (1,), np.float32)

    inner = Narrow()
    clipped = gymnasium.wrappers.ClipAction(inner)
    assert not clipped.action_space.is_bounded()
    for outer in clipped, gymnasium.wrappers.RecordEpisodeStatistics(clipped):
        assert from_gymnasium(outer).act_space['action'] == Narrow.action_space
    with pytest.raises(EnvContractError, match='unbounded'):
        from_gymnasium(gymnasium.wrappers.ClipAction(Wild()))


def test_unknown_ids_name_the_nearest():
    with pytest.raises(ConfigError, match='gym_CartPole-v.*gym_<module>:<Id>'):
        envs.make('gym_CartPol-v1', CONFIG, 0)


@pytest.mark.parametrize(
    'task, words',
    [
        ('gym_ALE/Pong-v5', 'write --task gym_ale_py:ALE/Pong-v5, or atari_pong'),
        ('gym_ALE/MsPacman-v5', 'or atari_ms_pacman'),
        ('gym_MiniGrid-Empty-5x5-v0', 'write --task gym_minigrid:MiniGrid-Empty-5x5-v0'),
        ('gym_nosuchmodule:X-v0', "there is no module 'nosuchmodule'"),
    ],
)
def test_ids_of_other_packages_are_told_by_their_module(task, words):
    with pytest.raises(ConfigError, match=words):
        envs.make(task, CONFIG, 0)


def test_a_module_that_an_extra_brings_is_told_with_it(monkeypatch):
    monkeypatch.setattr(imports.importlib.util, 'find_spec', lambda name: None)
    for module in ('ale_py', 'minigrid'):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for task, extra in ('gym_ale_py:ALE/Pong-v5', 'atari'), ('gym_minigrid:X-v0', 'minigrid'):
        with pytest.raises(ConfigError, match=rf'is not installed; install it with: .*\[{extra}\]'):
            envs.make(task, CONFIG, 0)


def test_a_module_that_registers_ids_is_imported_by_name(tmp_path, monkeypatch):
    (tmp_path / 'registers.py').write_text(
        "import gymnasium\ngymnasium.register('Own-v3', "
        "entry_point='gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert envs.make('gym_registers:Own-v3', CONFIG, 0).obs_space['state'].shape == (4,)
    with pytest.raises(
        ConfigError,
        match=r"Unknown id 'Owm-v3' in the task gym_registers:Owm-v3; nearest: Own-v3",
    ):
        envs.make('gym_registers:Owm-v3', CONFIG, 0)


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
    Painter.observation_space = spaces.Dict({'image': spaces.Box(0, 9, (3,), np.float32)})
    assert set(from_gymnasium(Painter(), image=True).obs_space) > {
        'image',
        'rendered',
    }, 'a vector may be called image'


class Told(gymnasium.Env):
    """Returns what it is told, step after step; remembers the actions."""

    def __init__(self, observed, acted, *results):
        self.observation_space, self.action_space, self.results, self.given = (
            observed,
            acted,
            list(results),
            [],
        )

    def reset(self, seed=None, options=None):
        return self.results.pop(0)

    def step(self, action):
        self.given.append(action)
        return self.results.pop(0)


UNIT, PAIR = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)
ZEROS = np.zeros(2, np.float32)


def step(env, **values):
    """A step of a wrapped env with zeros for the actions that are not given."""
    action = {key: np.zeros(space.shape, space.dtype) for key, space in env.act_space.items()}
    return env.step({**action, **values})


FIRST = {'reset': np.bool_(True)}


def test_what_no_agent_can_read_is_left_out_and_named():
    observed = spaces.Dict(
        {
            'screen': spaces.Box(0, 255, (9, 7, 3), np.uint8),
            'utterance': spaces.Text(20),
            'fields': spaces.Sequence(spaces.Text(5)),
            'nothing': spaces.Box(0, 1, (0, 3)),
        }
    )
    acted = spaces.Dict(
        {
            'kind': spaces.Discrete(3),
            'text': spaces.Text(8, min_length=0),
            'at': spaces.Box(0, 6, (2,), np.int64),
        }
    )
    first = {
        'screen': np.zeros((9, 7, 3), np.uint8),
        'utterance': 'click ok',
        'fields': ('a',),
        'nothing': np.zeros((0, 3)),
    }
    inner = Told(observed, acted, (first, {}), (first, 0.5, False, True, {}))
    env = wrap(from_gymnasium(inner))
    assert set(env.obs_space) - {'reward', 'is_first', 'is_last', 'is_terminal'} == {'screen'}
    assert (
        env.act_space['at'] == spaces.MultiDiscrete([7, 7], np.int32)
        and 'text' not in env.act_space
    )
    step(env, **FIRST)
    step(env, at=np.array([6, 2], np.int32))
    assert (
        inner.given[0]['text'] == ''
        and inner.given[0]['at'].tolist() == [6, 2]
        and acted.contains(inner.given[0])
    )
    notes = dict(env.notes())
    for name in ('utterance (Text)', 'fields (Sequence)', 'nothing (Box)'):
        assert name in notes['left out']
    assert "action 'text' is a Text" in notes["fixed ('text',)"]


@pytest.mark.parametrize(
    'space, words',
    [
        (spaces.Text(5), 'nothing that an agent could observe'),
        (spaces.Dict({'a': spaces.Sequence(UNIT)}), 'env.gym.image true'),
    ],
)
def test_an_env_that_shows_nothing_readable_is_refused(space, words):
    with pytest.raises(EnvContractError, match=words):
        from_gymnasium(Told(space, PAIR))


@pytest.mark.parametrize(
    'space, words',
    [
        (spaces.Graph(UNIT, None), 'is no Box, Discrete'),
        (spaces.OneOf((PAIR, UNIT)), 'is no Box, Discrete'),
        (spaces.Box(0, 10**6, (2,), np.int64), '1,000,001 values'),
        (spaces.Box(-np.inf, 1, (2,)), 'unbounded'),
        (spaces.Text(3), 'no action to choose'),
        (spaces.Dict({}), 'no action to choose'),
    ],
)
def test_actions_that_nobody_can_choose_are_refused(space, words):
    with pytest.raises(EnvContractError, match=words):
        from_gymnasium(Told(UNIT, space))


NAMES = (
    'arm/move',
    'a.b',
    'a_b',
    'type',
    'keys',
    'reward',
    'is_first',
    'reset',
    'row_id',
    'log/x',
    'x:y',
    'x_y',
    'dyn/z',
    ' ',
    '..',
    'ü\n',
)


def test_keys_of_any_spelling_work_and_those_that_change_are_named():
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        dict.fromkeys(NAMES, UNIT)
        | {'deep': spaces.Dict({'': UNIT, 'er': spaces.Tuple((UNIT, PAIR))}), 7: PAIR}
    )
    values = {name: rng.uniform(-1, 1, 2).astype(np.float32) for name in NAMES}
    first = values | {'deep': {'': ZEROS, 'er': (ZEROS, 1)}, 7: 1}
    acted = spaces.Dict({name: spaces.Discrete(5) for name in NAMES})
    inner = Told(space, acted, (first, {}), (first, 0.0, False, False, {}))
    env = wrap(from_gymnasium(inner))
    assert not set(env.obs_space) & set(env.act_space) and all(
        valid_key(key) for key in [*env.obs_space, *env.act_space]
    )
    row = step(env, **FIRST)
    seen = [value.tolist() for key, value in row.items() if value.shape == (2,)]
    assert all(value.tolist() in seen for value in values.values()) and len(seen) == len(NAMES) + 2
    assert (
        row['deep/er/1'] == 1
        and row['7'] == 1
        and row['obs_reward'].tolist() == values['reward'].tolist()
    )
    step(
        env,
        **{
            key: np.int32(index % 5)
            for index, key in enumerate(key for key in env.act_space if key != 'reset')
        },
    )
    assert [int(inner.given[0][name]) for name in acted.spaces] == [
        index % 5 for index in range(len(NAMES))
    ]
    notes = [text for topic, text in env.notes() if topic.startswith('name ')]
    assert any("observation 'reward' is called 'obs_reward'" in note for note in notes)
    assert any("action 'x:y' is called" in note for note in notes) and not any(
        "action 'a.b'" in note for note in notes
    )


@pytest.mark.parametrize(
    'results, words',
    [
        (
            [ZEROS],
            r'reset\(\) returned ndarray of shape \(2,\), expected \(observation, info\). It '
            r'speaks the old Gym API',
        ),
        ([(ZEROS, {}), (ZEROS, 0.0, False, {})], r'step\(\) returned 4 values.*old Gym API'),
        ([(ZEROS, {}), None], r'step\(\) returned NoneType'),
        (
            [(ZEROS, {}), (ZEROS, [1.0, 2.0], False, False, {})],
            r'reward must be one number, got shape \(2,\)',
        ),
        ([(ZEROS, {}), (ZEROS, None, False, False, {})], 'reward must be a number, got None'),
        ([('text', {})], "observation 'state': expected float32"),
        ([(np.zeros(3), {})], r"'state': expected float32\[2\], got float32\[3\]"),
        ([(None, {})], r"'state': expected float32\[2\], got None"),
        ([(np.zeros(2, complex), {})], 'no real number'),
        ([(ZEROS, [])], 'returned 2 values, the second a list and no dict, expected'),
        ([(ZEROS, {}), [ZEROS, 1.0, False, False, {}]], r'returned list, expected .*info\)\.$'),
    ],
)
def test_what_cannot_be_used_is_said_in_words(results, words):
    env = wrap(from_gymnasium(Told(UNIT, PAIR, *results)))
    with pytest.raises(EnvContractError, match=words):
        step(env, **FIRST)
        step(env)


def test_a_leaf_that_is_missing_is_named():
    env = from_gymnasium(Told(spaces.Dict({'a': UNIT, 'b': UNIT}), PAIR, ({'a': ZEROS}, {})))
    with pytest.raises(EnvContractError, match="observation 'b' is missing"):
        step(env, **FIRST)


def test_numbers_in_arrays_of_one_are_taken_and_noted_once():
    results = [
        (np.zeros((2, 1)), {}),
        *[(np.zeros((1, 2)), np.array([1.5]), np.array([False]), False, {})] * 3,
    ]
    env = wrap(from_gymnasium(Told(UNIT, PAIR, *results)))
    step(env, **FIRST)
    assert [float(step(env)['reward']) for _ in range(3)] == [1.5] * 3
    assert [topic for topic, _ in env.notes()] == ['shape terminated', 'shape reward']


def test_what_only_looks_like_a_gymnasium_env_may_have_nothing_to_close():
    class Duck:
        observation_space, action_space = UNIT, PAIR

        def reset(self, seed=None, options=None):
            return ZEROS, {}

        def step(self, action):
            return ZEROS, 1.0, True, False, {}

    assert check_env(lambda seed: wrap(from_gymnasium(Duck(), seed=seed)), 20) == []


def test_an_episode_that_is_terminated_and_truncated_at_once_is_terminal():
    env = wrap(from_gymnasium(Told(UNIT, PAIR, (ZEROS, {}), (ZEROS, True, True, True, {}))))
    first, last = step(env, **FIRST), step(env)
    assert not first['is_last'] and last['is_last'] and last['is_terminal'] and last['reward'] == 1


@pytest.mark.parametrize('writable', [True, False])
def test_rows_keep_their_values_where_an_env_returns_one_array_again_and_again(writable):
    array = np.zeros(2, np.float32)

    class Reusing(Told):
        def reset(self, seed=None, options=None):
            return self.fill(0.25), {}

        def step(self, action):
            return self.fill(0.5), 0.0, False, False, {}

        def fill(self, value):
            array.setflags(write=True)
            array[:] = value
            array.setflags(write=writable)
            return array

    env = wrap(from_gymnasium(Reusing(UNIT, PAIR)))
    rows = [step(env, **FIRST), step(env)]
    assert [float(row['state'][0]) for row in rows] == [0.25, 0.5]


def test_an_env_without_a_seed_runs_and_says_so():
    class Seedless(Told):
        def reset(self):
            return ZEROS, {}

    env = wrap(from_gymnasium(Seedless(UNIT, PAIR)))
    assert step(env, **FIRST)['is_first'] and 'takes no seed' in dict(env.notes())['seed']


@pytest.mark.parametrize('arguments', ['seed', 'options', 'seed, options', '*, seed, options=None'])
def test_arguments_of_a_reset_that_have_no_default_are_none(arguments):
    given, names = [], {}
    exec(f'def reset(self, {arguments}): return self.begin(locals())', names)

    class Strict(Told):
        reset = names['reset']

        def begin(self, arguments):
            given.append({key: arguments[key] for key in arguments.keys() & {'seed', 'options'}})
            return ZEROS, {}

    env = wrap(from_gymnasium(Strict(UNIT, PAIR), seed=3))
    assert step(env, **FIRST)['is_first'] and step(env, **FIRST)['is_first']
    assert [each.get('seed') for each in given] == [3 if 'seed' in arguments else None, None]
    assert all(each.get('options') is None for each in given)


@pytest.mark.parametrize('arguments', ['self', 'self, seed=None', 'self, options=None'])
def test_a_registered_env_whose_reset_takes_less_than_wrappers_hand_on_runs(arguments):
    names = {'ZEROS': ZEROS}
    exec(f'def reset({arguments}): return ZEROS, {{}}', names)
    ended = (ZEROS, 1.0, True, False, {})
    inner = type('Short', (Told,), {'reset': names['reset']})(UNIT, PAIR, *[ended] * 2)
    wrapped = gymnasium.wrappers.TimeLimit(gymnasium.wrappers.OrderEnforcing(inner), 9)
    env = wrap(from_gymnasium(wrapped, seed=3))
    assert [bool(step(env, reset=np.bool_(i == 0))['is_first']) for i in range(4)] == [
        True,
        False,
    ] * 2
    assert ('seed' in dict(env.notes())) == ('seed' not in arguments)


def test_a_space_that_is_none_or_missing_is_named():
    lacking = Told(UNIT, PAIR)
    del lacking.observation_space
    with pytest.raises(EnvContractError, match='observation_space: expected a space of gymnas'):
        from_gymnasium(lacking)
    with pytest.raises(EnvContractError, match='action_space: expected a space of gymnasium'):
        from_gymnasium(Told(UNIT, None))


@pytest.mark.filterwarnings('error')
def test_numbers_beyond_float32_are_not_finite():
    wide = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    for first, later in (((1e39, 0.0), 0.0), ((0.0, 0.0), 1e39)):
        results = (np.array(first), {}), (ZEROS, later, False, False, {})
        env = wrap(from_gymnasium(Told(wide, PAIR, *results)))
        with pytest.raises(EnvNonFinite, match='is not finite: inf'):
            step(env, **FIRST)
            step(env)


@pytest.mark.parametrize(
    'value, error, words',
    [
        (np.nan, EnvNonFinite, "'state' is not finite: nan"),
        (1.5, EnvContractError, 'expected int32'),
        (None, EnvNonFinite, 'nan'),
    ],
)
def test_floats_where_integers_are_declared(value, error, words):
    env = wrap(from_gymnasium(Told(spaces.Box(0, 9, (), np.int32), PAIR, (value, {}))))
    with pytest.raises(error, match=words):
        step(env, **FIRST)


def test_observed_images_are_resized_where_a_size_is_given():
    frame = np.zeros((3, 10, 14), np.uint8)
    space = spaces.Box(0, 255, frame.shape, np.uint8)
    assert wrap(from_gymnasium(Told(space, PAIR))).obs_space['image'].shape == (10, 14, 3)
    env = wrap(from_gymnasium(Told(space, PAIR, (frame, {})), size=8))
    assert env.obs_space['image'].shape == step(env, **FIRST)['image'].shape == (8, 8, 3)
