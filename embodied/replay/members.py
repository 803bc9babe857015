"""What a chunk file consists of: its zip directory and the headers of its columns, read without
trusting a byte of them. Sizes and places are compared before anything is read or allocated.
"""

import math
import mmap
import operator
import os
import re
import struct
import zlib
from typing import NamedTuple

import numpy as np

from ..contract import valid_key
from ..errors import ChunkError

MAX_MEMBERS = 4096  # DreamerV3's files hold some tens
MAX_DIRECTORY = 1 << 20  # bytes of the zip directory
MAX_HEADER = 4096  # bytes of one .npy header; numpy writes 118 for shapes like ours

END = struct.Struct('<4s4H2LH')
ENTRY = struct.Struct('<4s6H3L5H2L')
_TOLD = operator.itemgetter(0, 3, 4, 7, 8, 9, 10, 11, 12, 16)  # what is read of an entry
LOCAL = struct.Struct('<4s5H3L2H')
STORED, DEFLATED = 0, 8
DTYPE = re.compile(r'\|b1|[|<][iu]1|<[iu][248]|<f[248]')
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,16})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,10}(?:,"
    rb' \d{1,10}){0,31},?)?)\), \}[ \n]*'
)


class Entry(NamedTuple):
    """One member as the zip directory describes it; `data` is where its bytes begin in the file."""

    method: int
    crc: int
    packed: int
    unpacked: int
    data: int


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


def directory(buffer: mmap.mmap | bytes, path: os.PathLike) -> dict[str, Entry]:
    """Key -> where its bytes lie, from the zip directory, checked against the local headers and
    for overlaps.

    Raises:
      ChunkError: the file is truncated, damaged or no such zip.
    """
    end = buffer.rfind(b'PK\5\6', max(0, len(buffer) - END.size - 0xFFFF))
    if end < 0 or end + END.size > len(buffer):
        raise ChunkError(
            f'{path}: has no zip directory at its end; it is truncated or no .npz file.'
        )
    _, _, _, _, count, length, start, _ = END.unpack_from(buffer, end)
    if count > MAX_MEMBERS or length > MAX_DIRECTORY or start + length > end:
        raise ChunkError(
            f'{path}: has an impossible zip directory of {count} members and {length} bytes at'
            f' {start}.'
        )
    entries, spans, position = {}, [], start
    for _ in range(count):
        if position + ENTRY.size > start + length:
            raise ChunkError(f'{path}: its zip directory ends before its {count} members do.')
        fields = _TOLD(ENTRY.unpack_from(buffer, position))
        magic, flags, method, crc, packed, unpacked, name_size, extra, comment, local = fields
        name = buffer[position + ENTRY.size : position + ENTRY.size + name_size]
        position += ENTRY.size + name_size + extra + comment
        key = _key(name, path)
        if magic != b'PK\1\2' or flags & 1 or method not in (STORED, DEFLATED):
            raise ChunkError(
                f'{path}: member {key!r} is encrypted, or packed by unknown method {method}, or no'
                ' zip member.'
            )
        if key in entries:
            raise ChunkError(f'{path}: member {key!r} occurs twice.')
        data = _data_start(buffer, local, name, path, key)
        if data + packed > start or (method == STORED and packed != unpacked):
            raise ChunkError(
                f'{path}: member {key!r} does not fit: {packed} bytes at {data}, {unpacked}'
                ' unpacked.'
            )
        entries[key] = Entry(method, crc, packed, unpacked, data)
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
    if local + LOCAL.size > len(buffer):
        raise ChunkError(f'{path}: member {key!r} begins beyond the end of the file.')
    magic, *_, name_size, extra = LOCAL.unpack_from(buffer, local)
    begin = local + LOCAL.size
    if magic != b'PK\3\4' or buffer[begin : begin + name_size] != name:
        raise ChunkError(f'{path}: member {key!r} is not where the zip directory says.')
    return begin + name_size + extra


def read_header(
    buffer: mmap.mmap | bytes, entry: Entry, path: os.PathLike, key: str
) -> tuple[str, bool, tuple[int, ...], int]:
    """descr, fortran_order, shape and the number of bytes before the array.

    Raises:
      ChunkError: it is no header of an array.
    """
    head = buffer[entry.data : entry.data + min(entry.packed, MAX_HEADER)]
    if entry.method == DEFLATED:
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


def member_of(buffer: mmap.mmap | bytes, entry: Entry, path: os.PathLike, key: str) -> Member:
    """A column of a dtype that rows can have; raises ChunkError for others."""
    descr, fortran, shape, header = read_header(buffer, entry, path, key)
    if not DTYPE.fullmatch(descr):
        raise ChunkError(
            f'{path}: column {key!r} has dtype {descr!r}; only booleans, integers and floats are'
            ' read.'
        )
    inflate = entry.method == DEFLATED
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
