"""Faults on purpose: every way an env can fail is survived, counted and named, and a run that
cannot go on says all it knows.
"""

import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from gymnasium import spaces

from embodied import envs, errors
from embodied.base import FLAG, OUTCOME, Env, outcome
from embodied.drive import Driver, DriverConfig
from embodied.envs.dummy import Dummy, DummyConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules


def config(**changes):
    values = {
        'parallel': True,
        'overlap': True,
        'timeout': 600,
        'start_timeout': 600,
        'envs_per_worker': 1,
        'max_restarts': 9,
        'restart_window': 3600,
    }
    return DriverConfig(**{**values, **changes})


class Unpicklable(Exception):
    """Cannot travel, and cannot even be printed."""

    def __init__(self):
        super().__init__(lambda: 0)

    def __str__(self):
        raise RuntimeError('no text')


def fail(kind):
    match kind:
        case 'raise':
            raise ValueError('the physics exploded')
        case 'unpicklable':
            raise Unpicklable
        case 'leave':
            sys.exit(3)
        case 'exit':
            os._exit(7)
        case 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        case 'segfault':
            os.kill(os.getpid(), signal.SIGSEGV)
        case 'flood':
            raise ValueError('\n'.join(f'line {number}' for number in range(9999)))
        case 'hang':
            time.sleep(1000)


class Faulty(Dummy):
    """Counts, and fails in step `at` as often as `budget`, a file that outlives the process, has
    bytes.
    """

    task = 'faulty_task'

    def __init__(self, kind, at, budget):
        super().__init__('discrete', DummyConfig(10, True, 8), 0)
        self._kind, self._at, self._budget = kind, at, budget

    def step(self, action):
        obs = super().step(action)
        left = os.path.getsize(self._budget) if self._kind else 0
        if left and obs['count'] == self._at:
            os.truncate(self._budget, left - 1)
            open(f'{self._budget}.reached', 'w').close()
            fail(self._kind)
        return obs


def faulty(folder, kind=None, at=3, times=1):
    path = folder / f'budget-{kind}-{at}'
    path.write_bytes(bytes(times))
    return functools.partial(Faulty, kind, at, str(path))


def policy(carry, obs):
    return carry, {'discrete': np.ones(len(obs['is_first']), np.int32)}


def start(make, cfg):
    events, rows = [], [[] for _ in make]
    driver = Driver(make, cfg, events.append)
    driver.on_row(lambda row, index: rows[index].append(row))
    driver.reset(lambda num_envs: None)
    return driver, rows, events


def counts(stream):
    return [int(row['count']) for row in stream]


KINDS = {
    'raise': 'ValueError: the physics exploded',
    'unpicklable': 'Unpicklable',
    'leave': 'SystemExit: 3',
    'exit': 'exited with code 7',
    'kill': 'was killed by SIGKILL',
    'segfault': 'was killed by SIGSEGV',
    'hang': 'did not answer in time',
}


def test_every_kind_of_fault_is_survived_and_named_with_env_task_step_and_traceback(
    tmp_path, let_time_pass
):
    let_time_pass(tmp_path / f'budget-hang-{len(KINDS)}.reached', env=len(KINDS))
    make = [faulty(tmp_path, kind, at=index) for index, kind in enumerate(KINDS, 1)]
    driver, rows, events = start([faulty(tmp_path), *make], config(timeout=1000))
    pids = driver.pids
    driver(policy, steps=15 * driver.num_envs)
    assert driver.restarts == len(events) == len(KINDS)
    assert sum(one != other for one, other in zip(pids, driver.pids, strict=True)) == len(KINDS)
    driver.close()
    for index, (kind, words) in enumerate(KINDS.items(), 1):
        (event,) = [event for event in events if f'env {index} (faulty_task)' in event]
        assert f'in step {index} of its episode: ' in event and words in event, event
        assert kind in ('exit', 'kill') or re.search(r'in fail\b', event), (
            f'no traceback in {event}'
        )
        # The cut episode stops after its last real row, and the next row begins a new one.
        expected = [*range(index), *range(11), *range(11)][:15]
        assert counts(rows[index]) == expected
        assert rows[index][index]['is_first'] and not rows[index][index - 1]['is_last']
    assert counts(rows[0]) == [*range(11), 0, 1, 2, 3]


