"""The driver on envs that count: rows and their order, serial against parallel, overlap, saving,
and ends without a trace.
"""

import contextlib
import functools
import itertools
import json
import os
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
from embodied.base import FLAG, OUTCOME, Env, RandomAgent, outcome
from embodied.drive import Driver, DriverConfig
from embodied.seeds import derive

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules

ENV = {'dummy': {'length': 5, 'terminal': True, 'size': 8}, 'pixel': {'size': 16}}


def config(**changes):
    values = {
        'parallel': False,
        'overlap': True,
        'timeout': 600,
        'start_timeout': 600,
        'envs_per_worker': 2,
        'max_restarts': 0,
        'restart_window': 3600,
    }
    return DriverConfig(**{**values, **changes})


def make_envs(task, num_envs):
    return [
        functools.partial(envs.make, task, ENV, derive(0, 'env', index))
        for index in range(num_envs)
    ]


class CountingAgent:
    """Random actions from (seed, number of acts and updates so far), so that rows tell a changed
    order of acts and updates.
    """

    def __init__(self, act_space):
        self.act_space = act_space
        self.updates = 0

    def init_policy(self, num_envs):
        return np.zeros(num_envs, np.int64)

    def policy(self, carry, obs):
        assert obs['is_first'].shape == carry.shape and not any(
            key.startswith('log/') for key in obs
        )
        seed = derive(0, 'act', int(carry[0]) * 1000 + self.updates)
        return carry + 1, RandomAgent(self.act_space, seed).policy({}, obs)[1]

    def update(self):
        self.updates += 1


def record(driver):
    rows = [[] for _ in range(driver.num_envs)]
    driver.on_row(lambda row, index: rows[index].append(row))
    return rows


def run(make, cfg, steps, tree=None):
    """Rows per env of `steps` driver steps, and what the driver saves after them."""
    driver = Driver(make, cfg)
    agent, rows = CountingAgent(driver.act_space), record(driver)
    driver.reset(agent.init_policy)
    if tree:
        agent.updates = tree['carry']['updates']
        driver.load(tree, lambda tree: tree['carry'])
    for _ in range(steps):
        driver(agent.policy, steps=1, during=agent.update)
    tree = driver.save(lambda carry: {'carry': carry, 'updates': agent.updates})
    driver.close()
    return rows, tree


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert len(one) == len(other), f'env {index} has {len(one)} rows and {len(other)} rows'
        for step, (left, right) in enumerate(zip(one, other, strict=True)):
            assert left.keys() == right.keys()
            for key in left:
                np.testing.assert_array_equal(
                    left[key], right[key], err_msg=f'env {index}, row {step}, {key}'
                )
                assert np.asarray(left[key]).dtype == np.asarray(right[key]).dtype, key


def test_episodes_of_five_decisions_have_six_rows_with_flags_at_their_ends():
    rows, _ = run(make_envs('dummy', 2), config(), 18)
    for stream in rows:
        assert [int(row['count']) for row in stream] == [0, 1, 2, 3, 4, 5] * 3
        assert [bool(row['is_first']) for row in stream] == [
            True,
            False,
            False,
            False,
            False,
            False,
        ] * 3
        assert [bool(row['is_last']) for row in stream] == [
            False,
            False,
            False,
            False,
            False,
            True,
        ] * 3
        for row in stream:
            actions = [row[key] for key in ('box', 'discrete', 'multidiscrete', 'multibinary')]
            assert not row['is_last'] or not any(np.any(action) for action in actions)


def test_the_action_of_a_row_is_the_one_that_leads_to_the_next_row():
    rows, _ = run(make_envs('dummy_discrete', 2), config(), 12)
    for stream in rows:
        assert len({int(row['discrete']) for row in stream}) > 1
        for row, successor in zip(stream, stream[1:], strict=False):
            assert successor['is_first'] or successor['echo'] == [row['discrete']]


def test_rows_hold_log_keys_and_no_reset():
    rows, _ = run(make_envs('dummy', 1), config(), 1)
    assert 'log/count' in rows[0][0] and 'reset' not in rows[0][0]


def test_listeners_are_called_in_env_order_and_in_their_own():
    driver, calls = Driver(make_envs('dummy', 3), config()), []
    driver.on_row(lambda row, index: calls.append(('a', index)))
    driver.on_row(lambda row, index: calls.append(('b', index)))
    agent = CountingAgent(driver.act_space)
    driver.reset(agent.init_policy)
    driver(agent.policy, steps=1)
    assert calls == [(name, index) for index in range(3) for name in 'ab']


