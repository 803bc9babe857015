"""What runs in the process of a worker: it answers requests to its group of envs, until it is told
to close or its parent is gone.
"""

import ctypes
import faulthandler
import os
import pickle
import select
import signal
import sys
import threading
from multiprocessing.connection import Connection

from ..console import keep_steady
from .fault import fault_fields
from .group import EnvGroup

# the one request that is frequent, so that nobody pickles it again
STEP = pickle.dumps(('step', ()))
DONE = pickle.dumps(('done', None))
SERVING = ' in serve'  # in the stack of the thread that answers requests, which is written last


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
            reply = pickle.dumps(('fault', fault_fields(error, group.current)))
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
