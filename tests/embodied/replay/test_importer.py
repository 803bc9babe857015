"""python -m embodied.replay import: videos and arrays become folders of demonstrations, with
labels only where there are some.
"""

import numpy as np
import pytest
from PIL import Image
from test_replay import fill, make

from embodied.replay.tool import inspect, main

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)


def video(path, frames=FRAMES, scale=1):
    images = [
        Image.fromarray(np.kron(frame, np.ones((scale, scale, 1), np.uint8))) for frame in frames
    ]
    images[0].save(path, save_all=True, append_images=images[1:], duration=50)
    return path


def bring(out, *files, flags=()):
    return main(['import', *map(str, files), '--out', str(out), *flags])


def drawn(folder, length):
    """All sequences of that length that a replay with this folder as demonstrations draws, as
    one batch.
    """
    replay = make(demos=str(folder), demo_share=1.0, events=[])
    fill(replay, 20)
    return replay.sample(64, length)


def test_a_video_is_an_episode_without_labels(tmp_path, capsys):
    assert bring(tmp_path / 'demos', video(tmp_path / 'a.gif', scale=8), flags=['--size', '4']) == 0
    assert '1 episodes, 6 rows of image, is_first, is_last' in capsys.readouterr().out
    report = inspect(tmp_path / 'demos')
    assert (
        report['complete'] == 1
        and report['lengths']['mean'] == 6
        and report['returns'] is None
        and report['list'][0]['score'] is None
    )


@pytest.mark.parametrize('scale', [1, 255])
def test_images_of_floats_become_those_of_bytes(tmp_path, scale):
    np.savez(tmp_path / 'a.npz', frames=FRAMES / 255 * scale)
    assert bring(tmp_path / 'demos', tmp_path / 'a.npz') == 0
    (chunk,) = (tmp_path / 'demos').glob('*.npz')
    image = np.load(chunk)['image']
    assert image.dtype == np.uint8 and np.array_equal(image, FRAMES)


@pytest.mark.parametrize('value', [-0.5, 300.0, np.nan])
def test_images_of_other_floats_are_refused_by_key_and_range(tmp_path, capsys, value):
    np.savez(tmp_path / 'a.npz', frames=np.where(FRAMES > 0, value, 0.0))
    assert bring(tmp_path / 'demos', tmp_path / 'a.npz') == 2
    assert "images 'image' must be uint8, or floats in [0, 1] or" in capsys.readouterr().err


def test_a_folder_of_videos_and_arrays_is_drawn_with_flags(tmp_path):
    """The count, an observation of the env, tells which frame of which file a row is."""
    count = lambda first: {'frames': FRAMES, 'count': np.arange(first, first + 6)}
    for name, first in (('a', 0), ('b', 100)):
        np.savez(tmp_path / f'{name}.npz', **count(first))
    assert (
        bring(tmp_path / 'demos', tmp_path / 'a.npz') == 0
        and bring(tmp_path / 'demos', tmp_path / 'b.npz') == 0
    )
    sample = drawn(tmp_path / 'demos', 6)
    assert (
        sample['unlabeled_action'].all()
        and sample['unlabeled_reward'].all()
        and not sample['reward'].any()
    )
    assert set(sample['count'][:, 0]) == {0, 100}
    assert (sample['image'] == FRAMES).all() and sample['count'].dtype == np.int32
    assert (sample['is_first'] == [True] + [False] * 5).all() and (
        sample['is_last'] == [False] * 5 + [True]
    ).all()


def test_labels_that_are_in_the_file_are_kept(tmp_path):
    columns = {
        'image': FRAMES,
        'count': np.arange(6),
        'reward': np.arange(6.0),
        'is_terminal': np.arange(6) == 5,
        'is_first': np.arange(6) % 3 == 0,
        'is_last': np.arange(6) % 3 == 2,
    }
    np.savez(tmp_path / 'a.npz', **columns)
    assert bring(tmp_path / 'demos', tmp_path / 'a.npz') == 0
    sample = drawn(tmp_path / 'demos', 6)
    assert 'unlabeled_reward' not in sample and sample['unlabeled_action'].all()
    assert (
        all((sample[key] == value).all() for key, value in columns.items())
        and sample['reward'].dtype == np.float32
    )
    assert inspect(tmp_path / 'demos')['returns'] == {
        'mean': 7.5,
        'min': 3.0,
        'max': 12.0,
        'last': 12.0,
    }


def test_what_export_writes_can_be_imported(tmp_path, capsys):
    replay = make(tmp_path / 'run')
    fill(replay, 7)
    replay.close()
    assert (
        main(
            ['export', str(tmp_path / 'run'), '--episode', '0', '--out', str(tmp_path / 'one.npz')]
        )
        == 0
    )
    assert bring(tmp_path / 'demos', tmp_path / 'one.npz') == 0
    assert inspect(tmp_path / 'demos')['rows'] == 7


def test_grey_frames_get_a_channel_and_every_channel_is_resized(tmp_path):
    grey = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 6), np.uint8)
    np.savez(tmp_path / 'a.npz', frames=grey, depth=np.repeat(grey[..., None], 5, -1))
    assert bring(tmp_path / 'demos', tmp_path / 'a.npz', flags=['--size', '4', '--key', 'eye']) == 0
    schema = inspect(tmp_path / 'demos')['schema']
    assert schema['eye']['shape'] == [4, 4, 1] and schema['depth']['shape'] == [4, 4, 5]


@pytest.mark.parametrize(
    'content, words',
    [
        (b'nothing', 'cannot be read'),
        ({'frames': FRAMES, 'reward': np.zeros(3)}, 'must be equally long'),
        ({}, 'equally long'),
        ({'frames': FRAMES[:0]}, 'equally long'),
        ({'frames': FRAMES.astype(np.float32), 'other': np.zeros(6)}, None),
    ],
)
def test_files_that_are_no_episode_are_one_line_that_names_them(tmp_path, capsys, content, words):
    if isinstance(content, bytes):
        (tmp_path / 'a.npz').write_bytes(content)
        words = 'a.npz'
    else:
        np.savez(tmp_path / 'a.npz', **content)
    status = bring(tmp_path / 'demos', tmp_path / 'a.npz')
    error = capsys.readouterr().err
    if words is None:
        assert status == 0, 'any array that a row can hold'
    else:
        assert status == 2 and error.count('\n') == 1 and 'a.npz' in error and words in error


def test_episodes_of_another_size_are_refused_and_those_before_them_stay(tmp_path, capsys):
    bring(tmp_path / 'demos', video(tmp_path / 'a.gif'))
    assert bring(tmp_path / 'demos', video(tmp_path / 'b.gif', scale=2)) == 2
    error = capsys.readouterr().err
    assert 'b.gif' in error and "'image': expected uint8 (4, 4, 3)" in error
    assert inspect(tmp_path / 'demos')['rows'] == 6
