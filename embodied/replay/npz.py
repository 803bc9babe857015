"""The file format of chunks: .npz as numpy writes it, read without trusting a byte of it.

A file is a zip of one .npy member per column. Uncompressed members are mapped, so that reading
costs no memory of its own; compressed ones (DreamerV3's) are inflated whole, and small files are
read, so that they hold no file descriptor. Nothing is unpickled or extracted, sizes are compared
before anything is allocated, and whatever is not as it must be raises ChunkError. What the system
refuses (no descriptor, no memory, a disk that fails) raises another error: the file may be sound.
Files stay below 2 GiB, so zip64 never occurs.
"""

import contextlib
import io
import math
import mmap
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np

from ..errors import ChunkError, ChunkUnreadable
from ..files import open_regular, refusal
from .members import (
    DTYPE,
    END,
    ENTRY,
    LOCAL,
    STORED,
    Entry,
    Member,
    directory,
    member_of,
    read_header,
)

LIMIT = 2**31 - 1  # bytes of a file, and of all its columns together
READ_WHOLE = 1 << 20  # files up to this many bytes are read; larger ones are mapped
BLOCK = 1 << 20  # bytes that are read at a time to compute a checksum


def write(file: io.BufferedIOBase, columns: Mapping[str, np.ndarray]) -> None:
    """Write C-contiguous columns as an uncompressed .npz that numpy.load, DreamerV3 and read()
    understand.
    """
    with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
        for key, column in columns.items():
            header = _npy_header(column)
            info = zipfile.ZipInfo(f'{key}.npy')
            info.file_size = len(header) + column.nbytes
            with archive.open(info, 'w') as member:
                member.write(header)
                member.write(memoryview(column).cast('B') if column.size else b'')


def size(columns: Mapping[str, np.ndarray]) -> int:
    """Bytes of the file that write() makes, exactly."""
    total = END.size
    for key, column in columns.items():
        name = len(f'{key}.npy'.encode())
        total += LOCAL.size + ENTRY.size + 2 * name + len(_npy_header(column)) + column.nbytes
    return total


