"""What sources of the tests are made of."""

import struct

import numpy as np


def count(length, start=0):
    """Actions (length, 2) whose first entry tells which they are."""
    steps = np.arange(start, start + length, dtype=np.float32) / 100
    return np.stack([steps, -steps], 1)


def hundredths(values):
    return np.round(100 * np.asarray(values)).astype(int).tolist()


def varint(number):
    """As protobuf writes a number."""
    made = b''
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


def part(field, content):
    """A field of a protobuf message that holds bytes."""
    return varint(8 * field + 2) + varint(len(content)) + content


def record(features):
    """A TFRecord of an example of lists of bytes, and arrays of float32."""
    entries = b''
    for key, values in features.items():
        if isinstance(values, list):
            kind, content = 1, b''.join(part(1, value) for value in values)
        else:
            kind, content = 2, part(1, values.astype('<f4').tobytes())
        entries += part(1, part(1, key.encode()) + part(2, part(kind, content)))
    message = part(1, entries)
    return struct.pack('<QI', len(message), 0) + message + bytes(4)
