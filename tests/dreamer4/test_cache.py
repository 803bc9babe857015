"""What the device keeps of rows: the same rows as without it, and less work."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from dreamer4.cache import FIRST, Store
from dreamer4.feed import Ahead, Images
from embodied.base import FLAG, OUTCOME
from embodied.errors import ReplayError
from embodied.replay import Replay, ReplayConfig

CPU = torch.device('cpu')
CONFIG = dict(
    directory=(),
    shares=(),
    max_gb=1.0,
    disk_gb=1.0,
    chunk_rows=10,
    uniform=0.5,
    recent=0.3,
    newest=0.2,
    recent_rows=30,
    resume='manifest',
    demos='',
    demo_share=0.0,
    video='',
    video_share=0.0,
    held_out=0.0,
    relevant=0.0,
    relevance='demos',
    prefetch=True,
)
ROW = 48 + 8 + 4 + 3  # bytes


@pytest.fixture(
    params=[
        'cpu',
        pytest.param(
            'cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
        ),
    ]
)
def device(request):
    return torch.device(request.param)


def replay(**changes):
    return Replay(
        ReplayConfig(**CONFIG | changes),
        None,
        0,
        {**OUTCOME, 'image': spaces.Box(0, 255, (4, 4, 3), np.uint8)},
        {'action': spaces.Box(-1, 1, (2,), np.float32), 'reset': FLAG},
    )


def fill(made, rows, begin=0):
    for count in range(begin, begin + rows):
        for worker in (0, 1):
            made.add(
                {
                    'image': (
                        np.random.default_rng([worker, count]).integers(0, 256, (4, 4, 3), np.uint8)
                    ),
                    'reward': np.float32(count),
                    'action': np.float32([worker, 0]),
                    'is_first': np.bool_(count % 7 == 0),
                    'is_last': np.bool_(count % 7 == 6),
                    'is_terminal': np.bool_(False),
                },
                worker,
            )


@pytest.mark.parametrize('limit', [12, 40, 3 * FIRST])
def test_a_store_gives_what_was_made_whatever_it_had_to_forget(limit, device):
    rng, made = np.random.default_rng(0), []

    def make(ids, first):
        made.append(ids)
        return {
            'x': torch.from_numpy(ids * 10)[:, None].to(device),
            'first': torch.from_numpy(first).to(device),
        }

    store = Store({'x': ((1,), torch.int64), 'first': ((), torch.int64)}, limit, device)
    for high in [30] * 60 + [100000] * (0 if limit < 100 else 2500):
        ids = rng.integers(0, high, (3, 4)) + (1 << 41)
        found = store.get(ids, make)
        assert np.array_equal(found['x'].cpu().numpy(), ids[..., None] * 10)
        assert len(store) <= limit
    if limit >= 40:
        assert len(np.unique(np.concatenate(made[:60]))) == sum(map(len, made[:60])), (
            'what fits is made once'
        )
    store.clear()
    assert not len(store) and np.array_equal(
        store.get(ids, make)['x'].cpu().numpy(), ids[..., None] * 10
    )


def test_a_row_that_is_made_stands_where_the_sample_first_names_it():
    store = Store({'at': ((), torch.int64)}, 8, CPU)
    found = store.get(
        np.array([[7, 5], [5, 9]]), lambda ids, first: {'at': torch.from_numpy(first)}
    )
    assert found['at'].tolist() == [[0, 1], [1, 3]]


@pytest.mark.parametrize('changes', [{}, {'max_gb': 60 * ROW / 1e9}])
def test_a_mirrored_replay_gives_the_same_samples_and_reads_every_row_once(changes, device):
    plain, mirrored = replay(**changes), Images(Ahead(replay(**changes)), device, 1e-3)
    read, rows = [], mirrored._replay.rows
    mirrored._replay.rows = lambda ids, keys: (read.extend(ids.tolist()), rows(ids, keys))[1]
    for step in range(12):
        for made in (plain, mirrored._replay):
            fill(made, 10, 10 * step)
        for draw in (None, 5):
            one, other = plain.sample(6, 5, draw), mirrored.sample(6, 5, draw)
            assert other['image'].device.type == device.type and one.keys() == other.keys()
            other['image'] = other['image'].cpu()
            assert all(
                np.array_equal(one[key], np.asarray(other[key])) for key in one if key != 'row_id'
            )
            assert not set(one['row_id'].flat) & set(other['row_id'].flat), (
                'rows of two replays have different ids'
            )
    assert len(read) == len(set(read)) > 100
    assert mirrored._replay.draws == plain.draws and 'hold the images of' in mirrored.describe()


def test_what_does_not_fit_on_the_device_comes_from_the_replay():
    mirrored = Images(Ahead(replay()), CPU, 20.5 * 48 / 1e9)
    fill(mirrored._replay, 30)
    assert isinstance(mirrored.sample(4, 5)['image'], torch.Tensor)
    assert isinstance(mirrored.sample(5, 5)['image'], np.ndarray)


def test_a_chunk_that_breaks_between_draw_and_reading_costs_a_new_draw_and_not_the_run():
    mirrored = Images(Ahead(replay()), CPU, 1e-3)
    fill(mirrored._replay, 30)
    plainly = mirrored._replay.rows

    def broken(ids, keys):
        mirrored._replay.rows = plainly
        raise ReplayError('gone')

    mirrored._replay.rows = broken
    assert mirrored.sample(4, 5)['image'].shape == (4, 5, 4, 4, 3)
    assert isinstance(mirrored.sample(4, 5)['image'], torch.Tensor)


def test_a_store_that_cannot_grow_keeps_what_it_has(monkeypatch):
    store = Store({'x': ((), torch.int64)}, 4 * FIRST, CPU)
    make = lambda ids, first: {'x': torch.from_numpy(ids)}
    store.get(np.arange(FIRST)[None], make)
    monkeypatch.setattr(
        torch, 'empty', lambda *args, **kw: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError())
    )
    for begin in range(0, 3 * FIRST, 100):
        ids = np.arange(begin, begin + 100)[None]
        assert torch.equal(store.get(ids, make)['x'], torch.from_numpy(ids))
    assert len(store) == store.limit == FIRST
