"""Several tasks as one: what their union is, what is padding in it, and who gets which env."""

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from embodied import envs
from embodied.base import FLAG, OUTCOME, Env, RandomAgent, outcome
from embodied.checks import check_env
from embodied.config import parse
from embodied.envs.many import OneOf, Padded, Turns, dealt, read_text
from embodied.envs.sets import SETS, members
from embodied.errors import ConfigError, EnvContractError
from embodied.log.metrics import EpisodeStats
from embodied.replay import Replay
from embodied.replay.config import unlimited
from embodied.space_json import decode_space, encode_space
from embodied.tasks import TaskId, join

CONFIG = parse([], Path(__file__).parents[2] / 'configs').env.to_dict()
BOX = lambda *shape: spaces.Box(-1, 1, shape, np.float32)
IMAGE = lambda *shape: spaces.Box(0, 255, shape, np.uint8)
OBS = [
    {'place': BOX(2), 'image': IMAGE(8, 8, 3), **OUTCOME},
    {'place': BOX(3), 'image': IMAGE(16, 16, 1), 'word': spaces.Discrete(4, dtype=np.int32)},
]
ACTS = [
    {'action': spaces.Discrete(3, dtype=np.int32), 'reset': FLAG},
    {'action': BOX(2), 'extra': spaces.Discrete(2, dtype=np.int32), 'reset': FLAG},
]


def joined(size=0, text=None):
    return join(['a', 'b'], OBS, ACTS, [1, 2], size, text)


class Fixed(Env):
    """Observes what its spaces call the largest, and keeps the last action that it was given."""

    def __init__(self, number):
        self.obs_space, self.act_space = OBS[number] | OUTCOME, ACTS[number]
        self.made, self.closed = 0, False

    def step(self, action):
        self.last, self.made = action, self.made + 1
        high = lambda s: s.n - 1 if isinstance(s, spaces.Discrete) else s.high
        seen = {k: np.asarray(high(s), s.dtype) for k, s in self.obs_space.items()}
        first = bool(action['reset'])
        return seen | outcome(is_first=first, is_last=not first)

    def close(self):
        self.closed = True


def test_keys_of_one_kind_share_a_key_and_keys_of_two_kinds_get_names():
    tasks = joined()
    assert tasks.obs_space['place'] == BOX(3) and tasks.obs_space['word'].n == 4
    assert tasks.obs_space['image'].shape == (16, 16, 3)
    assert set(tasks.act_space) == {'action/discrete', 'action/box', 'extra', 'reset'}
    assert tasks.present('place').tolist() == [[True, True, False], [True] * 3]
    assert tasks.present('word').tolist() == [[False] * 4, [True] * 4]
    assert tasks.present('action/discrete').tolist() == [[True] * 3, [False] * 3]
    assert tasks.present('image') is None


def test_images_of_two_sizes_are_resized_to_one():
    assert joined(size=12).obs_space['image'].shape == (12, 12, 3)
    env = Padded(Fixed(1), joined(size=12), 1)
    obs = env.step({'action/box': np.ones(2, np.float32), 'reset': np.bool_(True)} | spare(env))
    assert obs['image'].shape == (12, 12, 3) and (obs['image'] == 255).all()
    assert any('resized from 16x16x1 to 12x12x3' in text for _, text in env.notes())


def test_images_that_cannot_be_joined_are_refused_with_a_remedy():
    with pytest.raises(ConfigError, match=r'a 4, b 3.*another name'):
        join(['a', 'b'], [{'image': IMAGE(8, 8, 4)}, {'image': IMAGE(8, 8, 3)}], ACTS, [1, 1])


def spare(env):
    return {
        key: np.zeros(space.shape, space.dtype)[()]
        for key, space in env.act_space.items()
        if key not in ('reset', 'action/box')
    }


def test_an_env_sees_its_own_action_and_shows_padding_as_zeros():
    inner = Fixed(0)
    env = Padded(inner, joined(), 0)
    chosen = {
        'action/discrete': np.int32(2),
        'action/box': np.ones(2, np.float32),
        'extra': np.int32(1),
        'reset': np.bool_(False),
    }
    obs = env.step(chosen)
    assert inner.last.keys() == {'action', 'reset'} and inner.last['action'] == 2
    assert obs['place'].tolist() == [1, 1, 0] and obs['word'] == 0 and obs['task_id'] == 0
    assert all(env.obs_space[key].contains(value) for key, value in obs.items())
    assert env.repeat == 2


def test_an_env_of_other_spaces_than_were_joined_is_refused():
    with pytest.raises(EnvContractError, match='a: the actions of this env are'):
        Padded(Fixed(1), joined(), 0)


def test_tasks_survive_json():
    for tasks in (joined(), joined(text=np.eye(2))):
        assert decode_space(json.loads(json.dumps(encode_space(tasks)))) == tasks
    assert joined() != joined(text=np.eye(2)) and joined() != joined(size=12)


def test_random_actions_are_those_of_the_task():
    tasks = joined()
    agent = RandomAgent(tasks.act_space, 0, tasks)
    ids = np.repeat([0, 1], 50)
    _, action = agent.policy({}, {'is_first': ids, 'task_id': ids})
    assert set(action['action/discrete'][:50]) == {0, 1, 2}
    assert not action['action/discrete'][50:].any() and not action['extra'][:50].any()
    assert not action['action/box'][:50].any() and action['action/box'][50:].all()


