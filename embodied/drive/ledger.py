"""The faults of a driver's workers: which env it was, how it is told, and how many are too many."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from ..errors import EnvNonFinite, EnvTimeout
from .arena import Arena
from .fault import MISTAKES, WorkerFault, place

# steps after which a worker may fail with NaN without this counting towards driver.max_restarts
GOOD_LIFE = 50
# such faults that are reported one by one; of the later ones every 10th, 100th, ... is
TOLD_IN_FULL = 5


class Ledger:
    """Faults, and how long envs have lived.

    Attributes:
      restarts: faults whose workers were replaced.
      tasks: env index -> what to call it.
    """

    def __init__(
        self,
        tasks: Mapping[int, str],
        allowed: int,
        window: float,
        on_event: Callable[[str], None],
        folder: Path | None,
    ):
        """Args: names of the envs; faults tolerated within so many seconds; who is told; where the
        stacks of processes that hang are written, None for nowhere.
        """
        self.restarts, self.tasks = 0, dict(tasks)
        self._allowed, self._window = allowed, window
        self._on_event, self._folder = on_event, folder
        self._stacks = {}  # place -> the first env that failed or hung there
        self._faults = deque()  # (time, headline, traceback) of those within the window
        # steps since the episode began, for messages; steps since the env was made
        self._age, self._life = (np.zeros(len(tasks), np.int64) for _ in range(2))
        self._blown = 0  # faults by values that are not finite

    def stepped(self, is_first: np.ndarray) -> None:
        """All envs made a step; is_first of their rows."""
        self._age += 1
        self._life += 1
        self._age[is_first] = 0

    def renewed(self, envs: Sequence[int]) -> None:
        """Envs are new: what fails from here on fails in a new episode."""
        self._age[envs] = self._life[envs] = 0

    def record(self, envs: Sequence[int], fault: WorkerFault) -> None:
        """Count and tell a fault of the worker of `envs`.

        Raises:
          EnvError: as the fault says: too many, or one that a restart would only hide.
        """
        age = self._age[envs[0] if fault.env is None else fault.env]
        when = f'in step {age + 1} of its episode'
        if fault.error in MISTAKES:
            raise fault.error(self.text(envs, fault, when))
        if fault.error is not EnvNonFinite or self._life[envs].max() < GOOD_LIFE:
            self._count(fault, self._headline(envs, fault, when))
        text = self.text(envs, fault, when)
        self.restarts += 1
        lost = f'; envs {envs} of that worker begin new episodes' if len(envs) > 1 else ''
        if fault.error is EnvNonFinite:
            self._blown += 1
            if self._blown > TOLD_IN_FULL and self._blown not in (
                10**power for power in range(1, 12)
            ):
                return
            lost += f' ({self._blown:,} such by now)' if self._blown > TOLD_IN_FULL else ''
        self._on_event(f'replacing a worker{lost}: {text}')

    def text(self, envs: Sequence[int], fault: WorkerFault, when: str) -> str:
        """A fault of the worker of `envs`, with its traceback."""
        trace = self._trace(fault)
        gap = ' ' if trace.startswith('(') else '\n'
        return f'{self._headline(envs, fault, when)}{gap}{trace}'.rstrip()

    def _headline(self, envs: Sequence[int], fault: WorkerFault, when: str) -> str:
        if fault.env is None:
            name = f'one of envs {envs} ({self.tasks[envs[0]]})'
        else:
            name = f'env {fault.env} ({self.tasks[fault.env]})'
        return f'{name} {when}: {fault.text}'

    def _count(self, fault: WorkerFault, headline: str) -> None:
        """Hold a fault against those that are tolerated within the window."""
        now = time.monotonic()
        self._faults.append((now, headline, fault.trace))
        while now - self._faults[0][0] > self._window:
            self._faults.popleft()
        if len(self._faults) > self._allowed:
            last = {place(trace): index for index, (*_, trace) in enumerate(self._faults)}
            words = [
                f'{headline}\n{trace if last[place(trace)] == index else ""}'.rstrip()
                for index, (_, headline, trace) in enumerate(self._faults)
            ]
            raise fault.error(
                f'{len(self._faults)} env faults within {self._window:g} s,'
                f' driver.max_restarts allows {self._allowed}:\n' + '\n'.join(words)
            )

    def _trace(self, fault: WorkerFault) -> str:
        """Where a fault happened: of equal stacks the first, and of the threads of a process that
        hangs the main one.
        """
        stack, hangs = place(fault.trace), fault.error is EnvTimeout
        if stack and stack in self._stacks:
            return f'({"hangs" if hangs else "raised"} where env {self._stacks[stack]} did)'
        self._stacks[stack] = fault.env
        if not hangs:
            return fault.trace
        if not fault.threads or self._folder is None:
            return fault.trace
        path = self._folder / f'stacks-{datetime.now():%Y%m%dT%H%M%S}-env{fault.env}.txt'
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(fault.dump)
        except OSError as error:
            return (
                f'{fault.trace}\n({fault.threads} further threads; their stacks cannot be written:'
                f' {error})'
            )
        return f'{fault.trace}\n(the stacks of {fault.threads} further threads are in {path})'


def located(envs: Sequence[int], fault: WorkerFault, arena: Arena | None) -> WorkerFault:
    """The fault, with the env that a dead or hung process was stepping."""
    if fault.env is None and arena is not None:
        busy = [index for index in envs if arena.busy[index]]
        fault.env = busy[0] if busy else None
    if fault.env is None and len(envs) == 1:
        fault.env = envs[0]
    return fault
