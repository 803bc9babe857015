"""What envs print: told up to a bound, all of it in a file of bounded size, wherever they live."""

import functools
import os
import sys
import threading

import numpy as np
import pytest
from gymnasium import spaces

from embodied.base import FLAG, OUTCOME, Env, outcome
from embodied.drive import Driver, DriverConfig, printed
from embodied.drive.printed import Lines, Printed


class Chatty(Env):
    """Prints at every step, by turns to both streams, and in a process of its own from C too."""

    obs_space = {**OUTCOME, 'x': spaces.Box(-1, 1, (1,), np.float32)}
    act_space = {'action': spaces.Discrete(2), 'reset': FLAG}

    def __init__(self, caller, dies_at):
        self._steps, self._dies_at = 0, dies_at
        if os.getpid() != caller:
            os.system('echo a simulator starts')

    def step(self, action):
        self._steps += 1
        print('step', self._steps, file=sys.stderr if self._steps % 2 else sys.stdout)
        if self._steps == self._dies_at:
            print('last words', end='')
            sys.stdout.flush()
            raise RuntimeError('it broke')
        return outcome(0.0, is_first=bool(action['reset'])) | {'x': np.zeros(1, np.float32)}


def stepped(tmp_path, parallel, steps, dies_at=0, restarts=0):
    """Events of a driver of one such env after some steps."""
    config = DriverConfig(parallel, False, 600.0, 600.0, 0, restarts, 3600.0)
    events, make = [], functools.partial(Chatty, os.getpid(), dies_at)
    driver = Driver([make], config, events.append, folder=tmp_path / 'stacks')
    driver.reset(lambda envs: None)
    driver(lambda carry, obs: (carry, {'action': np.zeros(1, np.int64)}), steps=steps)
    driver.close()
    return events


@pytest.mark.parametrize('parallel', [False, True])
def test_the_first_lines_are_told_and_all_are_in_a_file(tmp_path, parallel, capfd):
    events = stepped(tmp_path, parallel, 60)
    told = [event for event in events if event.startswith('env 0 prints: ')]
    assert len(told) == printed.TOLD and 'env 0 prints: step 7' in told
    assert ('env 0 prints: a simulator starts' in told) == parallel
    hints = [event for event in events if 'envs print more than 20 lines' in event]
    assert len(hints) == 1 and str(tmp_path / 'printed.log') in hints[0]
    kept = (tmp_path / 'printed.log').read_text().splitlines()
    assert kept[-1].endswith(' env 0: step 60') and len(kept) == 60 + parallel
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize('parallel', [False, True])
def test_the_last_words_of_an_env_stand_before_its_fault(tmp_path, parallel):
    events = stepped(tmp_path, parallel, 6, dies_at=5, restarts=9)
    words = events.index('env 0 prints: last words')
    assert 'replacing a worker' in events[words + 1] and 'it broke' in events[words + 1]


def test_what_others_write_and_what_is_debugged_passes(capsys):
    events = []
    envs = Printed(events.append, None)
    with envs.taken('env 3'):
        print('an env')
        thread = threading.Thread(target=print, args=('another thread',))
        thread.start()
        thread.join()
        trace = sys.gettrace()
        sys.settrace(lambda *_: None)
        print('(Pdb) ', end='')
        sys.settrace(trace)
    envs.close()
    assert events == ['env 3 prints: an env']
    assert capsys.readouterr().out == 'another thread\n(Pdb) '


def test_lines_are_whole_and_not_endless():
    lines = []
    stream = Lines(lines.append, sys.stdout)
    for text in ('a', 'b\nc\rd', '', '\n', 'x' * 2500):
        stream.write(text)
    stream.end()
    assert lines == ['ab', 'c', 'd', 'x' * 1000, 'x' * 1000, 'x' * 500]


def test_the_file_is_bounded_and_one_that_cannot_be_written_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(printed, 'FILE_BYTES', 2000)
    (tmp_path / 'none').write_text('')
    for folder in (tmp_path, tmp_path / 'none' / 'such'):
        envs = Printed(lambda event: None, folder)
        for number in range(1000):
            envs.add('env 0', f'line {number}')
        envs.close()
    files = sorted(tmp_path.glob('printed.log*'))
    assert len(files) == 2 and all(0 < file.stat().st_size <= 2000 for file in files)
    assert 'line 999' in files[0].read_text()
