"""Some envs in a process of their own: few messages, errors carried back as text with their
traceback.

A worker is a fresh interpreter and not a fork: it inherits no CUDA, GL or thread state, does not
import the caller's main module, and never loads torch. Requests and replies are pickled tuples over
one socket; observations and actions lie in the shared arena, so that a step is one tiny message
each way whatever its observations weigh. `LocalWorker` answers the same requests in the calling
process with the same `EnvGroup`, which makes serial and parallel runs equal by construction.
"""

import contextlib
import ctypes
import faulthandler
import json
import math
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import numpy as np

from ..base import Env, Spaces
from ..console import keep_steady, occupy
from ..contract import nonfinite, spoken
from ..errors import (
    ConfigError,
    EmbodiedError,
    EnvContractError,
    EnvCrashed,
    EnvMissing,
    EnvNonFinite,
    EnvTimeout,
)
from . import reaper
from .arena import Arena, SharedMemory, map_memory
from .watch import Hang, Watch

# The child sets the caller's sys.path before it imports anything of ours; -P keeps its folder out
# of the path until then.
BOOTSTRAP = (
    'import sys; from multiprocessing.connection import Connection; conn ='
    ' Connection(int(sys.argv[1])); sys.path[:] = conn.recv(); from embodied.drive.worker import'
    ' main; main(conn, *map(int, sys.argv[2:]))'
)

# the one request that is frequent, so that nobody pickles it again
STEP = pickle.dumps(('step', ()))
DONE = pickle.dumps(('done', None))

SINGLE_THREAD = dict.fromkeys(
    (
        'OMP_NUM_THREADS',
        'OPENBLAS_NUM_THREADS',
        'MKL_NUM_THREADS',
        'NUMEXPR_NUM_THREADS',
        'VECLIB_MAXIMUM_THREADS',
    ),
    '1',
)

MISTAKES = (EnvContractError, EnvMissing, ConfigError)  # what a fresh worker would only do again

# an env that imported none of these fails for other reasons
GRAPHICS = ('OpenGL', 'mujoco', 'glfw', 'pyglet', 'moderngl')

EXIT_GRACE = 1.0  # seconds a worker whose socket closed has to hand over its exit code
DUMP_GRACE = 5.0  # seconds a hung worker has to write down where it hangs
SLICE = 0.1  # seconds between two looks at the clock while a worker is waited for
SERVING = ' in serve'  # in the stack of the thread that answers requests, which is written last
CLOSE_LIMIT = 5.0  # seconds an env in this process may take to close


class WorkerFault(Exception):
    """What went wrong in a worker, in words.

    Attributes:
      error: the class in embodied.errors that says it: EnvCrashed, EnvTimeout, EnvNonFinite, or one
          of MISTAKES.
      env: index of the env at fault, or None where only the group is known.
      text: one line.
      trace: remote traceback or stack of the main thread, may be empty.
      threads: number of further threads, and dump: the stacks of all, where it is one of several
          that hang.
      graphics: whether something that renders was loaded; None where the process cannot tell any
          more.
    """

    def __init__(
        self,
        error: type[EmbodiedError],
        env: int | None,
        text: str,
        trace: str = '',
        graphics: bool | None = None,
        dump: str = '',
    ):
        super().__init__(text)
        self.error, self.env, self.text, self.trace, self.graphics = (
            error,
            env,
            text,
            trace,
            graphics,
        )
        self.threads, self.dump = dump.count('(most recent call first)') - 1 if dump else 0, dump


