"""Evaluation: exactly the first K episodes of each env, their statistics, and what is left of
them.
"""

import functools
import json
import sys

import numpy as np
import pytest

from embodied import errors
from embodied.base import Env
from embodied.envs.dummy import Dummy, DummyConfig
from embodied.run import eval_only, evaluate, load_agent, train
from embodied.run.evaluate import EvalConfig, FirstEpisodes, spread
from embodied.run.evaluation import Evaluation
from embodied.wrappers import wrap

evaluation = sys.modules['embodied.run.evaluate']  # the package has a function of the same name


def row(reward=0.0, is_first=False, is_last=False, **more):
    flags = {
        'is_first': np.bool_(is_first),
        'is_last': np.bool_(is_last),
        'is_terminal': np.bool_(False),
    }
    return {'reward': np.float32(reward), **flags, **more}


def play(episodes, worker, rewards, image=0):
    for index, reward in enumerate([0.0, *rewards]):
        episodes(
            row(
                reward, index == 0, index == len(rewards), image=np.full((2, 2, 3), image, np.uint8)
            ),
            worker,
        )


@pytest.mark.parametrize(
    'total, parts, numbers', [(10, 4, [3, 3, 2, 2]), (4, 4, [1] * 4), (1, 1, [1]), (0, 2, [0, 0])]
)
def test_episodes_are_spread_evenly_over_the_envs(total, parts, numbers):
    assert spread(total, parts) == numbers


def test_short_episodes_are_not_favoured():
    """Env 0 plays many short ones while env 1 plays two long ones; two of each count."""
    episodes = FirstEpisodes([2, 2], 0)
    for _ in range(9):
        play(episodes, 0, [1.0])
    assert not episodes.complete
    for _ in range(2):
        play(episodes, 1, [1.0] * 5)
    assert episodes.complete
    result = episodes.result()
    assert (
        result.returns == [1.0, 1.0, 5.0, 5.0]
        and result.lengths == [1, 1, 5, 5]
        and result.mean == 3.0
    )


def test_an_episode_that_was_cut_does_not_count():
    episodes = FirstEpisodes([1], 1)
    episodes(row(0, is_first=True, image=np.zeros((2, 2, 3), np.uint8)), 0)
    episodes(row(7, image=np.zeros((2, 2, 3), np.uint8)), 0)
    play(episodes, 0, [1.0, 2.0], image=9)
    result = episodes.result()
    assert (
        result.returns == [3.0] and result.lengths == [2] and (result.videos['image_0'] == 9).all()
    )


def test_videos_show_whole_episodes_of_different_envs():
    episodes = FirstEpisodes([2, 2], 2)
    for worker in (0, 1, 0, 1):
        play(episodes, worker, [0.0, 0.0], image=worker)
    videos = episodes.result().videos
    assert [video.shape for video in videos.values()] == [(3, 2, 2, 3)] * 2
    assert sorted(int(video.max()) for video in videos.values()) == [0, 1]


def test_the_interval_is_that_of_students_t():
    result = Evaluation([1.0, 2.0, 3.0, 4.0], [1] * 4, {})
    assert result.mean == 2.5 and result.std == pytest.approx(1.29099, abs=1e-5)
    assert result.ci95 == pytest.approx(3.182 * 1.29099 / 2, abs=1e-4)
    many = Evaluation(list(np.arange(101.0)), [1] * 101, {})
    assert many.ci95 == pytest.approx(1.984 * np.std(np.arange(101), ddof=1) / 101**0.5, rel=1e-3)


def test_a_single_episode_has_no_interval():
    one = Evaluation([5.0], [3], {})
    assert (one.mean, one.std, one.ci95) == (5.0, 0.0, None) and 'interval' not in str(one)


class Uneven(Dummy):
    """Episodes of env i are i + 1 decisions long."""

    def __init__(self, index):
        super().__init__('box', DummyConfig(index + 1, False, 4), index)


class Quiet:
    """Acts with zeros; remembers the modes it was asked for."""

    def __init__(self):
        self.modes = set()

    def init_policy(self, num_envs):
        return 0

    def policy(self, carry, obs, mode):
        self.modes.add(mode)
        return carry, {'box': np.zeros((len(obs['is_first']), 3), np.float32)}


def uneven(kind, index) -> functools.partial[Env]:
    assert kind == 'eval'
    return functools.partial(lambda index: wrap(Uneven(index)), index)


@pytest.mark.parametrize('num_episodes, envs, lengths', [(5, 3, [1, 1, 2, 2, 3]), (2, 9, [1, 2])])
def test_exactly_so_many_episodes_first_ones_of_each_env(world, num_episodes, envs, lengths):
    agent = Quiet()
    result = evaluate(
        agent, uneven, EvalConfig(1, num_episodes, envs, 'mode', 0, 99), world().setup.driver
    )
    assert result.lengths == lengths and agent.modes == {'mode'} and not result.videos


def test_an_interrupted_evaluation_has_no_result(world):
    assert (
        evaluate(
            Quiet(),
            uneven,
            EvalConfig(1, 3, 3, 'sample', 0, 99),
            world().setup.driver,
            interrupted=lambda: True,
        )
        is None
    )


