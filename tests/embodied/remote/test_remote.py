"""Envs over a socket: as any other, also while their server is away; what is no message is refused
in words.
"""

import contextlib
import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodied import envs
from embodied.base import RandomAgent
from embodied.checks import check_env
from embodied.config import configs_dir, parse
from embodied.drive import Driver, DriverConfig
from embodied.envs.remote import RemoteConfig, make
from embodied.errors import (
    ConfigError,
    EnvContractError,
    EnvCrashed,
    EnvTimeout,
    MessageError,
)
from embodied.remote.server import Server
from embodied.remote.wire import MAGIC, PREFIX, Channel, Message, pack, unpack

ROOT = Path(__file__).parents[3]
CONFIG = parse([], configs_dir(ROOT / 'dreamer4')).env.to_dict()
QUICK = RemoteConfig(timeout=60.0, absence=300.0)
TOKEN = 'open sesame'


def dummy(seed):
    return envs.make('dummy', CONFIG, seed)


@contextlib.contextmanager
def serving(make_env=dummy, port=0, token=TOKEN, **settings):
    server = Server(make_env, token, port=port, on_event=lambda text: None, **settings)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


@pytest.fixture(autouse=True)
def token(monkeypatch):
    monkeypatch.setenv('EMBODIED_TOKEN', TOKEN)


def client(server, config=QUICK, seed=0):
    return make('{}:{}'.format(*server.address), config, seed)


def test_a_remote_env_is_as_its_own():
    with serving(envs=3) as server:
        assert check_env(lambda seed: client(server, seed=seed), 60, lambda note: None) == []
        far, near = client(server, seed=3), dummy(3)
        assert far.obs_space == near.obs_space and far.act_space == near.act_space
        assert far.repeat == near.repeat
        agent = RandomAgent(near.act_space, 0)
        for number in range(30):
            drawn = agent.policy({}, {'is_first': np.zeros(1)})[1]
            action = {k: v[0] for k, v in drawn.items()} | {'reset': np.bool_(number == 0)}
            row, other = far.step(action), near.step(action)
            assert row.keys() == other.keys()
            assert all(np.array_equal(row[key], other[key]) for key in row)
        far.close()


def test_a_driver_goes_on_while_the_server_is_killed_and_brought_back():
    config = DriverConfig(False, True, 600.0, 600.0, 0, 0, 300.0)  # no restart is allowed
    with contextlib.ExitStack() as first:
        server = first.enter_context(serving(envs=2))
        place = '{}:{}'.format(*server.address)
        makers = [lambda seed=seed: make(place, QUICK, seed) for seed in (0, 1)]
        events, rows = [], []
        with contextlib.closing(Driver(makers, config, events.append)) as driver:
            agent = RandomAgent(driver.act_space, 0)
            driver.on_row(lambda row, index: rows.append((index, row)))
            driver.reset(agent.init_policy)
            driver(agent.policy, steps=14)
            first.close()  # the server is gone; another one comes while the driver waits
            second = Server(dummy, TOKEN, port=server.address[1], envs=2, on_event=events.append)
            thread = threading.Timer(0.5, second.serve)
            thread.start()
            driver(agent.policy, steps=14)
            second.close()
    mine = [row for index, row in rows if index == 0]
    assert len(mine) == 14 and driver.restarts == 0
    # the cut episode has no last row, and a new one begins
    assert bool(mine[7]['is_first']) and not mine[6]['is_last']
    assert not any(row['is_first'] for row in mine[8:14])
    assert sum('was away for' in text for text in events) >= 1


def test_a_row_that_comes_too_late_answers_no_later_action():
    wakes = threading.Event()

    class Slow(Broken):
        def step(self, action):
            if not action['reset']:
                assert wakes.wait(60)
            return self.env.step(action)

        def notes(self):
            return []

    with serving(Slow) as server:
        env = client(server, RemoteConfig(timeout=1.0, absence=60.0))
        assert env.step({**zeros(env), 'reset': np.bool_(True)})['is_first']
        with pytest.raises(EnvTimeout, match='did not answer within 1 s'):
            env.step({**zeros(env), 'reset': np.bool_(False)})
        wakes.set()
        row = env.step({**zeros(env), 'reset': np.bool_(False)})
        assert row['is_first'], 'a new episode, and not the answer to the action before'
        env.close()


