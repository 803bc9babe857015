"""Signals that ask a run to end."""

import os
import signal
import threading

from ..console import shout


class Interrupt:
    """A context in which SIGINT, SIGTERM or SIGHUP ask for an orderly end.

    A second SIGINT, or a second SIGTERM, ends the process at once, unless a launcher has started
    it: a scheduler's signal comes to its processes, and once more by the launcher, which itself
    ends what does not end. A terminal that is closed and a
    session manager send SIGHUP and SIGTERM together, and neither of them is impatient. A run that
    was started to ignore SIGHUP (nohup) goes on ignoring it.

    Attributes:
      asked: whether one has come.
      first: its name, '' before.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, launched: bool = False):
        self.first, self._launched = '', launched
        self._seen = set()
        self._previous = {}

    @property
    def asked(self) -> bool:
        return bool(self.first)

    def __enter__(self):
        # Python allows no handlers elsewhere
        if threading.current_thread() is threading.main_thread():
            heard = [
                s
                for s in self.SIGNALS
                if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN
            ]
            self._previous = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if number in self._seen and number != signal.SIGHUP and not self._launched:
            os._exit(128 + number)
        self._seen.add(number)
        if self.asked:
            return
        self.first = signal.Signals(number).name
        # Not print(): the signal may have come in the middle of another print.
        again = '' if self._launched else '; once more ends at once, without saving'
        shout(f'\n{self.first}: ending after this step{again}.\n')