def test_steps_count_rows_of_all_envs_and_episodes_count_last_rows():
    driver = Driver(make_envs('dummy', 2), config())
    agent, rows = CountingAgent(driver.act_space), record(driver)
    driver.reset(agent.init_policy)
    driver(agent.policy, steps=5)
    assert [len(stream) for stream in rows] == [3, 3]
    driver(agent.policy, episodes=2)
    assert [len(stream) for stream in rows] == [6, 6]


def test_reset_begins_new_episodes_everywhere():
    driver = Driver(make_envs('dummy', 2), config())
    agent, rows = CountingAgent(driver.act_space), record(driver)
    for _ in range(2):
        driver.reset(agent.init_policy)
        driver(agent.policy, steps=6)
    assert [int(row['count']) for row in rows[1]] == [0, 1, 2, 0, 1, 2]
    assert [int(row['episode']) for row in rows[1]] == [0, 0, 0, 1, 1, 1]


class Restless(Env):
    """Starts anew in the middle of episodes, unasked."""

    obs_space = OUTCOME
    act_space = {'reset': FLAG, 'go': spaces.Discrete(2)}
    count = -1

    def step(self, action):
        self.count = 0 if action['reset'] else (self.count + 1) % 3
        return outcome(is_first=self.count == 0)


def test_an_env_may_start_anew_unasked():
    rows, _ = run([Restless], config(), 7)
    assert [bool(row['is_first']) for row in rows[0]] == [
        True,
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert not any(row['is_last'] for row in rows[0])


@pytest.mark.parametrize('task', ['dummy', 'pixel_catch'])
def test_serial_and_parallel_runs_with_overlap_and_without_give_the_same_rows(task):
    rows, _ = run(make_envs(task, 3), config(overlap=False), 25)
    assert_same(rows, run(make_envs(task, 3), config(overlap=True), 25)[0])
    assert_same(rows, run(make_envs(task, 3), config(overlap=False, parallel=True), 25)[0])
    assert_same(
        rows, run(make_envs(task, 3), config(overlap=True, parallel=True, envs_per_worker=3), 25)[0]
    )


def through_json(tree):
    """What a checkpoint does to a tree."""
    return {**tree, 'envs': json.loads(json.dumps(tree['envs']))}


@pytest.mark.parametrize('parallel', [False, True])
def test_a_loaded_run_continues_with_the_same_rows_as_an_uninterrupted_one(parallel):
    make, cfg = make_envs('dummy', 3), config(parallel=parallel)
    whole, _ = run(make, cfg, 20)
    head, tree = run(make, cfg, 9)
    tail, _ = run(make, cfg, 11, through_json(tree))
    assert_same(whole, [one + other for one, other in zip(head, tail, strict=True)])


def test_a_run_saved_before_its_first_step_or_at_the_end_of_an_episode_continues_too():
    make = make_envs('dummy', 2)
    whole, _ = run(make, config(), 12)
    for steps in (0, 6):
        head, tree = run(make, config(), steps)
        tail, _ = run(make, config(), 12 - steps, through_json(tree))
        assert_same(whole, [one + other for one, other in zip(head, tail, strict=True)])


class Forgetful(Restless):
    """Cannot be saved."""

    def step(self, action):
        self.count = 0 if action['reset'] else self.count + 1
        return outcome(is_first=self.count == 0)


def test_envs_that_cannot_be_saved_begin_a_new_episode():
    _, tree = run([Forgetful] * 2, config(), 3)
    rows, _ = run([Forgetful] * 2, config(), 2, tree)
    assert [bool(row['is_first']) for row in rows[0]] == [True, False]


def test_saving_while_envs_step_lets_all_envs_begin_new_episodes():
    driver, trees = Driver(make_envs('dummy', 2), config()), []
    agent = CountingAgent(driver.act_space)
    driver.reset(agent.init_policy)
    driver(agent.policy, steps=4)
    driver(agent.policy, steps=1, during=lambda: trees.append(driver.save()))
    assert trees[0]['envs'] == [None, None] and trees[0]['reset'].all()


def test_another_number_of_envs_begins_new_episodes_and_says_so():
    events, (_, tree) = [], run(make_envs('dummy', 2), config(), 3)
    driver = Driver(make_envs('dummy', 3), config(), events.append)
    agent, rows = CountingAgent(driver.act_space), record(driver)
    driver.reset(agent.init_policy)
    driver.load(tree)
    driver(agent.policy, steps=1)
    assert 'had 2 envs and this one has 3' in events[0]
    assert [len(stream) for stream in rows] == [1, 1, 1]


def test_rows_may_be_kept():
    driver = Driver(make_envs('dummy', 2), config(parallel=True))
    agent, rows, copies = CountingAgent(driver.act_space), record(driver), []
    driver.on_row(
        lambda row, index: copies.append({key: np.copy(value) for key, value in row.items()})
    )
    driver.reset(agent.init_policy)
    driver(agent.policy, steps=20)
    driver.close()
    assert_same(rows, [copies[0::2], copies[1::2]])


def test_a_policy_that_raises_sees_the_same_observation_again():
    driver = Driver(make_envs('dummy', 2), config())
    agent, rows = CountingAgent(driver.act_space), record(driver)
    driver.reset(agent.init_policy)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            driver(lambda carry, obs: 1 / 0, steps=1)
        driver(agent.policy, steps=1)
    assert [int(row['count']) for row in rows[0]] == [0, 1, 2]


def test_a_listener_that_raises_leaves_no_gap_in_an_episode():
    driver = Driver(make_envs('dummy', 2), config())
    agent, rows = CountingAgent(driver.act_space), record(driver)
    faults = [ZeroDivisionError]

    def listener(row, index):
        if row['count'] == 2 and faults:
            raise faults.pop()

    driver.on_row(listener)
    driver.reset(agent.init_policy)
    with pytest.raises(ZeroDivisionError):
        driver(agent.policy, steps=20)
    driver(agent.policy, steps=4)
    assert [int(row['count']) for row in rows[0]] == [0, 1, 2, 0, 1]
    assert [int(row['count']) for row in rows[1]] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    'action, message',
    [
        ({'other': np.zeros(2, int)}, r"must return the actions \['discrete'\], got \['other'\]"),
        ({'discrete': np.zeros(3, int)}, r"'discrete' as int32\[2\], got int64\[3\]"),
        ({'discrete': np.zeros(2)}, r"'discrete' as int32\[2\], got float64\[2\]"),
    ],
)
def test_an_action_that_does_not_fit_is_named(action, message):
    driver = Driver(make_envs('dummy_discrete', 2), config())
    driver.reset(lambda num_envs: None)
    with pytest.raises(ValueError, match=message):
        driver(lambda carry, obs: (carry, action), steps=1)


