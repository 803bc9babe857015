"""Envs whose values come apart or that hang, and what envs say about themselves: replaced, counted,
told once, never emitted.
"""

import contextlib
import functools
import os
import signal
import sys
import threading
import time

import cloudpickle
import numpy as np
import pytest
from gymnasium import spaces

from embodied import errors
from embodied.base import FLAG, OUTCOME, Env, outcome
from embodied.drive import Driver, DriverConfig, watch
from embodied.wrappers import wrap

TIMEOUT = 1000.0  # seconds, which only let_time_pass() lets pass
PATIENT = {'timeout': TIMEOUT, 'start_timeout': TIMEOUT}

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules


class Blown:
    """Constructor of an env whose key turns into `bad` in every `every`-th step of its life."""

    task = 'blown_task'

    def __init__(self, key='state', bad=np.nan, every=7, wrapped=True):
        self.settings, self.wrapped = (key, bad, every), wrapped

    def __call__(self):
        env = BlownEnv(*self.settings)
        return wrap(env) if self.wrapped else env


class BlownEnv(Env):
    """Counts its steps; leaves its box all the time, which is noted."""

    obs_space = {
        'state': spaces.Box(-1, 1, (2,), np.float32),
        'life': spaces.Box(0, 9999, (), np.int32),
        **OUTCOME,
    }
    act_space = {'go': spaces.Discrete(2, dtype=np.int32), 'reset': FLAG}

    def __init__(self, key, bad, every):
        self.key, self.bad, self.every, self.life = key, bad, every, -1

    def step(self, action):
        self.life += 1
        row = {
            'state': np.array([0, 2], np.float32),
            'life': np.int32(self.life),
            **outcome(0 if action['reset'] else 1, is_first=bool(action['reset'])),
        }
        if self.life % self.every == self.every - 1:
            row[self.key] = np.full_like(row[self.key], self.bad)[()]
        return row


def collect(makers, steps, folder=None, **changes):
    """Rows per env, events, and the number of replacements of a driver that took so many steps."""
    values = {
        'parallel': False,
        'overlap': True,
        'timeout': 600,
        'start_timeout': 600,
        'envs_per_worker': 1,
        'max_restarts': 9,
        'restart_window': 3600,
    }
    events, rows = [], [[] for _ in makers]
    with contextlib.closing(
        Driver(makers, DriverConfig(**{**values, **changes}), events.append, folder=folder)
    ) as driver:
        driver.on_row(lambda row, index: rows[index].append(row))
        driver.reset(lambda num_envs: None)
        driver(
            lambda carry, obs: (carry, {'go': np.zeros(len(obs['is_first']), np.int32)}),
            steps=steps * len(makers),
        )
        return rows, events, driver.restarts


@pytest.mark.parametrize('parallel', [True, False])
@pytest.mark.parametrize('wrapped', [True, False])
@pytest.mark.parametrize(
    'key, bad, words',
    [
        ('state', np.nan, "observation 'state' is not finite: nan"),
        ('reward', np.inf, 'the reward is not finite: inf'),
    ],
)
def test_a_value_that_is_not_finite_ends_the_life_of_its_env_and_is_never_emitted(
    key, bad, words, wrapped, parallel
):
    rows, events, restarts = collect(
        [Blown(every=10**6), Blown(key, bad, 7, wrapped)], 16, parallel=parallel
    )
    assert restarts == 2
    faults = [event for event in events if 'replacing a worker' in event]
    assert len(faults) == 2 and all(
        'env 1 (blown_task) in step 6 of its episode: EnvNonFinite' in fault for fault in faults
    )
    assert all(words in fault and 'Traceback' not in fault for fault in faults)
    assert [int(row['life']) for row in rows[1]] == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert rows[1][6]['is_first'] and not rows[1][5]['is_last'], 'the episode must be cut there'
    assert all(np.isfinite(row[name]).all() for row in rows[1] for name in ('state', 'reward'))
    assert [int(row['life']) for row in rows[0]] == list(range(16))


def test_an_env_that_is_mostly_sound_may_blow_up_for_ever():
    _, events, restarts = collect([Blown(every=60)], 1300, max_restarts=0)
    assert restarts == 22
    told = [event for event in events if 'replacing a worker' in event]
    assert len(told) == 6 and '(10 such by now)' in told[-1]


def test_an_env_that_blows_up_in_no_time_ends_the_run():
    with pytest.raises(
        errors.EnvNonFinite,
        match=r'4 env faults within 3600 s, driver.max_restarts allows 3(.|\n)*state',
    ):
        collect([Blown(every=5)], 100, max_restarts=3)


@pytest.mark.parametrize('parallel', [True, False])
def test_a_note_is_told_once_for_all_envs_and_lives(parallel):
    _, events, restarts = collect([Blown(), Blown()], 20, parallel=parallel)
    notes = [event for event in events if 'leaves its declared box' in event]
    assert restarts > 2 and len(notes) == 1 and "observation 'state'" in notes[0]


