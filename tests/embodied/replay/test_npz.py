"""The chunk file format: what is written reads back, and nothing that is not as it must be gets
through.
"""

import io
import os
import struct
import tracemalloc
import zipfile

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from embodied.errors import ChunkError, ChunkUnreadable
from embodied.replay import npz

COLUMNS = {
    'image': np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3),
    'arm/joints': np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2),
    'is_first': np.array([True, False, False, True]),
    'count': np.arange(4, dtype=np.int32),
    'half': np.arange(4, dtype=np.float16),
    'nothing': np.zeros((4, 0), np.float32),
}
EXPECTED = {key: (column.dtype, column.shape) for key, column in COLUMNS.items()}


def written(tmp_path, columns=COLUMNS):
    path = tmp_path / 'x.npz'
    with open(path, 'wb') as file:
        npz.write(file, columns)
    return path


def crafted(tmp_path, members, compression=zipfile.ZIP_STORED):
    """A zip with members of any name and content."""
    path = tmp_path / 'x.npz'
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def npy(array=None, descr=None, shape=None, data=b''):
    if array is not None:
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, allow_pickle=True)
        return stream.getvalue()
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + data


def assert_equal(found, columns):
    for key, column in columns.items():
        assert found[key].dtype == column.dtype and found[key].tobytes() == column.tobytes(), key


def test_written_columns_read_back_bit_by_bit_here_and_in_numpy(tmp_path):
    path = written(tmp_path)
    assert_equal(npz.read(path, EXPECTED, verify=True), COLUMNS)
    with np.load(path, allow_pickle=False) as archive:
        assert_equal(archive, COLUMNS)


def test_size_is_the_size_of_the_file(tmp_path):
    assert npz.size(COLUMNS) == written(tmp_path).stat().st_size


def test_files_of_numpy_read_the_same_mapped_decompressed_or_in_fortran_order(tmp_path):
    for save in (np.savez, np.savez_compressed):
        path = tmp_path / f'{save.__name__}.npz'
        save(path, **COLUMNS)
        assert_equal(npz.read(path, EXPECTED), COLUMNS)
    turned = np.asfortranarray(COLUMNS['image'])
    np.savez(tmp_path / 'f.npz', image=turned)
    assert (npz.read(tmp_path / 'f.npz', {'image': EXPECTED['image']})['image'] == turned).all()


def test_mapped_columns_outlive_their_file_and_cannot_be_changed(tmp_path):
    path = written(tmp_path)
    found = npz.read(path, EXPECTED)
    path.unlink()
    assert_equal(found, COLUMNS)
    with pytest.raises(ValueError, match='read-only'):
        found['image'][0] = 0


def test_describe_skips_what_rows_cannot_hold(tmp_path):
    np.savez_compressed(
        tmp_path / 'x.npz', a=np.zeros((3, 2), np.float32), text=np.array(['a', 'b', 'c'])
    )
    assert npz.describe(tmp_path / 'x.npz') == {'a': (np.dtype('float32'), (3, 2))}


@pytest.mark.parametrize(
    'name',
    [
        '../evil.npy',
        '/etc/evil.npy',
        'a/../../b.npy',
        'a\\b.npy',
        'c:x.npy',
        'a//b.npy',
        '.npy',
        'plain.txt',
    ],
)
def test_member_names_that_could_leave_a_folder_are_refused(tmp_path, name):
    path = crafted(tmp_path, [(name, npy(np.zeros(4)))])
    with pytest.raises(ChunkError, match='x.npz'):
        npz.read(path, {'a': (np.dtype('float64'), (4,))})


def test_objects_are_refused_and_nothing_is_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ('a pickle was executed',))

    path = crafted(tmp_path, [('a.npy', npy(np.array([Bomb()] * 4, object)))])
    with pytest.raises(ChunkError, match="'a' has dtype"):
        npz.read(path, {'a': (np.dtype('float64'), (4,))})


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_declared_sizes_are_compared_before_anything_is_allocated(tmp_path, compression):
    shape = (4, 2**30)
    path = crafted(
        tmp_path, [('a.npy', npy(descr='<f8', shape=shape, data=b'x' * 100))], compression
    )
    tracemalloc.start()
    with pytest.raises(ChunkError, match='declares'):
        npz.read(path, {'a': (np.dtype('float64'), shape)})
    assert tracemalloc.get_traced_memory()[1] < 1e6, (
        'memory was taken for an array that is not there'
    )
    tracemalloc.stop()


