"""Minari data sets: in the layout of its HDF5 files, and written by minari itself where it is
installed.
"""

import importlib.util
import io
import json
import os

import h5py
import numpy as np
import pytest
from convert_sources import count, hundredths
from gymnasium import spaces
from PIL import Image

from embodied.replay import meta as metas

MINARI = pytest.mark.skipif(
    importlib.util.find_spec('minari') is None, reason='minari is not part of the test install'
)
LOW, HIGH = [-2.0, -3.0], [2.0, 3.0]
IMAGE = {'type': 'Box', 'dtype': 'uint8', 'shape': [16, 16, 3], 'low': 0, 'high': 255}
JOINTS = {'type': 'Box', 'dtype': 'float64', 'shape': [3], 'low': [-9.0] * 3, 'high': [9.0] * 3}


def jpeg(frame):
    out = io.BytesIO()
    Image.fromarray(frame).save(out, 'jpeg', quality=100)
    return np.frombuffer(out.getvalue(), np.uint8)


def write(folder, observed, fill):
    """Two episodes of four steps, the second one terminal."""
    data = folder / 'data'
    data.mkdir(parents=True)
    act = {'type': 'Box', 'dtype': 'float32', 'shape': [2], 'low': LOW, 'high': HIGH}
    meta = {
        'observation_space': json.dumps(observed), 'action_space': json.dumps(act),
        'total_episodes': 2, 'data_format': 'hdf5', 'env_spec': json.dumps({'id': 'Made-v0'}),
    }  # fmt: skip
    (data / 'metadata.json').write_text(json.dumps(meta))
    with h5py.File(data / 'main_data.hdf5', 'w') as file:
        for number in range(2):
            group = file.create_group(f'episode_{number}')
            group['actions'], group['rewards'] = count(4, 10 * number), np.arange(1.0, 5.0)
            group['terminations'] = np.arange(4) == (3 if number else 9)
            group['truncations'] = np.arange(4) == (9 if number else 3)
            fill(group)


def check(converted, terminal=True):
    one, two = converted.episodes
    assert hundredths(two['action'][:, 0]) == [10, 11, 12, 13, 0]
    assert one['reward'].tolist() == [0, 1, 2, 3, 4]
    assert not one['is_terminal'].any() and two['is_terminal'][-1]
    return one


def test_an_episode_has_an_observation_more_than_actions(converted, tmp_path):
    def fill(group):
        group['observations'] = np.arange(15.0).reshape(5, 3)

    write(tmp_path / 'made-v0', JOINTS, fill)
    one = check(converted('minari', tmp_path / 'made-v0'))
    assert one['observation'][:, 0].tolist() == [0, 3, 6, 9, 12]
    assert one['observation'].dtype == np.float32
    _, _, act_space, facts = metas.read(converted.dest)
    assert act_space['action'].low.tolist() == LOW and act_space['action'].high.tolist() == HIGH
    assert facts['task'] == 'Made-v0'


def test_nested_observations_and_jpeg_images_are_unpacked(converted, tmp_path, frames):
    smooth = np.broadcast_to(np.arange(5)[:, None, None, None] * 40, (5, 16, 16, 3))
    smooth = smooth.astype(np.uint8)

    def fill(group):
        pictures = group.create_dataset('observations/cam', 5, h5py.vlen_dtype(np.uint8))
        for index, frame in enumerate(smooth):
            pictures[index] = jpeg(frame)
        group['observations/arm/_index_0'] = np.arange(15.0).reshape(5, 3)
        group['observations/arm/_index_1'] = np.arange(5)

    arm = {'type': 'Tuple', 'subspaces': [JOINTS, {'type': 'Discrete', 'n': 9, 'start': 0}]}
    text = {'type': 'Text', 'max_length': 9}
    observed = {'type': 'Dict', 'subspaces': {'cam': IMAGE, 'arm': arm, 'words': text}}
    write(tmp_path / 'made-v0', observed, fill)
    one = check(converted('minari', tmp_path / 'made-v0' / 'data'))
    assert np.abs(one['image'].astype(int) - smooth).max() < 3
    assert one['arm/0'].shape == (5, 3) and one['arm/1'].tolist() == [0, 1, 2, 3, 4]


def test_a_part_that_is_missing_is_named(converted, tmp_path, capsys):
    write(tmp_path / 'made-v0', JOINTS, lambda group: None)
    converted('minari', tmp_path / 'made-v0', status=2)
    assert 'it lacks a part' in capsys.readouterr().err


@MINARI
@pytest.mark.parametrize('form', ['hdf5', 'arrow', 'parquet'])
def test_what_minari_writes_is_read(converted, tmp_path, monkeypatch, form):
    monkeypatch.setitem(os.environ, 'MINARI_DATASETS_PATH', str(tmp_path / 'sets'))
    import minari
    from minari.data_collector import EpisodeBuffer

    smooth = np.broadcast_to(np.arange(5)[:, None, None, None] * 40, (5, 16, 16, 3))
    smooth = smooth.astype(np.uint8)
    buffers = [
        EpisodeBuffer(
            id=number,
            observations={'cam': smooth, 'joints': np.arange(15, dtype=np.float32).reshape(5, 3)},
            actions=count(4, 10 * number),
            rewards=np.arange(1.0, 5.0).tolist(),
            terminations=[False] * 3 + [bool(number)],
            truncations=[False] * 3 + [not number],
            infos={},
        )
        for number in range(2)
    ]
    minari.create_dataset_from_buffers(
        'made/thing-v0',
        buffers,
        observation_space=spaces.Dict(
            cam=spaces.Box(0, 255, (16, 16, 3), np.uint8),
            joints=spaces.Box(-99, 99, (3,), np.float32),
        ),
        action_space=spaces.Box(np.float32(LOW), np.float32(HIGH)),
        data_format=form,
    )
    one = check(converted('minari', tmp_path / 'sets' / 'made' / 'thing-v0'))
    assert np.abs(one['image'].astype(int) - smooth).max() < 8
    assert one['joints'][:, 0].tolist() == [0, 3, 6, 9, 12]
