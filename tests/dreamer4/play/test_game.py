"""A game: who acts, going back and branching, the real env beside the dream, what is kept of it."""

import json

import numpy as np
import pytest

from dreamer4 import main as command
from dreamer4.play import frames, tree
from dreamer4.play.game import GameError, updated
from dreamer4.play.record import film_frame
from embodied.replay.archive import Archive

RIGHT = {'action': np.array([1, 0], np.float32)}
LEFT = {'action': np.array([-1, 0], np.float32)}


def unpack(data):
    length = int.from_bytes(data[:4], 'little')
    return json.loads(data[4 : 4 + length]), data[4 + length :]


@pytest.mark.parametrize('world', ['dreamer4', 'rssm'])
def test_dream_and_env_go_side_by_side_under_the_same_actions(made, world):
    game, _ = made(world, samples=2)
    for who in ('you', 'sample', 'mode'):
        assert game.step(who, RIGHT)
    node = game.tree.current
    assert node.depth == 3 and node.real['image'].shape == node.dream.obs['image'].shape[1:]
    for name in ('reward', 'real_reward', 'value', 'cont', 'entropy', 'spread', 'error', 'pixels'):
        assert np.isfinite(node.stats[name]), name
    assert game.tree.path()[0].stats['pixels'] == 0, 'both begin at the same frame'
    assert game.tree.path()[1].action['action'].tolist() == [1, 0]


def test_a_branch_goes_on_in_the_env_from_where_it_was(made):
    game, _ = made()
    for _ in range(3):
        game.step('you', RIGHT)
    first = game.tree.current
    game.goto(1)
    game.step('you', LEFT)
    game.goto(1)
    game.step('you', RIGHT)
    game.step('you', RIGHT)
    again = game.tree.current
    assert again.number != first.number and again.depth == first.depth
    assert np.array_equal(again.real['image'], first.real['image']), 'the env was taken back'
    assert [n[1] for n in game.tree.describe()] == [None, 0, 1, 2, 1, 1, 5]
    game.restart()
    assert game.tree.current.number == 0
    with pytest.raises(GameError, match='frame 99 is not kept'):
        game.goto(99)


def test_where_the_env_cannot_go_back_the_dream_goes_on_alone(made, monkeypatch):
    game, _ = made()
    monkeypatch.setattr(type(game.env), 'save', lambda self: None)
    game.fresh()
    game.step('you', RIGHT)
    game.step('you', RIGHT)
    assert game.tree.current.real is not None
    game.goto(1)
    game.step('you', LEFT)
    assert game.tree.current.real is None and 'real_reward' not in game.tree.current.stats


def test_an_env_that_fails_leaves_the_dream_alone_and_is_told_of(made, monkeypatch):
    game, _ = made()
    monkeypatch.setattr(game.env, 'step', lambda action: 1 / 0)
    for _ in range(2):
        game.step('you', RIGHT)
    assert game.tree.current.depth == 2 and game.tree.current.real is None
    assert game.news == ['the env is lost, it raised ZeroDivisionError: division by zero']
    game.fresh()
    assert game.place is not None, 'what is left is the replay'


def test_an_env_that_cannot_begin_leaves_the_replay(made, monkeypatch):
    episodes = []
    game, _ = made(on_episode=episodes.append)
    game.step('you', RIGHT)
    monkeypatch.setattr(game.env, 'step', lambda action: 1 / 0)
    game.fresh()
    assert game.env is None and game.place is not None and len(episodes) == 1
    game.starts = None
    with pytest.raises(GameError, match='no env any more'):
        game.fresh()


def test_recorded_actions_show_what_was_recorded_until_somebody_takes_over(made):
    game, _ = made(alone=True)
    game.alone(0, 0)
    rows = game.starts.after(0, 0)
    for _ in range(3):
        assert game.step('recorded')
    node = game.tree.current
    assert np.array_equal(node.real['image'], rows['image'][3])
    assert np.array_equal(node.action['action'], rows['action'][2])
    game.step('you', RIGHT)
    assert game.tree.current.real is None, 'nobody knows what really came of that'
    game.goto(3)
    while game.step('recorded'):
        pass
    assert game.tree.current.real['is_last'] and game.tree.current.depth == len(rows['is_last']) - 1


def test_what_is_not_there_is_said(made):
    game, _ = made(alone=True)
    with pytest.raises(GameError, match='there is no env'):
        game.beside()
    with pytest.raises(GameError, match='episodes 0 to'):
        game.alone(10_000, 0)
    game, _ = made()
    with pytest.raises(GameError, match='nothing is recorded here'):
        game.step('recorded')
    said = {'steps': 3, 'mean': False, 'noise': None, 'samples': 0, 'seed': 0, 'auto': True}
    with pytest.raises(GameError, match='power of two'):
        game.set(updated(game.settings, said))


