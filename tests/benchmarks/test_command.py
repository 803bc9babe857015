"""How benchmark programs end: a signal ends them and what they have started."""

import signal
import sys

import pytest

from benchmarks import learning
from benchmarks.command import start, trained

CHILD = """
import os, signal, sys, time
def end(*_):
    open(sys.argv[1], 'w').close()
    sys.exit()
signal.signal(signal.SIGTERM, end)
os.kill(os.getppid(), signal.SIGTERM)
while True:
    time.sleep(0.1)
"""


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_program_that_is_asked_to_end_ends_its_training_first(tmp_path):
    command = [sys.executable, '-c', CHILD, str(tmp_path / 'ended')]
    with pytest.raises(SystemExit) as end:
        start(lambda: learning.train(command, 600, tmp_path / 'run'))
    assert end.value.code == 128 + signal.SIGTERM and (tmp_path / 'ended').exists()


@pytest.mark.parametrize('name', ['', 'SIGTERM', 'SIGINT'])
def test_a_training_that_was_cut_short_is_no_result(name, tmp_path, capsys):
    class Run:
        logdir, interrupted = tmp_path, name

        def train(self):
            return self

    run = Run()
    if not name:
        assert trained(run) is run
        return
    with pytest.raises(SystemExit) as end:
        trained(run)
    assert end.value.code == 128 + signal.Signals[name] and 'goes on' in capsys.readouterr().err
