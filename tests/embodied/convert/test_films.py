"""Videos and pictures with what stands beside them. Videos are written by PyAV; a codec loses a
little, so frames are told apart by their brightness.
"""

import json

import av
import numpy as np
import pytest
from convert_sources import count, hundredths
from PIL import Image

from embodied.convert import arrays
from embodied.replay.importer import decoded

SHADES = [20, 60, 100, 140, 180]


def shades(colors=(1, 1, 1)):
    """uint8 (5, 32, 32, 3): one shade each."""
    ones = np.ones((5, 32, 32, 3)) * np.array(colors)
    return (ones * np.array(SHADES)[:, None, None, None]).astype(np.uint8)


def write(path, frames=None, codec='libx264'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = 32, 32
        stream.pix_fmt = 'yuv420p'
        for frame in shades() if frames is None else frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


def seen(episode, channel=0):
    """Which shade each frame shows."""
    levels = episode['image'].mean((1, 2))[:, channel]
    return [int(np.abs(np.array(SHADES) - level).argmin()) for level in levels]


@pytest.mark.parametrize('name, codec', [('a.mp4', 'libx264'), ('a.avi', 'mpeg4')])
def test_a_video_alone_is_an_episode_without_labels(converted, tmp_path, name, codec):
    write(tmp_path / name, codec=codec)
    (episode,) = converted('video', tmp_path / name, '--size', '8').episodes
    assert seen(episode) == [0, 1, 2, 3, 4] and episode['image'].shape == (5, 8, 8, 3)
    assert set(episode) == {'image', 'is_first', 'is_last'}


def test_sidecars_label_their_video_and_others_say_that_they_have_none(converted, tmp_path):
    source = tmp_path / 'source'
    for name in 'abcd':
        write(source / f'{name}.mp4')
    np.savez(source / 'b.npz', actions=count(5, 10), rewards=np.float32([0, 0, 5, 0, 0]))
    np.save(source / 'c.actions.npy', count(4, 20))
    (source / 'd.json').write_text(json.dumps({'actions': count(4, 30).tolist()}))
    a, b, c, d = converted('video', source).episodes
    assert a['unlabeled_action'].all() and a['unlabeled_reward'].all()
    assert not b['unlabeled_action'].any() and not b['unlabeled_reward'].any()
    assert hundredths(b['action'][:, 0]) == [10, 11, 12, 13, 0]
    assert b['reward'].tolist() == [0, 0, 0, 5, 0], 'earned by the action at frame 2'
    assert hundredths(c['action'][:, 0]) == [20, 21, 22, 23, 0] and c['unlabeled_reward'].all()
    assert hundredths(d['action'][:, 0]) == [30, 31, 32, 33, 0]


def test_labels_of_another_video_are_not_taken(converted, tmp_path):
    """b.2.npz begins with b., yet it belongs to b.2.mp4; a row of an image folder is terminal."""
    for name in ('b', 'b.2'):
        write(tmp_path / f'{name}.mp4')
    np.savez(tmp_path / 'b.2.npz', actions=count(5, 10), terminated=np.arange(5) == 4)
    two, one = converted('video', tmp_path).episodes
    assert one['unlabeled_action'].all() and not one['is_terminal'].any()
    assert hundredths(two['action'][:, 0])[:5] == [10, 11, 12, 13, 14] and two['is_terminal'][-1]


def test_of_an_npz_beside_a_video_only_labels_are_read(converted, tmp_path, monkeypatch):
    """It may also hold latents, or the frames again."""
    read = []
    rows = arrays.Column.rows
    monkeypatch.setattr(
        arrays.Column, 'rows', lambda self, *at: read.append(self.shape) or rows(self, *at)
    )
    write(tmp_path / 'a.mp4')
    np.savez(tmp_path / 'a.npz', actions=count(5), latents=np.zeros((5, 99)))
    converted('video', tmp_path / 'a.mp4')
    assert set(read) == {(5, 2)}


def test_sidecars_whose_actions_led_to_their_frame(converted, tmp_path):
    write(tmp_path / 'a.mp4')
    np.savez(tmp_path / 'a.npz', actions=count(5), rewards=np.float32([9, 1, 2, 3, 4]))
    (episode,) = converted('video', tmp_path / 'a.mp4', '--time', 'led').episodes
    assert hundredths(episode['action'][:, 0]) == [1, 2, 3, 4, 0]
    assert episode['reward'].tolist() == [0, 1, 2, 3, 4]


def test_more_actions_than_frames_are_refused(converted, tmp_path, capsys):
    write(tmp_path / 'a.mp4')
    np.save(tmp_path / 'a.action.npy', count(7))
    converted('video', tmp_path / 'a.mp4', status=2)
    assert "a.mp4: 5 frames need 4 or 5 actions 'action', there are 7" in capsys.readouterr().err


def test_two_files_of_actions_are_refused(converted, tmp_path, capsys):
    write(tmp_path / 'a.mp4')
    np.save(tmp_path / 'a.action.npy', count(5))
    np.savez(tmp_path / 'a.npz', actions=count(5))
    converted('video', tmp_path / 'a.mp4', status=2)
    assert 'there is a second action' in capsys.readouterr().err


def test_pictures_come_in_the_order_of_their_numbers(converted, tmp_path):
    for index, frame in enumerate(shades()):
        for folder in ('one', 'two'):
            path = tmp_path / 'source' / folder / f'frame{index + 8}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(path)
    np.save(tmp_path / 'source' / 'two' / 'actions.npy', count(5))
    np.save(tmp_path / 'source' / 'two' / 'terminated.npy', np.arange(5) == 4)
    one, two = converted('images', tmp_path / 'source').episodes
    assert seen(one) == seen(two)[:5] == [0, 1, 2, 3, 4], 'frame10 comes after frame9'
    assert one['unlabeled_action'].all()
    assert hundredths(two['action'][:, 0])[:4] == [0, 1, 2, 3] and two['is_terminal'][-1]


def test_lucidrains_has_a_frame_more_than_actions(converted, tmp_path):
    write(tmp_path / 'episode_0.mp4')
    np.save(tmp_path / 'episode_0.discrete_actions.npy', np.int64([3, 2, 1, 0])[:, None])
    np.save(tmp_path / 'episode_0.rewards.npy', np.float32([0, 1, 2, 3, 4]))
    np.save(tmp_path / 'episode_0.terminated.npy', np.arange(5) == 4)
    (episode,) = converted('lucidrains', tmp_path).episodes
    assert episode['action'].tolist() == [3, 2, 1, 0, 0] and episode['is_terminal'][-1]
    assert episode['reward'].tolist() == [0, 1, 2, 3, 4] and seen(episode) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize('kind', ['action', 'continuous_actions'])
def test_lucidrains_actions_have_several_names(converted, tmp_path, kind):
    write(tmp_path / 'episode_0.mp4')
    np.save(tmp_path / f'episode_0.{kind}.npy', count(4))
    (episode,) = converted('lucidrains', tmp_path).episodes
    assert hundredths(episode['action'][:, 0]) == [0, 1, 2, 3, 0]


def scalable(folder, swapped):
    """As its collector writes it: through OpenCV, which takes what it is given for blue first."""
    write(folder / 'episodes' / '0000' / 'video.mp4', swapped)
    buttons = np.eye(12, dtype=int)[:5].tolist()
    content = {
        'actions': buttons, 'rewards': [7, 1, 2, 3, 4], 'terminated': True, 'truncated': False,
        'environment': 'Game', 'fps': 19, 'frame_size': [32, 32], 'num_steps': 5,
    }  # fmt: skip
    (folder / 'episodes' / '0000' / 'metadata.json').write_text(json.dumps(content))


def test_scalable_dreamer_actions_led_to_their_frame_and_blue_comes_first(converted, tmp_path):
    scalable(tmp_path, shades((0.2, 0.5, 1)))
    (episode,) = converted('scalable-dreamer', tmp_path).episodes
    assert episode['action'].argmax(1).tolist() == [1, 2, 3, 4, 0]
    assert not episode['action'][-1].any() and episode['action'].dtype == np.int8
    assert episode['reward'].tolist() == [0, 1, 2, 3, 4] and episode['is_terminal'][-1]
    red, _, blue = episode['image'].mean((1, 2)).T
    assert (red > 3 * blue).all() and seen(episode, channel=0) == [0, 1, 2, 3, 4]
    assert converted.archive.meta['task'] == 'Game'


def test_what_is_no_video_is_named(converted, tmp_path, capsys):
    (tmp_path / 'a.mp4').write_bytes(b'nothing')
    converted('video', tmp_path / 'a.mp4', status=2)
    assert 'a.mp4' in capsys.readouterr().err


def test_the_frames_of_a_video_come_in_the_order_they_are_shown(tmp_path):
    """Not in the order they are stored, where a codec predicts backwards."""
    path = write(tmp_path / 'a.mp4', shades().repeat(4, 0))
    levels = [frame.mean() for frame in decoded(path)]
    assert len(levels) == 20 and levels == sorted(levels)


def test_a_picture_that_is_cut_off_is_named(converted, tmp_path, capsys):
    for index, frame in enumerate(shades()):
        Image.fromarray(frame).save(tmp_path / f'{index}.png')
    path = tmp_path / '3.png'
    path.write_bytes(path.read_bytes()[:60])
    converted('images', tmp_path, status=2)
    assert '3.png: cannot be read' in capsys.readouterr().err
    converted('images', path, status=2)
    assert '3.png: expected a folder, found a file' in capsys.readouterr().err
