"""Several folders are read as one: rows of one kind, shares, episodes held out of each; and a
folder of video, whose actions nobody learns from.
"""

import numpy as np
import pytest
from gymnasium import spaces
from test_mix import EPISODE, LENGTH, SEEN, content, episodes
from test_replay import ACT, CONFIG

from embodied.errors import ConfigError, ReplaySchemaError
from embodied.replay import Replay, ReplayConfig
from embodied.replay.sampler import deal
from embodied.replay.several import folders_of

LONG, SHORT = 273, 84


def write(place, rows, worker, obs_space=SEEN, act_space=ACT, **values):
    replay = Replay(ReplayConfig(**CONFIG), place, 0, obs_space, act_space, {'task': 'one'})
    for count in range(rows):
        one_task = {'task_id': np.int64(0)}
        replay.add(content(count, worker) | one_task | values, worker)
    replay.close()
    return place


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Of worker 0 and, fewer rows, of worker 1."""
    top = tmp_path_factory.mktemp('several')
    return write(top / 'long', LONG, 0), write(top / 'short', SHORT, 1)


def opened(places, events=None, length=LENGTH, **changes):
    names = tuple(map(str, places))
    config = ReplayConfig(**CONFIG | {'directory': names} | changes)
    on_event = print if events is None else events.append
    replay = Replay(config, places, 0, read_only=True, on_event=on_event)
    replay.load(None)
    replay.split(length)
    return replay


def share_of_second(replay, draws=40, **more):
    return np.mean(
        [(replay.sample(8, LENGTH, **more)['count'] >= 1000).mean() for _ in range(draws)]
    )


def test_every_row_of_several_folders_counts_the_same(folders):
    events = []
    replay = opened(folders, events)
    assert len(replay) == LONG + SHORT
    expected = (SHORT - LENGTH + 1) / (LONG + SHORT - 2 * LENGTH + 2)
    assert share_of_second(replay, 160) == pytest.approx(expected, abs=0.06)
    assert f'2 replay folders: {folders[0]}: 273 rows, 0.779 of the sequences; ' in events[-1]


@pytest.mark.parametrize('more', [{}, {'held_out': 0.2}, {'held_out': 0.2, 'relevant': 0.5}])
def test_shares_say_what_each_folder_gives(folders, more):
    events = []
    replay = opened(folders, events, shares=(0.25, 0.75), relevance='return:0.7', **more)
    for relevant in (False, 'relevant' in more):
        assert share_of_second(replay, relevant=relevant) == pytest.approx(0.75, abs=0.02)
    rows = replay.sample(64, LENGTH)['count']
    assert (np.diff(rows, axis=1) == 1).all(), 'no sequence is of two folders'
    second = rows[:, 0] >= 1000
    assert 0 < second[:32].sum() < second.sum(), 'a place in the batch tells nothing'
    assert '0.25 of the sequences' in events[-1] and '0.75 of the sequences' in events[-1]


def test_shares_hold_in_expectation_and_are_whole():
    rng = np.random.default_rng(0)
    counts = np.array([deal(5, np.array([0.5, 0.3, 0.2]), rng) for _ in range(2000)])
    assert (counts.sum(1) == 5).all() and (np.abs(counts - [2.5, 1.5, 1.0]) < 1).all()
    assert counts.mean(0) == pytest.approx([2.5, 1.5, 1.0], abs=0.05)


def test_each_folder_gives_episodes_to_be_measured_on(folders):
    events = []
    replay = opened(folders, events, held_out=0.4)
    learned = set().union(*(episodes(replay.sample(8, LENGTH)) for _ in range(100)))
    measured = set().union(*(episodes(replay.sample(8, LENGTH, draw=d)) for d in range(100)))
    assert not learned & measured and len(learned | measured) == (LONG + SHORT) // EPISODE
    assert {worker for worker, _ in measured} == {0, 1}
    assert len(measured) / (LONG + SHORT) * EPISODE == pytest.approx(0.4, abs=0.1)
    assert events[-1].count('of them held out') == 2


def test_a_replay_of_several_folders_goes_on_where_it_was(folders):
    one, two = (opened(folders, shares=(0.5, 0.5), held_out=0.2) for _ in range(2))
    for _ in range(3):
        one.sample(8, LENGTH)
    two.seek(one.draws)
    x, y = one.sample(8, LENGTH), two.sample(8, LENGTH)
    assert all((x[key] == y[key]).all() for key in x if key != 'row_id')


OTHER = {
    'another range': (SEEN, {'action': spaces.Discrete(7)}, 'action', 'Discrete'),
    'another size': (
        {**SEEN, 'image': spaces.Box(0, 255, (2, 2, 3), np.uint8)},
        ACT,
        'image',
        r'found uint8 \(2, 2, 3\) from 0 to 255',
    ),
}


@pytest.mark.parametrize('name', OTHER)
def test_a_folder_of_other_spaces_is_refused_by_folder_and_key(folders, tmp_path, name):
    obs_space, act_space, key, words = OTHER[name]
    Replay(ReplayConfig(**CONFIG), tmp_path, 0, obs_space, act_space).close()
    with pytest.raises(ReplaySchemaError, match=f'{tmp_path}: key {key!r}: expected .*{words}'):
        opened([folders[0], tmp_path])


def test_a_folder_without_meta_is_compared_by_its_rows(folders, tmp_path):
    wide = {**SEEN, 'count': spaces.Box(-9, 9, (2,), np.int32)}
    write(tmp_path, 20, 2, wide, count=np.zeros(2, np.int32))
    (tmp_path / 'meta.json').unlink()
    with pytest.raises(ReplaySchemaError, match=r"npz: key 'count': expected int32 \(\), found"):
        opened([folders[0], tmp_path])


def test_a_folder_without_a_key_is_refused_and_a_further_key_is_left_out(folders, tmp_path):
    more = {**SEEN, 'speed': spaces.Box(-1, 1, (), np.float32)}
    write(tmp_path, 40, 2, more, speed=np.float32(0))
    assert 'speed' not in opened([folders[0], tmp_path]).sample(2, LENGTH)
    with pytest.raises(ReplaySchemaError, match=f"{folders[0]}: key 'speed': .*no such key"):
        opened([tmp_path, folders[0]])


def test_what_gives_nothing_is_refused(folders, tmp_path):
    short = write(tmp_path / 'brief', LENGTH - 1, 3)
    with pytest.raises(ConfigError, match=f'{short}: no sequence of 10 rows, .* has 9'):
        opened([folders[0], short])
    with pytest.raises(ConfigError, match='named twice'):
        folders_of([folders[0], f'{folders[0]}/../long'])
    with pytest.raises(ConfigError, match='none is no folder'):
        folders_of([folders[0], tmp_path / 'none'])


def test_the_same_rows_in_two_folders_count_once(folders, tmp_path):
    for file in folders[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    write(tmp_path, 30, 4)
    events = []
    replay = opened([folders[1], tmp_path], events)
    assert len(replay) == SHORT + 30 and 'the same rows are in another folder' in ''.join(events)


@pytest.mark.parametrize('shares', [(1.0,), (0.5, 0.6), (1.0, 0.0)])
def test_shares_that_cannot_be_are_refused(folders, shares):
    with pytest.raises(ConfigError, match='replay.shares must name a share above 0 for each'):
        opened(folders, shares=shares)


def test_video_teaches_what_there_is_to_see_and_no_more(folders):
    """Its actions and rewards, though they are there, are not known; demonstrations keep theirs."""
    further = dict(video=str(folders[1]), video_share=0.25)
    replay = opened(folders[:1], **further, relevant=0.5, relevance='return:0.7')
    rows = replay.sample(8, LENGTH, relevant=True)
    video = rows['count'][:, 0] >= 1000
    assert video.sum() == 2
    assert (rows['unlabeled_action'].all(1) == video).all()
    assert (rows['unlabeled_reward'].all(1) == video).all()
    assert rows['predicted'][video].all() and not rows['imitated'][video].any()
    assert not rows['action'][video].any() and not rows['reward'][video].any()


def test_demonstrations_and_video_have_a_share_each(folders):
    further = dict(demos=str(folders[0]), demo_share=0.25, video=str(folders[1]), video_share=0.5)
    replay = opened(folders[:1], **further, relevance='demos')
    rows = replay.sample(8, LENGTH, relevant=True)
    video = rows['unlabeled_action'].all(1)
    assert video.sum() == 4 and rows['imitated'].all(1).sum() == 2
    assert not (rows['imitated'] & rows['unlabeled_action']).any()
    assert (rows['predicted'].all(1) == ~rows['imitated'].all(1)).all()
    read = replay.rows(rows['row_id'].ravel(), ('count',))['count']
    assert (read == rows['count'].ravel()).all(), 'rows are named whatever folder they are of'
    with pytest.raises(ConfigError, match='must sum to 1 at most'):
        opened(folders[:1], **further | {'demo_share': 0.6})