def test_evaluations_mix_with_nothing_of_training(world):
    run = world().run(train, evaluating=True)
    plain = world('plain').run(train)
    assert [line['step'] for line in run.lines('scores.jsonl')] == [
        line['step'] for line in plain.lines('scores.jsonl')
    ]
    trees, others = run.saved()[0], plain.saved()[0]
    assert (
        trees['replay']['seen'] == others['replay']['seen']
        and trees['counters'] == others['counters']
    )
    evaluations = run.lines('eval/scores.jsonl')
    assert len(evaluations) == 3 and all(
        line['episodes'] == 5 and line['score'] == 7.0 for line in evaluations
    )
    assert sum('eval/score' in line for line in run.lines('metrics.jsonl')) == 3
    assert not any('eval/score' in line for line in plain.lines('metrics.jsonl'))
    assert run.made.count(('eval', 0)) == 3 and ('eval', 2) not in run.made


def test_eval_only_writes_what_it_found_and_ends(world, capsys):
    source = world('source').run(train)
    target = world('target', eval_mode='mode')
    result = eval_only(
        target.make_agent,
        target.make_env,
        target.setup,
        lambda agent: load_agent(agent, source.logdir),
        fps=5,
    )
    content = json.loads((target.logdir / 'eval' / 'eval.json').read_text())
    assert content['returns'] == result.returns == [7.0] * 5 and content['lengths'] == [7] * 5
    assert (content['mean'], content['std'], content['ci95'], content['episodes']) == (
        7.0,
        0.0,
        0.0,
        5,
    )
    assert (
        content['task'] == 'dummy'
        and content['seed'] == 0
        and str(source.logdir) in content['checkpoint']
    )
    assert len(list((target.logdir / 'eval').glob('image_*.gif'))) == 2
    assert target.agent.updates == source.agent.updates and set(target.agent.modes) == {'mode'}
    assert 'return 7' in capsys.readouterr().out
    assert not (target.logdir / 'ckpt').exists() and not (target.logdir / 'replay').exists()


def test_two_evaluations_of_a_checkpoint_are_equal(world):
    source = world('source').run(train)
    load = lambda agent: load_agent(agent, source.logdir)
    one, two = (world(name) for name in ('one', 'two'))
    results = [eval_only(w.make_agent, w.make_env, w.setup, load, fps=5) for w in (one, two)]
    assert results[0].returns == results[1].returns
    assert all(
        np.array_equal(results[0].videos[name], results[1].videos[name])
        for name in results[0].videos
    )


@pytest.mark.parametrize('place', ['.', 'ckpt'])
def test_a_checkpoint_is_found_by_its_run_or_its_folder(world, place):
    run = world().run(train)
    agent = run.make_agent({}, {})
    save = load_agent(agent, run.logdir / place)
    assert agent.updates > 0 and load_agent(agent, save) == save


def test_a_missing_checkpoint_is_named(world, tmp_path):
    with pytest.raises(errors.CheckpointError, match='nowhere'):
        load_agent(world().make_agent({}, {}), tmp_path / 'nowhere')


@pytest.mark.parametrize(
    'change',
    [{'every': 0}, {'episodes': 0}, {'envs': 0}, {'videos': -1}, {'mode': 'best'}, {'length': 0}],
)
def test_settings_out_of_range_are_refused_by_name(change):
    with pytest.raises(errors.ConfigError, match=f'eval.{next(iter(change))}'):
        EvalConfig(
            **{
                'every': 1,
                'episodes': 1,
                'envs': 1,
                'mode': 'sample',
                'videos': 0,
                'length': 9,
                **change,
            }
        )


class Endless(Dummy):
    """Never ends by itself; its third life is the first one that does not fail."""

    def __init__(self, life=0):
        super().__init__('box', DummyConfig(10**9, False, 4), 0)
        self.life = life

    def step(self, action):
        obs = super().step(action)
        if self.life < 2 and obs['count'] == 3:
            raise RuntimeError('not yet')
        return obs


class Lives:
    """Constructor of an Endless env and of its replacements."""

    def __init__(self, life=0):
        self.life = life

    def __call__(self):
        return wrap(Endless(self.life))

    def renewed(self, count):
        return Lives(count)


def test_an_evaluation_ends_where_its_envs_do_not_and_says_so(world, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, 'PLAIN_SECONDS', 0.0)
    events = []
    result = evaluate(
        Quiet(),
        lambda kind, index: Lives(2 * (index == 1)),
        EvalConfig(1, 5, 2, 'sample', 0, 6),
        world(driver_max_restarts=2).setup.driver,
        2,
        events.append,
    )
    assert result.lengths == [6] * 5 and result.cut == 5 and result.returns == [6.0] * 5
    assert str(result).endswith('5 episodes, 5 of them cut after 6 decisions (eval.length)')
    assert len([event for event in events if 'not yet' in event]) == 2, (
        'replacements are cut like the first envs'
    )
    assert [len(frames) for frames in result.videos.values()] == [7, 7]
    shown = capsys.readouterr().out.splitlines()
    assert 'evaluating: 0 of 5 episodes, 0 decisions' in shown and any(
        '4 of 5 episodes' in line for line in shown
    )


def test_episodes_that_end_in_time_are_not_counted_as_cut(world):
    result = evaluate(Quiet(), uneven, EvalConfig(1, 4, 2, 'sample', 0, 9), world().setup.driver)
    assert result.cut == 0 and 'cut' not in str(result)


def test_cuts_are_in_what_is_written(world, capsys):
    source = world('source').run(train)
    target = world('target', eval_length=5)
    eval_only(
        target.make_agent,
        target.make_env,
        target.setup,
        lambda agent: load_agent(agent, source.logdir),
        fps=5,
    )
    content = json.loads((target.logdir / 'eval' / 'eval.json').read_text())
    assert (
        content['lengths'] == [5] * 5
        and content['cut'] == 5
        and '5 of them cut' in capsys.readouterr().out
    )