@pytest.mark.parametrize('parallel', [True, False])
def test_one_fault_too_many_ends_the_run_with_the_traceback_of_each_place(tmp_path, parallel):
    make = [
        faulty(tmp_path, 'raise', at=2, times=2),
        faulty(tmp_path, 'unpicklable', at=4, times=1),
    ]
    driver, _, events = start(make, config(parallel=parallel, max_restarts=2))
    with pytest.raises(errors.EnvCrashed) as info:
        driver(policy, steps=100)
    text = str(info.value)
    assert '3 env faults within 3600 s, driver.max_restarts allows 2' in text
    assert (
        text.count('ValueError: the physics exploded') >= 2
        and text.count('Traceback') == 2
        and len(events) == 2
    )
    tree = driver.save()
    assert tree['envs'] == [None, None] and tree['reset'].all(), (
        'after a failed step a checkpoint must still be possible'
    )
    driver.close()


@pytest.mark.parametrize('parallel', [True, False])
def test_a_bug_of_an_env_is_shown_once_and_from_where_its_own_code_begins(tmp_path, parallel):
    make = [faulty(tmp_path, 'flood', at=2, times=3)]
    driver, _, events = start(make, config(parallel=parallel))
    driver(policy, steps=20)
    driver.close()
    first, *others = events
    assert 'ValueError: line 0\nTraceback' in first and 'characters ...]' in first
    assert 'test_worker.py' in first and 'drive/group.py' not in first and len(first) < 10_000
    assert len(others) == 2 and all(text.endswith('(raised where env 0 did)') for text in others)
    assert not any('\n' in text for text in others)


def test_faults_outside_the_window_are_forgiven(tmp_path):
    driver, _, _ = start(
        [faulty(tmp_path, 'raise', times=5)],
        config(parallel=False, max_restarts=1, restart_window=1e-9),
    )
    driver(policy, steps=30)
    assert driver.restarts == 5


def test_envs_of_one_worker_are_replaced_together_and_others_go_on(tmp_path):
    make = [faulty(tmp_path), faulty(tmp_path, 'kill'), faulty(tmp_path), faulty(tmp_path)]
    driver, rows, (*_,) = start(make, config(envs_per_worker=2))
    driver(policy, steps=6 * 4)
    driver.close()
    assert [counts(stream) for stream in rows] == [[0, 1, 2, 0, 1, 2]] * 2 + [
        [0, 1, 2, 3, 4, 5]
    ] * 2


def test_in_this_process_only_the_env_that_raised_is_rebuilt(tmp_path):
    driver, rows, events = start(
        [faulty(tmp_path), faulty(tmp_path, 'raise')], config(parallel=False, envs_per_worker=2)
    )
    driver(policy, steps=6 * 2)
    assert [counts(stream) for stream in rows] == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]]
    assert driver.restarts == 1 and 'env 1 (faulty_task) in step 3 of its episode' in events[0]


def test_a_replacement_that_fails_at_once_is_replaced_again(tmp_path):
    driver, rows, _ = start([faulty(tmp_path, 'exit', at=0, times=0), faulty(tmp_path)], config())
    (tmp_path / 'budget-exit-0').write_bytes(bytes(2))
    os.kill(driver.pids[0], signal.SIGKILL)
    driver(policy, steps=3 * 2)
    driver(policy, steps=2)
    assert driver.restarts == 3
    assert counts(rows[1]) == [0, 1, 2, 3]
    driver.close()


class Liar(Env):
    """Announces one thing and returns another."""

    obs_space = {'position': spaces.Box(-1, 1, (3,), np.float32), **OUTCOME}
    act_space = {'reset': FLAG, 'discrete': spaces.Discrete(2, dtype=np.int32)}

    def __init__(self, first=True, **values):
        self._first, self._values = first, values

    def step(self, action):
        return {
            'position': np.zeros(3, np.float32),
            **outcome(is_first=self._first),
            **self._values,
        }


