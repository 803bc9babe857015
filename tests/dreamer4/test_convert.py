"""Recordings in files of torch, written by tensordict and torch."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from tensordict import TensorDict

from dreamer4.convert import main
from embodied.replay.archive import Archive

SIDE = 8


@pytest.fixture
def frames():
    """uint8 (10, 8, 8, 3)."""
    return np.random.default_rng(0).integers(0, 256, (10, SIDE, SIDE, 3), np.uint8)


def episodes(dest):
    archive = Archive(dest)
    return [
        {
            key: archive.column(archive.streams[span.slot], key, span.first, span.length)
            for key, _, _ in archive.schema.specs
        }
        for span in archive.episodes()
    ]


def hansen(folder, frames, task='walk', strips=True):
    """Two episodes of five rows, whose first one holds NaN; actions are padded to 16."""
    action = torch.zeros(10, 16)
    action[:, 0] = torch.arange(10) / 10
    reward = torch.arange(10.0)
    action[[0, 5]], reward[[0, 5]] = float('nan'), float('nan')
    columns = {'episode': torch.arange(10) // 5, 'action': action, 'reward': reward}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(TensorDict(columns, batch_size=[10]), folder / f'{task}.pt')
    parts = [frames[:2], frames[2:9], frames[9:]]
    if strips:
        for number, part in enumerate(parts):
            strip = np.concatenate(list(part), 1)
            Image.fromarray(strip).save(folder / f'{task}-{number + 9}.png')
        return
    (folder / task).mkdir()
    for number, part in enumerate(parts):
        shard = {'frames': torch.from_numpy(np.moveaxis(part, -1, 1).copy())}
        torch.save(shard, folder / task / f'{task}_shard000{number}.pt')


@pytest.mark.parametrize('strips', [True, False], ids=['strips', 'shards'])
def test_hansen_actions_led_to_their_frame_and_strips_are_cut(tmp_path, frames, strips):
    hansen(tmp_path / 'source', frames, strips=strips)
    (tmp_path / 'source' / 'tasks.json').write_text(json.dumps({'walk': {'action_dim': 6}}))
    assert main(['nicklashansen', str(tmp_path / 'source'), str(tmp_path / 'out')]) == 0
    one, two = episodes(tmp_path / 'out')
    assert (one['image'] == frames[:5]).all() and (two['image'] == frames[5:]).all()
    assert np.round(10 * two['action'][:, 0]).tolist() == [6, 7, 8, 9, 0]
    assert one['action'].shape == (5, 6) and two['reward'].tolist() == [0, 6, 7, 8, 9]


def test_several_tasks_are_numbered(tmp_path, frames):
    hansen(tmp_path / 'source', frames, 'run')
    hansen(tmp_path / 'source', frames, 'walk')
    assert main(['nicklashansen', str(tmp_path / 'source'), str(tmp_path / 'out')]) == 0
    found = episodes(tmp_path / 'out')
    assert [episode['task_id'][0] for episode in found] == [0, 0, 1, 1]
    assert found[0]['action'].shape == (5, 16)
    assert Archive(tmp_path / 'out').meta['tasks'] == ['run', 'walk']


def test_frames_that_are_missing_are_counted(tmp_path, frames, capsys):
    hansen(tmp_path / 'source', frames)
    (tmp_path / 'source' / 'walk-11.png').unlink()
    assert main(['nicklashansen', str(tmp_path / 'source'), str(tmp_path / 'out')]) == 2
    assert 'walk:5: there are 9 frames, 10 are needed' in capsys.readouterr().err


def test_tdmpc2_sets_hold_episodes_of_states(tmp_path):
    obs = torch.arange(30.0).reshape(2, 5, 3)
    action = torch.arange(10.0).reshape(2, 5, 1) / 10
    reward = torch.arange(10.0).reshape(2, 5)
    action[:, 0], reward[:, 0] = float('nan'), float('nan')
    columns = {'obs': obs, 'action': action, 'reward': reward, 'task': torch.full((2, 5), 7)}
    torch.save(TensorDict(columns, batch_size=[2, 5]), tmp_path / 'chunk_0.pt')
    assert main(['tdmpc2', str(tmp_path / 'chunk_0.pt'), str(tmp_path / 'out')]) == 0
    one, two = episodes(tmp_path / 'out')
    assert np.round(10 * two['action'][:, 0]).tolist() == [6, 7, 8, 9, 0]
    assert two['observation'].tolist() == obs[1].tolist() and one['task_id'].tolist() == [7] * 5
    assert one['reward'].tolist() == [0, 1, 2, 3, 4]


class Harm:
    def __reduce__(self):
        return print, ('harm',)


@pytest.mark.parametrize('content', [Harm(), {'obs': torch.zeros(2, 5, 3)}, None])
def test_files_that_hold_code_or_lack_a_part_are_refused(tmp_path, capsys, content):
    path = tmp_path / 'a.pt'
    if content is None:
        path.write_bytes(pickle.dumps(3)[:-1])
    else:
        torch.save(content, path)
    assert main(['tdmpc2', str(path), str(tmp_path / 'out')]) == 2
    out, error = capsys.readouterr()
    assert 'a.pt' in error and error.count('\n') == 1 and 'harm' not in out
