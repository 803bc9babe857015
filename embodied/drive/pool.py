"""Keeps one worker per group of envs alive: starts them, steps them together, replaces those that
fail.

The driver above sees N envs that always answer. What it must know of a replacement is in the
observation: the new env's row is `is_first`, and a row followed by `is_first` without `is_last` is
an episode that was cut.
"""

import os
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..base import Env
from ..errors import ConfigError, EnvNonFinite, EnvTimeout
from . import reaper
from .arena import Arena, SharedMemory, map_memory
from .watch import Watch
from .worker import (
    MISTAKES,
    LocalWorker,
    ProcessWorker,
    WorkerFault,
    demand_same_spaces,
    graphics_environment,
    pickled,
)

SOFTWARE_RENDERERS = ('llvmpipe', 'softpipe', 'swrast', 'osmesa')
CLOSE_GRACE = 2.0  # seconds the workers have to close their envs
# steps after which a worker may fail with NaN without this counting towards driver.max_restarts
GOOD_LIFE = 50
# such faults that are reported one by one; of the later ones every 10th, 100th, ... is
TOLD_IN_FULL = 5


@dataclass(frozen=True)
class Plan:
    """One way to start the workers."""

    text: str
    envs_per_worker: int
    environ: dict
    against_crowding: bool = False


