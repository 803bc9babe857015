"""A source of any size is converted in memory that does not grow with it: neither with the number
of its episodes nor with the length of one.
"""

import io
import itertools
import json
import sys
import tracemalloc

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from convert_sources import record
from PIL import Image

from embodied.convert import arrays, exports, films, ledger, lerobot, minari, rlds, tables
from embodied.convert.command import main
from embodied.convert.folders import Files, Folders
from embodied.convert.lerobot_index import places_v2, places_v3
from embodied.replay import Replay
from embodied.replay.archive import Archive
from embodied.replay.config import unlimited

STEPS, SIDE = 8, 64
WIDTH = SIDE * SIDE * 3 // 4  # floats that take as much as an image
MANY, LONG = [STEPS] * 33, [STEPS * 33]  # episodes of so many rows
SIZE = STEPS * 33 * SIDE * SIDE * 3  # 3 MB, in files of some kilobytes
BLOCK = 1 << 17  # bytes that a reader may read at a time here


def actions(length):
    return np.random.default_rng(0).uniform(-1, 1, (length, 2)).astype(np.float32)


def images(length):
    return np.zeros((length, SIDE, SIDE, 3), np.uint8)


def picture(form):
    out = io.BytesIO()
    Image.fromarray(images(1)[0]).save(out, form)
    return out.getvalue()


def film(path, length):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.height = stream.width = SIDE
        stream.pix_fmt = 'yuv420p'
        for frame in images(length):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


def vijayabhaskar(path, lengths):
    count, length = len(lengths), lengths[0]
    frames = images(count * length).reshape(count, length, SIDE, SIDE, 3)
    acted = actions(count * length).reshape(count, length, 2)
    np.savez_compressed(path / 'all.npz', frames=frames, actions=acted)
    return path / 'all.npz'


def npz(path, lengths):
    for number, length in enumerate(lengths):
        columns = {'image': images(length), 'action': actions(length), 'reward': np.zeros(length)}
        np.savez_compressed(path / f'{number}.npz', **columns)
    return path


def mim(path, lengths):
    (path / 'metadata.json').write_text(json.dumps({'num_shards': 1}))
    with h5py.File(path / 'shard_0000.h5', 'w') as file:
        whole = dict(shape=(len(lengths), lengths[0], SIDE, SIDE, 3), compression='gzip')
        file.create_dataset('images', dtype=np.uint8, chunks=(1, STEPS, SIDE, SIDE, 3), **whole)
        file['actions'] = actions(sum(lengths)).reshape(len(lengths), lengths[0], 2)
        file['episode_lengths'] = np.int32(lengths)
    return path


def d4rl(path, lengths):
    rows = sum(lengths)
    with h5py.File(path / 'set.hdf5', 'w') as file:
        whole = dict(shape=(rows, WIDTH), chunks=(STEPS, WIDTH), compression='gzip')
        file.create_dataset('observations', dtype=np.float32, **whole)
        file['actions'], file['rewards'] = actions(rows), np.zeros(rows, np.float32)
        file['terminals'] = np.zeros(rows, bool)
        file['timeouts'] = np.isin(np.arange(rows), np.cumsum(lengths) - 1)
    return path / 'set.hdf5'


def minari_meta(path, form, count):
    box = lambda shape, dtype: {
        'type': 'Box', 'dtype': dtype, 'shape': shape, 'low': 0, 'high': 255
    }  # fmt: skip
    seen = {'cam': box([SIDE, SIDE, 3], 'uint8'), 'wide': box([WIDTH], 'float32')}
    meta = {
        'observation_space': json.dumps({'type': 'Dict', 'subspaces': seen}),
        'action_space': json.dumps(box([2], 'float32')),
        'total_episodes': count, 'data_format': form,
    }  # fmt: skip
    (path / 'metadata.json').write_text(json.dumps(meta))


def minari_hdf5(path, lengths):
    minari_meta(path, 'hdf5', len(lengths))
    with h5py.File(path / 'main_data.hdf5', 'w') as file:
        for number, length in enumerate(lengths):
            group = file.create_group(f'episode_{number}')
            group['actions'], group['rewards'] = actions(length - 1), np.zeros(length - 1)
            group['terminations'] = np.zeros(length - 1, bool)
            cams = group.create_dataset('observations/cam', length, h5py.vlen_dtype(np.uint8))
            cams[:] = [np.frombuffer(picture('jpeg'), np.uint8)] * length
            whole = dict(shape=(length, WIDTH), chunks=(STEPS, WIDTH), compression='gzip')
            group.create_dataset('observations/wide', dtype=np.float32, **whole)
    return path


