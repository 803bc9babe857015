"""Time for tests of timeouts: it passes when something has happened, on machines of any speed."""

import time
import types
from pathlib import Path

import pytest

from embodied.drive import ledger, pool, watch, worker

TIMEOUT = 1000.0  # seconds, which only Clock lets pass


class Clock:
    """The clock of the runtime in this process: TIMEOUT passes at once when all of some files are
    there, and then `passed` is written.

    Attributes:
      waited_for: the envs of the worker whose answer is waited for; time passes at no other moment.
    """

    def __init__(self, files: tuple[Path, ...], passed: Path | None, env: int | None):
        self._files, self._passed, self._env = files, passed, env
        self._ahead, self.waited_for = 0.0, ()

    def monotonic(self) -> float:
        awaited = self.waited_for and (self._env is None or self._env in self.waited_for)
        if not self._ahead and awaited and all(file.exists() for file in self._files):
            self._ahead = TIMEOUT + 1
            if self._passed:
                self._passed.touch()
        return time.monotonic() + self._ahead


@pytest.fixture
def let_time_pass(monkeypatch):
    """Call with files: TIMEOUT passes when all are there. `passed` names a file to write then;
    with `env`, all workers before that of this env have answered then.
    """

    def start(*files: Path, passed: Path | None = None, env: int | None = None):
        clock = Clock(files, passed, env)
        module = types.SimpleNamespace(monotonic=clock.monotonic, sleep=time.sleep)
        for user in (pool, ledger, worker, watch):
            monkeypatch.setattr(user, 'time', module)
        for kind in (worker.ProcessWorker, worker.LocalWorker):
            monkeypatch.setattr(kind, 'receive', spied(kind.receive, clock))

    def spied(receive, clock):
        def spy(self, deadline):
            clock.waited_for = tuple(self.envs)
            try:
                return receive(self, deadline)
            finally:
                clock.waited_for = ()

        return spy

    return start
