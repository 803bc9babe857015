"""A time limit for calls in this process, which nobody can kill from outside.

A thread looks at the clock. What takes too long is interrupted in the main thread, which reaches
everything that Python can leave: sleeps, sockets, locks, loops. What cannot be left is named.
"""

import faulthandler
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

LOOK = 0.2  # seconds between two looks at the clock
GRACE = 5.0  # seconds that an interrupted call has to end
REARM = 5.0  # seconds between two settings of the clock that needs no interpreter
STDERR = 2


class Hang(BaseException):
    """Raised inside a call that took too long; no Exception, so that what the call catches lets it
    pass.
    """


@dataclass
class Call:
    """A call under way: who is called, its limit in seconds, when it is over, and how far the watch
    has gone.
    """

    who: str
    seconds: float
    deadline: float
    interrupted: bool = False
    told: bool = False


class Watch:
    """Watches one call at a time, from begin() to end()."""

    def __init__(self, on_event: Callable[[str], None]):
        """Args: on_event receives a text about a call that cannot be interrupted."""
        self._on_event = on_event
        self._call = self._thread = self._caller = self._previous = None
        self._closed = threading.Event()
        self._last = -REARM  # when the clock that needs no interpreter was set

    def begin(self, who: str, seconds: float) -> None:
        """Raise Hang in this thread, if it is the main one, unless end() is called within so many
        seconds.
        """
        if self._thread is None:
            self._start()
        self._call = Call(who, seconds, time.monotonic() + seconds)

    def end(self) -> None:
        """The call is over."""
        self._call = None

    def close(self) -> None:
        """End the thread, and give back the signal. May be called more than once."""
        self._closed.set()
        if self._previous is not None and signal.getsignal(signal.SIGALRM) == self._interrupt:
            signal.signal(signal.SIGALRM, self._previous)
        self._previous = None

    def _start(self):
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGALRM) in (signal.SIG_DFL, signal.SIG_IGN):
            self._previous = signal.signal(signal.SIGALRM, self._interrupt)
        self._caller = threading.get_ident()
        self._thread = threading.Thread(target=self._look, name='env-watch', daemon=True)
        self._thread.start()

    def _interrupt(self, number, frame):
        """Runs in the main thread, in the middle of whatever it does."""
        if self._call is not None and time.monotonic() >= self._call.deadline:
            raise Hang

    def _look(self):
        before = None
        while not self._closed.wait(LOOK):
            call, now = self._call, time.monotonic()
            self._watch_interpreter(call if call is before else None, now)
            before = call
            if call is None or now < call.deadline:
                continue
            if not call.interrupted:
                call.interrupted = True
                if self._previous is not None:
                    signal.pthread_kill(self._caller, signal.SIGALRM)
            elif not call.told and now >= call.deadline + GRACE:
                call.told = True
                self._tell(call)
        faulthandler.cancel_dump_traceback_later()

    def _watch_interpreter(self, call, now):
        """Let faulthandler print where a call hangs that does not let this thread run any more
        either.
        """
        if call is None:
            if self._last > 0:
                faulthandler.cancel_dump_traceback_later()
            self._last = -REARM
        elif now - self._last >= REARM:
            faulthandler.dump_traceback_later(
                max(call.deadline - now, 0) + 2 * GRACE + REARM, file=STDERR
            )
            self._last = now

    def _tell(self, call):
        frame = sys._current_frames().get(self._caller)
        stack = ''.join(traceback.format_stack(frame)) if frame else ''
        self._on_event(
            f'{call.who} has not answered within {call.seconds:.3g} s and cannot be interrupted: '
            'it is in this process, where '
            'nothing can replace it. Restart with --driver.parallel true, which can. It hangs '
            f'in\n{stack}'.rstrip()
        )