def test_lists_and_sets_name_their_tasks():
    assert members('pixel_catch') == ('pixel_catch',)
    assert members('pixel_catch, dummy') == ('pixel_catch', 'dummy')
    assert len(members('pixel3,dmc18')) == 21
    assert all(
        len(set(names)) == int(''.join(c for c in key if c.isdigit()) or 0)
        for key, names in SETS.items()
    )
    with pytest.raises(ConfigError, match='pixel_catch more than once'):
        members('pixel3,pixel_catch')
    with pytest.raises(ConfigError, match='empty entry'):
        members('pixel_catch,,dummy')
    with pytest.raises(ConfigError, match='pixel_katch.*pixel_catch'):
        envs.check('dummy,pixel_katch', CONFIG)


def test_tasks_are_dealt_over_envs_or_taken_in_turn():
    tasks = join(['a', 'b', 'c'], [OBS[0]] * 3, [ACTS[0]] * 3, [1] * 3)
    makers = [OneOf(lambda: Fixed(0), tasks, number) for number in range(3)]
    assert [dealt(makers, i, 4).task for i in range(4)] == ['a', 'b', 'c', 'a']
    assert [dealt(makers, i, 2).task for i in range(2)] == ['a, c', 'b']


def test_turns_take_an_episode_of_each_and_go_on_where_they_were():
    assert check_env(lambda seed: envs.make('pixel_catch,dummy', CONFIG, seed), steps=60) == []
    env = envs.make('pixel3', CONFIG, 0)
    assert isinstance(env, Turns)
    agent, seen, reset = RandomAgent(env.act_space, 0, env.obs_space['task_id']), [], True
    obs = {'task_id': 0}
    for _ in range(90):
        batch = {'is_first': [1], 'task_id': np.array([obs['task_id']])}
        action = {key: value[0] for key, value in agent.policy({}, batch)[1].items()}
        obs = env.step({**action, 'reset': np.bool_(reset)})
        reset = obs['is_last']
        seen += [int(obs['task_id'])] * bool(obs['is_first'])
    assert seen[:5] == [0, 1, 2, 0, 1]


def test_texts_of_tasks_come_from_a_file(tmp_path):
    np.savez(tmp_path / 'texts.npz', b=np.ones(4), a=np.zeros(4))
    assert read_text(str(tmp_path / 'texts.npz'), ['a', 'b'])[:, 0].tolist() == [0, 1]
    np.save(tmp_path / 'texts.npy', np.eye(3))
    with pytest.raises(ConfigError, match=r'\(2, features\).*\(3, 3\)'):
        read_text(str(tmp_path / 'texts.npy'), ['a', 'b'])
    with pytest.raises(ConfigError, match="no array 'c'"):
        read_text(str(tmp_path / 'texts.npz'), ['a', 'c'])
    with pytest.raises(ConfigError, match='cannot be read'):
        read_text(str(tmp_path / 'none.npy'), ['a'])


def rows_of(tasks, task, count):
    for number in range(count):
        yield {
            'x': np.float32(task),
            'action': np.int32(0),
            'task_id': np.int32(task),
            **outcome(is_first=number % 5 == 0, is_last=number % 5 == 4),
        }


def filled(folder=None):
    """Two hundred rows of task 0 and twenty of task 1, which one worker took in turn."""
    x, act = (
        {'x': spaces.Box(-9, 9, (), np.float32)},
        {'action': spaces.Discrete(2, dtype=np.int32)},
    )
    tasks = TaskId(['a', 'b'], [x, x], [act, act], [1, 1])
    replay = Replay(unlimited(0.1), folder, 0, tasks.obs_space, tasks.act_space)
    for task, count in ((0, 100), (1, 20), (0, 100)):
        for row in rows_of(tasks, task, count):
            replay.add(row, 0)
    return replay


def test_a_draw_has_as_many_sequences_of_every_task():
    replay = filled()
    drawn = replay.sample(9, 6)
    assert sorted([4, 5]) == sorted(np.bincount(drawn['task_id'][:, 0]).tolist())
    assert (drawn['task_id'] == drawn['task_id'][:, :1]).all()  # turns have streams of their own
    firsts = np.concatenate([filled().sample(8, 6, draw=n)['task_id'][:, 0] for n in range(4)])
    assert firsts.mean() == 0.5 and len({tuple(firsts[i : i + 8]) for i in (0, 8, 16)}) > 1


def test_a_folder_is_drawn_from_alike_when_it_is_read_again(tmp_path):
    replay = filled(tmp_path)
    replay.close()
    again = Replay(unlimited(0.1), tmp_path, 0, read_only=True)
    again.load(None)
    assert np.bincount(again.sample(8, 6)['task_id'][:, 0]).tolist() == [4, 4]
    assert again.obs_space['task_id'].names == ('a', 'b')


def test_episodes_tell_their_task_and_lack_the_logs_of_others():
    told = []
    stats = EpisodeStats(lambda *episode: told.append(episode), ['a', 'b'])
    for first in (True, False):
        stats(
            outcome(1.0 - first, is_first=first, is_last=not first)
            | {'task_id': np.int32(1), 'log/mine': np.float32(2), 'log/other': np.float32(np.nan)},
            0,
        )
    ((score, length, logs, task),) = told
    assert (score, length, task) == (1.0, 1, 'b')
    assert 'log/mine/avg' in logs and not any('other' in name for name in logs)