def test_an_env_that_was_away_does_not_repeat_its_episodes():
    seeds = []
    with serving(lambda seed: seeds.append(seed) or dummy(seed)) as server:
        env = client(server, seed=5)
    with serving(lambda seed: seeds.append(seed) or dummy(seed), port=server.address[1]):
        env.step({**zeros(env), 'reset': np.bool_(False)})
        env.close()
    assert seeds[0] == 5 and len(set(seeds)) == 2


def test_a_side_that_vanishes_without_a_word_is_missed():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        connection = socket.create_connection(listener.getsockname())
        channel = Channel(connection)
        asks = lambda level, name: connection.getsockopt(level, getattr(socket, name))
        assert asks(socket.SOL_SOCKET, 'SO_KEEPALIVE')
        idle, every, count = (
            asks(socket.IPPROTO_TCP, f'TCP_KEEP{name}') for name in ('IDLE', 'INTVL', 'CNT')
        )
        assert idle + every * count <= 60, 'seconds, not the two hours of the system'
        channel.close()


def test_a_server_that_does_not_come_back_is_a_timeout():
    with serving() as server:
        env = client(server, RemoteConfig(timeout=60.0, absence=1.0))
        env.step({**zeros(env), 'reset': np.bool_(True)})
    with pytest.raises(EnvTimeout, match='longer than env.remote.absence 1 s allows'):
        env.step({**zeros(env), 'reset': np.bool_(False)})


def zeros(env):
    return {
        key: np.zeros(space.shape, space.dtype)[()]
        for key, space in env.act_space.items()
        if key != 'reset'
    }


def test_a_server_that_comes_back_with_another_env_is_refused():
    with serving() as server:
        env = client(server)
    pixel = lambda seed: envs.make('pixel_catch', CONFIG, seed)
    with serving(pixel, port=server.address[1]):
        with pytest.raises(EnvContractError, match='came back with an env of other spaces'):
            env.step({**zeros(env), 'reset': np.bool_(True)})


def test_who_does_not_know_the_token_gets_nothing(monkeypatch):
    with serving() as server:
        monkeypatch.setenv('EMBODIED_TOKEN', 'guess')
        with pytest.raises(MessageError, match='the client does not know the token'):
            client(server)
    with pytest.raises(MessageError, match='needs a token'):
        Server(dummy, '')
    monkeypatch.delenv('EMBODIED_TOKEN')
    with pytest.raises(ConfigError, match='set EMBODIED_TOKEN'):
        make('localhost:5555', QUICK, 0)


def test_a_server_without_a_free_env_is_waited_for():
    with serving() as server:
        env = client(server)
        with pytest.raises(EnvTimeout, match='all envs of this server are in use'):
            client(server, RemoteConfig(timeout=60.0, absence=1.0))
        env.close()
        client(server).close()


def test_an_env_that_outlives_its_client_is_not_made_again():
    made = []
    with serving(lambda seed: made.append(seed) or dummy(seed), keep=True) as server:
        for seed in (3, 4):
            env = client(server, seed=seed)
            assert env.step({**zeros(env), 'reset': np.bool_(True)})['is_first']
            env.close()
    assert made == [3]


class Broken:
    """An env that fails in its first step."""

    error = ZeroDivisionError('a wheel came off')

    def __init__(self, seed):
        self.env = dummy(seed)
        self.obs_space, self.act_space, self.repeat = self.env.obs_space, self.env.act_space, 1

    def step(self, action):
        raise self.error

    def close(self):
        pass


def test_an_env_that_fails_far_away_is_told_here():
    with serving(Broken) as server:
        env = client(server)
        with pytest.raises(EnvCrashed, match='ZeroDivisionError: a wheel came off'):
            env.step({**zeros(env), 'reset': np.bool_(True)})


@pytest.mark.parametrize('error', [OSError('no such port'), EOFError('the arm hung up')])
def test_an_env_that_loses_its_robot_is_no_client_that_is_gone(error):
    made = []

    class Cut(Broken):
        def __init__(self, seed):
            super().__init__(seed)
            self.error = error
            made.append(self)

    with serving(Cut, keep=True) as server:
        env = client(server)
        with pytest.raises(EnvCrashed, match=f'{type(error).__name__}: {error}'):
            env.step({**zeros(env), 'reset': np.bool_(True)})
        client(server).close()  # what failed is kept for nobody
        assert len(made) == 2

    def nowhere(seed):
        raise error

    with serving(nowhere) as server:
        with pytest.raises(EnvCrashed, match=str(error)):
            client(server)


