"""What goes out comes in again: row by row from .npz, but for the loss of a codec from .mp4 and
LeRobot.
"""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from convert_sources import count

from embodied.convert import lerobot_out
from embodied.convert.command import main
from embodied.replay import Replay
from embodied.replay.config import unlimited


@pytest.fixture
def folder(tmp_path):
    """Episodes of 4 and 6 rows, one terminal, with a smooth picture and a vector."""
    replay = Replay(unlimited(0.1), tmp_path / 'own', 0, meta={'task': 'made'})
    for number, length in enumerate((4, 6)):
        for step in range(length):
            last = step == length - 1
            replay.add(
                {
                    'image': np.full((16, 16, 3), 20 * step + 60 * number, np.uint8),
                    'joints': np.float32([number, step]),
                    'action': count(length, 10 * number)[step] * (not last),
                    'reward': np.float32(step),
                    'is_first': np.bool_(step == 0),
                    'is_last': np.bool_(last),
                    'is_terminal': np.bool_(last and number),
                }
            )
    replay.close()
    return tmp_path / 'own'


def same(ours, theirs, loss=0):
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs):
        assert set(one) == set(two)
        for key in one:
            apart = np.abs(one[key].astype(float) - two[key].astype(float)).max()
            assert apart <= (loss if key == 'image' else 1e-6), (key, one[key], two[key])


@pytest.mark.parametrize(
    'out, back, loss', [('to-npz', 'npz', 0), ('to-mp4', 'video', 4), ('to-lerobot', 'lerobot', 4)]
)
def test_what_goes_out_comes_in_again(converted, folder, tmp_path, out, back, loss, capsys):
    assert main([out, str(folder), str(tmp_path / 'out')]) == 0
    keys = ['--keys', 'image', 'joints', 'state']
    found = converted(back, tmp_path / 'out', *keys).episodes
    wanted = converted.of(folder)
    if back == 'video':  # of what stands beside, actions and rewards alone are read
        for episode in wanted:
            del episode['joints']
        for episode in found:
            assert not episode.pop('unlabeled_action').any()
            assert not episode.pop('unlabeled_reward').any()
    same(wanted, found, loss)
    assert main([out, str(folder), str(tmp_path / 'out')]) == 2
    assert 'nothing is overwritten' in capsys.readouterr().err


def test_the_lerobot_set_has_what_its_readers_look_for(folder, tmp_path, monkeypatch):
    """Two data files, whose videos begin anew; indices run on over both."""
    monkeypatch.setattr(lerobot_out, 'ROWS_PER_FILE', 4)
    assert main(['to-lerobot', str(folder), str(tmp_path / 'out'), '--fps', '10']) == 0
    read = lambda name: pq.read_table(tmp_path / 'out' / name).to_pydict()
    info = json.loads((tmp_path / 'out' / 'meta' / 'info.json').read_text())
    assert info['codebase_version'] == 'v3.0' and info['fps'] == 10
    assert info['total_frames'] == 10 and info['splits'] == {'train': '0:2'}
    video = info['features']['observation.images.image']
    assert video['dtype'] == 'video' and video['shape'] == [16, 16, 3]
    one, two = (read(f'data/chunk-000/file-00{index}.parquet') for index in range(2))
    assert one['index'] + two['index'] == list(range(10))
    assert set(one) == set(info['features']) - {'observation.images.image'}
    assert one['next.reward'] == [1, 2, 3, 0] and one['next.done'] == [False] * 3 + [True]
    assert two['next.terminated'] == [False] * 5 + [True]
    meta = read('meta/episodes/chunk-000/file-000.parquet')
    at = 'videos/observation.images.image'
    assert meta['length'] == [4, 6] and meta['dataset_from_index'] == [0, 4]
    assert meta[f'{at}/file_index'] == [0, 1] and meta[f'{at}/from_timestamp'] == [0, 0]
    assert meta[f'{at}/to_timestamp'] == [0.4, 0.6] and meta['tasks'] == [['made']] * 2
    assert read('meta/tasks.parquet') == {'task_index': [0], '__index_level_0__': ['made']}
    stats = json.loads((tmp_path / 'out' / 'meta' / 'stats.json').read_text())
    assert stats['observation.joints']['max'] == [1, 5]
    assert np.shape(stats['observation.images.image']['mean']) == (3, 1, 1)


def test_grey_pictures_with_odd_sides_go_out_in_colors_and_a_pixel_larger(converted, tmp_path):
    grey = np.repeat(40 * np.arange(5), 15 * 13).reshape(5, 15, 13, 1).astype(np.uint8)
    np.savez(tmp_path / 'a.npz', eye=grey, action=count(5), reward=np.zeros(5))
    assert main(['npz', str(tmp_path / 'a.npz'), str(tmp_path / 'own')]) == 0
    assert main(['to-lerobot', str(tmp_path / 'own'), str(tmp_path / 'out')]) == 0
    (episode,) = converted('lerobot', tmp_path / 'out').episodes
    assert episode['image'].shape == (5, 16, 14, 3)
    assert np.abs(episode['image'][:, 0, 0, 0] - 40.0 * np.arange(5)).max() < 4


def test_rows_without_actions_do_not_go_to_lerobot(tmp_path, capsys, frames):
    np.savez(tmp_path / 'a.npz', frames=frames)
    assert main(['npz', str(tmp_path / 'a.npz'), str(tmp_path / 'own')]) == 0
    assert main(['to-lerobot', str(tmp_path / 'own'), str(tmp_path / 'out')]) == 2
    assert 'these rows have none' in capsys.readouterr().err