def graphics_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that choose a renderer, to be set before anything that renders is imported.

    Returns a dict of additions to `environ`: EGL where nothing is chosen (headless and on the GPU),
    PyOpenGL alongside, and the two names for the EGL device (MuJoCo's and dm_control's) made equal
    where one is given. With none given the library tries the devices in turn, which is right in
    containers whose only visible GPU has another number outside.
    """
    backend = environ.get('MUJOCO_GL') or ('egl' if sys.platform == 'linux' else '')
    additions = {'MUJOCO_GL': backend} if backend else {}
    if backend in ('egl', 'osmesa'):
        additions['PYOPENGL_PLATFORM'] = backend
    device = environ.get('MUJOCO_EGL_DEVICE_ID') or environ.get('EGL_DEVICE_ID')
    if device:
        additions |= {'MUJOCO_EGL_DEVICE_ID': device, 'EGL_DEVICE_ID': device}
    return additions


class EnvGroup:
    """Envs that are stepped one after another, each with its row of the arena. Every public method
    is a request.

    Attributes:
      current: index of the env at work, for error messages.
    """

    REQUESTS = ('build', 'attach', 'step', 'renderers', 'save', 'load', 'close')

    def __init__(self, arena_fd):
        self.current = None
        self._arena_fd = arena_fd
        self._arena = None
        self._envs = {}
        self._floats = []

    def build(self, constructors: Mapping[int, bytes]) -> dict[str, Any]:
        """Make the envs. Args: dict index -> cloudpickled constructor. Returns a dict obs_space,
        act_space, repeat, tasks, notes.
        """
        self.close()
        for self.current, constructor in constructors.items():
            self._envs[self.current] = pickle.loads(constructor)()
        infos = {index: _describe(env) for index, env in self._envs.items()}
        tasks = {index: info.pop('task') for index, info in infos.items()}
        first, *others = infos.items()
        for self.current, info in others:
            demand_same_spaces(first, (self.current, info))
        return {**first[1], 'tasks': tasks, 'notes': self._notes()}

    def attach(self, obs_space: Spaces, act_space: Spaces, num_envs: int) -> None:
        """Map the arena, which the caller has given its size."""
        self._arena = Arena(obs_space, act_space, num_envs, map_memory(self._arena_fd))
        self._floats = [
            key
            for key, array in self._arena.obs.items()
            if array.dtype.kind == 'f' and not key.startswith('log/')
        ]

    def step(self) -> list[tuple[str, str]] | None:
        """Step each env with its row of the actions and write what it returns to its row of the
        observations.

        Returns notes of the envs (see Env.notes), None where there are none.
        """
        # envs may keep what they are given
        actions = {key: array.copy() for key, array in self._arena.action.items()}
        busy = self._arena.busy
        for index, env in self._envs.items():
            self.current = index
            action = {key: array[index] for key, array in actions.items()}
            busy[index] = True
            obs = env.step(action)
            busy[index] = False
            self._write(index, obs)
            if action['reset'] and not obs['is_first']:
                raise EnvContractError(
                    f"env {index}: obs['is_first'] must be True after action['reset'], got False"
                )
        return self._notes() or None

    def renderers(self) -> list[str]:
        """Names of what the envs render with, '' where they do not say."""
        return [str(getattr(env, 'renderer', '') or '') for env in self._envs.values()]

    def save(self) -> list[tuple[Any, str]]:
        """Returns a list of (state or None, error text): JSON-able states of the envs that can
        continue mid-episode.
        """
        return [
            _attempt(lambda env=env: json.loads(json.dumps(env.save())))
            for env in self._envs.values()
        ]

    def load(self, states: list[Any]) -> list[tuple[bool | None, str]]:
        """Args: one state or None per env. Returns a list of (whether it was restored, error
        text).
        """
        assert len(states) == len(self._envs), (len(states), len(self._envs))
        return [
            (
                (False, '')
                if state is None
                else _attempt(lambda env=env, state=state: (env.load(state), True)[1])
            )
            for env, state in zip(self._envs.values(), states)
        ]

    def close(self) -> None:
        envs, self._envs = self._envs, {}
        with contextlib.ExitStack() as stack:  # closes all of them even if one raises
            for env in envs.values():
                stack.callback(env.close)

    def _write(self, index, obs):
        expected = self._arena.obs
        if obs.keys() != expected.keys():
            missing, surplus = (
                sorted(expected.keys() - obs.keys()),
                sorted(obs.keys() - expected.keys()),
            )
            raise EnvContractError(
                f'env {index}: obs keys differ from obs_space: missing {missing}, not declared'
                f' {surplus}'
            )
        for key, array in expected.items():
            value = np.asarray(obs[key])
            if value.dtype != array.dtype or value.shape != array.shape[1:]:
                raise EnvContractError(
                    f'env {index}: obs[{key!r}] must be {array.dtype}{list(array.shape[1:])} as in'
                    f' obs_space, got {value.dtype}{list(value.shape)}'
                )
            array[index] = value
        if not getattr(self._envs[index], 'checked', False):
            for key in self._floats:
                if fault := nonfinite(obs[key]):
                    raise EnvNonFinite(f'{spoken(key)} is not finite: {fault}.')

    def _notes(self):
        return [
            note for env in self._envs.values() if hasattr(env, 'notes') for note in env.notes()
        ]


def _describe(env):
    return {
        'obs_space': dict(env.obs_space),
        'act_space': dict(env.act_space),
        'repeat': int(getattr(env, 'repeat', 1)),
        'task': str(getattr(env, 'task', '') or ''),
    }


def demand_same_spaces(one: tuple[int, Mapping], other: tuple[int, Mapping]) -> None:
    """Raise EnvContractError unless two (env index, description) agree in everything that rows
    are made of.
    """
    for name in ('obs_space', 'act_space', 'repeat'):
        if one[1][name] != other[1][name]:
            raise EnvContractError(
                f'all envs of a driver must have the same {name}; env {one[0]} has {one[1][name]}, '
                f'env {other[0]} has {other[1][name]}'
            )


def _attempt(function):
    try:
        return function(), ''
    except Exception:  # an env that cannot save or load starts a new episode; the run goes on
        return None, traceback.format_exc()


def _fault_fields(error, env):
    """Everything the caller needs to know, as text: exceptions themselves may not pickle, nor
    their classes import.
    """
    try:
        text = f'{type(error).__name__}: {error}'
    except Exception:
        text = type(error).__name__
    # its text says all; the traceback would show our own check
    told = isinstance(error, EnvNonFinite)
    return {
        'error': next(
            (kind for kind in (*MISTAKES, EnvNonFinite) if isinstance(error, kind)), EnvCrashed
        ),
        'env': env,
        'text': text,
        'trace': '' if told else ''.join(traceback.format_exception(error)),
        'graphics': any(name in sys.modules for name in GRAPHICS),
    }


# In the child


def main(conn: Connection, arena_fd: int, log_fd: int, parent: int, tied: int) -> None:
    """Entry point of a worker process; answers requests until told to close or until the parent is
    gone.

    Args:
      conn: socket to the parent.
      arena_fd, log_fd: inherited descriptors: the arena's memory, and a file for stack dumps.
      parent: process id of the parent.
      tied: 1 to let the kernel kill this process when the parent's thread that started it ends.
    """
    # Signals to all processes of a run (Ctrl-C, a scheduler's SIGTERM, a terminal that is closed)
    # are the parent's to decide on.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    keep_steady()
    faulthandler.enable(log_fd)
    faulthandler.register(signal.SIGUSR1, log_fd)
    _end_with_parent(conn.fileno(), parent, tied)
    for fd in (conn.fileno(), arena_fd, log_fd):
        os.set_inheritable(fd, False)
    serve(conn, EnvGroup(arena_fd))


def serve(conn: Connection, group: EnvGroup) -> None:
    """Answer requests to `group`; ends the process without running exit handlers, where GL
    drivers are known to hang.
    """
    while True:
        try:
            message = conn.recv_bytes()
        except (EOFError, ConnectionError):
            end_group()
        name, args = ('step', ()) if message == STEP else pickle.loads(message)
        assert name in EnvGroup.REQUESTS, name
        try:
            result = getattr(group, name)(*args)
            reply = DONE if result is None else pickle.dumps(('done', result))
        except BaseException as error:  # sys.exit() in an env is an error like any other
            reply = pickle.dumps(('fault', _fault_fields(error, group.current)))
        if name == 'close':
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(0)
        try:
            conn.send_bytes(reply)
        except ConnectionError:
            end_group()


def end_group() -> None:
    """End this process and all of its group, which is that of a worker."""
    os.killpg(os.getpid(), signal.SIGKILL)


def _end_with_parent(fd, parent, tied):
    """Make sure that no way of dying of the parent leaves this process behind, even in the
    middle of a step.
    """
    if tied and sys.platform == 'linux':
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def watch():
        hangup = select.poll()
        # no event but the hang-up that poll always reports, so messages do not wake this thread
        hangup.register(fd, 0)
        hangup.poll()
        end_group()

    threading.Thread(target=watch, name='parent-watch', daemon=True).start()


# In the caller


class LocalWorker:
    """Answers in the calling process. A hang is interrupted where Python can interrupt it; all
    else is as in ProcessWorker.
    """

    def __init__(self, constructors: Mapping[int, bytes], arena_fd: int, watch: Watch):
        self.envs = list(constructors)
        self.pid = os.getpid()
        self.constructors = constructors
        self.mark = reaper.mark()
        self._arena_fd = arena_fd
        self._watch = watch
        self._group = None
        self._request = None

    def start(self) -> None:
        self.stop()
        # before the env imports what it renders with
        os.environ.update(graphics_environment(os.environ))
        self._group = EnvGroup(self._arena_fd)
        self.request('build', self.constructors)

    def request(self, name: str, *args: Any) -> None:
        self._request = name, args

    def receive(self, deadline: float) -> Any:
        if self._group is None:
            raise WorkerFault(EnvCrashed, None, 'the env is not running')
        (name, args), self._request = self._request, None
        allowed = max(deadline - time.monotonic(), 0.0)
        try:
            with reaper.marking(self.mark):
                return self._watched(lambda: getattr(self._group, name)(*args), allowed)
        except Hang as error:
            trace = ''.join(traceback.format_exception(error))
            raise WorkerFault(
                EnvTimeout, self._group.current, f'did not answer within {allowed:.3g} s', trace
            ) from error
        except (Exception, SystemExit) as error:
            raise WorkerFault(**_fault_fields(error, self._group.current)) from error

    def finish(self, deadline: float) -> None:
        """Close the envs; processes that they leave are the caller's to end, all at once."""
        group, self._group, self._request = self._group, None, None
        if group:
            with contextlib.suppress(Hang):
                # it may be closed because it is broken
                self._watched(lambda: _attempt(group.close), CLOSE_LIMIT)

    def stop(self) -> None:
        """Close the envs, if any, and end the processes that they leave."""
        if self._group:
            self.finish(0)
            reaper.end(self.mark)

    def _watched(self, call, seconds):
        self._watch.begin(f'env {self.envs[0]}', seconds)
        try:
            return call()
        finally:
            self._watch.end()


