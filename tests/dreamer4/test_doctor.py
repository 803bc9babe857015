"""The doctor: each failure of a machine, faked at its border, has a line and a remedy."""

import contextlib
import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

import dreamer4
from dreamer4.doctor.__main__ import main
from dreamer4.doctor.checks import BACKENDS, SUITES, examine, fit
from dreamer4.doctor.system import Answer, System
from embodied import envs
from embodied.config import configs_dir, parse
from embodied.errors import EnvMissing

GPU = {
    'version': '2.13.0',
    'cuda_build': '13.0',
    'devices': [{'name': 'H200', 'gb': 140.0}],
    'computes': True,
    'bf16': True,
    'graphs': True,
}
CPU = {'version': '2.13.0+cpu', 'cuda_build': None, 'devices': []}
DRAWS = {'rate': 500.0, 'renderer': 'NVIDIA H200', 'software': False}


class Healthy(System):
    """A machine on which all is well; tests break one thing of it."""

    version, python = (3, 12, 1), 'python'

    def __init__(self, **broken):
        self.answers = {'torch_facts': GPU, 'threads': {'rate': 9.0}, 'compiles': {'ok': True}}
        self.answers |= {'render': DRAWS, 'env': {'ok': True}} | broken

    def probe(self, *words, patience=0.0, **environ):
        names = (environ.get('MUJOCO_GL', ' '.join(words)), words[0])
        found = next(self.answers[name] for name in names if name in self.answers)
        return found if isinstance(found, Answer) else Answer(found)

    package = lambda self, name: '1.0'
    has = lambda self, module: True
    program = lambda self, *names: f'/usr/bin/{names[0]}'
    driver = lambda self: '570.1'
    cores = lambda self: 8
    memory = lambda self: 64.0
    free = lambda self, folder: 500.0
    write = lambda self, folder: 900.0
    shared_memory = lambda self: 8.0
    open_files = lambda self: 65536


def found(system, tmp_path):
    return {finding.name: finding for finding in examine(system, tmp_path)}


def broken(name, value):
    """A healthy machine but for what one of its methods says."""
    system = Healthy()
    setattr(system, name, value)
    return system


def failing(number):
    def write(folder):
        raise OSError(number, errno.errorcode[number])

    return write


def test_a_healthy_machine_is_told_so_and_nothing_is_to_mend(tmp_path, capsys):
    findings = list(examine(Healthy(), tmp_path))
    assert {f.state for f in findings} == {'ok'} and not any(f.mend for f in findings)
    assert {f'envs: {suite}' for suite in SUITES} <= {f.name for f in findings}
    assert main(['--logdir', str(tmp_path)], Healthy()) == 0
    out = capsys.readouterr().out
    assert out.endswith('Fit to train.\n') and 'H200 (140 GB), CUDA 13.0, driver 570.1' in out


FATAL = {
    'Python': (broken('version', (3, 9, 2)), 'needs 3.11', 'install Python'),
    'torch': (Healthy(torch_facts=Answer(None, 'No module named torch')), 'torch', 'pip install'),
    'GPU': (Healthy(torch_facts=GPU | {'computes': False}), 'nonsense', 'nvidia-smi'),
    'envs: pixel': (Healthy(**{'env pixel_catch': Answer(None, 'boom')}), 'boom', 'pip install'),
}


@pytest.mark.parametrize('name', FATAL)
def test_what_training_needs_and_fails_makes_the_exit_status_one(name, tmp_path, capsys):
    system, words, mend = FATAL[name]
    finding = found(system, tmp_path)[name]
    assert finding.state == 'fail' and words in finding.words and mend in finding.mend
    assert main(['--logdir', str(tmp_path)], system) == 1
    assert 'Not fit to train' in capsys.readouterr().out


def test_an_old_torch_fails_by_its_version(tmp_path):
    finding = found(Healthy(torch_facts=CPU | {'version': '2.4.1+cu121'}), tmp_path)['torch']
    assert finding.state == 'fail' and finding.words == '2.4.1+cu121, needs 2.11'


@pytest.mark.parametrize(
    'number, mend', [(errno.ENOSPC, 'make room'), (errno.EROFS, 'another --logdir')]
)
def test_a_full_disk_and_a_read_only_logdir_fail(number, mend, tmp_path):
    finding = found(broken('write', failing(number)), tmp_path)['logdir']
    assert finding.state == 'fail' and finding.needed and mend in finding.mend


WARNINGS = [
    (broken('free', lambda folder: 0.1), 'logdir', 'fail', 'make room'),
    (broken('free', lambda folder: 2.0), 'logdir', 'warn', 'replay.disk_gb'),
    (broken('write', lambda folder: 5.0), 'logdir', 'warn', 'local disk'),
    (broken('memory', lambda: 2.0), 'memory', 'warn', 'replay.max_gb'),
    (broken('shared_memory', lambda: None), '/dev/shm', 'warn', 'shm-size'),
    (broken('shared_memory', lambda: 0.01), '/dev/shm', 'warn', 'remount'),
    (broken('open_files', lambda: 256), 'open files', 'warn', 'ulimit -n 4096'),
    (broken('package', lambda name: None), 'TensorBoard', 'warn', 'install tensorboard'),
    (broken('program', lambda *names: None), 'torch.compile', 'warn', 'apt-get install g++'),
    (Healthy(compiles=Answer(None, 'x')), 'torch.compile', 'warn', 'machine.compile false'),
    (Healthy(torch_facts=GPU | {'bf16': False}), 'bfloat16', 'warn', 'precision float32'),
    (Healthy(torch_facts=GPU | {'graphs': False}), 'CUDA graphs', 'warn', 'graphs false'),
    (Healthy(egl=Answer(None, 'no EGL')), 'EGL', 'warn', 'apt-get install libegl1'),
    (Healthy(osmesa=Answer(None, 'no')), 'OSMesa', 'warn', 'apt-get install libosmesa6'),
    (Healthy(glfw=Answer(None, 'no')), 'GLX', 'warn', 'xvfb-run'),
    (broken('has', lambda module: False), 'rendering', 'warn', 'dm_control'),
    (Healthy(**{'env atari_pong': Answer(None, 'x')}), 'envs: atari', 'warn', 'atari'),
]


