"""With REQUIRE_DMC=1 in the environment a session fails in which no dm_control test ran, or one
was skipped.
"""

import os
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]
# for programs that tests start
os.environ['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
os.environ.setdefault('MUJOCO_GL', 'egl')
# the networks are so small that waking a second thread costs more than it brings
os.environ.setdefault('OMP_NUM_THREADS', '1')

PATIENCE = 600.0  # seconds after which something that a test waits for will not happen any more

_outcomes = []


@pytest.fixture
def wait_until():
    """Call with a function: waits until it is true, however slow the machine is."""

    def wait(true):
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, 'what the test waits for does not happen'
            time.sleep(0.01)

    return wait


@pytest.fixture(scope='session')
def collected(tmp_path_factory):
    """The logdir of a run that collected rows of pixel_reach, at a size that is no default."""
    from dreamer4 import main

    logdir = tmp_path_factory.mktemp('collected') / 'rows'
    flags = '--script collect --task pixel_reach --env.pixel.size 16 --run.steps 400 --run.envs 2'
    here = '--driver.parallel false --logger.outputs terminal jsonl --machine.threads 1'
    assert main.main([*flags.split(), *here.split(), '--logdir', str(logdir)]) == 0
    return logdir


def pytest_addoption(parser):
    parser.addoption('--slow', action='store_true', help='also run the tests that take minutes')


def pytest_configure(config):
    config.addinivalue_line('markers', 'slow: takes minutes; runs with --slow only')


def pytest_collection_modifyitems(config, items):
    if not config.getoption('--slow'):
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(pytest.mark.skip(reason='takes minutes: --slow'))


def pytest_runtest_logreport(report):
    """Also where workers of pytest-xdist run the tests: they send their reports."""
    if 'dmc' in report.keywords and (report.when == 'call' or report.outcome != 'passed'):
        _outcomes.append(report.outcome)


def pytest_sessionfinish(session, exitstatus):
    worker = hasattr(session.config, 'workerinput')  # which has run a part of the tests
    if os.environ.get('REQUIRE_DMC') != '1' or session.config.option.collectonly or worker:
        return
    skipped = _outcomes.count('skipped')
    if skipped or not _outcomes:
        print(
            f'\nREQUIRE_DMC=1: {len(_outcomes)} dm_control tests ran and {skipped} were'
            ' skipped; expected some and none.'
        )
        session.exitstatus = 1
