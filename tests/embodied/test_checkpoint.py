"""Checkpoints: whole or invisible, equal after loading, and no byte of them is trusted."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from embodied import checkpoint as checkpoint_module
from embodied import save as save_module
from embodied.base import Shards, Stored
from embodied.checkpoint import Checkpoint, find_save
from embodied.errors import CheckpointError, OutOfResources
from embodied.save import MAX_JSON, read, write_shards

FUZZ = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DTYPES = ('bool', 'uint8', 'int8', 'int32', 'int64', 'uint64', 'float16', 'float32', 'float64')


def trees(step=0):
    return {
        'agent': {
            'params': {
                'w/0': np.full((4, 3), step, np.float32),
                'scale': np.float64(step),
                'empty': np.zeros((0, 2), np.uint8),
            },
            'rng': {'state': 2**127 + step},
            'note': 'text',
            'list': [1, 2.5, None, True, 'x'],
        },
        'counters': {'step': step},
    }


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (np.ndarray, np.generic)):
        return (
            left.dtype == right.dtype and left.shape == right.shape and np.array_equal(left, right)
        )
    return left == right and type(left) is type(right)


@pytest.fixture
def saved(tmp_path):
    """A checkpoint with the saves of steps 1 and 2, its events, and the folder of the newest
    save.
    """
    events = []
    store = Checkpoint(tmp_path / 'ckpt', 2, events.append)
    store.save(trees(1), {'step': 1})
    return store, events, store.save(trees(2), {'step': 2})


def sign(save):
    """Make done.json fit the files again, as a forger would."""
    done = json.loads((save / 'done.json').read_text())
    done['files'] = {
        path.name: {'bytes': path.stat().st_size, 'crc32': zlib.crc32(path.read_bytes())}
        for path in save.iterdir()
        if path.name != 'done.json' and path.is_file()
    }
    (save / 'done.json').write_text(json.dumps(done))


def test_a_loaded_tree_is_the_saved_one(saved):
    store, events, save = saved
    loaded, meta = store.load()
    assert meta == {'step': 2} and same(loaded, trees(2)) and not events
    assert same(store.load(save)[0], trees(2))
    loaded['agent']['params']['w/0'][:] = 0  # loaded arrays are the caller's own


@FUZZ
@given(data=st.data())
def test_arrays_of_every_dtype_order_and_shape_survive(tmp_path, data):
    shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    array = (
        np.arange(np.prod(shape, dtype=int))
        .reshape(shape)
        .astype(data.draw(st.sampled_from(DTYPES)))
    )
    view = data.draw(
        st.sampled_from(
            [lambda x: x, np.asfortranarray, np.transpose, lambda x: x[..., ::-1] if x.ndim else x]
        )
    )(array)
    swapped = view.astype(view.dtype.newbyteorder('>'))
    store = Checkpoint(tmp_path, 1)
    store.save({'x': {'a': view, 'deep': {'b': swapped}}}, {})
    loaded = store.load()[0]['x']
    assert same(loaded['a'], view) and same(loaded['deep']['b'], view)


def test_no_save_is_none_and_touches_nothing(tmp_path):
    assert Checkpoint(tmp_path / 'ckpt', 2).load() is None
    assert not (tmp_path / 'ckpt').exists()


def test_only_the_newest_are_kept_and_foreign_things_are_left_alone(saved):
    store, _, save = saved
    (store.directory / 'zzz-backup').mkdir()
    (store.directory / 'notes.txt').write_text('mine')
    newest = store.save(trees(3), {'step': 3})
    assert store.saves() == [save, newest]
    assert sorted(path.name for path in store.directory.iterdir()) == sorted(
        [save.name, newest.name, 'zzz-backup', 'notes.txt']
    )


def test_a_clock_that_is_set_back_does_not_change_the_order(saved, monkeypatch):
    store, _, _ = saved

    class Past(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2001, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(checkpoint_module, 'datetime', Past)
    newest = store.save(trees(3), {'step': 3})
    assert store.saves()[-1] == newest and store.load()[1] == {'step': 3}


def test_leftovers_of_an_interrupted_save_are_invisible_and_removed(saved):
    store, _, _ = saved
    leftover = store.directory / '.partial-20990101T000000F000000-000000000009'
    leftover.mkdir()
    (leftover / 'done.json').write_text('{}')
    assert store.load()[1] == {'step': 2}
    store.save(trees(3), {'step': 3})
    assert not leftover.exists()


def test_files_of_shards_belong_to_the_save_and_no_other_is_taken_for_one(tmp_path):
    store = Checkpoint(tmp_path / 'ckpt', 2)

    def part(folder):
        safetensors.save_file({'x': np.arange(3)}, folder / 'shard-1.safetensors')
        return [folder / 'shard-1.safetensors']

    partial = store.begin({'step': 1})
    sums = write_shards(partial, 'agent', Shards({'note': 'rest'}, part))
    save = store.finish(partial, {'agent': {'note': 'rest'}}, {'step': 1}, sums)
    folder = save / 'agent.shards'
    assert store.load()[0]['agent'] == Stored({'note': 'rest'}, folder) and store.loaded == save
    (folder / 'shard-2.safetensors').write_bytes((folder / 'shard-1.safetensors').read_bytes())
    with pytest.raises(CheckpointError, match='done.json alone, found shard-2'):
        read(save)
    (folder / 'shard-2.safetensors').unlink()
    read(save)
    folder.rename(tmp_path / 'elsewhere')
    folder.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(CheckpointError, match='expected names such as agent.json'):
        read(save)


@pytest.mark.parametrize(
    'damage, expected',
    [
        (lambda save: (save / 'done.json').unlink(), 'done.json'),
        (lambda save: (save / 'done.json').write_text('{"fi'), 'done.json'),
        (lambda save: (save / 'done.json').write_text('[]'), 'done.json'),
        (lambda save: (save / 'agent.json').unlink(), 'agent.json: expected .* bytes, found none'),
        (
            lambda save: os.truncate(save / 'agent.safetensors', 40),
            r'agent.safetensors: expected \d+ bytes, found 40',
        ),
        (
            lambda save: (save / 'counters.json').write_text('{"step": 3}'),
            'counters.json: expected the checksum .*, found',
        ),
    ],
)
def test_a_damaged_newest_save_falls_back_with_a_warning(saved, damage, expected):
    store, events, save = saved
    damage(save)
    assert store.load()[1] == {'step': 1}
    assert len(events) == 1 and save.name in events[0]
    with pytest.raises(CheckpointError, match=expected):
        store.load(save)


def test_when_every_save_is_damaged_the_error_names_each(saved):
    store, _, _ = saved
    for save in store.saves():
        (save / 'done.json').unlink()
    with pytest.raises(CheckpointError) as info:
        store.load()
    assert all(save.name in str(info.value) for save in store.saves())


def test_the_newest_good_save_is_found_in_a_logdir_a_folder_and_by_itself(saved):
    store, events, save = saved
    good = store.saves()[0]
    for path in (store.directory.parent, store.directory, save):
        assert find_save(path, events.append) == save
    os.truncate(save / 'agent.safetensors', 40)
    assert find_save(store.directory.parent, events.append) == good and save.name in events[0]
    assert find_save(save) == save  # asked for by name: reading it then says what is wrong
    for path in (store.directory / 'nope', store.directory.parent / 'other'):
        with pytest.raises(CheckpointError, match='there is none'):
            find_save(path)


@pytest.mark.parametrize(
    'make',
    [
        lambda folder: (folder / '20270101T000000F000000-000000000009').touch(),
        lambda folder: os.mkfifo(folder / '20270101T000000F000000-000000000009'),
        lambda folder: (folder / '20270101T000000F000000-000000000009').symlink_to('/nowhere'),
        lambda folder: (folder / '20270101T000000F000000-000000000009').symlink_to(
            '20270101T000000F000000-000000000009'
        ),
        lambda folder: (folder / '20271332T000000F000000-000000000009').mkdir(),
        lambda folder: (folder / '99991231T235959F999999-000000000009').mkdir(),
    ],
)
def test_what_only_has_the_name_of_a_save_is_named_and_neither_loaded_nor_followed(saved, make):
    store, events, save = saved
    make(store.directory)
    assert store.load()[1] == {'step': 2} and len(events) == 1 and '-000000000009 (no' in events[0]
    assert find_save(store.directory.parent, events.append) == save and len(events) == 2
    newest = store.save(trees(3), {'step': 3})
    assert store.saves() == [save, newest] and store.load()[1] == {'step': 3}
    assert datetime.strptime(newest.name.partition('-')[0], '%Y%m%dT%H%M%SF%f').year < 9000


@pytest.mark.parametrize('number', [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_where_descriptors_or_memory_run_out_no_older_save_is_taken(saved, monkeypatch, number):
    store, events, save = saved
    working = os.open

    def refuse(path, *args, **more):
        if str(path).startswith(str(save)):
            raise OSError(number, os.strerror(number))
        return working(path, *args, **more)

    monkeypatch.setattr(os, 'open', refuse)
    for look in (store.load, lambda: find_save(store.directory)):
        with pytest.raises(OutOfResources, match='nothing is wrong with the file'):
            look()
    monkeypatch.undo()
    assert not events and store.load()[1] == {'step': 2}


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        SafetensorError(
            'Error while deserializing: I/O error: Cannot allocate memory (os error 12)'
        ),
    ],
)
def test_arrays_that_do_not_fit_into_memory_are_no_damage(saved, monkeypatch, error):
    store, events, _ = saved

    def refuse(path):
        raise error

    monkeypatch.setattr(save_module.safetensors, 'load_file', refuse)
    with pytest.raises(OutOfResources, match='agent.safetensors'):
        store.load()
    assert not events


def forge_names(save, name):
    done = json.loads((save / 'done.json').read_text())
    done['files'][name] = {'bytes': 0, 'crc32': 0}
    (save / 'done.json').write_text(json.dumps(done))


@pytest.mark.parametrize(
    'name',
    [
        '../../secret.json',
        '/etc/passwd',
        'a/b.json',
        '.hidden.json',
        '..',
        '',
        'a\0.json',
        'agent.pkl',
        'x.json/../y.json',
    ],
)
def test_names_that_lead_elsewhere_are_refused(saved, name):
    _, _, save = saved
    forge_names(save, name)
    with pytest.raises(CheckpointError, match='expected names such as'):
        read(save)


def test_links_and_pipes_are_not_followed(saved, tmp_path):
    _, _, save = saved
    (save / 'agent.json').unlink()
    (save / 'agent.json').symlink_to('/dev/zero')
    with pytest.raises(CheckpointError, match='agent.json'):
        read(save)
    (save / 'done.json').unlink()
    os.mkfifo(save / 'done.json')
    with pytest.raises(CheckpointError, match='regular file'):
        read(save)


def huge_header(size):
    return (
        size.to_bytes(8, 'little')
        + b'{"x":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}'
        + b'\0' * 64
    )


@pytest.mark.parametrize(
    'file, content',
    [
        ('agent.safetensors', huge_header(2**63)),
        ('agent.safetensors', huge_header(1 << 26)),
        ('agent.safetensors', huge_header(66)),
        ('agent.safetensors', b''),
        ('agent.safetensors', b'\x80\x04K\x01.'),
        ('agent.json', b'[' * 200_000),
        ('agent.json', b'{"a":' * 100_000 + b'1' + b'}' * 100_000),
        ('agent.json', b'\xff\xfe'),
        ('agent.json', b'{"": "/not/there"}'),
        ('agent.json', b'{"": ["x"]}'),
        ('agent.json', b'9' * 10_000),
        ('lonely.safetensors', b''),
    ],
)
def test_a_forged_file_is_refused_within_bounded_memory(saved, file, content):
    _, _, save = saved
    (save / file).write_bytes(content)
    sign(save)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=file):
            read(save)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_json_that_is_too_large_is_neither_written_nor_read(saved):
    store, _, save = saved
    with pytest.raises(CheckpointError, match='large data must be arrays'):
        store.save({'big': 'x' * (MAX_JSON + 1)}, {})
    with open(save / 'counters.json', 'r+b') as file:
        file.truncate(MAX_JSON + 1)  # sparse
    sign(save)
    with pytest.raises(CheckpointError, match='more than'):
        read(save)


@pytest.mark.parametrize(
    'leaf',
    [
        np.array(['text']),
        np.array([None]),
        np.zeros(2, np.complex128),
        {1: 2},
        {'': 1},
        object(),
        {'a': {2}},
    ],
)
def test_what_cannot_be_saved_is_named_and_leaves_nothing_behind(tmp_path, leaf):
    store = Checkpoint(tmp_path, 1)
    with pytest.raises(CheckpointError, match='could not be written'):
        store.save({'x': {'leaf': leaf}}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['../x', 'a/b', '', '.x', 'a.b'])
def test_names_of_trees_stay_in_the_folder(tmp_path, name):
    with pytest.raises(CheckpointError, match='the name of a tree'):
        Checkpoint(tmp_path / 'ckpt', 1).save({name: 1}, {})


def test_a_full_disk_leaves_the_earlier_saves_and_is_got_over(saved):
    store, _, save = saved
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {'agent': {'w': np.zeros(1 << 18, np.float32)}}
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(CheckpointError, match='could not be written'):
            store.save(large, {'step': 3})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.saves()[-1] == save and len(list(store.directory.iterdir())) == 2
    store.save(large, {'step': 3})
    assert store.load()[1] == {'step': 3}


def test_a_folder_that_cannot_be_made_is_a_checkpoint_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(CheckpointError, match='file'):
        Checkpoint(tmp_path / 'file' / 'ckpt', 1).save(trees(), {})


@FUZZ
@given(data=st.data())
def test_flipped_and_missing_bytes_are_noticed(tmp_path_factory, data):
    """Whatever is changed in the files, loading gives what was saved or says that it cannot;
    signed changes may give other values.
    """
    save = Checkpoint(tmp_path_factory.mktemp('fuzz'), 1).save(trees(7), {'step': 7})
    file = data.draw(st.sampled_from(sorted(save.iterdir())))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    signed = file.name != 'done.json' and data.draw(st.booleans())
    if signed:
        sign(save)
    try:
        loaded, _ = read(save)
    except CheckpointError as error:
        assert str(save) in str(error)
    else:
        assert signed or same(loaded, trees(7))


SAVE_FOR_EVER = """
import sys
import numpy as np
from embodied.checkpoint import Checkpoint
store = Checkpoint(sys.argv[1], 2)
step = store.load()[1]['step'] if store.saves() else 0
print('ready', flush=True)
while True:
    step += 1
    store.save({'a': {'x': np.full(50_000, step)}, 'b': {'step': step}}, {'step': step})
"""


def test_kill_9_at_any_moment_leaves_a_whole_newest_save(tmp_path, wait_until):
    last, rng = 0, np.random.default_rng(0)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, '-c', SAVE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b'ready\n'
        saves = Checkpoint(tmp_path, 2).saves
        wait_until(lambda: any(int(save.name[-12:]) > last for save in saves()))
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        events = []
        loaded, meta = Checkpoint(tmp_path, 2, events.append).load()
        assert not events and meta['step'] > last
        last = meta['step']
        assert loaded['b']['step'] == last and (loaded['a']['x'] == last).all()