@pytest.mark.parametrize('parallel', [True, False])
@pytest.mark.parametrize(
    'values, message',
    [
        (
            {'position': np.zeros(3)},
            r"env 1: obs\['position'\] must be float32\[3\] as in obs_space, got float64\[3\]",
        ),
        (
            {'position': np.zeros((2, 3), np.float32)},
            r"env 1: obs\['position'\] must be float32\[3\] .* got float32\[2, 3\]",
        ),
        (
            {'speed': 1.0},
            r"env 1: obs keys differ from obs_space: missing \[\], not declared \['speed'\]",
        ),
        ({'first': False}, r"env 1: obs\['is_first'\] must be True after action\['reset'\]"),
    ],
)
def test_what_differs_from_the_spaces_is_named_and_not_retried(values, message, parallel):
    with pytest.raises(errors.EnvContractError, match=message):
        Driver([Liar, functools.partial(Liar, **values)], config(parallel=parallel))


def test_envs_of_one_driver_must_have_the_same_spaces():
    make = [
        functools.partial(Dummy, name, DummyConfig(5, True, 8), 0) for name in ('discrete', 'box')
    ]
    for cfg in (config(parallel=False), config(), config(envs_per_worker=2)):
        with pytest.raises(errors.EnvContractError, match='same obs_space|same act_space'):
            Driver(make, cfg)


def make_with_graphics(task):
    sys.modules.setdefault('OpenGL', None)
    return envs.make(task, {'dummy': {'length': 5, 'terminal': True, 'size': 8}}, 0)


@pytest.mark.parametrize('parallel', [True, False])
def test_a_mistake_of_the_user_is_told_as_such_at_the_start(parallel, monkeypatch):
    monkeypatch.setitem(sys.modules, 'OpenGL', None)
    make = functools.partial(make_with_graphics, 'dummy_sideways')
    events = []
    with pytest.raises(
        errors.ConfigError, match=r'env 0 \(dummy_sideways\) while starting: .*sideways'
    ):
        Driver([make], config(parallel=parallel), events.append)
    assert not events, 'no other way to start can help here'


class Crowded(Faulty):
    """Starts in company of another env in its process only, or with software rendering only."""

    renderer = 'llvmpipe (LLVM 15)'

    def __init__(self, folder, index, remedy):
        super().__init__(None, 0, '')
        here = Path(folder) / str(os.getpid())
        if remedy == 'company' and index == 1 and not here.exists():
            (Path(folder) / 'lonely').touch()
            time.sleep(1000)
        if remedy == 'osmesa' and os.environ['MUJOCO_GL'] != 'osmesa':
            os._exit(1)
        here.touch()


def test_a_start_that_hangs_falls_back_to_one_worker_for_all_envs(
    tmp_path, monkeypatch, let_time_pass
):
    let_time_pass(tmp_path / 'lonely', env=1)
    monkeypatch.delenv('MUJOCO_GL', raising=False)
    make = [functools.partial(Crowded, str(tmp_path), index, 'company') for index in range(2)]
    driver, _, events = start(make, config(start_timeout=1000))
    driver.close()
    assert driver.groups == [[0, 1]]
    assert (
        '1 of 2 env workers did not start as configured' in events[0]
        and 'did not answer in time' in events[0]
    )
    assert 'in __init__' in events[0], 'the stack of the hung worker is missing'
    assert 'all envs in one worker' in events[1] and 'renderer: llvmpipe' in events[1]
    assert 'warning: envs render in software (llvmpipe' in events[2]


def test_a_start_that_crashes_falls_back_to_software_rendering_at_last(tmp_path, monkeypatch):
    monkeypatch.delenv('MUJOCO_GL', raising=False)
    make = [functools.partial(Crowded, str(tmp_path), index, 'osmesa') for index in range(2)]
    driver, _, events = start(make, config())
    assert driver.groups == [[0], [1]] and len(events) == 4 and 'rendering in software' in events[2]
    driver(policy, steps=4)
    driver.close()


def test_a_start_that_fails_in_every_way_tells_them_all():
    with pytest.raises(errors.EnvCrashed) as info:
        Driver([functools.partial(os._exit, 5)] * 2, config(), lambda text: None)
    text = str(info.value)
    assert text.count('exited with code 5') == 3
    assert all(
        way in text for way in ('as configured', 'all envs in one worker', 'MUJOCO_GL=osmesa')
    )


def without_library():
    sys.modules['OpenGL'] = None  # as an env that tried to import it leaves it
    raise RuntimeError('no libEGL')


def test_a_missing_graphics_library_is_not_mended_by_grouping(monkeypatch):
    monkeypatch.delenv('MUJOCO_GL', raising=False)
    with pytest.raises(errors.EnvCrashed, match='no libEGL') as info:
        Driver([without_library] * 2, config(), lambda text: None)
    assert 'as configured' in str(info.value) and 'MUJOCO_GL=osmesa' in str(info.value)
    assert 'all envs in one worker' not in str(info.value)