def minari_arrow(path, lengths, form='arrow'):
    minari_meta(path, form, len(lengths))
    for number, length in enumerate(lengths):
        wide = pa.FixedSizeListArray.from_arrays(np.zeros(length * WIDTH, np.float32), WIDTH)
        cams = pa.array([picture('jpeg')] * length, pa.binary())
        columns = {
            'observations': pa.StructArray.from_arrays([cams, wide], ['cam', 'wide']),
            'actions': pa.FixedSizeListArray.from_arrays(actions(length).ravel(), 2),
            'rewards': np.zeros(length), 'terminations': np.zeros(length, bool),
        }  # fmt: skip
        (path / str(number)).mkdir()
        table = pa.table(columns)
        if form == 'parquet':
            pq.write_table(table, path / str(number) / 'part-0.parquet')
            continue
        with pa.ipc.new_file(path / str(number) / 'part-0.arrow', table.schema) as file:
            file.write_table(table)
    return path


def minari_parquet(path, lengths):
    return minari_arrow(path, lengths, 'parquet')


def feature(dtype, *shape):
    return {'dtype': dtype, 'shape': shape, 'names': None}


def lerobot_info(path, version, cam, data):
    features = {
        'observation.images.top': feature(cam, SIDE, SIDE, 3), 'action': feature('float32', 2),
        'observation.wide': feature('float32', WIDTH), 'episode_index': feature('int64', 1),
    }  # fmt: skip
    content = {
        'codebase_version': version, 'fps': 10, 'chunks_size': 1000, 'features': features,
        'data_path': data, 'video_path': 'videos/{video_key}/{file_index}.mp4',
    }  # fmt: skip
    (path / 'meta').mkdir()
    (path / 'meta' / 'info.json').write_text(json.dumps(content))


def lerobot_table(path, lengths, first=0, stills=True):
    """A data file whose rows lie in one row group."""
    rows = sum(lengths)
    index = np.repeat(np.arange(len(lengths)) + first, lengths)
    columns = {
        'observation.wide': pa.FixedSizeListArray.from_arrays(
            np.zeros(rows * WIDTH, np.float32), WIDTH
        ).cast(pa.list_(pa.float32())),
        'action': actions(rows).tolist(), 'episode_index': index,
    }  # fmt: skip
    if stills:
        columns['observation.images.top'] = [{'bytes': picture('png'), 'path': None}] * rows
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, data_page_size=BLOCK // 2, write_batch_size=64)


def lerobot_v2(path, lengths):
    lerobot_info(path, 'v2.1', 'image', 'data/{episode_index}.parquet')
    entries = [{'episode_index': n, 'length': length} for n, length in enumerate(lengths)]
    (path / 'meta' / 'episodes.jsonl').write_text('\n'.join(map(json.dumps, entries)))
    (path / 'meta' / 'tasks.jsonl').write_text('{"task_index": 0, "task": "push"}')
    for number, length in enumerate(lengths):
        lerobot_table(path / 'data' / f'{number}.parquet', [length], number)
    return path


def lerobot_v3(path, lengths, cam='video'):
    lerobot_info(path, 'v3.0', cam, 'data/{file_index}.parquet')
    tasks = {'task_index': [0], '__index_level_0__': ['push']}
    pq.write_table(pa.table(tasks), path / 'meta' / 'tasks.parquet')
    ends = np.cumsum(lengths)
    columns = {'episode_index': range(len(lengths)), 'length': lengths}
    for at in ('data', 'videos/observation.images.top'):
        columns |= {f'{at}/{name}_index': [0] * len(lengths) for name in ('chunk', 'file')}
    columns['videos/observation.images.top/from_timestamp'] = (ends - lengths) / 10
    meta = path / 'meta' / 'episodes' / 'chunk-000'
    meta.mkdir(parents=True)
    pq.write_table(pa.table(columns), meta / 'file-000.parquet')
    lerobot_table(path / 'data' / '0.parquet', lengths, stills=cam == 'image')
    if cam == 'video':
        film(path / 'videos' / 'observation.images.top' / '0.mp4', sum(lengths))
    return path