def test_a_driver_without_a_carry_says_what_to_call():
    with pytest.raises(ValueError, match=r'reset\(init_policy\)'):
        Driver(make_envs('dummy', 1), config())(lambda carry, obs: None, steps=1)


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'parallel': 'yes'}, 'driver.parallel'),
        ({'timeout': 0}, 'driver.timeout'),
        ({'max_restarts': -1}, 'driver.max_restarts'),
    ],
)
def test_impossible_settings_are_refused_by_name(changes, message):
    with pytest.raises(errors.ConfigError, match=message):
        config(**changes)


def test_one_env_runs_in_this_process_and_several_do_not():
    assert Driver(make_envs('dummy', 1), config(parallel='auto')).pids == [os.getpid()]
    driver = Driver(make_envs('dummy', 4), config(parallel='auto'))
    assert os.getpid() not in driver.pids and driver.groups == [[0, 1], [2, 3]]
    driver.close()
    driver.close()
    assert driver.pids == [None, None]


class Noted(Forgetful):
    """Adds a byte to a file in every step."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def step(self, action):
        with open(self.path, 'ab') as file:
            file.write(b'.')
        return super().step(action)


def test_envs_step_while_the_learner_computes(tmp_path, wait_until):
    path, agent = tmp_path / 'steps', CountingAgent(Noted.act_space)
    driver = Driver([functools.partial(Noted, path)], config(parallel=True))
    driver.reset(agent.init_policy)
    driver(agent.policy, steps=1)
    made = itertools.count(path.stat().st_size + 1)

    def learn():
        due = next(made)
        wait_until(lambda: path.stat().st_size == due)

    driver(agent.policy, steps=10, during=learn)
    driver.close()
    assert next(made) == path.stat().st_size + 1, 'each step was made while the learner waited'


@pytest.mark.skipif(sys.platform != 'linux', reason='counts wake-ups in /proc')
def test_a_worker_that_waits_blocks_and_does_not_poll(wait_until):
    """So that a step after a pause is not late; benchmarks.runtime measures by how much."""
    driver = Driver(make_envs('dummy', 2), config(parallel=True))
    agent = CountingAgent(driver.act_space)
    driver.reset(agent.init_policy)
    driver(agent.policy, steps=2)

    def wake_ups(pid):
        texts = [path.read_text() for path in Path(f'/proc/{pid}/task').glob('*/status')]
        return sum(int(text.partition('voluntary_ctxt_switches:')[2].split()[0]) for text in texts)

    def asleep():
        before = [wake_ups(pid) for pid in driver.pids]
        time.sleep(0.3)
        return before == [wake_ups(pid) for pid in driver.pids]

    wait_until(asleep)
    driver.close()


ORPHANS = """
import os, sys, time
from embodied.drive import Driver, DriverConfig
from tests_env import Stuck
driver = Driver([Stuck] * 2, DriverConfig(True, True, 600, 600, 1, 0, 60))
driver.reset(lambda num_envs: None)
driver(lambda carry, obs: (carry, {'go': obs['is_first'].astype(int)}), steps=1)
print(*driver.pids, flush=True)
driver(lambda carry, obs: (carry, {'go': obs['is_first'].astype(int)}), steps=100)
"""

STUCK = """
import ctypes, os
from pathlib import Path
from embodied.base import FLAG, OUTCOME, Env, outcome
from gymnasium import spaces