class Confession(Liar):
    """Says in its observation what process it lives in, and leaves a file when it is closed."""

    obs_space = {
        f'log/{name}': spaces.Box(0, 2**31, (), np.float32) for name in ('pid', 'torch', 'threads')
    } | OUTCOME

    def __init__(self, path):
        self._path = path

    def step(self, action):
        values = os.getpid(), 'torch' in sys.modules, os.environ['OMP_NUM_THREADS']
        return {
            key: np.float32(value) for key, value in zip(self.obs_space, values, strict=False)
        } | outcome(is_first=action['reset'])

    def close(self):
        Path(self._path).touch()


def test_workers_are_other_processes_without_torch_and_with_one_thread_and_close_their_envs(
    tmp_path,
):
    driver, rows, _ = start([functools.partial(Confession, str(tmp_path / 'closed'))], config())
    driver(policy, steps=1)
    assert [rows[0][0][key] for key in Confession.obs_space if key.startswith('log/')] == [
        driver.pids[0],
        0,
        1,
    ]
    assert driver.pids[0] != os.getpid()
    driver.close()
    assert (tmp_path / 'closed').exists()


def test_workers_leave_ctrl_c_and_sigterm_to_the_parent(tmp_path):
    driver, rows, events = start([faulty(tmp_path)], config())
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(driver.pids[0], number)
    driver(policy, steps=5)
    driver.close()
    assert counts(rows[0]) == [0, 1, 2, 3, 4] and not events


def test_closing_does_not_wait_for_an_env_that_hangs(tmp_path, let_time_pass):
    let_time_pass(tmp_path / 'budget-hang-1.reached')
    driver, _, _ = start([faulty(tmp_path, 'hang', at=1)], config(timeout=1000, max_restarts=0))
    (pid,) = driver.pids
    with pytest.raises(errors.EnvTimeout):
        driver(policy, steps=5)
    driver.close()  # the env would sleep for 1000 s
    assert not is_running(pid)


class Parent(Faulty):
    """Has a process of its own, as a game with a server has."""

    def __init__(self, path):
        super().__init__(None, 0, '')
        Path(path).write_text(str(subprocess.Popen(['sleep', '1000']).pid))


@pytest.mark.parametrize('end', ['close', 'kill'])
def test_processes_that_an_env_started_end_with_its_worker(tmp_path, end, wait_until):
    driver, _, _ = start([functools.partial(Parent, str(tmp_path / 'pid'))], config())
    child = int((tmp_path / 'pid').read_text())
    os.kill(child, 0)
    if end == 'kill':
        os.kill(driver.pids[0], signal.SIGKILL)
        driver(policy, steps=2)
        assert driver.restarts == 1
    driver.close()
    wait_until(lambda: not is_running(child))


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f'/proc/{pid}/stat')  # a zombie that nobody has waited for is not running
    return not status.exists() or status.read_text().rpartition(')')[2].split()[0] != 'Z'


def test_a_process_that_cannot_be_started_is_a_fault_like_others(monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/nowhere/python')
    with pytest.raises(errors.EnvCrashed, match='cannot start a worker process: .*/nowhere/python'):
        Driver([Liar], config(), lambda text: None)


class Amnesiac(Faulty):
    """Cannot save what it promises to."""

    def save(self):
        raise RuntimeError('lost my notes')


@pytest.mark.parametrize('parallel', [True, False])
def test_an_env_that_fails_to_save_begins_a_new_episode_and_the_others_continue(tmp_path, parallel):
    make = [faulty(tmp_path), functools.partial(Amnesiac, None, 0, '')]
    driver, _, events = start(make, config(parallel=parallel, envs_per_worker=2))
    driver(policy, steps=3 * 2)
    tree = driver.save()
    assert (
        tree['envs'][1] is None
        and 'env 1 (faulty_task) could not save' in events[0]
        and 'lost my notes' in events[0]
    )
    driver.close()
    driver, rows, _ = start(make, config(parallel=parallel, envs_per_worker=2))
    driver.load(tree)
    driver(policy, steps=2 * 2)
    driver.close()
    assert [counts(stream) for stream in rows] == [[3, 4], [0, 1]]
