"""Messages of named arrays over a socket: numbers in, numbers out, nothing that could be executed.

    4 bytes  b'D4E1'
    4 bytes  length of the head, big-endian
    8 bytes  length of the body, big-endian
    head     JSON: {"kind": text, "values": {...}, "arrays": [[name, dtype, shape], ...]}
    body     the bytes of the arrays, little-endian, one after another

Both sides prove that they know a token, by an HMAC of a number that the other side drew, so that
the token itself never travels. What follows is neither encrypted nor signed: between machines that
do not trust their network, use a tunnel.
"""

import hashlib
import hmac
import json
import math
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MessageError
from ..space_json import DTYPES, shape_of

MAGIC = b'D4E1'
PREFIX = struct.Struct('>4sIQ')
MAX_HEAD = 1 << 20  # bytes
MAX_BODY = 1 << 27  # bytes: 128 MiB of arrays
BEFORE_TRUST = 1 << 12  # bytes of a head while the token is not proven; there is no body
MAX_ARRAYS = 1024
REFUSED = 'all envs of this server are in use'
# seconds without a sign of the other side, and between questions whether it is there; how many of
# them may stay open
ALIVE = {'TCP_KEEPIDLE': 10, 'TCP_KEEPINTVL': 5, 'TCP_KEEPCNT': 3}
KINDS = ('hello', 'prove', 'welcome', 'step', 'row', 'fault', 'bye')


@dataclass(frozen=True)
class Message:
    """A kind of KINDS, JSON values, and arrays by name."""

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def pack(message: Message) -> bytes:
    """The bytes of a message."""
    arrays = {name: np.asarray(value) for name, value in message.arrays.items()}
    head = {
        'kind': message.kind,
        'values': dict(message.values),
        'arrays': [[name, x.dtype.name, list(x.shape)] for name, x in arrays.items()],
    }
    text = json.dumps(head).encode()
    body = b''.join(
        np.ascontiguousarray(x, x.dtype.newbyteorder('<')).tobytes() for x in arrays.values()
    )
    return PREFIX.pack(MAGIC, len(text), len(body)) + text + body


def unpack(head: bytes, body: bytes) -> Message:
    """The message of a head and a body.

    Raises:
      MessageError: they are none.
    """
    try:
        content = json.loads(head)
        kind, values, listed = content['kind'], content['values'], content['arrays']
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MessageError(f'the head of a message is none: {type(error).__name__}.') from error
    if kind not in KINDS or not isinstance(values, dict) or not isinstance(listed, list):
        raise MessageError(f'expected a message of {", ".join(KINDS)}, got {kind!r:.40}.')
    if len(listed) > MAX_ARRAYS:
        raise MessageError(f'a message holds at most {MAX_ARRAYS} arrays, got {len(listed)}.')
    arrays, at = {}, 0
    for entry in listed:
        name, dtype, shape = _entry(entry)
        size = math.prod(shape) * dtype.itemsize
        if name in arrays or at + size > len(body):
            raise MessageError(f'the array {name!r:.40} comes twice, or not whole.')
        count = math.prod(shape)
        arrays[name] = (
            np.frombuffer(body, dtype.newbyteorder('<'), count, at).reshape(shape).astype(dtype)
        )
        at += size
    if at != len(body):
        raise MessageError(f'{len(body) - at} bytes of a message belong to no array.')
    return Message(kind, values, arrays)


def _entry(entry: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    try:
        name, dtype, shape = entry
        if not isinstance(name, str) or len(shape) > 8:
            raise ValueError(f'{name!r:.40} with {len(shape)} axes')
        return name, DTYPES[dtype], shape_of(shape, MAX_BODY)
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f'an array of a message is none: {error!r:.120}.') from error


class Channel:
    """A socket that carries messages.

    Attributes:
      trusted: the other side has proven the token; before that only short messages are read.
    """

    def __init__(self, connection: socket.socket):
        self._socket, self.trusted = connection, False
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # a cable that is pulled says nothing: whoever waits would wait for ever
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in ALIVE.items():
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def send(self, message: Message) -> None:
        """Raises OSError where the other side is gone."""
        self._socket.sendall(pack(message))

    def receive(self, *kinds: str) -> Message:
        """The next message.

        Args:
          kinds: that it may be of.

        Raises:
          MessageError: it is none, or of another kind. EOFError: the other side is gone, and so
          OSError. TimeoutError: it says nothing within the timeout of the socket.
        """
        magic, head, body = PREFIX.unpack(self._read(PREFIX.size))
        if magic != MAGIC:
            raise MessageError(f'expected a message that begins with {MAGIC!r}, got {magic!r}.')
        most = (MAX_HEAD, MAX_BODY) if self.trusted else (BEFORE_TRUST, 0)
        if head > most[0] or body > most[1]:
            raise MessageError(
                f'a message holds at most {most[0]:,} and {most[1]:,} bytes here, got {head:,} and'
                f' {body:,}.'
            )
        message = unpack(self._read(head), self._read(body))
        if message.kind not in kinds:
            raise MessageError(f'expected {" or ".join(kinds)}, got {message.kind!r}.')
        return message

    def close(self) -> None:
        self._socket.close()

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            part = self._socket.recv(min(count, 1 << 20))
            if not part:
                raise EOFError('the connection was closed')
            parts.append(part)
            count -= len(part)
        return b''.join(parts)


def proof(token: str, side: str, nonce: Any) -> str:
    """What shows that `side` ('client' or 'server') knows the token, for a number of the other."""
    return hmac.new(token.encode(), f'{side}:{nonce}'.encode(), hashlib.sha256).hexdigest()


def demand_proof(token: str, side: str, nonce: str, given: Any) -> None:
    """Raises MessageError where `given` is no proof of the token."""
    if not hmac.compare_digest(proof(token, side, nonce), str(given)):
        raise MessageError(f'the {side} does not know the token (EMBODIED_TOKEN).')
