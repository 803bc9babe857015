"""Episodes in HDF5 files, written by h5py."""

import json

import h5py
import numpy as np
import pytest
from convert_sources import count, hundredths

from embodied.convert.command import main
from embodied.convert.formats import FORMATS


def shard(path, frames, attrs=(), lengths=(5, 3)):
    """Two episodes, padded with zeros, as converters of machines-in-motion write them."""
    images = np.zeros((2, 6, *frames.shape[1:]), np.uint8)
    actions = np.zeros((2, 6, 2), np.float32)
    for number, length in enumerate((5, 3)):
        images[number, :length] = frames[:length] + number
        actions[number, :length] = count(length, 10 * number)
    with h5py.File(path, 'w') as file:
        file.create_dataset('images', data=images, compression='gzip')
        file['actions'], file['episode_lengths'] = actions, np.int32(lengths)
        file.attrs.update(dict(attrs))


def test_mim_shards_are_cut_at_their_lengths_and_the_lerobot_writer_swaps_colors(
    converted, tmp_path, frames
):
    source = tmp_path / 'source'
    source.mkdir()
    shard(source / 'shard_0000.h5', frames)
    shard(source / 'shard_0001.h5', frames, {'num_episodes': 2, 'max_length': 6})
    (source / 'metadata.json').write_text(json.dumps({'relative_actions': True, 'num_shards': 2}))
    episodes = converted('mim', source).episodes
    assert [len(episode['image']) for episode in episodes] == [5, 3, 5, 3]
    assert (episodes[1]['image'] == (frames[:3] + 1)[..., ::-1]).all(), 'blue first on disk'
    assert (episodes[3]['image'] == frames[:3] + 1).all(), 'the RLDS writer leaves red first'
    assert hundredths(episodes[1]['action'][:, 0]) == [10, 11, 0]
    assert episodes[0]['unlabeled_reward'].all()
    assert converted.archive.meta['relative_actions'] is True


@pytest.mark.parametrize('flag, swapped', [('no', False), ('yes', True)])
def test_mim_colors_can_be_told(converted, tmp_path, frames, flag, swapped):
    shard(tmp_path / 'shard_0000.h5', frames)
    episode = converted('mim', tmp_path, '--bgr', flag).episodes[0]
    assert (episode['image'] == (frames[..., ::-1] if swapped else frames)).all()


def test_a_length_beyond_its_shard_is_named(converted, tmp_path, frames, capsys):
    shard(tmp_path / 'shard_0000.h5', frames, lengths=(5, 7))
    converted('mim', tmp_path, status=2)
    assert 'shard_0000.h5:1: a length of 7 in rows of 6' in capsys.readouterr().err


def test_mim_raw_episodes_hold_floats_with_channels_first(converted, tmp_path, frames):
    with h5py.File(tmp_path / 'episode_0.h5', 'w') as file:
        file['cam1'] = np.moveaxis(frames, -1, 1).astype(np.float32) / 255
        file['actions'], file['states'] = count(5), np.ones((5, 4))
    (episode,) = converted('mim', tmp_path).episodes
    assert (episode['image'] == frames).all() and episode['states'].shape == (5, 4)
    assert hundredths(episode['action'][:, 0]) == [0, 1, 2, 3, 0]


def d4rl(path, following=False):
    """Seven steps: four until a terminal, two until a timeout, one that nothing follows."""
    steps = np.arange(7.0, dtype=np.float32)
    with h5py.File(path, 'w') as file:
        file['observations'] = np.stack([steps, -steps], 1)
        file['actions'], file['rewards'] = count(7), steps + 1
        file['terminals'] = np.arange(7) == 3
        file['timeouts'] = np.arange(7) == 5
        file['infos/qpos'] = steps
        if following:
            file['next_observations'] = np.stack([steps + 0.5, -steps], 1)


def test_d4rl_is_cut_at_terminals_and_timeouts(converted, tmp_path):
    d4rl(tmp_path / 'a.hdf5')
    one, two = converted('d4rl', tmp_path / 'a.hdf5').episodes
    assert one['observation'][:, 0].tolist() == [0, 1, 2, 3, 3], 'the last one stands twice'
    assert hundredths(one['action'][:, 0]) == [0, 1, 2, 3, 0]
    assert one['reward'].tolist() == [0, 1, 2, 3, 4] and one['is_terminal'][-1]
    assert two['observation'][:, 0].tolist() == [4, 5] and not two['is_terminal'].any()
    assert two['reward'].tolist() == [0, 5], 'the action at the timeout led to nothing stored'


def test_d4rl_next_observations_are_what_the_last_action_led_to(converted, tmp_path):
    d4rl(tmp_path / 'a.hdf5', following=True)
    one, two = converted('d4rl', tmp_path / 'a.hdf5').episodes
    assert one['observation'][:, 0].tolist() == [0, 1, 2, 3, 3.5]
    assert two['observation'][:, 0].tolist() == [4, 5, 5.5] and two['reward'].tolist() == [0, 5, 6]


def test_vd4rl_at_84_pixels_holds_actions_that_led_and_channels_first(converted, tmp_path, frames):
    with h5py.File(tmp_path / 'a.hdf5', 'w') as file:
        file['observation'] = np.moveaxis(np.concatenate([frames, frames + 1]), -1, 1)
        file['action'] = np.concatenate([count(5), count(5, 10)])
        file['reward'] = np.float32([0, 1, 2, 3, 4] * 2)
        file['discount'] = np.float32([1] * 9 + [0])
        file['step_type'] = [0, 1, 1, 1, 2] * 2
    one, two = converted('vd4rl', tmp_path).episodes
    assert (one['image'] == frames).all() and (two['image'] == frames + 1).all()
    assert hundredths(two['action'][:, 0]) == [11, 12, 13, 14, 0]
    assert one['reward'].tolist() == [0, 1, 2, 3, 4]
    assert not one['is_terminal'].any() and two['is_terminal'][-1]


@pytest.mark.parametrize('form', ['d4rl', 'mim'])
def test_files_that_are_none_are_named(tmp_path, capsys, form):
    (tmp_path / 'a.h5').write_bytes(b'nothing')
    assert main([form, str(tmp_path / 'a.h5'), str(tmp_path / 'out')]) == 2
    assert 'a.h5: cannot be read as HDF5' in capsys.readouterr().err
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
        file['actions'] = count(5)
    assert main([form, str(tmp_path / 'b.h5'), str(tmp_path / 'out2')]) == 2
    assert 'b.h5: expected ' in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(FORMATS, 'd4rl', FORMATS['d4rl'].__class__('x:y', '', '', ('no_h5py',)))
    assert main(['d4rl', str(tmp_path), str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert 'no_h5py is not installed' in error and '[data]' in error and error.count('\n') == 1
