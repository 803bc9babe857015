"""Serves envs of a task over a socket:

    EMBODIED_TOKEN=... python -m embodied.remote --task dmc_walker_walk --port 5555

Every client gets an env of its own, at most --envs at once. With --keep an env outlives its client,
as a robot does: the next client goes on with it, in a new episode.
"""

import contextlib
import secrets
import socket
import threading
import traceback
from collections.abc import Callable, Mapping

import numpy as np

from ..base import Env
from ..errors import EmbodiedError, MessageError
from ..space_json import encode_space
from .wire import REFUSED, Channel, Message, demand_proof, proof

PROVE_SECONDS = 10.0  # that a client has to prove the token


class Failed(Exception):
    """An env raised its cause, which may well be an OSError, as of a robot's port: that does not
    say that the client is gone.
    """


class Server:
    """Listens from its construction on; serve() answers.

    Attributes:
      address: (host, port) that it listens at.
    """

    def __init__(
        self,
        make_env: Callable[[int], Env],
        token: str,
        host: str = '127.0.0.1',
        port: int = 0,
        envs: int = 1,
        keep: bool = False,
        on_event: Callable[[str], None] = print,
    ):
        """Args:
          make_env: seed -> a new env, as wrappers.wrap() leaves it.
          token: that clients have to know; not empty.
          host, port: to listen at; port 0 is a free one.
          envs: clients at once. keep: envs outlive their clients.
          on_event: receives a text for each client that comes, goes or is refused.

        Raises:
          MessageError: the token is empty. OSError: the address is not to be had.
        """
        if not token:
            raise MessageError(
                'a server needs a token: set EMBODIED_TOKEN, here and at the client.'
            )
        self._make_env, self._token, self._on_event = make_env, token, on_event
        self._free, self._most, self._keep = [], envs, keep
        self._used, self._lock, self._closed = 0, threading.Lock(), False
        self._channels = set()
        self._listener = socket.create_server((host, port))
        self.address = self._listener.getsockname()[:2]

    def serve(self) -> None:
        """Answer clients, each in a thread, until close()."""
        while not self._closed:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            name = f'{peer[0]}:{peer[1]}'
            threading.Thread(target=self._client, args=(connection, name), daemon=True).start()

    def close(self) -> None:
        """Stop listening and drop all clients. May be called more than once."""
        self._closed = True
        with contextlib.suppress(OSError):  # wakes up serve()
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            channels, self._channels = self._channels, set()
            free, self._free = self._free, []
        for channel in channels:
            channel.close()
        for env in free:
            env.close()

    def _client(self, connection: socket.socket, name: str) -> None:
        channel = Channel(connection)
        with self._lock:
            self._channels.add(channel)
        try:
            connection.settimeout(PROVE_SECONDS)
            seed = self._admit(channel)
            connection.settimeout(None)
            with self._env(seed) as env:
                self._on_event(f'{name} steps an env')
                self._steps(channel, env)
        except (EOFError, OSError):
            self._on_event(f'{name} is gone')
        except MessageError as error:
            self._on_event(f'{name} is refused: {error}')
            self._tell(channel, error)
        except Exception as error:  # whatever the env raises: the client has to know
            cause = error.__cause__ if isinstance(error, Failed) else error
            trace = ''.join(traceback.format_exception(cause))
            self._on_event(f'the env of {name} failed:\n{trace}')
            self._tell(channel, cause)
        finally:
            channel.close()
            with self._lock:
                self._channels.discard(channel)

    def _admit(self, channel: Channel) -> int:
        """Let the client prove the token, and prove it in turn. Returns its seed."""
        nonce = secrets.token_hex(16)
        channel.send(Message('hello', {'nonce': nonce}))
        said = channel.receive('prove').values
        demand_proof(self._token, 'client', nonce, said.get('proof'))
        channel.trusted = True
        channel.send(Message('hello', {'proof': proof(self._token, 'server', said.get('nonce'))}))
        seed = said.get('seed')
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise MessageError(f'expected a seed of at least 0, got {seed!r:.40}.')
        return seed

    @contextlib.contextmanager
    def _env(self, seed: int):
        """An env for one client, a kept one where there is any."""
        with self._lock:
            if self._used >= self._most:
                raise MessageError(REFUSED)
            self._used += 1
            env = self._free.pop() if self._free else None
        sound = False
        try:
            try:
                env = env or self._make_env(seed)
            except Exception as error:
                raise Failed from error
            yield env
            sound = True
        except (EOFError, OSError, MessageError):
            sound = True
            raise
        finally:
            keep = self._keep and sound and not self._closed
            if env is not None and not keep:
                env.close()
            with self._lock:
                self._used -= 1
                if env is not None and keep:
                    self._free.append(env)

    def _steps(self, channel: Channel, env: Env) -> None:
        spaces = {'obs_space': env.obs_space, 'act_space': env.act_space}
        told = {
            name: {key: encode_space(space) for key, space in found.items()}
            for name, found in spaces.items()
        }
        channel.send(Message('welcome', told | {'repeat': env.repeat}))
        while True:
            message = channel.receive('step', 'bye')
            if message.kind == 'bye':
                return
            action = action_of(message.arrays, env)
            try:
                row, notes = env.step(action), env.notes()
            except Exception as error:
                raise Failed from error
            channel.send(Message('row', {'notes': notes}, row))

    def _tell(self, channel: Channel, error: Exception) -> None:
        kind = type(error).__name__ if isinstance(error, EmbodiedError) else 'EnvCrashed'
        text = (
            f'{error}' if isinstance(error, EmbodiedError) else f'{type(error).__name__}: {error}'
        )
        with contextlib.suppress(OSError):
            channel.send(Message('fault', {'error': kind, 'text': text[:1000]}))


def action_of(arrays: Mapping[str, np.ndarray], env: Env) -> dict[str, np.ndarray]:
    """The action of a message, of the dtypes and shapes of the env.

    Raises:
      MessageError: it has other keys, dtypes or shapes.
    """
    if arrays.keys() != env.act_space.keys():
        raise MessageError(
            f'expected the actions {sorted(env.act_space)}, got {sorted(arrays)!r:.200}.'
        )
    for key, space in env.act_space.items():
        value = arrays[key]
        if value.dtype != space.dtype or value.shape != space.shape:
            raise MessageError(
                f'action {key!r}: expected {space.dtype}{list(space.shape)}, got'
                f' {value.dtype}{list(value.shape)}.'
            )
    return {key: value if value.shape else value[()] for key, value in arrays.items()}
