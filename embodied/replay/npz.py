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
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from ..contract import valid_key
from ..errors import ChunkError, ChunkUnreadable
from ..files import open_regular, refusal

LIMIT = 2**31 - 1  # bytes of a file, and of all its columns together
MAX_MEMBERS = 4096  # DreamerV3's files hold some tens
MAX_DIRECTORY = 1 << 20  # bytes of the zip directory
MAX_HEADER = 4096  # bytes of one .npy header; numpy writes 118 for shapes like ours
READ_WHOLE = 1 << 20  # files up to this many bytes are read; larger ones are mapped
BLOCK = 1 << 20  # bytes that are read at a time to compute a checksum

_END = struct.Struct('<4s4H2LH')
_ENTRY = struct.Struct('<4s6H3L5H2L')
_LOCAL = struct.Struct('<4s5H3L2H')
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,16})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,10}(?:,"
    rb' \d{1,10}){0,31},?)?)\), \}[ \n]*'
)
_DTYPE = re.compile(r'\|b1|[|<][iu]1|<[iu][248]|<f[248]')
_STORED, _DEFLATED = 0, 8


class Member(NamedTuple):
    """One column as the zip directory and its own header describe it. `data` is where its array
    begins in the file, or where its deflated bytes begin; `header` the bytes before the array once
    inflated.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    inflate: bool
    data: int
    packed: int
    header: int
    crc: int

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


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
    total = _END.size
    for key, column in columns.items():
        name = len(f'{key}.npy'.encode())
        total += _LOCAL.size + _ENTRY.size + 2 * name + len(_npy_header(column)) + column.nbytes
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
        for key, entry in _entries(buffer, path).items():
            descr, fortran, shape, _ = _read_header(buffer, entry, path, key)
            if _DTYPE.fullmatch(descr):
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
        entries = _entries(buffer, path)
        members = {}
        for key, (dtype, shape) in expected.items():
            if key not in entries:
                raise ChunkError(
                    f'{path}: has no column {key!r}; it has {", ".join(sorted(entries)[:20])}.'
                )
            member = _member(buffer, entries[key], path, key)
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
        for key, entry in _entries(_buffer(file, path), path).items():
            if entry.method == _STORED:
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
    if not _END.size <= size <= LIMIT:
        raise ChunkError(
            f'{path}: must have between {_END.size} and {LIMIT:,} bytes, has {size:,}.'
        )
    if size > READ_WHOLE:
        return mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    content = b''
    while block := file.read(size - len(content)):
        content += block
    if len(content) < size:
        raise ChunkUnreadable(f'{path}: only {len(content):,} of {size:,} bytes could be read.')
    return content


class _Entry(NamedTuple):
    method: int
    crc: int
    packed: int
    unpacked: int
    data: int


def _entries(buffer: mmap.mmap | bytes, path: os.PathLike) -> dict[str, _Entry]:
    """Key -> where its bytes lie, from the zip directory, checked against the local headers and
    for overlaps.
    """
    end = buffer.rfind(b'PK\5\6', max(0, len(buffer) - _END.size - 0xFFFF))
    if end < 0 or end + _END.size > len(buffer):
        raise ChunkError(
            f'{path}: has no zip directory at its end; it is truncated or no .npz file.'
        )
    _, _, _, _, count, length, start, _ = _END.unpack_from(buffer, end)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY or start + length > end:
        raise ChunkError(
            f'{path}: has an impossible zip directory of {count} members and {length} bytes at'
            f' {start}.'
        )
    entries, spans, position = {}, [], start
    for _ in range(count):
        if position + _ENTRY.size > start + length:
            raise ChunkError(f'{path}: its zip directory ends before its {count} members do.')
        (
            magic,
            _,
            _,
            flags,
            method,
            _,
            _,
            crc,
            packed,
            unpacked,
            name_size,
            extra,
            comment,
            _,
            _,
            _,
            local,
        ) = _ENTRY.unpack_from(buffer, position)
        name = buffer[position + _ENTRY.size : position + _ENTRY.size + name_size]
        position += _ENTRY.size + name_size + extra + comment
        key = _key(name, path)
        if magic != b'PK\1\2' or flags & 1 or method not in (_STORED, _DEFLATED):
            raise ChunkError(
                f'{path}: member {key!r} is encrypted, or packed by unknown method {method}, or no'
                ' zip member.'
            )
        if key in entries:
            raise ChunkError(f'{path}: member {key!r} occurs twice.')
        data = _data_start(buffer, local, name, path, key)
        if data + packed > start or (method == _STORED and packed != unpacked):
            raise ChunkError(
                f'{path}: member {key!r} does not fit: {packed} bytes at {data}, {unpacked}'
                ' unpacked.'
            )
        entries[key] = _Entry(method, crc, packed, unpacked, data)
        spans.append((local, data + packed))
    spans.sort()
    if any(first[1] > second[0] for first, second in zip(spans, spans[1:])):
        raise ChunkError(f'{path}: its members overlap.')
    return entries


def _key(name: bytes, path: os.PathLike) -> str:
    try:
        text = name.decode('utf-8')
    except UnicodeDecodeError as error:
        raise ChunkError(f'{path}: member name {name[:80]!r} is not text.') from error
    key = text.removesuffix('.npy')
    if key == text or not valid_key(key):
        raise ChunkError(f'{path}: member name {text[:80]!r} is not that of a column.')
    return key


def _data_start(
    buffer: mmap.mmap | bytes, local: int, name: bytes, path: os.PathLike, key: str
) -> int:
    if local + _LOCAL.size > len(buffer):
        raise ChunkError(f'{path}: member {key!r} begins beyond the end of the file.')
    magic, *_, name_size, extra = _LOCAL.unpack_from(buffer, local)
    begin = local + _LOCAL.size
    if magic != b'PK\3\4' or buffer[begin : begin + name_size] != name:
        raise ChunkError(f'{path}: member {key!r} is not where the zip directory says.')
    return begin + name_size + extra


def _read_header(
    buffer: mmap.mmap | bytes, entry: _Entry, path: os.PathLike, key: str
) -> tuple[str, bool, tuple[int, ...], int]:
    """descr, fortran_order, shape and the number of bytes before the array."""
    head = buffer[entry.data : entry.data + min(entry.packed, MAX_HEADER)]
    if entry.method == _DEFLATED:
        try:
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, MAX_HEADER)
        except zlib.error as error:
            raise ChunkError(f'{path}: column {key!r} cannot be decompressed: {error}.') from error
    if head[:6] != b'\x93NUMPY' or len(head) < 12 or head[6] not in (1, 2, 3):
        raise ChunkError(f'{path}: column {key!r} is not a numpy array.')
    begin = 10 if head[6] == 1 else 12
    size = begin + int.from_bytes(head[8:begin], 'little')
    match = _HEADER.fullmatch(head[begin:size]) if size <= len(head) else None
    if not match:
        raise ChunkError(
            f'{path}: column {key!r} has a header of {size} bytes that is not understood:'
            f' {head[begin : begin + 80]!r}.'
        )
    try:
        shape = tuple(int(number) for number in match[3].replace(b' ', b'').split(b',') if number)
        return match[1].decode('ascii'), match[2] == b'True', shape, size
    except UnicodeDecodeError as error:
        raise ChunkError(f'{path}: column {key!r} has the unknown dtype {match[1]!r}.') from error


def _member(buffer: mmap.mmap | bytes, entry: _Entry, path: os.PathLike, key: str) -> Member:
    descr, fortran, shape, header = _read_header(buffer, entry, path, key)
    if not _DTYPE.fullmatch(descr):
        raise ChunkError(
            f'{path}: column {key!r} has dtype {descr!r}; only booleans, integers and floats are'
            ' read.'
        )
    inflate = entry.method == _DEFLATED
    member = Member(
        np.dtype(descr),
        shape,
        fortran,
        inflate,
        entry.data + (0 if inflate else header),
        entry.packed,
        header,
        entry.crc,
    )
    if header + member.nbytes != entry.unpacked:
        raise ChunkError(
            f'{path}: column {key!r} declares {member.dtype} {shape}, {header + member.nbytes:,}'
            f' bytes with its header, but has {entry.unpacked:,}.'
        )
    return member


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


def _blocks(file: BinaryIO, entry: _Entry, path: os.PathLike, key: str) -> Iterator[bytes]:
    """The bytes of a member as the file holds them. Read and not mapped: where the disk fails, a
    read is an error and a mapping a signal that ends the process."""
    position, end = entry.data, entry.data + entry.packed
    while position < end:
        block = os.pread(file.fileno(), min(BLOCK, end - position), position)
        if not block:
            raise ChunkError(f'{path}: column {key!r} ends before its {entry.packed:,} bytes do.')
        position += len(block)
        yield block


def _check_stored(file: BinaryIO, entry: _Entry, path: os.PathLike, key: str) -> None:
    crc = 0
    for block in _blocks(file, entry, path, key):
        crc = zlib.crc32(block, crc)
    _compare(crc, entry.crc, path, key)


def _check_deflated(file: BinaryIO, entry: _Entry, path: os.PathLike, key: str) -> None:
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
