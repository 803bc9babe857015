"""Signals and the settings of a run."""

import itertools
import signal
import subprocess
import sys
import threading

import pytest

from embodied import errors
from embodied.envs.dummy import Dummy
from embodied.run import RunConfig, train
from embodied.run.interrupt import Interrupt

TWICE = """
import signal, time
from embodied.run.interrupt import Interrupt
with Interrupt() as interrupt:
    signal.raise_signal(signal.SIGINT)
    print("asked", interrupt.asked, flush=True)
    signal.raise_signal(signal.SIGINT)
    time.sleep(60)
"""


def test_the_second_signal_ends_the_process_at_once():
    done = subprocess.run(
        [sys.executable, '-c', TWICE], capture_output=True, text=True, timeout=600
    )
    assert (
        done.returncode == 128 + signal.SIGINT
        and done.stdout == 'asked True\n'
        and 'once more ends at once' in done.stderr
    )


def test_what_a_launcher_sends_again_ends_nothing(capfd):
    """torchrun sends on what a scheduler has sent to all processes."""
    with Interrupt(launched=True) as interrupt:
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        assert interrupt.first == 'SIGTERM'
    assert 'once more' not in capfd.readouterr().err


def test_outside_the_main_thread_signals_are_left_alone():
    handler, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with Interrupt() as interrupt:
            seen.append((interrupt.asked, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, handler)]


def test_worker_processes_change_nothing(world, equal):
    serial, parallel = (
        world('serial').run(train),
        world('parallel', driver_parallel=True).run(train),
    )
    (trees, meta), (others, other_meta) = serial.saved(), parallel.saved()
    assert (
        meta == other_meta
        and equal(trees['agent'], others['agent'])
        and equal(trees['driver'], others['driver'])
    )


def test_what_happened_is_in_the_log_of_events(world):
    world(run_steps=20).run(train)
    run = world(run_steps=30).run(train)
    text = run.logdir.joinpath('events.log').read_text()
    assert 'dummy, seed 0' in text and 'updates per decision' in text
    assert f'Continuing {run.logdir} after 21 steps, ' in text


def test_the_end_of_a_run_is_told_and_so_are_its_stages(world, capsys):
    run = world(run_steps=60).run(train)
    text = run.logdir.joinpath('events.log').read_text()
    told = ['Stage prefill, from 0 steps', 'Stage checking, from', 'larger --run.steps goes on.']
    assert sorted(told, key=text.index) == told
    assert f'Files in {run.logdir}: ckpt/, ' in capsys.readouterr().out


def test_a_run_that_is_interrupted_says_that_it_goes_on(world, capsys):
    def stop(agent):
        if agent.updates == 5:
            signal.raise_signal(signal.SIGINT)

    world(train=stop).run(train)
    out = capsys.readouterr().out
    assert '; the same command goes on.' in out and 'larger --' not in out


@pytest.fixture
def break_off(monkeypatch):
    """break_off(number) lets Ctrl-C reach the dummy env in its step of this number."""

    def start(number):
        steps, step = itertools.count(), Dummy.step

        def broken(self, action):
            if next(steps) == number:
                raise KeyboardInterrupt
            return step(self, action)

        monkeypatch.setattr(Dummy, 'step', broken)

    return start


def test_ctrl_c_inside_of_an_env_saves_the_run(world, break_off, capsys):
    break_off(200)
    run = world(run_envs=2, run_steps=300).run(train)
    (trees, meta), text = run.saved(), (run.logdir / 'events.log').read_text()
    assert 0 < meta['step'] < 200 and meta['updates'] == run.agent.updates > 0
    assert f'SIGINT asked for the end of the run, after {meta["step"]:,} steps' in text
    assert capsys.readouterr().out.count('; the same command goes on.') == 1
    assert trees['driver']['reset'].all(), 'episodes begin anew'


def test_ctrl_c_inside_of_an_env_that_starts_is_one(world, break_off):
    break_off(0)
    with pytest.raises(KeyboardInterrupt):
        world().run(train)


def test_an_env_takes_no_signal_from_the_run(world, monkeypatch):
    step = Dummy.step

    def greedy(self, action):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return step(self, action)

    monkeypatch.setattr(Dummy, 'step', greedy)
    stop = lambda agent: agent.updates == 5 and signal.raise_signal(signal.SIGINT)
    run = world(train=stop).run(train)
    assert run.saved()[1]['updates'] == run.agent.updates


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit])
def test_what_an_env_raises_when_it_is_closed_ends_nothing(world, monkeypatch, error):
    def close(self):
        raise error

    monkeypatch.setattr(Dummy, 'close', close, raising=False)
    assert world(run_steps=20).run(train).saved()[1]['step'] >= 20


def test_a_resumed_run_knows_the_returns_of_the_run_before(world, capsys):
    world(run_steps=100).run(train)
    before = [line for line in capsys.readouterr().out.splitlines() if line.startswith('Return ')]
    world(run_steps=101).run(train)
    after = [line for line in capsys.readouterr().out.splitlines() if line.startswith('Return ')]
    assert before and before == after, 'no episode ended in between'


@pytest.mark.parametrize(
    'name',
    [
        'steps',
        'updates',
        'envs',
        'max_catchup',
        'keep',
        'train_ratio',
        'prefill',
        'log_every',
        'save_every',
        'films',
    ],
)
def test_settings_out_of_range_are_refused_by_name(name):
    values = dict.fromkeys(
        (
            'steps',
            'updates',
            'envs',
            'train_ratio',
            'max_catchup',
            'prefill',
            'pretrain',
            'log_every',
            'report_every',
            'save_every',
            'keep',
            'films',
        ),
        1,
    )
    with pytest.raises(errors.ConfigError, match=f'run.{name}'):
        RunConfig(**{**values, 'actions': (), name: -1})
