"""An env that `python -m embodied.remote` serves: remote_HOST:PORT.

Where the server is away, a step waits for it, as long as env.remote.absence allows; then the env
begins a new episode, so that the cut one counts as truncated. driver.timeout has to be longer, as
in the preset `remote`.
"""

import contextlib
import dataclasses
import os
import secrets
import socket
import time

from .. import errors
from ..base import Env, Spaces, Values
from ..errors import ConfigError, EnvContractError, EnvCrashed, EnvTimeout, MessageError
from ..remote.wire import MAX_BODY, REFUSED, Channel, Message, demand_proof, proof
from ..seeds import derive
from ..space_json import decode_space

PAUSE = 0.2  # seconds between two tries to connect
MISFIT = (AssertionError, AttributeError, KeyError, OverflowError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True)
class RemoteConfig:
    """What can be set.

    Attributes:
      timeout: seconds that one step may take.
      absence: seconds that the server may be away.
    """

    timeout: float
    absence: float


def check(name: str, config: RemoteConfig) -> None:
    """Refuse what make() would refuse, without connecting.

    Raises:
      ConfigError: no address, no token, or a value out of range.
    """
    address(name)
    if not config.timeout > 0 or not config.absence >= 0:
        raise ConfigError(
            'env.remote.timeout must be positive and env.remote.absence not negative, got'
            f' {config.timeout} and {config.absence}.'
        )
    if not os.environ.get('EMBODIED_TOKEN'):
        raise ConfigError('remote_: set EMBODIED_TOKEN to the token of the server.')


def address(name: str) -> tuple[str, int]:
    """Host and port of 'HOST:PORT'. Raises ConfigError."""
    host, _, port = name.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f'expected the task remote_HOST:PORT, got remote_{name}.')
    return host.strip('[]'), int(port)


def make(name: str, config: RemoteConfig, seed: int) -> Env:
    """The env served at HOST:PORT.

    Raises:
      ConfigError: as check(). EnvTimeout: there is no server within the allowed absence.
      MessageError: what answers there is none, or does not know the token.
    """
    check(name, config)
    return Remote(address(name), os.environ['EMBODIED_TOKEN'], config, seed)


class Remote(Env):
    """See make()."""

    def __init__(self, place: tuple[str, int], token: str, config: RemoteConfig, seed: int):
        self._place, self._token, self._config = place, token, config
        self._seed, self._channel, self._notes = seed, None, []
        self._lives = 0  # envs that the server has made for this one
        self.title = f'remote_{place[0]}:{place[1]}'
        self._reach()

    def step(self, action: Values) -> Values:
        for _ in range(2):
            try:
                return self._exchange(action)
            except (EOFError, OSError) as error:
                if isinstance(error, TimeoutError):
                    self._drop()  # the row may come yet, and would answer the next action
                    raise EnvTimeout(
                        f'{self.title} did not answer within {self._config.timeout:g} s.'
                    ) from error
                begin = time.monotonic()
                self._reach()
                away = time.monotonic() - begin
                topic = f'away {len(self._notes)} {begin}'
                self._notes.append(
                    (topic, f'{self.title} was away for {away:.1f} s; its episode was cut.')
                )
                action = dict(action) | {'reset': self.act_space['reset'].dtype.type(True)}
        raise EnvCrashed(f'{self.title} closes the connection at every step.')

    def notes(self) -> list[tuple[str, str]]:
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        if self._channel is not None:
            with contextlib.suppress(OSError):
                self._channel.send(Message('bye'))
            self._drop()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _exchange(self, action: Values) -> Values:
        if self._channel is None:
            raise EOFError('the connection was closed')
        self._channel.send(Message('step', {}, action))
        message = self._channel.receive('row', 'fault')
        if message.kind == 'fault':
            self.close()
            raise fault(message, self.title)
        for note in message.values.get('notes') or ():
            if isinstance(note, list) and len(note) == 2:
                self._notes.append((str(note[0]), str(note[1])))
        return {k: v if v.shape else v[()] for k, v in message.arrays.items()}

    def _reach(self) -> None:
        """Connect, as often as it takes within the allowed absence."""
        self._drop()
        deadline = time.monotonic() + self._config.absence
        while True:
            try:
                self._connect()
                return
            except (EOFError, OSError, Busy) as error:
                if time.monotonic() + PAUSE > deadline:
                    raise EnvTimeout(
                        f'{self.title} was away for longer than env.remote.absence'
                        f' {self._config.absence:g} s allows: {error}'
                    ) from error
                time.sleep(PAUSE)

    def _connect(self) -> None:
        connection = socket.create_connection(self._place, self._config.timeout)
        channel = Channel(connection)
        try:
            nonce = secrets.token_hex(16)
            asked = channel.receive('hello').values.get('nonce')
            mine = proof(self._token, 'client', asked)
            # another env than before, which would repeat what was seen
            seed = derive(self._seed, 'renewed', self._lives) if self._lives else self._seed
            channel.send(Message('prove', {'proof': mine, 'nonce': nonce, 'seed': seed}))
            answer = channel.receive('hello', 'fault')
            if answer.kind == 'fault':
                raise fault(answer, self.title)
            demand_proof(self._token, 'server', nonce, answer.values.get('proof'))
            channel.trusted = True
            welcome = channel.receive('welcome', 'fault')
            if welcome.kind == 'fault':
                raise fault(welcome, self.title)
            self._learn(welcome)
        except BaseException:
            channel.close()
            raise
        self._channel, self._lives = channel, self._lives + 1

    def _learn(self, welcome: Message) -> None:
        """What the server says of its env: the same as before, where there was one."""
        try:
            obs_space, act_space = (
                {key: decode_space(spec, MAX_BODY) for key, spec in welcome.values[name].items()}
                for name in ('obs_space', 'act_space')
            )
            repeat = int(welcome.values['repeat'])
        except MISFIT as error:
            raise MessageError(f'{self.title} describes no env: {error!r:.120}') from error
        before: tuple[Spaces, Spaces] | None = getattr(self, '_known', None)
        if before is not None and before != (obs_space, act_space):
            raise EnvContractError(f'{self.title} came back with an env of other spaces.')
        self._known, self.repeat = (obs_space, act_space), repeat
        self.obs_space, self.act_space = obs_space, act_space


class Busy(Exception):
    """All envs of a server are in use, for now: it may not have noticed that a client is gone."""


def fault(message: Message, title: str) -> Exception:
    """The error that a server tells of, as one of ours."""
    text = str(message.values.get('text'))
    if text == REFUSED:
        return Busy(text)
    kind = getattr(errors, str(message.values.get('error')), None)
    known = isinstance(kind, type) and issubclass(kind, errors.EmbodiedError)
    return (kind if known else EnvCrashed)(f'{title}: {text}')
