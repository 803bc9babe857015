"""A source of any size is converted in memory that does not grow with it."""

import json
import tracemalloc

import h5py
import numpy as np
import pytest

from embodied.convert import ledger
from embodied.convert.command import main
from embodied.replay.archive import Archive

FEW, MANY, STEPS, SHAPE = 3, 40, 16, (128, 128, 3)
MORE = (MANY - FEW) * STEPS * np.prod(SHAPE)  # 29 MB, in files of some kilobytes


def vijayabhaskar(path, count):
    frames = np.zeros((count, STEPS, *SHAPE), np.uint8)
    np.savez_compressed(path / 'all.npz', frames=frames, actions=actions(count))
    return path / 'all.npz'


def mim(path, count):
    (path / 'metadata.json').write_text(json.dumps({'num_shards': 1}))
    with h5py.File(path / 'shard_0000.h5', 'w') as file:
        whole = dict(shape=(count, STEPS, *SHAPE), chunks=(1, STEPS, *SHAPE), compression='gzip')
        file.create_dataset('images', dtype=np.uint8, **whole)
        file['actions'] = actions(count)
        file['episode_lengths'] = np.full(count, STEPS, np.int32)
    return path


def d4rl(path, count):
    rows, width = count * STEPS, int(np.prod(SHAPE)) // 4
    with h5py.File(path / 'set.hdf5', 'w') as file:
        whole = dict(shape=(rows, width), chunks=(STEPS, width), compression='gzip')
        file.create_dataset('observations', dtype=np.float32, **whole)
        file['actions'] = actions(count).reshape(rows, 2)
        file['rewards'] = np.zeros(rows, np.float32)
        file['terminals'] = np.zeros(rows, bool)
        file['timeouts'] = np.arange(rows) % STEPS == STEPS - 1
    return path / 'set.hdf5'


def actions(count):
    return np.random.default_rng(0).uniform(-1, 1, (count, STEPS, 2)).astype(np.float32)


@pytest.mark.parametrize('write', [vijayabhaskar, mim, d4rl])
def test_memory_does_not_grow_with_the_source(tmp_path, monkeypatch, write):
    monkeypatch.setattr(ledger, 'MEMORY_GB', 0.001)
    peaks = []
    for count in (FEW, MANY):
        (source := tmp_path / f'{count}').mkdir()
        made = write(source, count)
        tracemalloc.start()
        try:
            assert main([write.__name__, str(made), str(tmp_path / f'rows{count}')]) == 0
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert Archive(tmp_path / f'rows{count}').streams.rows == count * STEPS
    assert peaks[1] - peaks[0] < 0.2 * MORE, 'a converter that holds everything takes all of it'
