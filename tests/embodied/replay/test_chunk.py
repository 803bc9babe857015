"""Chunks: names, growth, and files that appear whole or not at all."""

import os

import numpy as np
import pytest

from embodied.errors import ChunkError
from embodied.replay import chunk as chunks
from embodied.replay import npz
from embodied.replay.chunk import Chunk, ChunkName, file_columns, new_uuid, timestamp
from embodied.replay.schema import Schema

SCHEMA = Schema({'image': (np.uint8, (4, 4, 3)), 'reward': (np.float32, ())}, 'test')
UUID = '0123456789abcdefABCDEF'


def row(number):
    return SCHEMA.check(
        {'image': np.full((4, 4, 3), number, np.uint8), 'reward': np.float32(number)}
    )


def filled(rows, limit=1000):
    chunk = Chunk(timestamp(), new_uuid(), limit)
    for number in range(rows):
        chunk.append(SCHEMA, row(number))
    return chunk


def test_names_are_those_of_dreamerv3_and_parse_back():
    name = ChunkName('20261120T193749F833588', UUID, new_uuid(), 10)
    assert str(name) == f'20261120T193749F833588-{UUID}-{name.succ}-10.npz'
    assert ChunkName.parse(str(name)) == name


@pytest.mark.parametrize(
    'filename',
    [
        'foo.npz',
        '',
        f'20261120T193749F833588-{UUID}-{UUID}-0.npz',
        f'20261120T193749F833588-{UUID}-{UUID}-1.npz.tmp',
        f'20261320T193749F833588-{UUID}-{UUID}-1.npz',
        f'99991120T193749F833588-{UUID}-{UUID}-1.npz',
        f'20261120T193749F833588-{UUID}-{UUID}-9999999999.npz',
        f'../20261120T193749F833588-{UUID}-{UUID}-1.npz',
        f'20261120T193749F833588-{UUID}-{UUID}-1.npz\n',
        f'２０261120T193749F833588-{UUID}-{UUID}-1.npz',
    ],
)
def test_other_names_are_refused(filename):
    with pytest.raises(ChunkError, match='chunk|time|year'):
        ChunkName.parse(filename)


def test_ids_have_22_digits_that_128_bits_can_hold():
    digits = chunks._BASE62
    for _ in range(100):
        number = 0
        for digit in new_uuid():
            number = number * 62 + digits.index(digit)
        assert number < 2**128


def test_times_always_rise_even_when_the_clock_is_set_back():
    future = '29991231T235959F999999'
    assert timestamp(future) == '30000101T000000F000000'
    assert timestamp() < timestamp(timestamp(future))


def test_short_chunks_cost_their_data_only():
    chunk = filled(3)
    assert chunk.nbytes < 100 * SCHEMA.nbytes
    chunk.close(new_uuid())
    assert chunk.nbytes == 3 * SCHEMA.nbytes
    assert all(column.base is None for column in chunk.columns.values()), (
        'a view keeps the larger block alive'
    )


def test_rows_survive_growth_and_the_limit_is_exact():
    chunk = filled(150, limit=150)
    assert chunk.full and chunk.columns['reward'].shape == (150,)
    assert (chunk.columns['reward'] == np.arange(150)).all()
    assert (chunk.columns['image'] == np.arange(150, dtype=np.uint8)[:, None, None, None]).all()


def test_rows_read_from_the_file_are_those_in_memory(tmp_path):
    chunk = filled(40)
    chunk.close(new_uuid())
    memory = chunk.columns
    chunk.path = chunk.write(tmp_path)
    chunk.drop()
    assert chunk.nbytes == 0
    again = Chunk.on_disk(chunk.path, ChunkName.parse(chunk.path.name), chunk.path.stat().st_size)
    again.load(SCHEMA)
    assert again.name == chunk.name and again.file_bytes == chunk.file_bytes
    for key, column in memory.items():
        assert (
            again.columns[key].dtype == column.dtype
            and again.columns[key].tobytes() == column.tobytes()
        )


def test_the_length_in_the_name_must_be_that_of_every_column(tmp_path):
    chunk = filled(40)
    chunk.close(new_uuid())
    path = chunk.write(tmp_path)
    name = chunk.name._replace(length=41)
    path = path.rename(tmp_path / str(name))
    with pytest.raises(
        ChunkError, match=r'must be uint8 \(41, 4, 4, 3\), is uint8 \(40, 4, 4, 3\)'
    ):
        Chunk.on_disk(path, name, 0).load(SCHEMA)


@pytest.mark.parametrize('broken', ['write', 'fsync', 'replace'])
def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch, broken):
    def fail(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(npz if broken == 'write' else os, broken, fail)
    chunk = filled(5)
    chunk.close(new_uuid())
    with pytest.raises(OSError, match='No space'):
        chunk.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_has_its_name_only_after_it_is_on_disk(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        os, 'fsync', lambda handle: seen.append(sorted(path.name[0] for path in tmp_path.iterdir()))
    )
    chunk = filled(5)
    chunk.close(new_uuid())
    chunk.write(tmp_path)
    assert seen == [
        ['.'],
        ['2'],
    ], 'the file must be synced under its hidden name, the folder after the rename'


def test_files_hold_the_step_ids_that_dreamerv3_needs(tmp_path):
    """Its loader looks a row up by 16 bytes of the chunk's id, read from the 22 digits as a
    number, and four of the row's number.
    """
    columns = {'reward': np.arange(300, dtype=np.float32)}
    uuid = '0' * 19 + '1aZ'  # 1 * 62^2 + 10 * 62 + 61
    ids = file_columns(columns, uuid)['stepid']
    assert ids.shape == (300, 20) and ids.dtype == np.uint8
    assert all(
        bytes(ids[i]) == (62**2 + 10 * 62 + 61).to_bytes(16, 'big') + i.to_bytes(4, 'big')
        for i in (0, 255, 256, 299)
    )