def rlds_set(path, lengths):
    group = lambda **parts: {'featuresDict': {'features': parts}}
    tensor = lambda *shape: {
        'tensor': {'dtype': 'float32', 'shape': {'dimensions': shape}, 'encoding': 'none'}
    }
    step = group(
        observation=group(cam={'image': {}}, wide=tensor(WIDTH)), action=tensor(2), reward=tensor()
    )
    features = group(steps={'sequence': {'feature': step, 'length': '-1'}})
    (path / 'features.json').write_text(json.dumps(features))
    with open(path / 'made-train.tfrecord-00000-of-00001', 'wb') as file:
        for length in lengths:
            columns = {
                'steps/observation/cam': [picture('png')] * length,
                'steps/observation/wide': np.zeros((length, WIDTH)),
                'steps/action': actions(length), 'steps/reward': np.zeros(length),
            }  # fmt: skip
            file.write(record(columns))
    return path


def video(path, lengths):
    for number, length in enumerate(lengths):
        film(path / f'{number}.mp4', length)
        np.save(path / f'{number}.actions.npy', actions(length))
    return path


def image_folders(path, lengths):
    for number, length in enumerate(lengths):
        (path / str(number)).mkdir()
        for step in range(length):
            (path / str(number) / f'frame{step}.png').write_bytes(picture('png'))
        np.save(path / f'{number}.actions.npy', actions(length))
    return path


SOURCES = [
    ('vijayabhaskar', vijayabhaskar), ('npz', npz), ('mim', mim), ('d4rl', d4rl),
    ('minari', minari_hdf5), ('minari', minari_arrow), ('minari', minari_parquet),
    ('lerobot', lerobot_v2), ('lerobot', lerobot_v3), ('rlds', rlds_set), ('video', video),
    ('images', image_folders),
]  # fmt: skip
NAMES = [write.__name__ for _, write in SOURCES]


@pytest.fixture(scope='module', autouse=True)
def room_for_paths():
    """Lets the process's table of interned strings grow now: the parts of all paths enter it, and
    the one that fills it would be charged with megabytes."""
    tracemalloc.start()
    try:
        for number in itertools.count():
            before = tracemalloc.get_traced_memory()[0]
            sys.intern(f'room for paths {number}')
            if tracemalloc.get_traced_memory()[0] - before > 1e5:
                return
    finally:
        tracemalloc.stop()


class Gauge:
    """What a conversion holds while rows are written.

    Attributes:
      held: bytes that Python, NumPy and Arrow held at most, beyond those before.
      ahead: pictures that were decoded and not yet written, at most.
    """

    def __init__(self, monkeypatch):
        self.held = self.ahead = self._decoded = self._written = self._before = 0
        add = ledger.Ledger.add

        def written(this, row, names):
            self._written += 1
            held = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()
            self.held = max(self.held, held - self._before)
            return add(this, row, names)

        monkeypatch.setattr(ledger.Ledger, 'add', written)
        for module, name in (
            (films, 'pictures'), (lerobot, 'decoded'), (lerobot, '_picture'), (minari, 'picture'),
            (rlds, 'picture'),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))

    def _counted(self, function):
        def each(frames):
            for frame in frames:
                self._note()
                yield frame

        def counted(*args):
            made = function(*args)
            if hasattr(made, '__next__'):
                return each(made)
            self._note()
            return made

        return counted

    def _note(self):
        self._decoded += 1
        self.ahead = max(self.ahead, self._decoded - self._written)

    def run(self, *arguments):
        self.held = self.ahead = self._decoded = self._written = 0
        self._before = pa.total_allocated_bytes()
        tracemalloc.start()
        try:
            assert main([str(argument) for argument in arguments]) == 0
        finally:
            tracemalloc.stop()


@pytest.fixture
def gauge(monkeypatch):
    monkeypatch.setattr(ledger, 'MEMORY_GB', 0.0005)
    monkeypatch.setattr(arrays, 'BLOCK_BYTES', BLOCK)
    monkeypatch.setattr(tables, 'BUFFER', BLOCK)
    return Gauge(monkeypatch)


