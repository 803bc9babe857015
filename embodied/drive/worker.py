"""A worker as its caller sees it: some envs in a process of their own, few messages, errors carried
back as text with their traceback.

A worker is a fresh interpreter and not a fork: it inherits no CUDA, GL or thread state, does not
import the caller's main module, and never loads torch. Requests and replies are pickled tuples over
one socket; observations and actions lie in the shared arena, so that a step is one tiny message
each way whatever its observations weigh. `LocalWorker` answers the same requests in the calling
process with the same `EnvGroup`, which makes serial and parallel runs equal by construction.
"""

import contextlib
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing import Pipe
from typing import Any

import cloudpickle

from ..base import Env
from ..console import occupy
from ..errors import EnvCrashed, EnvInterrupted, EnvTimeout
from . import reaper
from .arena import SharedMemory
from .child import DONE, SERVING, STEP
from .fault import WorkerFault, fault_fields
from .group import EnvGroup, attempt
from .printed import Printed
from .watch import Hang, Watch

# The child sets the caller's sys.path before it imports anything of ours; -P keeps its folder out
# of the path until then.
BOOTSTRAP = (
    'import sys; from multiprocessing.connection import Connection; conn ='
    ' Connection(int(sys.argv[1])); sys.path[:] = conn.recv(); from embodied.drive.child import'
    ' main; main(conn, *map(int, sys.argv[2:]))'
)

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

EXIT_GRACE = 1.0  # seconds a worker whose socket closed has to hand over its exit code
DUMP_GRACE = 5.0  # seconds a hung worker has to write down where it hangs
SLICE = 0.1  # seconds between two looks at the clock while a worker is waited for
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # signals that ask for the end
CLOSE_LIMIT = 5.0  # seconds an env in this process may take to close


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


class LocalWorker:
    """Answers in the calling process. A hang is interrupted where Python can interrupt it; all
    else is as in ProcessWorker.
    """

    def __init__(
        self, constructors: Mapping[int, bytes], arena_fd: int, watch: Watch, printed: Printed
    ):
        self.envs = list(constructors)
        self._printed = printed
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
        except KeyboardInterrupt as error:
            raise EnvInterrupted(f'in env {self._group.current}') from error
        except (Exception, SystemExit) as error:
            raise WorkerFault(**fault_fields(error, self._group.current)) from error

    def finish(self, deadline: float) -> None:
        """Close the envs; processes that they leave are the caller's to end, all at once."""
        group, self._group, self._request = self._group, None, None
        if group:
            # it may be closed because it is broken; who closes it has nothing to ask of it
            with contextlib.suppress(Hang, SystemExit, KeyboardInterrupt):
                self._watched(lambda: attempt(group.close), CLOSE_LIMIT)

    def stop(self) -> None:
        """Close the envs, if any, and end the processes that they leave."""
        if self._group:
            self.finish(0)
            reaper.end(self.mark)
            self._printed.tell()

    def _watched(self, call, seconds):
        self._watch.begin(f'env {self.envs[0]}', seconds)
        try:
            with signals_kept(), self._printed.taken(named(self.envs)):
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
        self,
        constructors: Mapping[int, bytes],
        arena_fd: int,
        environ: Mapping[str, str],
        printed: Printed,
    ):
        self.envs = list(constructors)
        self.pid = None
        self.mark = reaper.mark()
        self.constructors = constructors
        self._arena_fd = arena_fd
        self._environ, self._printed, self._ear = environ, printed, None
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
            ear, mouth = os.pipe()
            self._ear = self._printed.reader(named(self.envs), ear)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, '-P', '-c', BOOTSTRAP, *map(str, numbers)],
                    stdin=subprocess.DEVNULL,
                    stdout=mouth,
                    stderr=mouth,
                    env=environ,
                    # a group of its own, so that what an env starts ends with it
                    pass_fds=descriptors,
                    process_group=0,
                )
            finally:
                os.close(mouth)

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
            self._printed.hear(self._ear)  # its last words come before its fault

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


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """A context after which signals are handled as before: simulators like to take Ctrl-C for
    themselves, and it is the caller's to decide what a signal ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets handlers in the main thread alone
        return
    before = {number: signal.getsignal(number) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that Python has not set, and cannot set again
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)


def named(envs: Sequence[int]) -> str:
    """What to call the envs of a worker."""
    return f'env {envs[0]}' if len(envs) == 1 else f'envs {envs[0]}-{envs[-1]}'


def main_stack(dump: str) -> str:
    """The stack of the thread that answers requests, out of a dump of those of all threads."""
    stacks = [stack for stack in dump.split('\n\n') if '(most recent call first)' in stack]
    return next((stack for stack in stacks if SERVING in stack), stacks[-1] if stacks else dump)


def pickled(make_envs: Iterable[Callable[[], Env]]) -> list[bytes]:
    """Returns the cloudpickled constructors, so that closures and functions of the main module
    reach a worker.
    """
    return [cloudpickle.dumps(make_env) for make_env in make_envs]