class Pool:
    """N envs behind one arena.

    Attributes:
      obs_space, act_space, repeat: of every env.
      arena: its rows hold the actions before send() and the observations after receive().
      restarts: workers replaced so far.
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
        self.restarts = 0
        self.parallel = self.num_envs > 1 if config.parallel == 'auto' else config.parallel
        self._on_event = on_event
        # where dumps go; stack -> the first env that hung there
        self._folder, self._stacks = folder, {}
        self._watch = Watch(on_event)
        self._make_envs = list(make_envs)
        self._renewals = [0] * self.num_envs  # replacements of every env so far
        self._tasks = {index: _name(make_env) for index, make_env in enumerate(make_envs)}
        self._faults = deque()  # (time, text) of those within the window
        self._age = np.zeros(self.num_envs, np.int64)  # steps since the episode began, for messages
        self._life = np.zeros(self.num_envs, np.int64)  # steps since the env was made
        self._blown = 0  # faults by values that are not finite
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
        self._age += 1
        self._life += 1
        self._age[self.arena.obs['is_first']] = 0

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
        self._memory.close()
        self._watch.close()

    # Starting

    def _start(self):
        failures, faults = [], []
        for plan in self._plans():
            if (
                plan.against_crowding
                and all(fault.graphics for _, fault in faults)
                and len(faults) == len(self._workers)
            ):
                # every process could still say what is wrong, so a library is missing and nothing
                # hangs
                continue
            self._workers = self._make_workers(plan)
            faults = self._probe()
            if not faults:
                return self._announce(plan, failures)
            failures.append(self._start_failure(plan, faults))
            for worker in self._workers:
                worker.stop()
            if any(fault.graphics is False or fault.error in MISTAKES for _, fault in faults):
                break  # neither grouping nor another renderer would mend it
            self._on_event(failures[-1])
        raise faults[0][1].error('\n'.join(failures))

    def _plans(self):
        """Ways to start, in order of preference: rendering in many processes at once hangs on
        some drivers.
        """
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
        group = self.config.envs_per_worker or -(-self.num_envs // cores)
        yield Plan('as configured', group, {})
        if not self.parallel:
            return
        if group < self.num_envs:
            yield Plan(
                'all envs in one worker, which steps them one after another',
                self.num_envs,
                {},
                against_crowding=True,
            )
        if graphics_environment(os.environ).get('MUJOCO_GL') != 'osmesa':
            software = {'MUJOCO_GL': 'osmesa', 'PYOPENGL_PLATFORM': 'osmesa'}
            yield Plan('rendering in software (MUJOCO_GL=osmesa)', group, software)

    def _make_workers(self, plan):
        envs = dict(enumerate(pickled(self._make_envs)))
        if not self.parallel:
            return [
                LocalWorker({index: constructor}, self._memory.fd, self._watch)
                for index, constructor in envs.items()
            ]
        groups = np.array_split(np.arange(self.num_envs), -(-self.num_envs // plan.envs_per_worker))
        return [
            ProcessWorker(
                {int(index): envs[index] for index in group}, self._memory.fd, plan.environ
            )
            for group in groups
        ]

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
            self._tasks |= {index: task for index, task in info['tasks'].items() if task}
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
                faults.append((worker, self._located(worker, fault)))
        return results, faults

    def _until(self, deadline, allowed):
        """When a worker must have answered. Those in this process work one after another, so
        each has the time for itself.
        """
        return deadline if self.parallel else time.monotonic() + allowed

    def _start_failure(self, plan, faults):
        first = self._fault_text(*faults[0], 'while starting')
        return (
            f'{len(faults)} of {len(self._workers)} env workers did not start {plan.text}; the'
            f' first: {first}'
        )

    def _announce(self, plan, failures):
        renderers = ', '.join(self.renderers) or 'not named by the envs'
        if failures:
            self._on_event(
                f'env workers started after a failure: {plan.text}; renderer: {renderers}'
            )
        software = [
            name
            for name in self.renderers
            if any(word in name.lower() for word in SOFTWARE_RENDERERS)
        ]
        if software:
            self._on_event(
                f'warning: envs render in software ({", ".join(software)}), often a hundred times'
                ' slower than on the GPU; on a machine with one, check that its EGL library is'
                ' installed and MUJOCO_GL is not osmesa'
            )

    # Faults

    def _replace(self, worker, fault):
        """Put a fresh worker in the place of a failed one; its envs' first observations go to
        the arena.
        """
        while fault:
            fault = self._located(worker, fault)
            worker.stop()
            self._record(worker, fault)
            self._renew(worker)
            fault = self._revive(worker)

    def _renew(self, worker):
        """Give the envs of a worker random streams of their own for their next life: the old
        ones would repeat what was seen.
        """
        # what fails from here on fails in a new episode
        self._age[worker.envs] = self._life[worker.envs] = 0
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

    def _located(self, worker, fault):
        """Fill in which env of a group a dead or hung process was stepping."""
        if fault.env is None and self.arena is not None:
            busy = [index for index in worker.envs if self.arena.busy[index]]
            fault.env = busy[0] if busy else None
        if fault.env is None and len(worker.envs) == 1:
            fault.env = worker.envs[0]
        return fault

    def _record(self, worker, fault):
        """Count and tell a fault; raises once there were too many, at once where a restart would
        only hide a mistake.
        """
        age = self._age[worker.envs[0] if fault.env is None else fault.env]
        text = self._fault_text(worker, fault, f'in step {age + 1} of its episode')
        if fault.error in MISTAKES:
            raise fault.error(text)
        if fault.error is not EnvNonFinite or self._life[worker.envs].max() < GOOD_LIFE:
            self._count(fault, text)
        self.restarts += 1
        lost = (
            f'; envs {worker.envs} of that worker begin new episodes'
            if len(worker.envs) > 1
            else ''
        )
        if fault.error is EnvNonFinite:
            self._blown += 1
            if self._blown > TOLD_IN_FULL and self._blown not in (
                10**power for power in range(1, 12)
            ):
                return
            lost += f' ({self._blown:,} such by now)' if self._blown > TOLD_IN_FULL else ''
        self._on_event(f'replacing a worker{lost}: {text}')

    def _count(self, fault, text):
        """Hold a fault against those that are tolerated within the window."""
        now = time.monotonic()
        self._faults.append((now, text))
        while now - self._faults[0][0] > self.config.restart_window:
            self._faults.popleft()
        if len(self._faults) > self.config.max_restarts:
            raise fault.error(
                f'{len(self._faults)} env faults within {self.config.restart_window:g} s,'
                f' driver.max_restarts allows {self.config.max_restarts}:\n'
                + '\n'.join(text for _, text in self._faults)
            )

    def _tell(self, notes):
        """Pass on what envs say about themselves, one note of each topic."""
        for topic, text in notes or ():
            if self._tells and topic not in self._told:
                self._told.add(topic)
                self._on_event(text)

    def _fault_text(self, worker, fault, when):
        if fault.env is None:
            name = f'one of envs {worker.envs} ({self._tasks[worker.envs[0]]})'
        else:
            name = f'env {fault.env} ({self._tasks[fault.env]})'
        return f'{name} {when}: {fault.text}\n{self._trace(fault)}'.rstrip()

    def _trace(self, fault):
        """Where a fault happened: of equal stacks the first, and of the threads of a process
        that hangs the main one.
        """
        if fault.error is not EnvTimeout:
            return fault.trace
        stack = re.sub('0x[0-9a-f]+', '', fault.trace)
        if stack and stack in self._stacks:
            return f'(hangs where env {self._stacks[stack]} did)'
        self._stacks[stack] = fault.env
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
                fault = self._located(worker, fault)
                answers = [
                    (failure, self._fault_text(worker, fault, f'while asked to {name}'))
                ] * len(worker.envs)
                worker.stop()  # the next step finds it gone and replaces it
            results |= dict(zip(worker.envs, answers, strict=True))
        for index, (_, error) in results.items():
            if error:
                self._on_event(
                    f'env {index} ({self._tasks[index]}) could not {name} its state and starts a'
                    f' new episode: {error}'
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
