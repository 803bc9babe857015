"""What envs start ends with the run, however the run ends and wherever the processes went."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from embodied.drive import Driver, DriverConfig, reaper
from embodied.envs.dummy import Dummy, DummyConfig

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import test modules

KINDS = {'child': [], 'session': ['setsid'], 'orphan': ['sh', '-c', 'setsid "$@" & exit', '-']}
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import test_reaper
test_reaper.run(sys.argv[2], sys.argv[3] == 'True')
"""


class Simulated(Dummy):
    """Starts a process of each kind when it is made, and one more at each reset."""

    def __init__(self, folder):
        super().__init__('discrete', DummyConfig(5, True, 8), 0)
        self._folder = folder
        for kind in KINDS:
            simulator(folder, kind)

    def step(self, action):
        if action['reset']:
            simulator(self._folder, 'session')
        return super().step(action)


def simulator(folder, kind):
    """A process that writes its id into the folder and would run for a thousand seconds."""
    note = Path(folder) / f'{kind}-{time.monotonic_ns()}'
    program = f'echo $$ > {note}.tmp && mv {note}.tmp {note} && exec sleep 1000'
    subprocess.Popen([*KINDS[kind], 'sh', '-c', program])
    while not note.exists():
        time.sleep(0.005)


def started(folder):
    return [
        int(path.read_text()) for path in Path(folder).iterdir() if not path.name.endswith('.tmp')
    ]


def running(pids):
    def alive(pid):
        try:
            return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
        except OSError:
            return False

    return [pid for pid in pids if alive(pid)]


def config(parallel):
    return DriverConfig(
        **{
            'parallel': parallel,
            'overlap': True,
            'timeout': 600,
            'start_timeout': 600,
            'envs_per_worker': 1,
            'max_restarts': 9,
            'restart_window': 3600,
        }
    )


def policy(carry, obs):
    return carry, {'discrete': np.ones(len(obs['is_first']), np.int32)}


def run(folder, parallel):
    """A run that goes on until somebody ends it."""
    driver = Driver([functools.partial(Simulated, folder)] * 2, config(parallel), print)
    driver.reset(lambda num_envs: None)
    driver(policy, steps=20)
    print('ready', flush=True)
    while True:
        driver(policy, steps=1)
        time.sleep(0.1)


@pytest.mark.parametrize('end', [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize('parallel', [True, False])
def test_a_killed_run_leaves_no_process_of_its_envs(tmp_path, parallel, end, wait_until):
    process = subprocess.Popen(
        [sys.executable, '-c', RUN, str(Path(__file__).parent), str(tmp_path), str(parallel)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'ready\n'
    before = started(tmp_path)
    assert len(running(before)) == len(before) >= 2 * (len(KINDS) + 2)
    process.send_signal(end)
    process.communicate()
    wait_until(lambda: not running(started(tmp_path)))


@pytest.mark.parametrize('parallel', [True, False])
def test_a_closed_driver_leaves_none_and_ends_none_of_another(tmp_path, parallel, wait_until):
    drivers = []
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
        drivers.append(
            Driver([functools.partial(Simulated, str(tmp_path / name))], config(parallel), print)
        )
    mine = subprocess.Popen(['sleep', '1000'])
    drivers[0].close()
    wait_until(lambda: not running(started(tmp_path / 'one')))
    others = started(tmp_path / 'two')
    assert running(others) == others and running([mine.pid]) and reaper.VARIABLE not in os.environ
    drivers[1].close()
    mine.kill()
    mine.wait()
    wait_until(lambda: not running(others))


def test_a_replaced_worker_leaves_none(tmp_path, wait_until):
    driver = Driver([functools.partial(Simulated, str(tmp_path))], config(True), print)
    driver.reset(lambda num_envs: None)
    before = started(tmp_path)
    os.kill(driver.pids[0], signal.SIGKILL)
    driver(policy, steps=2)
    assert driver.restarts == 1
    wait_until(lambda: not running(before))
    assert len(running(started(tmp_path))) >= len(KINDS)
    driver.close()


def test_marks_of_nested_runs_stand_beside_each_other():
    outer, inner = reaper.mark(), reaper.mark()
    assert outer != inner
    with reaper.marking(outer):
        child = subprocess.Popen(
            ['sleep', '1000'], env={**os.environ, **reaper.marked(inner, os.environ)}
        )
    assert reaper.end(outer[:-1] + '0;') == 0
    assert reaper.end(outer) == 1 and child.wait(600) == -signal.SIGKILL
    assert reaper.end(inner) == 0