class ProcessWorker:
    """A worker process seen from the caller: at most one request is open, and its reply must be
    received.

    Attributes:
      envs: indices of its envs.
      constructors: env index -> pickled constructor, used by the next start.
      pid: of the running process, None while there is none.
      mark: of the processes that its envs start; see reaper.py.
    """

    def __init__(
        self, constructors: Mapping[int, bytes], arena_fd: int, environ: Mapping[str, str]
    ):
        self.envs = list(constructors)
        self.pid = None
        self.mark = reaper.mark()
        self.constructors = constructors
        self._arena_fd = arena_fd
        self._environ = environ
        self._process = self._conn = self._poll = self._log = None
        self._absence = ''

    def start(self) -> None:
        """Start a fresh process and ask it to build the envs; the description of the envs is to
        be received.
        """
        self.stop()
        occupy()
        try:
            self._launch()
        except OSError as error:
            self._absence = f'cannot start a worker process: {error}'
            return self._free()
        self.pid = self._process.pid
        self._poll = select.poll()
        self._poll.register(self._conn.fileno(), select.POLLIN)
        self._send(pickle.dumps(sys.path))
        self.request('build', self.constructors)

    def _launch(self):
        self._log = SharedMemory()
        self._conn, theirs = Pipe()
        with theirs:
            # else the worker would die with a helper thread
            tied = threading.current_thread() is threading.main_thread()
            descriptors = theirs.fileno(), self._arena_fd, self._log.fd
            numbers = [*descriptors, os.getpid(), int(tied)]
            environ = {
                **os.environ,
                **SINGLE_THREAD,
                **graphics_environment({**os.environ, **self._environ}),
                **self._environ,
                **reaper.marked(self.mark, os.environ),
            }
            self._process = subprocess.Popen(
                [sys.executable, '-P', '-c', BOOTSTRAP, *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                env=environ,
                # a group of its own, so that what an env starts ends with it
                pass_fds=descriptors,
                process_group=0,
            )

    def request(self, name: str, *args: Any) -> None:
        self._send(STEP if name == 'step' else pickle.dumps((name, args)))

    def receive(self, deadline: float) -> Any:
        """Wait for the reply to the open request.

        Args:
          deadline: time.monotonic() after which the process counts as hung.
        Raises:
          WorkerFault: the request failed, the process ended, or it hangs.
        """
        if self._conn is None:
            raise WorkerFault(EnvCrashed, None, self._absence)
        if not self._speaks(deadline):
            raise self._hung()
        try:
            message = self._conn.recv_bytes()
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if message == DONE:
            return None
        kind, result = pickle.loads(message)
        if kind == 'fault':
            raise WorkerFault(**result)
        return result

    def finish(self, deadline: float) -> None:
        """Wait for the process to end by itself after a 'close' request, then make sure of it.
        Processes that left its group are the caller's to end, all at once."""
        while self._conn and self._speaks(deadline):
            try:
                self._conn.recv_bytes()  # late replies are of no interest any more
            except (EOFError, ConnectionError):
                break
        self._kill()

    def stop(self) -> None:
        """Kill the process, if any, with all that its envs have started, and free what belongs
        to it.
        """
        if self._process is not None:
            self._kill()
            reaper.end(self.mark)

    def _speaks(self, deadline):
        """Whether the process says something, or ends, before a deadline."""
        while True:
            left = min(max(deadline - time.monotonic(), 0), SLICE)
            if self._poll.poll(math.ceil(1000 * left)):
                return True
            if time.monotonic() >= deadline:
                return False

    def _kill(self):
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._absence = 'the worker process is not running'
        self._free()

    def _free(self):
        for part in (self._conn, self._log):
            if part is not None:
                part.close()
        self._process = self._conn = self._poll = self._log = self.pid = None

    def _send(self, message):
        try:
            if self._conn:
                self._conn.send_bytes(message)
        except ConnectionError:
            pass  # the process is dead; receive() finds out why

    def _ended(self):
        try:
            code = self._process.wait(EXIT_GRACE)
        except subprocess.TimeoutExpired:
            return WorkerFault(
                EnvCrashed, None, f'worker process {self.pid} closed its connection', self._stacks()
            )
        how = (
            f'was killed by {signal.Signals(-code).name}'
            if code < 0
            else f'exited with code {code}'
        )
        return WorkerFault(EnvCrashed, None, f'worker process {self.pid} {how}', self._stacks())

    def _hung(self):
        # faulthandler writes the stacks of all threads to the log
        self._process.send_signal(signal.SIGUSR1)
        end = time.monotonic() + DUMP_GRACE
        while SERVING not in (dump := self._stacks()) and time.monotonic() < end:
            time.sleep(SLICE / 10)
        return WorkerFault(
            EnvTimeout,
            None,
            f'worker process {self.pid} did not answer in time',
            main_stack(dump),
            dump=dump,
        )

    def _stacks(self):
        return os.pread(self._log.fd, 1 << 16, 0).decode(errors='replace')


def main_stack(dump: str) -> str:
    """The stack of the thread that answers requests, out of a dump of those of all threads."""
    stacks = [stack for stack in dump.split('\n\n') if '(most recent call first)' in stack]
    return next((stack for stack in stacks if SERVING in stack), stacks[-1] if stacks else dump)


def pickled(make_envs: Iterable[Callable[[], Env]]) -> list[bytes]:
    """Returns the cloudpickled constructors, so that closures and functions of the main module
    reach a worker.
    """
    return [cloudpickle.dumps(make_env) for make_env in make_envs]
