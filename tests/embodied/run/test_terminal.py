"""A run outlives its terminal: whatever happens to the output, it goes on, or saves and ends."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from embodied.checkpoint import Checkpoint
from embodied.run import train

HERE = Path(__file__).parent
PROGRAM = """
import sys
from conftest import World
from embodied.run import train
steps = int(sys.argv[2])
settings = dict(run_save_every=0.1, driver_parallel=True, run_log_every=5)
World(sys.argv[1], run_steps=steps, **settings).run(train)
"""


def listening():
    """Take SIGHUP as a fresh process does: whoever started the tests may ignore it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def start(logdir, steps, *prefix, preexec_fn=listening, **more):
    environ = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(HERE), *filter(None, [os.environ.get('PYTHONPATH')])]),
    }
    return subprocess.Popen(
        [*prefix, sys.executable, '-c', PROGRAM, str(logdir), str(steps)],
        stdin=subprocess.DEVNULL,
        env=environ,
        preexec_fn=preexec_fn,
        **more,
    )


def saved(logdir):
    found = Checkpoint(logdir / 'ckpt', 2).load()
    return found[1]['step'] if found else 0


def wait_for_a_save(logdir, process):
    while not saved(logdir):
        assert process.poll() is None
        time.sleep(0.05)


def events(logdir):
    return (logdir / 'events.log').read_text()


def test_a_pipe_that_breaks_in_the_middle_ends_nothing(tmp_path, wait_until):
    process = start(tmp_path, 100_000, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_a_save(tmp_path, process)
    process.stdout.close()
    process.stderr.close()
    step = saved(tmp_path)
    wait_until(lambda: saved(tmp_path) > step + 30)
    assert process.poll() is None, 'it goes on without a reader'
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0 and 'SIGTERM asked for the end of the run' in events(tmp_path)


@pytest.mark.parametrize('output', ['full', 'closed', 'unread'])
def test_a_run_without_a_usable_output_comes_to_its_end(tmp_path, output):
    if output == 'full':
        with open('/dev/full', 'w') as full:
            process = start(tmp_path, 60, stdout=full, stderr=full)
    elif output == 'closed':
        process = start(tmp_path, 60, 'sh', '-c', 'exec "$@" >&- 2>&-', '-')
    else:
        read, write = os.pipe()
        fcntl.fcntl(write, fcntl.F_SETFL, os.O_NONBLOCK)
        os.write(write, bytes(1 << 20))
        fcntl.fcntl(write, fcntl.F_SETFL, 0)
        process = start(tmp_path, 60, stdout=write, stderr=write)
    assert process.wait() == 0
    assert saved(tmp_path) == 60 and 'dummy, seed 0' in events(tmp_path)


def test_a_terminal_that_is_closed_saves_and_ends_the_run(tmp_path):
    master, terminal = os.openpty()
    process = start(
        tmp_path,
        100_000,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: (listening(), fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)),
    )
    os.close(terminal)
    wait_for_a_save(tmp_path, process)
    os.close(master)  # the kernel sends SIGHUP
    assert process.wait() == 0
    asked = [line for line in events(tmp_path).splitlines() if 'SIGHUP asked for the end' in line]
    assert len(asked) == 1 and f'after {saved(tmp_path):,} steps' in asked[0], (
        'the last save is of the last step'
    )


def test_under_nohup_a_hangup_is_nothing(tmp_path, wait_until):
    process = start(
        tmp_path,
        100_000,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for_a_save(tmp_path, process)
    process.send_signal(signal.SIGHUP)
    step = saved(tmp_path)
    wait_until(lambda: saved(tmp_path) > step + 30)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


@pytest.fixture
def heard():
    """This process listens to SIGHUP, whoever started the tests."""
    before = signal.getsignal(signal.SIGHUP)
    listening()
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    'numbers',
    [
        (signal.SIGHUP,),
        (signal.SIGHUP, signal.SIGHUP),
        (signal.SIGTERM, signal.SIGHUP),
        (signal.SIGHUP, signal.SIGTERM),
        (signal.SIGINT, signal.SIGTERM),
    ],
)
def test_signals_of_a_session_that_ends_save_the_run(world, numbers, heard):
    run = world(
        train=lambda agent: (
            agent.updates == 5 and [signal.raise_signal(number) for number in numbers]
        )
    )
    step = run.run(train).saved()[1]
    assert step['updates'] == run.agent.updates and step['step'] < 120
    assert f'{numbers[0].name} asked for the end' in events(run.logdir)


def test_a_run_that_fails_says_so_in_its_log(world):
    def fail(agent):
        raise ArithmeticError('the loss is gone')

    run = world(train=fail)
    with pytest.raises(ArithmeticError):
        run.run(train)
    assert 'The run ended by ArithmeticError: the loss is gone' in events(run.logdir)