def test_a_policy_that_returns_nan_is_blamed_and_not_the_env():
    class Boxed(BlownEnv):
        act_space = {'go': spaces.Box(-1, 1, (2,), np.float32), 'reset': FLAG}

    values = DriverConfig(False, True, 600, 600, 1, 0, 60)
    driver = Driver([lambda: wrap(Boxed('state', 0, 10**6))], values, lambda text: None)
    driver.reset(lambda num_envs: None)
    with pytest.raises(ValueError, match=r"finite numbers for action 'go', got nan at \[0, 1\]"):
        driver(lambda carry, obs: (carry, {'go': np.array([[0, np.nan]], np.float32)}), steps=1)


class Slow(BlownEnv):
    """Calls `stop` in some step of the first life of its file `marker`, which it writes before: in
    its third step, or in its next reset.
    """

    def __init__(self, stop, marker, reset=False):
        super().__init__('state', 0, 10**6)
        self.stop, self.marker, self.reset = stop, marker, reset

    def step(self, action):
        row = super().step(action)
        row['state'][:] = 0
        row['is_last'] = np.bool_(self.life % 4 == 3)
        due = self.life > 0 and action['reset'] if self.reset else self.life == 2
        if due and not os.path.exists(self.marker):
            open(self.marker, 'w').close()
            self.stop()
        return row


def until(path):
    """Waits for a file, and lets nobody interrupt that."""
    while not os.path.exists(path):
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@pytest.mark.parametrize('parallel', [True, False])
def test_a_reset_may_take_longer_than_a_step(parallel, tmp_path, let_time_pass):
    begun, passed = tmp_path / 'begun', tmp_path / 'passed'
    let_time_pass(begun, passed=passed)
    make = functools.partial(Slow, functools.partial(until, passed), begun, reset=True)
    limits = {'timeout': TIMEOUT, 'start_timeout': 3 * TIMEOUT}
    rows, events, restarts = collect([make], 6, parallel=parallel, max_restarts=0, **limits)
    assert passed.exists() and restarts == 0 and not events
    assert [bool(row['is_first']) for row in rows[0]].count(True) == 2


def sleep():
    time.sleep(1000)


def crowded(path):
    """Hangs in twenty more threads, and writes a file once all are there."""
    barrier = threading.Barrier(21)

    def stay():
        barrier.wait()
        time.sleep(1000)

    for _ in range(20):
        threading.Thread(target=stay, daemon=True, name='crowd').start()
    barrier.wait()
    path.touch()
    time.sleep(1000)


@pytest.mark.parametrize('parallel', [True, False])
def test_a_hang_is_noticed_and_its_env_replaced_wherever_it_lives(
    parallel, tmp_path, let_time_pass
):
    before, hung = signal.getsignal(signal.SIGALRM), tmp_path / 'hung'
    let_time_pass(hung)
    rows, events, restarts = collect(
        [functools.partial(Slow, sleep, hung)], 6, parallel=parallel, **PATIENT
    )
    assert restarts == len(events) == 1
    assert 'did not answer' in events[0] and 'in sleep' in events[0]
    assert 'EnvTimeout' not in events[0]
    assert [int(row['life']) for row in rows[0]] == [0, 1, 0, 1, 2, 3]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_hang_that_cannot_be_interrupted_is_named_with_the_remedy(
    tmp_path, monkeypatch, let_time_pass
):
    hung, told, events = tmp_path / 'hung', tmp_path / 'told', []
    monkeypatch.setattr(watch, 'GRACE', 0.0)
    let_time_pass(hung)

    def stubborn():
        until(told)

    def tell(text):
        events.append(text)
        told.touch()

    values = DriverConfig(False, True, TIMEOUT, TIMEOUT, 1, 0, 60)
    driver = Driver([functools.partial(Slow, stubborn, hung)], values, tell)
    driver.reset(lambda num_envs: None)
    go = lambda carry, obs: (carry, {'go': np.zeros(1, np.int32)})
    with contextlib.closing(driver):
        driver(go, steps=6)
        assert driver.restarts == 0
    assert 'env 0 has not answered within 1e+03 s and cannot be interrupted' in events[0]
    assert '--driver.parallel true' in events[0] and 'in stubborn' in events[0]


def test_of_many_threads_that_hang_one_is_shown_and_all_are_kept(tmp_path, let_time_pass):
    let_time_pass(tmp_path / 'crowded')
    stop = functools.partial(crowded, tmp_path / 'crowded')
    make = functools.partial(Slow, stop, tmp_path / 'hung')
    _, events, _ = collect([make], 4, parallel=True, folder=tmp_path / 'stacks', **PATIENT)
    assert events[0].count('most recent call first') == 1 and 'in crowded' in events[0]
    (path,) = (tmp_path / 'stacks').iterdir()
    assert f'further threads are in {path}' in events[0]
    assert path.read_text().count('most recent call first') >= 21


def test_of_many_envs_that_hang_at_one_place_one_stack_is_shown(tmp_path, let_time_pass):
    hung = [tmp_path / f'hung{index}' for index in range(3)]
    let_time_pass(*hung)
    makers = [functools.partial(Slow, sleep, path) for path in hung]
    _, events, restarts = collect(makers, 4, parallel=True, **PATIENT)
    assert restarts == len(events) == 3 and sum('in sleep' in event for event in events) == 1
    assert sum('(hangs where env 0 did)' in event for event in events) == 2