class Stuck(Env):
    obs_space, act_space = OUTCOME, {'reset': FLAG, 'go': spaces.Discrete(2)}

    def step(self, action):
        if not action['reset']:
            Path(__file__).with_name(f'stuck-{os.getpid()}').touch()
            ctypes.PyDLL(None).sleep(100)  # holds the interpreter lock, as a render call may
        return outcome(is_first=True)
"""


def test_kill_9_of_the_run_leaves_no_process_and_no_shared_memory(tmp_path, wait_until):
    (tmp_path / 'tests_env.py').write_text(STUCK)
    root = Path(envs.__file__).parents[2]
    segments = set(os.listdir('/dev/shm')) if os.path.isdir('/dev/shm') else set()
    process = subprocess.Popen(
        [sys.executable, '-c', ORPHANS],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{tmp_path}'},
    )
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(is_running(pid) for pid in pids)
    wait_until(lambda: len(list(tmp_path.glob('stuck-*'))) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    if segments:
        assert set(os.listdir('/dev/shm')) <= segments


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f'/proc/{pid}/stat')  # a zombie that nobody has waited for is not running
    return not status.exists() or status.read_text().rpartition(')')[2].split()[0] != 'Z'


class FailsOnce:
    """Constructor of the counting env whose first life ends in its third step; its replacements
    are sound.
    """

    def __init__(self, maker, fails=True):
        self.maker, self.fails = maker, fails

    def __call__(self):
        env, calls, step = self.maker(), [], None
        if not self.fails:
            return env
        step = env.step

        def failing(action):
            calls.append(action)
            if len(calls) == 3:
                raise OSError('the simulator is gone')
            return step(action)

        env.step = failing
        return env

    def renewed(self, count):
        return FailsOnce(self.maker.renewed(count), fails=False)


@pytest.mark.parametrize('parallel', [False, True])
def test_a_replaced_env_does_not_repeat_the_random_numbers_of_its_first_life(parallel):
    """Two runs agree, so the new stream is decided by the seed and the number of the
    replacement.
    """
    runs = []
    for _ in range(2):
        makers = [FailsOnce(envs.Maker('dummy_discrete', ENV, 7))] * 2
        driver = Driver(
            makers, config(parallel=parallel, envs_per_worker=1, max_restarts=9), lambda text: None
        )
        with contextlib.closing(driver):
            rows = record(driver)
            driver.reset(lambda num_envs: None)
            driver(lambda carry, obs: (carry, {'discrete': np.zeros(2, np.int32)}), steps=16)
        assert driver.restarts == 2
        first = [row['vector'] for row in rows[0] if row['is_first']]
        assert not np.array_equal(first[0], first[1]), (
            'the replacement began with the frame that the first life began with'
        )
        runs.append(np.stack([row['vector'] for row in rows[0]]))
    assert np.array_equal(*runs)
