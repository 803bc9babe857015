"""TFRecord files of tf.train.Example messages, without TensorFlow. An episode is one message of up
to 2 GB, so of a message only the places of its values are kept, and these are read when asked for.

Wire format of the messages (protobuf): each field begins with a number, 8 * field + type, of which
type 0 is a number and 2 a length with as many bytes; numbers are base 128, lowest digits first.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import ReplayError

NUMBER, EIGHT, BYTES, FOUR = 0, 1, 2, 5  # types of fields
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3  # kinds of a feature
VARINT = 10  # bytes of a number, at most
BLOCK = 1 << 16  # bytes of numbers that are read at a time


class Span(NamedTuple):
    """A stretch of a file that is not read yet."""

    file: BinaryIO
    start: int
    stop: int

    def read(self, start: int | None = None, stop: int | None = None) -> bytes:
        """Its bytes, or those between two places of the file that lie in it."""
        start, stop = self.start if start is None else start, self.stop if stop is None else stop
        self.file.seek(start)
        return self.file.read(stop - start)


class Feature:
    """The values of one feature of an example, in the file.

    Attributes:
      kind: BYTES_LIST, FLOAT_LIST or INT64_LIST.
    """

    def __init__(self, file: BinaryIO, kind: int):
        self._file, self.kind = file, kind
        self._places = array('q')  # start and stop of each part
        self._loose = array('Q')  # numbers of a message that does not pack them

    def add(self, value: Span | int) -> None:
        """One more part."""
        if isinstance(value, int):
            self._loose.append(value)
        else:
            self._places.extend((value.start, value.stop))

    def parts(self) -> Iterator[bytes]:
        """The strings of a BYTES_LIST, one after the other."""
        for start, stop in zip(self._places[::2], self._places[1::2]):
            yield Span(self._file, start, stop).read()

    def blocks(self) -> Iterator[np.ndarray]:
        """The numbers of the other kinds, as float32 or int64, a block of them at a time.

        Raises:
          ValueError: the last one is cut off.
        """
        if self._loose:
            yield np.array(self._loose, np.uint64).view(np.int64)
        for start, stop in zip(self._places[::2], self._places[1::2]):
            rest = b''
            for begin in range(start, stop, BLOCK):
                content = rest + Span(self._file, begin, min(begin + BLOCK, stop)).read()
                if self.kind == FLOAT_LIST:
                    used = len(content) // 4 * 4
                    yield np.frombuffer(content[:used], '<f4')
                else:
                    values, used = _varints(content)
                    yield values
                rest = content[used:]
            if rest:
                raise ValueError('a list of numbers ends early')

    def whole(self) -> np.ndarray:
        """All numbers."""
        kind = np.float32 if self.kind == FLOAT_LIST else np.int64
        return np.concatenate([np.zeros(0, kind), *self.blocks()])


def records(path: Path) -> Iterator[Span]:
    """The records of a TFRecord file: length u64, its checksum, content, its checksum.

    Raises:
      ReplayError: the file ends within one.
    """
    with open(path, 'rb') as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            head = Span(file, at, at + 12).read()
            length = struct.unpack('<Q', head[:8])[0] if len(head) == 12 else size
            start, at = at + 12, at + 12 + length + 4
            if at > size:
                raise ReplayError(f'{path}: ends within a record.')
            yield Span(file, start, start + length)


def example(content: Span) -> dict[str, Feature]:
    """The features of a tf.train.Example.

    Raises:
      ReplayError: the message is damaged.
    """
    try:
        found = {}
        for _, features in _fields(content):
            for _, entry in _fields(features):
                parts = dict(_fields(entry))
                kinds = list(_fields(parts[2])) if 2 in parts else []
                kind, values = kinds[0] if kinds else (BYTES_LIST, None)
                feature = Feature(content.file, kind)
                for _, value in _fields(values) if values else ():
                    feature.add(value)
                found[parts[1].read().decode()] = feature
        return found
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReplayError(f'is no tf.train.Example: {error!r}.') from error


def _fields(message: Span) -> Iterator[tuple[int, Span | int]]:
    """(field, value) of a message; values are numbers or bytes."""
    at = message.start
    while at < message.stop:
        head = message.read(at, min(at + 2 * VARINT, message.stop))
        key, used = _varint(head, 0)
        kind = key & 7
        if kind == NUMBER:
            value, used = _varint(head, used)
            at += used
        else:
            if kind == BYTES:
                length, used = _varint(head, used)
            else:
                length = {FOUR: 4, EIGHT: 8}[kind]
            value = Span(message.file, at + used, at + used + length)
            at = value.stop
            if at > message.stop:
                raise ValueError('it ends early')
        yield key >> 3, value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _varints(content: bytes) -> tuple[np.ndarray, int]:
    """The numbers that bytes hold, and how many bytes these are; the last may be cut off."""
    digits = np.frombuffer(content, np.uint8)
    ends = np.flatnonzero(digits < 128)
    if not len(ends):
        if len(digits) > VARINT:
            raise ValueError('a number has no end')
        return np.zeros(0, np.int64), 0
    digits = digits[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > VARINT:
        raise ValueError('a number has no end')
    place = np.arange(len(digits)) - np.repeat(starts, sizes)
    worth = (digits & 127).astype(np.uint64) << (7 * place).astype(np.uint64)
    return np.add.reduceat(worth, starts).view(np.int64), len(digits)