@pytest.mark.parametrize('system, name, state, mend', WARNINGS)
def test_what_is_missing_is_told_with_what_mends_it(system, name, state, mend, tmp_path):
    finding = found(system, tmp_path)[name]
    assert finding.state == state and (mend in finding.mend or mend in finding.words), finding
    if state == 'warn':
        assert fit(list(examine(system, tmp_path)))


def test_torch_without_its_gpu_says_whose_fault_it_is(tmp_path):
    system = Healthy(torch_facts=CPU)
    finding = found(system, tmp_path)['GPU']
    assert finding.state == 'warn' and 'built for the CPU alone' in finding.words
    system.driver = lambda: None
    assert found(system, tmp_path)['GPU'].words.startswith('none: ')
    system = Healthy(torch_facts=CPU | {'cuda_build': '13.0'})
    assert 'update the driver' in found(system, tmp_path)['GPU'].mend


def test_the_number_of_threads_is_advised_by_what_is_measured(tmp_path):
    system = Healthy(**{'threads 1': {'rate': 90.0}, 'threads 8': {'rate': 30.0}})
    assert '--machine.threads 1 is best' in found(system, tmp_path)['threads'].words
    system = Healthy(**{'threads 1': {'rate': 9.0}, 'threads 8': {'rate': 30.0}})
    assert '--machine.threads 8 is best' in found(system, tmp_path)['threads'].words


def test_the_backend_to_take_is_the_fastest_that_renders(tmp_path):
    slow = DRAWS | {'rate': 20.0, 'software': True, 'renderer': 'llvmpipe'}
    system = Healthy(egl=slow, osmesa=slow | {'rate': 60.0}, glfw=Answer(None, 'no display'))
    findings = found(system, tmp_path)
    assert findings['EGL'].words == '20 frames/s in software, llvmpipe'
    assert findings['rendering'].mend == 'export MUJOCO_GL=osmesa'
    assert set(BACKENDS) == {'egl', 'osmesa', 'glfw'}


def test_a_suite_that_is_not_installed_is_told_in_a_few_words(tmp_path):
    error = 'EnvMissing: the package brax is not installed; install it with: pip install brax'
    finding = found(Healthy(**{'env brax_ant': Answer(None, error)}), tmp_path)['envs: brax']
    assert finding.words == 'the package brax is not installed'
    assert finding.state == 'warn' and finding.mend.startswith('install it with: ')


def test_json_holds_all_findings(tmp_path, capsys):
    assert main(['--json', '--logdir', str(tmp_path)], broken('memory', lambda: 1.0)) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['fit'] is True
    (memory,) = (f for f in told['findings'] if f['name'] == 'memory')
    assert memory['state'] == 'warn' and memory['words'] == '1.0 GB'


def test_suites_are_tried_by_tasks_that_there_are():
    config = parse([], configs_dir(Path(dreamer4.__file__).parent)).env.to_dict()
    for suite, (task, _) in SUITES.items():
        with contextlib.suppress(EnvMissing):
            envs.check(task, config)
        assert task.partition('_')[0] == suite


def test_this_machine_answers_probes(tmp_path, monkeypatch):
    system = System()
    assert system.probe('env', 'pixel_catch').found == {'ok': True}
    assert system.write(tmp_path / 'not' / 'yet') > 0 and system.free(tmp_path / 'no') > 0
    assert system.memory() > 0 and system.cores() >= 1 and system.open_files() > 0
    answers(monkeypatch, tmp_path, 'kill -SEGV $$')
    assert system.probe('render') == Answer(None, 'it crashes: signal 11')
    monkeypatch.setattr(subprocess, 'run', hangs)
    assert system.driver() is None


def test_a_probe_that_is_slow_is_given_up_with_all_that_it_started(tmp_path, monkeypatch):
    """As torch.compile on a busy machine, whose compiler holds the pipes of the probe open."""
    left = tmp_path / 'left'
    answers(monkeypatch, tmp_path, f'(sleep 20; touch {left}) & wait')
    answer = System().probe('compiles', patience=0.5)
    assert answer == Answer(None, 'no answer after 0 s', True) and not left.exists()
    finding = found(Healthy(compiles=answer), tmp_path)['torch.compile']
    assert finding.state == 'warn' and 'this machine is slow, or busy' in finding.words


def answers(monkeypatch, tmp_path, words):
    """Let probes be a line of shell."""
    program = tmp_path / 'python'
    program.write_text(f'#!/bin/sh\n{words}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, 'executable', str(program))


def hangs(command, **kw):
    raise subprocess.TimeoutExpired(command, kw['timeout'])