def describe(path: os.PathLike) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Key -> (dtype, shape) of the columns of a file, from headers alone. Columns of a dtype that
    rows cannot have (objects, strings, bfloat16) are left out.

    Raises:
      ChunkError: the file is damaged or no such zip.
      ChunkUnreadable, OutOfResources: the system does not let it be read.
    """
    found = {}
    with _opened(path) as file:
        buffer = _buffer(file, path)
        for key, entry in directory(buffer, path).items():
            descr, fortran, shape, _ = read_header(buffer, entry, path, key)
            if DTYPE.fullmatch(descr):
                found[key] = (np.dtype(descr), shape)
    return found


def read(
    path: os.PathLike,
    expected: Mapping[str, tuple[np.dtype, tuple[int, ...]]],
    limit: int = LIMIT,
    verify: bool = False,
) -> dict[str, np.ndarray]:
    """The columns named in `expected`, read-only, others ignored.

    Files are write-once: the result stays valid when the file is renamed or unlinked, but whoever
    cuts it short under a running process crashes that process, as with any mapping.

    Args:
      path: the file.
      expected: key -> (dtype, shape) that the columns must have.
      limit: most bytes that inflating compressed columns may take; mapped ones take none.
      verify: compare the checksum of each of these columns; otherwise of compressed ones alone.

    Raises:
      ChunkError: the file is damaged, or lacks a column, or has one of another dtype or shape.
      ChunkUnreadable: it cannot be read, or takes more memory than `limit`.
      OutOfResources: there is no descriptor or no memory for it.
    """
    with _opened(path) as file:
        buffer = _buffer(file, path)
        entries = directory(buffer, path)
        members = {}
        for key, (dtype, shape) in expected.items():
            if key not in entries:
                raise ChunkError(
                    f'{path}: has no column {key!r}; it has {", ".join(sorted(entries)[:20])}.'
                )
            member = member_of(buffer, entries[key], path, key)
            if (member.dtype, member.shape) != (dtype, shape):
                raise ChunkError(
                    f'{path}: column {key!r} must be {dtype} {shape}, '
                    f'is {member.dtype} {member.shape}.'
                )
            members[key] = member
        inflated = sum(member.nbytes for member in members.values() if member.inflate)
        if inflated > limit:
            raise ChunkUnreadable(
                f'{path}: takes {inflated:,} bytes of memory when decompressed, '
                f'{limit:,} are allowed.'
            )
        if verify:
            for key, member in members.items():
                if not member.inflate:
                    _check_stored(file, entries[key], path, key)
        return {key: _array(buffer, member, path, key) for key, member in members.items()}


def verify(path: os.PathLike) -> None:
    """Compare the checksum of every member of a file, also of columns that no row has.

    Raises: as read().
    """
    with _opened(path) as file:
        for key, entry in directory(_buffer(file, path), path).items():
            if entry.method == STORED:
                _check_stored(file, entry, path, key)
            else:
                _check_deflated(file, entry, path, key)


def is_mapped(columns: Mapping[str, np.ndarray]) -> bool:
    """Whether columns that read() returned hold a file descriptor."""
    return any(isinstance(_owner(column), mmap.mmap) for column in columns.values())


def _owner(array: np.ndarray) -> object:
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def _npy_header(column: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(column))
    return stream.getvalue()


@contextlib.contextmanager
def _opened(path: os.PathLike) -> Iterator[BinaryIO]:
    """The file, open for reading; what the system refuses inside is no fault of its content."""
    try:
        with open_regular(path) as file:
            yield file
    except (OSError, MemoryError) as error:
        raise refusal(error, f'{path}: cannot be read', ChunkUnreadable) from error


def _buffer(file: BinaryIO, path: os.PathLike) -> mmap.mmap | bytes:
    size = os.fstat(file.fileno()).st_size
    if not END.size <= size <= LIMIT:
        raise ChunkError(f'{path}: must have between {END.size} and {LIMIT:,} bytes, has {size:,}.')
    if size > READ_WHOLE:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    content = b''
    while block := file.read(size - len(content)):
        content += block
    if len(content) < size:
        raise ChunkUnreadable(f'{path}: only {len(content):,} of {size:,} bytes could be read.')
    return content


def _array(buffer: mmap.mmap | bytes, member: Member, path: os.PathLike, key: str) -> np.ndarray:
    if member.inflate:
        source, offset = _inflate(buffer, member, path, key), member.header
    else:
        source, offset = buffer, member.data
    array = np.frombuffer(source, member.dtype, math.prod(member.shape), offset)
    if member.dtype == bool and member.nbytes and array.view(np.uint8).max() > 1:
        raise ChunkError(f'{path}: column {key!r} holds bytes that are no booleans.')
    return array.reshape(member.shape, order='F' if member.fortran else 'C')


def _inflate(buffer: mmap.mmap | bytes, member: Member, path: os.PathLike, key: str) -> bytes:
    total = member.header + member.nbytes
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        with memoryview(buffer)[member.data : member.data + member.packed] as view:
            content = inflater.decompress(view, total + 1)
    except zlib.error as error:
        raise ChunkError(f'{path}: column {key!r} cannot be decompressed: {error}.') from error
    if len(content) != total:
        raise ChunkError(
            f'{path}: column {key!r} does not decompress to the {total:,} bytes that it declares.'
        )
    _compare(zlib.crc32(content), member.crc, path, key)
    return content


def _blocks(file: BinaryIO, entry: Entry, path: os.PathLike, key: str) -> Iterator[bytes]:
    """The bytes of a member as the file holds them. Read and not mapped: where the disk fails, a
    read is an error and a mapping a signal that ends the process."""
    position, end = entry.data, entry.data + entry.packed
    while position < end:
        block = os.pread(file.fileno(), min(BLOCK, end - position), position)
        if not block:
            raise ChunkError(f'{path}: column {key!r} ends before its {entry.packed:,} bytes do.')
        position += len(block)
        yield block


def _check_stored(file: BinaryIO, entry: Entry, path: os.PathLike, key: str) -> None:
    crc = 0
    for block in _blocks(file, entry, path, key):
        crc = zlib.crc32(block, crc)
    _compare(crc, entry.crc, path, key)


def _check_deflated(file: BinaryIO, entry: Entry, path: os.PathLike, key: str) -> None:
    inflater, crc, length = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    try:
        for block in _blocks(file, entry, path, key):
            while block and not inflater.eof:
                content = inflater.decompress(block, BLOCK)
                crc, length = zlib.crc32(content, crc), length + len(content)
                block = inflater.unconsumed_tail
        content = inflater.flush()
        crc, length = zlib.crc32(content, crc), length + len(content)
    except zlib.error as error:
        raise ChunkError(f'{path}: column {key!r} cannot be decompressed: {error}.') from error
    if length != entry.unpacked:
        raise ChunkError(
            f'{path}: column {key!r} decompresses to {length:,} bytes, declares {entry.unpacked:,}.'
        )
    _compare(crc, entry.crc, path, key)


def _compare(found: int, expected: int, path: os.PathLike, key: str) -> None:
    if found != expected:
        raise ChunkError(f'{path}: column {key!r} is damaged: its checksum does not match.')
