"""What is looked at: each check asks the system and says what it found, and how to mend it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from embodied import envs
from embodied.extras import install_hint

from .system import System

OK, WARN, FAIL = 'ok', 'warn', 'fail'
PYTHON, TORCH = (3, 11), (2, 11)  # the least versions
MEMORY, DISK, LITTLE_DISK = 4.0, 0.2, 5.0  # GB
SLOW_DISK, SHARED, FILES = 30.0, 0.06, 1024  # MB/s, GB, files
COMPILES = 45.0  # seconds that a small function may take, which needs 10 of a free core
FASTER = 1.2  # times the default, from where another backend is worth a word
# suite -> a task that is quickly made, and the extra that brings it ('': none). dmlab and unity are
# built by hand, outside of pip.
SUITES = {
    'pixel': ('pixel_catch', ''),
    'dummy': ('dummy', ''),
    'gym': ('gym_CartPole-v1', ''),
    'dmc': ('dmc_cartpole_balance', 'dmc'),
    'atari': ('atari_pong', 'atari'),
    'crafter': ('crafter_reward', 'crafter'),
    'minigrid': ('minigrid_Empty-5x5', 'minigrid'),
    'memmaze': ('memmaze_9x9', 'memmaze'),
    'metaworld': ('metaworld_reach', 'metaworld'),
    'mujoco': ('mujoco_inverted_pendulum', 'dmc'),
    'vizdoom': ('vizdoom_Basic', 'vizdoom'),
    'retro': ('retro_Airstriker-Genesis', 'retro'),
    'craftax': ('craftax_Classic-Symbolic', 'craftax'),
    'brax': ('brax_ant', 'brax'),
    'procgen': ('procgen_coinrun', 'procgen'),
}
# MUJOCO_GL -> its name, and the packages of Debian and Ubuntu that it needs.
BACKENDS = {
    'egl': ('EGL', 'apt-get install libegl1 libgl1'),
    'osmesa': ('OSMesa', 'apt-get install libosmesa6'),
    'glfw': ('GLX', 'run it where there is a display, or under xvfb-run'),
}


class Finding(NamedTuple):
    """One line.

    Attributes:
        name: what was looked at. state: OK, WARN or FAIL. words: what was found. mend: the command
            or the step that mends it, '' for nothing to mend.
        needed: whether `make train` needs it.
    """

    name: str
    state: str
    words: str
    mend: str = ''
    needed: bool = False


def python(system: System) -> Iterator[Finding]:
    """The interpreter."""
    words, least = '.'.join(map(str, system.version)), '.'.join(map(str, PYTHON))
    if system.version[:2] < PYTHON:
        mend = f'install Python {least} or newer, and make the environment anew with it'
        yield Finding('Python', FAIL, f'{words}, needs {least}', mend, True)
    else:
        yield Finding('Python', OK, words, needed=True)


def torch(system: System) -> Iterator[Finding]:
    """torch, and what it computes on."""
    mend = f"{system.python} -m pip install 'torch>={TORCH[0]}.{TORCH[1]}'"
    answer = system.probe('torch_facts')
    if answer.found is None:
        yield Finding('torch', FAIL, f'cannot be used: {answer.error}', mend, True)
        return
    found = answer.found
    version = tuple(int(part) for part in found['version'].split('+')[0].split('.')[:2])
    old = version < TORCH
    words = found['version'] + (f', needs {TORCH[0]}.{TORCH[1]}' if old else '')
    yield Finding('torch', FAIL if old else OK, words, mend if old else '', True)
    yield from gpu(system, found)


def gpu(system: System, found: dict) -> Iterator[Finding]:
    """The GPU, from what the torch probe found."""
    driver = system.driver()
    if not found['devices']:
        if driver and not found['cuda_build']:
            words = f'driver {driver} is there, but this torch is built for the CPU alone'
            mend = f'{system.python} -m pip install --force-reinstall torch, a build for CUDA'
        elif driver:
            words = f'driver {driver} is there, but torch for CUDA {found["cuda_build"]} finds none'
            mend = 'update the driver, or unset CUDA_VISIBLE_DEVICES'
        else:
            words, mend = 'none: pixel tasks learn in minutes on a CPU, others take days', ''
        yield Finding('GPU', WARN, words, mend)
        return
    names = ', '.join(f'{device["name"]} ({device["gb"]:g} GB)' for device in found['devices'])
    words = f'{names}, CUDA {found["cuda_build"]}, driver {driver or "unknown"}'
    if not found['computes']:
        yield Finding('GPU', FAIL, f'{words}: it computes nonsense', 'run nvidia-smi -q', True)
        return
    yield Finding('GPU', OK, words)
    state = OK if found['bf16'] else WARN
    mend = '' if found['bf16'] else 'train with --machine.precision float32'
    yield Finding('bfloat16', state, 'yes' if found['bf16'] else 'not on this GPU', mend)
    state, mend = (OK, '') if found['graphs'] else (WARN, 'train with --machine.graphs false')
    yield Finding('CUDA graphs', state, 'yes' if found['graphs'] else 'cannot be recorded', mend)


def compiling(system: System) -> Iterator[Finding]:
    """torch.compile, which is off unless it is asked for."""
    if not system.program('c++', 'g++', 'clang++'):
        words = 'there is no C++ compiler, which machine.compile needs'
        yield Finding('torch.compile', WARN, words, 'apt-get install g++')
        return
    answer = system.probe('compiles', patience=COMPILES)
    if answer.found:
        yield Finding('torch.compile', OK, 'yes')
    elif answer.late:
        words = f'{answer.error}: this machine is slow, or busy now; runs do not compile by default'
        yield Finding('torch.compile', WARN, words)
    else:
        words = f'does not work: {answer.error}'
        yield Finding('torch.compile', WARN, words, 'train with --machine.compile false')


def threads(system: System) -> Iterator[Finding]:
    """One thread of torch against all cores, on a small network."""
    cores = system.cores()
    rates = {}
    for count in sorted({1, cores}):
        answer = system.probe('threads', str(count))
        if answer.found is None:
            return  # torch itself has a line
        rates[count] = answer.found['rate']
    best = max(rates, key=rates.get)
    told = ', '.join(f'{count}: {rate:.0f} passes/s' for count, rate in rates.items())
    yield Finding('threads', OK, f'{told}; --machine.threads {best} is best for a small model')


def memory(system: System) -> Iterator[Finding]:
    """Memory, and what envs share."""
    found = system.memory()
    few = found < MEMORY
    mend = 'train with a smaller --replay.max_gb' if few else ''
    yield Finding('memory', WARN if few else OK, f'{found:.1f} GB', mend)
    shared = system.shared_memory()
    if shared is None or shared < SHARED:
        words = 'there is none' if shared is None else f'{1000 * shared:.0f} MB free'
        mend = 'mount -o remount,size=1G /dev/shm; of a container: --shm-size 1g'
        yield Finding('/dev/shm', WARN, f'{words}: parallel envs may fail', mend)
    else:
        yield Finding('/dev/shm', OK, f'{shared:.1f} GB free')
    files = system.open_files()
    mend = f'ulimit -n {4 * FILES}' if files < FILES else ''
    yield Finding('open files', WARN if files < FILES else OK, f'up to {files}', mend)


def disk(system: System, logdir: Path) -> Iterator[Finding]:
    """Where runs are written."""
    try:
        free, rate = system.free(logdir), system.write(logdir)
    except OSError as error:
        mend = f'choose another --logdir, or: chmod u+w {logdir}'
        if error.errno == 28:
            mend = f'make room on the disk of {logdir}, or choose another --logdir'
        words = f'{logdir} cannot be written: {error.strerror or error}'
        yield Finding('logdir', FAIL, words, mend, True)
        return
    words = f'{logdir}: {free:.1f} GB free, {rate:.0f} MB/s'
    mend = f'make room on the disk of {logdir}, or choose another --logdir'
    if free < DISK:
        yield Finding('logdir', FAIL, words, mend, True)
    elif free < LITTLE_DISK:
        yield Finding('logdir', WARN, words, 'train with a smaller --replay.disk_gb', True)
    elif rate < SLOW_DISK:
        yield Finding('logdir', WARN, f'{words}: slow', 'choose a --logdir on a local disk', True)
    else:
        yield Finding('logdir', OK, words, needed=True)


def rendering(system: System) -> Iterator[Finding]:
    """Every backend that MuJoCo may render by."""
    if not system.has('dm_control'):
        words = 'dm_control is not installed, which would render'
        yield Finding('rendering', WARN, words, install_hint('dmc'))
        return
    rates = {}
    for backend, (name, mend) in BACKENDS.items():
        answer = system.probe('render', MUJOCO_GL=backend)
        if answer.found:
            soft = answer.found['software'] or backend == 'osmesa'  # which is nothing else
            kind = 'software' if soft else 'hardware'
            told = f', {answer.found["renderer"]}' if answer.found['renderer'] else ''
            yield Finding(name, OK, f'{answer.found["rate"]:.0f} frames/s in {kind}{told}')
            rates[backend] = answer.found['rate']
        else:
            yield Finding(name, WARN, f'does not render: {answer.error}', mend)
    best = max(rates, key=rates.get, default='egl')
    if best != 'egl' and rates[best] > FASTER * rates.get('egl', 0.0):
        words = f'{BACKENDS[best][0]} is the fastest here, EGL is the default'
        yield Finding('rendering', WARN, words, f'export MUJOCO_GL={best}')


def suites(system: System) -> Iterator[Finding]:
    """One env of every suite, really made."""
    for suite in envs.available():
        if suite not in SUITES:
            continue
        task, extra = SUITES[suite]
        answer = system.probe('env', task)
        if answer.found:
            yield Finding(f'envs: {suite}', OK, f'{task} steps', needed=suite == 'pixel')
        else:
            mend = install_hint(extra) if extra else f'{system.python} -m pip install -e .'
            state = FAIL if suite == 'pixel' else WARN
            # the end of the error says how to install it, as mend does
            error = answer.error.partition(';')[0]
            words = f'{task} cannot be made: {error}'
            if error.startswith('EnvMissing') and error.endswith('is not installed'):
                words = error.removeprefix('EnvMissing: ')
            yield Finding(f'envs: {suite}', state, words, mend, suite == 'pixel')


def writing(system: System) -> Iterator[Finding]:
    """What videos and curves are written with."""
    if system.has('imageio_ffmpeg') or system.program('ffmpeg'):
        yield Finding('ffmpeg', OK, 'MP4 can be written')
    else:
        yield Finding('ffmpeg', WARN, 'none: videos are GIFs', install_hint('video'))
    version = system.package('tensorboard')
    if version:
        yield Finding('TensorBoard', OK, version)
    else:
        mend = f'{system.python} -m pip install tensorboard'
        yield Finding('TensorBoard', WARN, 'not installed: no event files', mend)


def examine(system: System, logdir: Path) -> Iterator[Finding]:
    """All findings, the quick ones first."""
    yield from python(system)
    yield from disk(system, logdir)
    yield from memory(system)
    yield from writing(system)
    yield from torch(system)
    yield from threads(system)
    yield from compiling(system)
    yield from suites(system)
    yield from rendering(system)


def fit(findings: list[Finding]) -> bool:
    """Whether all that `make train` needs is there."""
    return not any(finding.needed and finding.state == FAIL for finding in findings)