def test_a_new_episode_begins_where_the_real_one_ended(made):
    episodes = []
    game, _ = made(on_episode=episodes.append)
    for _ in range(50):  # the time limit of pixel_reach
        game.step('you', RIGHT)
    assert game.tree.current.real_over and not episodes
    game.step('you', RIGHT)
    assert game.tree.current.depth == 0 and [len(path) for path in episodes] == [51]


def test_the_oldest_frames_are_let_go_and_the_start_is_not(made, monkeypatch):
    monkeypatch.setattr(tree, 'MOST', 6)
    monkeypatch.setattr(tree, 'LEAST', 1)
    game, recorder = made()
    for _ in range(10):
        game.step('you', RIGHT)
    assert list(game.tree.nodes) == [0, 6, 7, 8, 9, 10] and game.tree.oldest == 6
    told = json.dumps(game.tree.describe())
    assert json.loads(told)[:2] == [[0, None, 'start', 0], [6, 0, 'you', 6]]
    assert recorder.save_rows(game.tree.path()) == 5, 'the rows begin behind the gap'
    assert game.tree.path()[1].depth == 6
    with pytest.raises(GameError):
        game.goto(2)
    game.goto(0)
    game.step('you', LEFT)
    assert len(game.tree.path()) == 2 and game.tree.oldest == 7


def test_large_frames_are_kept_in_smaller_numbers(made, monkeypatch):
    game, _ = made()
    size = game.tree.nodes[0].nbytes
    assert size >= 2 * 16 * 16 * 3, 'the dreamt and the real picture'
    monkeypatch.setattr(tree, 'MEMORY', 100 * size)
    game.fresh()
    assert game.tree.most == 100


def test_what_was_played_becomes_rows_that_offline_learns_from(made, tmp_path):
    game, recorder = made()
    for action in (RIGHT, LEFT, RIGHT, RIGHT):
        game.step('you', action)
    game.goto(2)
    game.step('you', LEFT)
    assert recorder.save_rows(game.tree.path()) == 4
    for _ in range(20):
        game.step('sample')
    recorder.save_rows(game.tree.path())
    archive = Archive(recorder.rows)
    episodes = list(archive.episodes())
    assert [e.length for e in episodes] == [4, 24]
    stream = archive.streams[episodes[0].slot]
    read = lambda key: archive.column(stream, key, 0, 4)
    assert read('is_first').tolist() == [True, False, False, False]
    assert read('is_last').tolist() == [False, False, False, True]
    assert not read('is_terminal').any() and read('reward')[0] == 0 and read('reward')[1] > 0
    assert read('action').tolist() == [[1, 0], [-1, 0], [-1, 0], [0, 0]]
    path = game.tree.path()
    assert np.array_equal(read('image')[1], path[1].real['image'])
    offline = ['--configs', 'debug', '--agent.tokenizer.patch', '8', '--script', 'offline']
    offline += ['--replay.directory', str(recorder.rows), '--run.updates', '1']
    offline += ['--logger.outputs', 'jsonl', '--machine.threads', '1']
    offline += ['--agent.batch.length', '8']
    assert command.main([*offline, '--logdir', str(tmp_path / 'off')]) == 0


def test_a_film_shows_both_panes(made):
    game, recorder = made()
    with pytest.raises(GameError, match='no real frames'):
        recorder.save_rows(game.tree.path())
    game.step('you', RIGHT)
    film = recorder.save_film(game.tree.path(), 'gif', 15)
    assert film.name == 'film-001.gif' and film.read_bytes()[:3] == b'GIF'
    assert recorder.save_film(game.tree.path(), 'gif', 15).name == 'film-002.gif'
    frame = film_frame(game.tree.current)
    assert frame.shape == (16, 2 * (16 + 4), 3)
    assert np.array_equal(frame[:, 20:36], game.tree.current.real['image'])


def test_a_frame_is_packed_with_its_images(made):
    game, _ = made()
    game.step('you', RIGHT)
    header, images = unpack(frames.frame(game, {'fps': 1.0}))
    assert header['node'] == 1 and header['parent'] == 0 and header['fps'] == 1.0
    assert [(i['pane'], i['key']) for i in header['images']] == [
        ('dream', 'image'),
        ('real', 'image'),
    ]
    shown = np.frombuffer(images, np.uint8).reshape(2, 16, 16, 3)
    assert np.array_equal(shown[0], game.tree.current.dream.obs['image'][0])
    assert np.array_equal(shown[1], game.tree.current.real['image'])
    assert len(header['policy']) == 2 and sum(header['policy'][0]['probs']) == pytest.approx(
        1, abs=0.01
    )
    header, _ = unpack(frames.episode(game, 0, count=5))
    last = game.starts.episodes[0].length - 1
    assert header['frames'][0] == 0 and header['frames'][-1] == last and len(header['images']) == 5
    assert header['images'][0]['pane'] == '0:0'
    with pytest.raises(GameError, match='episodes 0 to'):
        frames.episode(game, 10_000)
    header, images = unpack(frames.strip(game, 0))
    assert header['total'] == len(game.starts.episodes) and len(images) == sum(
        3 * i['height'] * i['width'] for i in header['images']
    )