def test_a_zip_bomb_is_refused_within_bounded_memory(tmp_path):
    shape = (4, 2**24)
    path = crafted(tmp_path, [('a.npy', npy(np.zeros(shape, np.uint8)))], zipfile.ZIP_DEFLATED)
    expected = {'a': (np.dtype('uint8'), shape)}
    assert path.stat().st_size < 100_000
    tracemalloc.start()
    with pytest.raises(ChunkUnreadable, match='when decompressed'):
        npz.read(path, expected, limit=2**20)
    with pytest.raises(ChunkError, match='must be'):
        npz.read(path, {'a': (np.dtype('uint8'), (4, 2))})
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    npz.read(path, expected)


def test_a_member_that_inflates_to_more_than_it_declares_is_refused(tmp_path):
    path = crafted(tmp_path, [('a.npy', npy(np.zeros(1000, np.uint8)))], zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    where = content.rfind(b'PK\1\2') + 24
    declared = struct.unpack_from('<L', content, where)[0]
    shorter = npy(np.zeros(900, np.uint8))
    assert len(shorter) < declared
    struct.pack_into('<L', content, where, len(shorter))
    path.write_bytes(content)
    with pytest.raises(ChunkError, match='declares'):
        npz.read(path, {'a': (np.dtype('uint8'), (1000,))})


@pytest.mark.parametrize(
    'header',
    [
        b'',
        b'(' * 3000,
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (" + b'1' * 3000 + b'), }',
        b"__import__('os').abort()",
    ],
)
def test_headers_are_matched_and_never_evaluated(tmp_path, header):
    path = crafted(
        tmp_path,
        [('a.npy', b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header + bytes(16))],
    )
    with pytest.raises(ChunkError, match='not understood'):
        npz.read(path, {'a': (np.dtype('float32'), (4,))})


def test_huge_headers_are_refused(tmp_path):
    path = crafted(
        tmp_path, [('a.npy', b'\x93NUMPY\x02\x00' + struct.pack('<L', 2**31) + bytes(100))]
    )
    with pytest.raises(ChunkError, match='header of 2147483660 bytes'):
        npz.describe(path)


def test_bytes_that_are_no_booleans_are_refused(tmp_path):
    path = crafted(tmp_path, [('a.npy', npy(descr='|b1', shape='(4,)', data=b'\0\1\2\3'))])
    with pytest.raises(ChunkError, match='no booleans'):
        npz.read(path, {'a': (np.dtype(bool), (4,))})


def test_members_cannot_occur_twice_or_overlap(tmp_path):
    with pytest.warns(UserWarning, match='Duplicate'):
        path = crafted(tmp_path, [('a.npy', npy(np.zeros(4))), ('a.npy', npy(np.zeros(4)))])
    with pytest.raises(ChunkError, match='occurs twice'):
        npz.describe(path)
    path = crafted(tmp_path, [('a.npy', npy(np.zeros(4))), ('b.npy', npy(np.zeros(4)))])
    content = bytearray(path.read_bytes())
    first, second = content.find(b'PK\1\2'), content.rfind(b'PK\1\2')
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    path.write_bytes(content)
    with pytest.raises(ChunkError, match='not where the zip directory says'):
        npz.describe(path)


def test_members_cannot_share_bytes(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, 'w') as archive:
        archive.writestr('b.npy', npy(np.zeros(4)))
    local = inner.getvalue()[: inner.getvalue().find(b'PK\1\2')]
    path = crafted(tmp_path, [('a.npy', npy(np.zeros(1)) + local), ('b.npy', npy(np.zeros(4)))])
    content = bytearray(path.read_bytes())
    struct.pack_into('<L', content, content.rfind(b'PK\1\2') + 42, content.find(local))
    path.write_bytes(content)
    with pytest.raises(ChunkError, match='overlap'):
        npz.describe(path)


@pytest.mark.parametrize('cut', [0, 1, 21, 100, -1, -30])
def test_truncated_files_are_refused(tmp_path, cut):
    path = written(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    with pytest.raises(ChunkError, match='x.npz'):
        npz.read(path, EXPECTED)


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('whole', [0, 1 << 20])
def test_a_flipped_bit_anywhere_in_a_column_shows_under_verify(tmp_path, monkeypatch, save, whole):
    monkeypatch.setattr(npz, 'READ_WHOLE', whole)
    columns = {
        'small': np.zeros(4, np.float32),
        'large': np.random.default_rng(0).integers(0, 9, (4, 600_000), np.uint8),
    }
    expected = {key: (column.dtype, column.shape) for key, column in columns.items()}
    path = tmp_path / 'x.npz'
    save(path, **columns)
    npz.verify(path)
    assert_equal(npz.read(path, expected, verify=True), columns)
    content = bytearray(path.read_bytes())
    for position in (content.index(b'small.npy') + 60, len(content) // 2, len(content) - 1000):
        flipped = content.copy()
        flipped[position] ^= 1
        path.write_bytes(flipped)
        for look in (lambda: npz.verify(path), lambda: npz.read(path, expected, verify=True)):
            with pytest.raises(ChunkError, match='x.npz'):
                look()


def test_verify_reads_members_that_are_no_columns_of_a_row(tmp_path):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(COLUMNS['image'].tobytes())] ^= 1
    path.write_bytes(content)
    rest = {key: spec for key, spec in EXPECTED.items() if key != 'image'}
    assert_equal(npz.read(path, rest, verify=True), {key: COLUMNS[key] for key in rest})
    with pytest.raises(ChunkError, match="'image' is damaged"):
        npz.verify(path)


@pytest.mark.parametrize(
    'make',
    [lambda path: os.mkfifo(path), lambda path: path.mkdir(), lambda path: path.symlink_to(path)],
)
def test_what_is_no_file_is_refused_at_once_and_called_no_damage(tmp_path, make):
    make(tmp_path / 'x.npz')
    with pytest.raises(ChunkUnreadable, match='x.npz'):
        npz.read(tmp_path / 'x.npz', EXPECTED)


def test_a_missing_file_column_or_other_dtype_is_named(tmp_path):
    with pytest.raises(ChunkUnreadable, match='cannot be read'):
        npz.read(tmp_path / 'none.npz', EXPECTED)
    path = written(tmp_path)
    with pytest.raises(ChunkError, match="no column 'z'"):
        npz.read(path, {'z': (np.dtype('uint8'), (4,))})
    with pytest.raises(ChunkError, match="'count' must be int64"):
        npz.read(path, {'count': (np.dtype('int64'), (4,))})


@hypothesis.settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    derandomize=True,
)
@hypothesis.given(
    compressed=st.booleans(),
    cut=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
)
def test_changed_bytes_give_the_columns_or_a_chunk_error_and_nothing_else(
    tmp_path, compressed, cut, changes
):
    path = tmp_path / 'x.npz'
    small = {key: column for key, column in COLUMNS.items() if key != 'image'}
    (np.savez_compressed if compressed else np.savez)(path, **small)
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content[: len(content) - cut] if cut < 40 else content)
    try:
        found = npz.read(path, {key: EXPECTED[key] for key in small}, verify=True)
        npz.describe(path)
    except ChunkError:
        return
    assert_equal(found, small)


@hypothesis.settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    derandomize=True,
)
@hypothesis.given(st.binary(max_size=300))
def test_random_bytes_give_a_chunk_error_and_nothing_else(tmp_path, content):
    path = tmp_path / 'x.npz'
    path.write_bytes(content)
    with pytest.raises(ChunkError):
        npz.read(path, EXPECTED)