@pytest.mark.parametrize('lengths', [MANY, LONG], ids=['many', 'long'])
@pytest.mark.parametrize('form, write', SOURCES, ids=NAMES)
def test_memory_does_not_grow_with_the_source(tmp_path, gauge, form, write, lengths):
    for name in ('source', 'little'):
        (tmp_path / name).mkdir()
    little = write(tmp_path / 'little', [STEPS])
    assert main([form, str(little), str(tmp_path / 'first')]) == 0  # modules are imported now
    gauge.run(form, write(tmp_path / 'source', lengths), tmp_path / 'rows')
    assert Archive(tmp_path / 'rows').streams.rows == sum(lengths)
    assert gauge.held < SIZE / 2, f'the images of all rows take {SIZE:,} bytes'
    assert gauge.ahead <= 4, 'a picture is decoded when its row is due'


def replay_folder(path, lengths):
    replay = Replay(unlimited(0.1), path, 0)
    for length in lengths:
        for step, action in enumerate(actions(length)):
            ends = {'is_first': step == 0, 'is_last': step == length - 1, 'is_terminal': False}
            row = {key: np.bool_(value) for key, value in ends.items()}
            row |= {'image': images(1)[0], 'wide': np.zeros(WIDTH, np.float32), 'action': action}
            replay.add(row | {'reward': np.float32(0)})
    replay.close()
    return path


@pytest.mark.parametrize('lengths', [MANY, LONG], ids=['many', 'long'])
@pytest.mark.parametrize('form', ['to-npz', 'to-mp4', 'to-lerobot'])
def test_memory_does_not_grow_with_what_goes_out(tmp_path, monkeypatch, form, lengths):
    monkeypatch.setattr(arrays, 'BLOCK_BYTES', BLOCK)
    little, large = (
        replay_folder(tmp_path / name, of) for name, of in (('little', [2]), ('large', lengths))
    )
    assert main([form, str(little), str(tmp_path / 'first')]) == 0
    held, before = [], pa.total_allocated_bytes()

    def noted(function):
        def call(*args):
            held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before)
            return function(*args)

        return call

    monkeypatch.setattr(exports.Film, 'add', noted(exports.Film.add))
    monkeypatch.setattr(exports.npz, 'write', noted(exports.npz.write))
    tracemalloc.start()
    try:
        assert main([form, str(large), str(tmp_path / 'out')]) == 0
    finally:
        tracemalloc.stop()
    assert len(held) >= len(lengths) and max(held) < SIZE / 4, f'vectors take {SIZE:,} bytes'


def peak(function):
    """Bytes that a call takes at most."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many_v2(path, count):
    lerobot_info(path, 'v2.1', 'image', 'data/{episode_index}.parquet')
    lines = (f'{{"episode_index": {n}, "length": 9, "tasks": ["push"]}}\n' for n in range(count))
    (path / 'meta' / 'episodes.jsonl').write_text(''.join(lines))


def many_v3(path, count):
    lerobot_info(path, 'v3.0', 'video', 'data/{file_index}.parquet')
    columns = {'episode_index': range(count), 'length': [9] * count}
    columns['stats/wide/mean'] = [[0.0] * 40] * count
    for at in ('data', 'videos/observation.images.top'):
        columns |= {f'{at}/{name}_index': [0] * count for name in ('chunk', 'file')}
    columns['videos/observation.images.top/from_timestamp'] = 0.9 * np.arange(count)
    meta = path / 'meta' / 'episodes' / 'chunk-000'
    meta.mkdir(parents=True)
    pq.write_table(pa.table(columns), meta / 'file-000.parquet')


@pytest.mark.parametrize('write, places', [(many_v2, places_v2), (many_v3, places_v3)])
def test_episodes_of_lerobot_that_are_not_due_are_numbers(tmp_path, write, places):
    count, found = 10_000, []
    write(tmp_path, count)
    info = json.loads((tmp_path / 'meta' / 'info.json').read_text())

    def walk():
        for place in places(tmp_path, info):
            found[:] = [place]

    assert peak(walk) < 250 * count, 'a place with its paths takes a kilobyte'
    assert found[0].index == count - 1 and found[0].length == 9


@pytest.mark.parametrize('kind', [Files, Folders])
def test_files_that_are_not_due_are_names(tmp_path, kind):
    count, found = 1000, []
    for number in range(count):
        folder = tmp_path / f'folder{number}' if kind is Folders else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / f'frame{number}.png').touch()

    def walk():
        for path in kind(tmp_path, '.png'):
            found[:] = [path]

    assert peak(walk) < 450 * count, 'a path and its key take kilobytes'
    assert found[0].stem == ('folder999' if kind is Folders else 'frame999')
    assert len(kind(tmp_path, '.png')) == count