@pytest.mark.parametrize('name', ['localhost', 'localhost:0', ':5', 'localhost:99999', 'a:b'])
def test_what_is_no_address_is_refused(name):
    with pytest.raises(ConfigError, match='remote_HOST:PORT'):
        make(name, QUICK, 0)


def test_arrays_of_every_dtype_travel_unchanged():
    arrays = {
        dtype: np.arange(6).reshape(2, 3).astype(dtype)
        for dtype in ('bool', 'uint8', 'int8', 'int32', 'int64', 'float16', 'float32', 'float64')
    }
    arrays |= {'scalar': np.float32(2.5), 'empty': np.zeros((0, 3), np.int32)}
    data = pack(Message('row', {'notes': [['a', 'b']]}, arrays))
    _, head, _ = PREFIX.unpack(data[: PREFIX.size])
    found = unpack(data[PREFIX.size : PREFIX.size + head], data[PREFIX.size + head :])
    assert found.values == {'notes': [['a', 'b']]} and found.arrays.keys() == arrays.keys()
    for key, value in arrays.items():
        assert found.arrays[key].dtype == value.dtype
        assert np.array_equal(found.arrays[key], value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)
ENTRY = st.tuples(
    st.text(max_size=3) | st.integers(),
    st.sampled_from(['uint8', 'float32', 'object', 'O', '<f4', 'V8']),
    st.lists(st.integers(-2, 2**40), max_size=10) | JSON,
)
HEADS = st.fixed_dictionaries(
    {
        'kind': st.sampled_from(['row', 'step', 'pickle']) | JSON,
        'values': st.dictionaries(st.text(max_size=3), JSON) | JSON,
        'arrays': st.lists(ENTRY | JSON, max_size=4) | JSON,
    }
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(head=HEADS.map(lambda head: json.dumps(head).encode()) | st.binary(), body=st.binary())
def test_whatever_comes_is_a_message_or_a_typed_error(head, body):
    try:
        message = unpack(head, body)
    except MessageError:
        return
    assert sum(array.nbytes for array in message.arrays.values()) == len(body)


def test_a_head_nested_beyond_all_bounds_is_refused():
    with pytest.raises(MessageError, match='head of a message'):
        unpack(b'[' * 100_000, b'')


@pytest.mark.parametrize(
    'data, words',
    [
        (b'GET / HTTP/1.1\r\n\r\n', 'begins with'),
        (PREFIX.pack(MAGIC, 1 << 13, 0), 'at most 4,096'),  # before the token is proven
        (PREFIX.pack(MAGIC, 10, 1 << 20), 'at most'),
        (pack(Message('step')), "expected prove, got 'step'"),
        (pack(Message('prove', {'proof': 7, 'nonce': []})), 'does not know the token'),
    ],
)
def test_a_fuzzed_message_is_refused_and_the_server_goes_on(data, words):
    events = []
    server = Server(dummy, TOKEN, on_event=events.append)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    with socket.create_connection(server.address, 5) as connection:
        connection.sendall(data.ljust(PREFIX.size, b' '))
        answer = Channel(connection)
        answer.trusted = True
        assert answer.receive('hello')
        told = answer.receive('fault')
    assert told.values['error'] == 'MessageError' and words in told.values['text']
    env = client(server)  # others are served
    env.close()
    server.close()
    thread.join()
    assert any('is refused' in text for text in events)


def test_a_client_refuses_what_no_server_of_ours_says():
    listener = socket.create_server(('127.0.0.1', 0))

    def impostor():
        connection, _ = listener.accept()
        channel = Channel(connection)
        channel.send(Message('hello', {'nonce': '1'}))
        channel.receive('prove')
        channel.send(Message('hello', {'proof': 'none'}))
        channel.close()

    thread = threading.Thread(target=impostor, daemon=True)
    thread.start()
    with pytest.raises(MessageError, match='the server does not know the token'):
        make(f'127.0.0.1:{listener.getsockname()[1]}', QUICK, 0)
    thread.join()
    listener.close()


def test_an_action_of_another_form_is_refused():
    with serving() as server:
        env = client(server)
        wrong = {**zeros(env), 'reset': np.bool_(True)}
        key = next(name for name in wrong if name != 'reset')
        with pytest.raises(MessageError, match=f'action {key!r}: expected'):
            env.step(wrong | {key: np.zeros((2, 5))})
