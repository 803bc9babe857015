"""What is held out is never learned from, by whole episodes; what is relevant has its share, and
every row of a draw says what it is for.
"""

import numpy as np
import pytest
from gymnasium import spaces
from test_replay import ACT, CONFIG, OBS, row

from embodied.base import MIX
from embodied.errors import ConfigError
from embodied.replay import Replay, ReplayConfig
from embodied.replay.mix import Relevance

EPISODE, LENGTH, WORKERS, ROWS = 7, 10, 3, 140
SEEN = {**OBS, 'success': spaces.Box(0, 1, (), bool), 'task_id': spaces.Discrete(3)}
GOOD = range(0, ROWS // EPISODE, 4)  # of every stream, the episodes that are rewarded


def content(count, worker):
    """A row of a stream in which every fourth episode is rewarded at its end."""
    number, place = divmod(count, EPISODE)
    good = number in GOOD and place == EPISODE - 1
    return {
        **row(count, worker, EPISODE),
        'count': np.int32(1000 * worker + count),
        'reward': np.float32(good),
        'success': np.bool_(good),
        'task_id': np.int64(worker),
    }


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp('rows')
    replay = Replay(ReplayConfig(**CONFIG), place, 0, SEEN, ACT)
    for count in range(ROWS):
        for worker in range(WORKERS):
            replay.add(content(count, worker), worker)
    replay.close()
    return place


def opened(folder, length=LENGTH, events=None, **changes):
    config = ReplayConfig(**CONFIG | changes)
    on_event = print if events is None else events.append
    replay = Replay(config, folder, 0, read_only=True, on_event=on_event)
    replay.load(None)
    replay.split(length)
    return replay


def episodes(rows):
    """(worker, episode) of all rows of a draw."""
    worker, count = np.divmod(rows['count'], 1000)
    return set(zip(worker.flat, (count // EPISODE).flat))


def test_no_episode_is_both_learned_from_and_measured_on(folder):
    replay = opened(folder, held_out=0.2)
    learned = set().union(*(episodes(replay.sample(8, LENGTH)) for _ in range(100)))
    measured = set().union(*(episodes(replay.sample(8, LENGTH, draw=d)) for d in range(100)))
    assert replay.held_out and measured and not learned & measured
    assert len(learned | measured) == WORKERS * ROWS // EPISODE, 'each is one of both'
    assert 0.1 < len(measured) / len(learned | measured) < 0.3
    again = opened(folder, held_out=0.2)
    assert episodes(again.sample(64, LENGTH, draw=3)) <= measured, 'the next run holds out the same'


def test_sequences_of_a_split_replay_are_rows_in_succession(folder):
    replay = opened(folder, held_out=0.2, relevant=0.5, relevance='return:0.7')
    for relevant in (False, True):
        rows = replay.sample(64, LENGTH, relevant=relevant)
        assert (np.diff(rows['count'], axis=1) == 1).all()


@pytest.mark.parametrize('relevance', ['return:0.7', 'success', 'success:success'])
def test_the_better_episodes_have_their_share_and_are_imitated_alone(folder, relevance):
    replay = opened(folder, held_out=0.2, relevant=0.5, relevance=relevance)
    shares, good = [], set()
    for _ in range(40):
        rows = replay.sample(10, LENGTH, relevant=True)
        chosen = ~rows['predicted'].any(1)
        assert (rows['predicted'].all(1) == ~chosen).all(), 'a sequence is of one kind'
        assert not rows['imitated'][~chosen].any() and rows['imitated'][chosen].any(1).all()
        shares.append(chosen.mean())
        good |= episodes({'count': rows['count'][rows['imitated']]})
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert {number for _, number in good} <= set(GOOD)
    assert len(good) > 5, 'not one of them again and again'


def test_a_share_of_one_and_a_half_sequences_prefers_none(folder):
    replay, found = opened(folder, relevant=0.3, relevance='task:0,1,2'), []
    others = {*replay.obs_space, *replay.act_space} - {'count'}
    for _ in range(300):
        rows = replay.sample(5, LENGTH, without=others, relevant=True)
        found += (rows['count'][rows['imitated'].all(1), 0] // 1000).tolist()
    shares = np.bincount(found, minlength=WORKERS) / len(found)
    assert len(found) == pytest.approx(450, abs=30)
    assert shares == pytest.approx([1 / 3] * WORKERS, abs=0.06)


def test_a_task_may_be_what_is_relevant(folder):
    replay = opened(folder, relevant=0.5, relevance='task:0,2')
    rows = replay.sample(64, LENGTH, relevant=True)
    assert set(rows['task_id'][rows['imitated']].tolist()) == {0, 2}


def test_phases_before_the_heads_learn_draw_without_it(folder):
    replay = opened(folder, relevant=0.5, relevance='return:0.7')
    assert not set(MIX) & set(replay.sample(8, LENGTH))


def test_a_draw_that_was_prepared_is_the_draw(folder):
    one, two = (opened(folder, relevant=0.5, relevance='success') for _ in range(2))
    for _ in range(3):
        ahead = one.prepare(8, LENGTH, relevant=True)
        x = one.sample(8, LENGTH, prepared=ahead, relevant=True)
        y = two.sample(8, LENGTH, relevant=True)
        assert all((x[key] == y[key]).all() for key in x if key != 'row_id')


def test_demonstrations_may_be_what_is_relevant(folder):
    demos = dict(demos=str(folder), demo_share=0.5, relevance='demos')
    rows = opened(folder, **demos).sample(8, LENGTH, relevant=True)
    assert (rows['imitated'] == ~rows['predicted']).all()
    assert rows['imitated'].all(1).sum() == 4 and rows['predicted'].all(1).sum() == 4


def test_what_leaves_nothing_is_refused_and_said(folder):
    with pytest.raises(ConfigError, match='leaves no sequence'):
        opened(folder, length=ROWS + 1, held_out=0.5)
    with pytest.raises(ConfigError, match='none of 60 episodes'):
        opened(folder, relevant=0.5, relevance='task:7')
    with pytest.raises(ConfigError, match="column 'reached'"):
        opened(folder, relevant=0.5, relevance='success:reached')
    events = []
    opened(folder, held_out=0.2, relevant=0.5, relevance='success', events=events)
    assert 'held out' in events[0] and 'relevant' in events[0]


@pytest.mark.parametrize('text', ['', 'return', 'return:2', 'task:', 'task:x', 'good', 'demos:1'])
def test_a_relevance_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match='replay.relevance must be'):
        Relevance.read(text)
