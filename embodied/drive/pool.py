"""Keeps one worker per group of envs alive: starts them, steps them together, replaces those that
fail.

The driver above sees N envs that always answer. What it must know of a replacement is in the
observation: the new env's row is `is_first`, and a row followed by `is_first` without `is_last` is
an episode that was cut.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..base import Env
from ..errors import ConfigError
from . import reaper
from .arena import Arena, SharedMemory, map_memory
from .fault import MISTAKES, WorkerFault
from .group import demand_same_spaces
from .ledger import Ledger, located
from .printed import Printed
from .start import plans, remarks
from .watch import Watch
from .worker import pickled

CLOSE_GRACE = 2.0  # seconds the workers have to close their envs


class Pool:
    """N envs behind one arena.

    Attributes:
      obs_space, act_space, repeat: of every env.
      arena: its rows hold the actions before send() and the observations after receive().
      renderers: sorted names of what the envs render with, as far as they say.

    After construction every env has been reset once, and its first observation lies in the arena.
    """

    def __init__(
        self,
        make_envs: Sequence[Callable[[], Env]],
        config: Any,
        on_event: Callable[[str], None],
        notes: bool = True,
        folder: Path | None = None,
    ):
        """Start the envs; arguments and errors are those of the Driver, config is its
        DriverConfig.
        """
        if not make_envs:
            raise ConfigError('a driver needs at least one env, got none')
        self.num_envs = len(make_envs)
        self.config = config
        self.parallel = self.num_envs > 1 if config.parallel == 'auto' else config.parallel
        self._on_event = on_event
        self._watch = Watch(on_event)
        # beside the folder of stacks, which is of faults alone
        self._printed = Printed(on_event, None if folder is None else folder.parent)
        self._make_envs = list(make_envs)
        self._renewals = [0] * self.num_envs  # replacements of every env so far
        tasks = {index: _name(make_env) for index, make_env in enumerate(make_envs)}
        tolerated = config.max_restarts, config.restart_window
        self._ledger = Ledger(tasks, *tolerated, on_event, folder)
        self._tells, self._told = notes, set()  # topics of notes that were passed on
        self._memory = SharedMemory()
        self._workers = []
        self._waiting = deque()  # workers that owe a step
        self._owner = os.getpid()
        self.obs_space = self.act_space = self.repeat = self.arena = None
        self.renderers = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def restarts(self) -> int:
        """Workers replaced so far."""
        return self._ledger.restarts

    @restarts.setter
    def restarts(self, count: int):
        self._ledger.restarts = count

    @property
    def pids(self) -> list[int | None]:
        """Process ids of the workers, in env order."""
        return [worker.pid for worker in self._workers]

    @property
    def groups(self) -> list[list[int]]:
        """Indices of the envs of each worker."""
        return [worker.envs for worker in self._workers]

    def send(self) -> None:
        """Let all envs take the actions in the arena; returns at once when they live in other
        processes.
        """
        for worker in self._workers:
            worker.request('step')
        self._waiting.extend(self._workers)

    def receive(self) -> None:
        """Wait until the observations of all envs are in the arena; failed workers are replaced on
        the way.

        A step may take config.timeout, one that begins an episode config.start_timeout.

        Raises:
          EnvContractError: an env returned what its spaces do not announce.
          EnvCrashed, EnvTimeout: more faults than allowed, with the tracebacks of all.
        """
        begun = time.monotonic()
        while self._waiting:
            worker = self._waiting[0]
            allowed = self.config.timeout
            if self.arena.action['reset'][worker.envs].any():
                allowed = max(allowed, self.config.start_timeout)
            try:
                self._tell(worker.receive(self._until(begun + allowed, allowed)))
            except WorkerFault as fault:
                self._replace(worker, fault)
            self._waiting.popleft()
        self._printed.tell()
        self._ledger.stepped(self.arena.obs['is_first'])

    def save(self) -> list[Any]:
        """Returns the state of each env, None where it has none to offer. Must not be called
        between send and receive.
        """
        results = self._ask_all('save', [() for _ in self._workers], failure=None)
        return [state for state, _ in results]

    def load(self, states: Sequence[Any]) -> list[bool]:
        """Args: one state or None per env. Returns a list of bools: whether the env goes on
        where the state was taken.
        """
        arguments = [([states[index] for index in worker.envs],) for worker in self._workers]
        results = self._ask_all('load', arguments, failure=False)
        return [bool(restored) for restored, _ in results]

    def close(self) -> None:
        """Ask the workers to close their envs, then end them. May be called any number of times."""
        if os.getpid() != self._owner:
            return  # a fork of the owner is about to exit; the workers are not its own
        deadline = time.monotonic() + CLOSE_GRACE
        for worker in self._workers:
            worker.request('close')
        for worker in self._workers:
            worker.finish(deadline)
        reaper.end(*(worker.mark for worker in self._workers))
        self._printed.close()
        self._memory.close()
        self._watch.close()

    # Starting

    def _start(self):
        failures, faults = [], []
        together = all(getattr(make, 'together', False) for make in self._make_envs)
        ways = plans(self.num_envs, self.config.envs_per_worker, self.parallel, together)
        for plan in ways:
            if (
                plan.against_crowding
                and all(fault.graphics for _, fault in faults)
                and len(faults) == len(self._workers)
            ):
                # every process could still say what is wrong, so a library is missing and nothing
                # hangs
                continue
            self._workers = plan.workers(
                self._make_envs, self.parallel, self._memory.fd, self._watch, self._printed
            )
            faults = self._probe()
            if not faults:
                for remark in remarks(plan, bool(failures), self.renderers):
                    self._on_event(remark)
                return
            first = self._ledger.text(faults[0][0].envs, faults[0][1], 'while starting')
            failures.append(
                f'{len(faults)} of {len(self._workers)} env workers did not start {plan.text}; the'
                f' first: {first}'
            )
            for worker in self._workers:
                worker.stop()
            if any(fault.graphics is False or fault.error in MISTAKES for _, fault in faults):
                break  # neither grouping nor another renderer would mend it
            self._on_event(failures[-1])
        raise faults[0][1].error('\n'.join(failures))

    def _probe(self):
        """Let all workers build their envs and reset them at the same time. Returns the faults."""
        deadline = time.monotonic() + self.config.start_timeout
        self.arena = None
        for worker in self._workers:
            worker.start()
        infos, faults = self._gather(deadline)
        if faults:
            return faults
        self._adopt(infos)
        _, faults = self._gather(deadline, 'attach', *self._layout)
        if not faults:
            self.arena.action['reset'][:] = True
            notes, faults = self._gather(deadline, 'step')
            for some in notes:
                self._tell(some)
        if not faults:
            names, faults = self._gather(deadline, 'renderers')
            self.renderers = sorted({name for group in names for name in group if name})
        return faults

    def _adopt(self, infos):
        """Take over what the workers tell of their envs, and size the arena for it."""
        for worker, info in zip(self._workers, infos, strict=True):
            demand_same_spaces((self._workers[0].envs[0], infos[0]), (worker.envs[0], info))
            self._ledger.tasks |= {index: task for index, task in info['tasks'].items() if task}
            self._tell(info['notes'])
        self._info = infos[0]
        self.obs_space, self.act_space, self.repeat = (
            self._info[key] for key in ('obs_space', 'act_space', 'repeat')
        )
        self._layout = self.obs_space, self.act_space, self.num_envs
        self._memory.resize(Arena.nbytes(*self._layout))
        self.arena = Arena(*self._layout, map_memory(self._memory.fd))
        self.arena.busy[:] = False

    def _gather(self, deadline, name=None, *args):
        """Send a request, if any is named, to all workers, then receive from all. Returns the
        replies and the faults.
        """
        if name:
            for worker in self._workers:
                worker.request(name, *args)
        results, faults = [], []
        for worker in self._workers:
            try:
                results.append(worker.receive(self._until(deadline, self.config.start_timeout)))
            except WorkerFault as fault:
                faults.append((worker, located(worker.envs, fault, self.arena)))
        return results, faults

    def _until(self, deadline, allowed):
        """When a worker must have answered. Those in this process work one after another, so
        each has the time for itself.
        """
        return deadline if self.parallel else time.monotonic() + allowed

    # Faults

    def _replace(self, worker, fault):
        """Put a fresh worker in the place of a failed one; its envs' first observations go to
        the arena.
        """
        while fault:
            fault = located(worker.envs, fault, self.arena)
            worker.stop()
            self._ledger.record(worker.envs, fault)
            self._renew(worker)
            fault = self._revive(worker)

    def _renew(self, worker):
        """Give the envs of a worker random streams of their own for their next life: the old
        ones would repeat what was seen.
        """
        self._ledger.renewed(worker.envs)
        for index in worker.envs:
            self._renewals[index] += 1
            if hasattr(self._make_envs[index], 'renewed'):
                (worker.constructors[index],) = pickled(
                    [self._make_envs[index].renewed(self._renewals[index])]
                )

    def _revive(self, worker):
        # in this process, too: there is one worker here
        deadline = time.monotonic() + self.config.start_timeout
        try:
            worker.start()
            demand_same_spaces(
                (worker.envs[0], self._info), (worker.envs[0], worker.receive(deadline))
            )
            worker.request('attach', *self._layout)
            worker.receive(deadline)
            self.arena.busy[worker.envs] = False
            self.arena.action['reset'][worker.envs] = True
            worker.request('step')
            self._tell(worker.receive(deadline))
        except WorkerFault as fault:
            return fault
        except BaseException:
            # half started; whoever goes on from here finds no worker rather than the wrong answer
            worker.stop()
            raise
        return None

    def _tell(self, notes):
        """Pass on what envs say about themselves, one note of each topic."""
        for topic, text in notes or ():
            if self._tells and topic not in self._told:
                self._told.add(topic)
                self._on_event(text)

    def _ask_all(self, name, arguments, failure):
        """Ask each worker with its arguments for one (result, error text) per env; what fails is
        told and left out.
        """
        deadline = time.monotonic() + self.config.start_timeout
        for worker, args in zip(self._workers, arguments, strict=True):
            worker.request(name, *args)
        results = {}
        for worker in self._workers:
            try:
                answers = worker.receive(self._until(deadline, self.config.start_timeout))
            except WorkerFault as fault:
                fault = located(worker.envs, fault, self.arena)
                answers = [
                    (failure, self._ledger.text(worker.envs, fault, f'while asked to {name}'))
                ] * len(worker.envs)
                worker.stop()  # the next step finds it gone and replaces it
            results |= dict(zip(worker.envs, answers, strict=True))
        for index, (_, error) in results.items():
            if error:
                name_of_env = f'env {index} ({self._ledger.tasks[index]})'
                self._on_event(
                    f'{name_of_env} could not {name} its state and starts a new episode: {error}'
                )
        return [results[index] for index in range(self.num_envs)]


def _name(make_env):
    """What to call an env that never came to tell its task: the text that its constructor is
    given, or the constructor.
    """
    texts = [
        arg
        for arg in (getattr(make_env, 'task', ''), *getattr(make_env, 'args', ()))
        if isinstance(arg, str) and arg
    ]
    function = getattr(make_env, 'func', make_env)
    return texts[0] if texts else getattr(function, '__qualname__', type(function).__name__)
