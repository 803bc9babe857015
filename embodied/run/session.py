"""What every way of running shares: a run in its logdir, with counters, logger, checkpoints, clocks
and an orderly end.

A run goes on where its newest checkpoint is when its logdir is opened again. What was given to
track() takes up its state then, so that an interrupted run equals one that was not, as far as its
envs and its agent can be saved.
"""

import contextlib
import functools
import os
import sys
from pathlib import Path
from typing import Any

from ..base import Agent, Feed, Status
from ..checkpoint import Checkpoint, find_save
from ..clock import Decades, Every
from ..console import is_terminal, steady
from ..drive import Driver
from ..errors import (
    CheckpointError,
    EnvError,
    EnvInterrupted,
    OutOfResources,
    ReplayWriteError,
)
from ..lock import FolderLock
from ..log.event_log import EventLog
from ..log.metrics import EpisodeStats, Window, goals_of
from ..log.progress import done, ending
from ..replay import Replay
from ..replay.shard import take_up
from ..save import read
from ..tasks import names_of, repeats_of
from .agreement import Agreement, Trees, newest, regrouped, write
from .banner import banner
from .interrupt import Interrupt
from .setup import Counters, MakeEnv, MakeLogger, Setup

ELSEWHERE = 'A signal to another rank'
# an env that fails, rows that cannot be read just now
HARMLESS = (EnvError, OutOfResources)
# the disk is full or away; the last good checkpoint stands
SAVING_FAILED = (CheckpointError, ReplayWriteError, OSError)


class Session:
    """One run in its logdir. A context manager: leaving it saves, and closes what was given to
    open().

    Leaving it by an error saves only if the error is HARMLESS to what was learned. That the last
    save fails is an error too, whereas those before are only reported.

    Raises:
      FolderInUse: another process runs in the logdir.

    Where several processes make the run, each has a session, and all of them come to the same
    calls; number 0 alone writes what people read.

    Attributes:
      ranks: the processes. folder: where this one writes, rank 0 in the logdir.
      counters, logger, checkpoint: of this run.
      metrics: means since the last line of metrics.jsonl.
    """

    def __init__(self, setup: Setup, make_logger: MakeLogger):
        self.setup, self.ranks = setup, setup.ranks
        self.folder = setup.ranks.folder(setup.logdir)
        self.counters, self.metrics = Counters(), Window()
        early = []
        self._lock = FolderLock(self.folder, early.append)
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._lock.close)
        try:
            self._open_outputs(make_logger, early)
        except BaseException:
            self._stack.close()
            raise
        self.checkpoint = Checkpoint(setup.logdir / 'ckpt', setup.run.keep, self.event)
        self._interrupt = Interrupt(launched=setup.ranks.count > 1)
        self._agreement = Agreement(
            setup.ranks,
            self.counters,
            self._interrupt,
            Every(seconds=setup.run.save_every),
            self._log_episode,
        )
        self.agree = self._agreement.agree
        self._clocks = {
            'log': Every(steps=setup.run.log_every),
            'report': Every(steps=setup.run.report_every),
        }
        # run.log_every may be minutes away: a line at 1, 10, 100 ... decisions and updates too
        self._soon = Decades(setup.run.log_every)
        self._trees = Trees(setup.ranks)
        self.track = self._trees.add
        self._begun, self._complete, self._status, self._ratio = False, False, Status(), 0.0
        self._early = Decades()  # of the live line, anew in each process

    def _open_outputs(self, make_logger: MakeLogger, early: list[str]) -> None:
        """The terminal, events.log and the logger, and what has to be said since the lock."""
        self._stack.enter_context(steady())
        self._events = EventLog(self.folder / 'events.log')
        self._stack.callback(self._events.close)
        for text in early:
            self.event(text)
        self.logger = make_logger(self.counters, self.event)
        self._stack.callback(self.logger.close)

    def __enter__(self):
        self._stack.enter_context(self._interrupt)
        return self

    def __exit__(self, kind, error, trace):
        # Ctrl-C asks for the end wherever it was heard
        asked = isinstance(error, EnvInterrupted) and self._begun and self.ranks.count == 1
        if asked:
            self._interrupt.first, error = self._interrupt.first or 'SIGINT', None
        with self._stack:
            if self._agreement.ends:
                signal = self._interrupt.first or ELSEWHERE
                self.event(f'{signal} asked for the end of the run, after {done(self.counters())}.')
            if error is not None:
                self._events.add(f'The run ended by {kind.__name__}: {error}')
            # after an error the others wait elsewhere, and nobody can save
            alone = self.ranks.count == 1
            if self._begun and (error is None or alone and isinstance(error, HARMLESS)):
                saved = False
                try:
                    saved = self._write_checkpoint(last=error is None)
                finally:
                    # After the checkpoint, which holds these numbers: a run that goes on drops this
                    # line and completes them.
                    self.logger.add(self.metrics.take())
                    self.logger.write()
                if saved:
                    self._say_what_is_saved()
        return asked

    def open(self, part: Any) -> Any:
        """`part`, which is closed at the end, the last one opened first."""
        return self._stack.enter_context(contextlib.closing(part))

    def start_driver(self, make_env: MakeEnv) -> Driver:
        """The driver of this run's envs, whose rows are counted and whose episodes are logged."""
        envs = self.setup.run.envs
        driver = self.open(
            Driver(
                [make_env('env', self.ranks.number * envs + index) for index in range(envs)],
                self.setup.driver,
                self.event,
                folder=self.folder / 'stacks',
            )
        )
        self.counters.repeat, self.counters.repeats = driver.repeat, repeats_of(driver.obs_space)
        driver.on_row(self.counters.row)
        return driver

    def begin(self) -> bool:
        """Call when everything is tracked: take up the state of the newest checkpoint. Returns
        whether there was one.

        Raises:
          CheckpointError: there is one that does not fit what is tracked.
        """
        own = {'counters': self.counters, 'metrics': self.metrics, 'logger': self.logger}
        own |= {f'clock-{name}': clock for name, clock in self._clocks.items()}
        for name, part in own.items():
            self.track(name, part.save, part.load)
        self.track('clock-soon', self._soon.save, self._soon.load, optional=True)
        found = newest(self.checkpoint, self.ranks)
        if found:
            self._trees.load(*found, self.setup.logdir)
            self._agreement.begin()
            change = regrouped(found[1], self.ranks)
            self.event(f'Continuing {self.setup.logdir} after {done(self.counters())}.{change}')
        elif not self.ranks.number:
            self._set_lines_aside()
        self._begun = True
        return bool(found)

    def track_parts(self, agent: Agent, driver: Driver | None, replay: Replay | None) -> None:
        """Track what decides how a run goes on; the replay before the driver, whose rows
        continue its streams.
        """
        self.track('agent', agent.save, agent.load)
        if replay is not None:
            deal = functools.partial(take_up, replay, self.ranks)
            self.track('replay', replay.save, replay.load, own=True, deal=deal)
        if driver is not None:
            self.track(
                'driver',
                lambda: driver.save(agent.save_carry),
                lambda tree: driver.load(tree, agent.load_carry),
                own=True,
            )
            episodes = EpisodeStats(self._agreement.episode, names_of(driver.obs_space))
            self.track('episodes', episodes.save, episodes.load, own=True)
            driver.on_row(episodes)
            driver.reset(agent.init_policy)

    def warm_start(self, agent: Agent) -> None:
        """Load the agent alone from setup.from_checkpoint, if that is given; it learns on here."""
        if self.setup.from_checkpoint is not None:
            load_agent(agent, self.ranks.decide(lambda: find_save(self.setup.from_checkpoint)))
            agent.take((), anew=False)
            self.event(f'The agent starts from {self.setup.from_checkpoint}.')

    def meta(self, driver: Driver) -> dict[str, Any]:
        """Facts that a replay folder keeps about its rows."""
        return {'task': self.setup.task, 'repeat': driver.repeat, 'seed': self.setup.seed}

    def banner(
        self, agent: Agent, driver: Driver | None, replay: Replay, feed: Feed | None = None
    ) -> None:
        """Say what is about to run."""
        for line in banner(self.setup, agent, driver, replay, feed):
            self.event(line)

    def event(self, text: str) -> None:
        """Something a person should read: the terminal, and events.log in the logdir."""
        # over the line that lives
        if not self.ranks.number:
            print(f'\r\x1b[K{text}' if is_terminal(sys.stdout) else text, flush=True)
        self._events.add(text)

    def goes_on(self, unfinished: bool) -> bool:
        """Whether the loop goes round again: there is work left and nobody asked for the end."""
        self._complete = not unfinished
        return unfinished and not self._agreement.ends

    @property
    def interrupted(self) -> bool:
        """Whether a signal asked for the end."""
        return self._interrupt.asked

    @property
    def cut_by(self) -> str:
        """The signal that ended the run before it was complete, '' for none."""
        if self._complete or not self._agreement.ends:
            return ''
        return self._interrupt.first or ELSEWHERE

    def report_if_due(self, counter: int, agent: Agent, replay: Replay, feed: Feed) -> None:
        """Every run.report_every: the agent's slow diagnostics, on sequences that training does
        not miss.
        """
        if not self._clocks['report'](counter) or not self.counters.updates:
            return
        # of each rank, as all of them report or none does
        if not self.ranks.sum([not replay.sequences(agent.sequence_rows)])[0]:
            self.logger.add(agent.report(feed.fresh(counter)), 'report')

    def log_if_due(
        self,
        counter: int,
        share: float,
        agent: Agent,
        replay: Replay,
        driver: Driver | None,
        status: Status | None = None,
        pretraining: bool = False,
    ) -> None:
        """Every run.log_every a line of metrics, more often in the beginning; in between the line
        that lives.

        What the agent has to tell, and that its stage is another one, is told at once. Status is
        the agent's unless it is given; pretraining: updates are made while no env moves.
        """
        for text in agent.events():
            self.event(text)
        status = agent.status() if status is None else status
        due = self._clocks['log'](counter) | self._soon(counter, self.counters.updates)
        before, self._status = self._status, status
        if driver is not None and agent.frames_per_update:
            self._ratio = self.setup.run.train_ratio / agent.frames_per_update
        if status.stage != before.stage:
            step, updates = self.counters.step, self.counters.updates
            self.event(f'Stage {status.stage}, from {step:,} steps and {updates:,} updates on.')
        if due:
            self.log(replay, driver, pretraining)
        self.logger.line(share, status, self.metrics.smooth, force=self._early(counter) or due)

    def log(self, replay: Replay, driver: Driver | None, pretraining: bool = False) -> None:
        """One line of metrics.jsonl, about the rows and envs of all ranks."""
        self.logger.add(self.metrics.take())
        counts = {f'replay/{name}': value for name, value in replay.stats().items()}
        if driver is not None:  # else all ranks read the same rows
            counts['env/restarts'] = float(driver.restarts)
            counts = dict(zip(counts, self.ranks.sum([*counts.values()])))
        self.logger.add(counts)
        self.logger.write(pretraining)

    def save_if_due(self) -> None:
        """A checkpoint every run.save_every seconds."""
        if self._agreement.save_due():
            self._write_checkpoint()

    def _log_episode(self, score: float, length: int, logs: dict, task: str = '') -> None:
        self.logger.score(score, length, goals_of(logs), task)
        own = {f'score/{task}': score} if task else {}
        self.metrics.add({'score': score, 'length': length} | own | logs, 'episode')

    def _set_lines_aside(self) -> None:
        """The counters begin at 0: lines of a run that ended before its first checkpoint would
        stand among ours.
        """
        for name in ('metrics', 'scores', 'eval/scores'):
            path = self.setup.logdir / f'{name}.jsonl'
            if path.exists() and path.stat().st_size:
                os.replace(path, path.with_suffix('.lost.jsonl'))
                self.event(
                    f'{path} is of a run without a checkpoint, its lines are in'
                    f' {path.stem}.lost.jsonl now.'
                )

    def _say_what_is_saved(self) -> None:
        """How far and how well the run went, where its files are, and that it can go on."""
        total = 'run.steps' if self.counters.step else 'run.updates'
        run = self.logger.returns, self.setup.logdir, self._status, self._ratio
        for line in ending(self.counters(), self.logger.seconds, self._complete, total, *run):
            self.event(line)

    def _write_checkpoint(self, last: bool = False) -> bool:
        """Save; whether that worked. A failure is reported, and raised if this is the last save."""
        try:
            trees = self._trees.save()
            meta = {**self.counters(), 'task': self.setup.task, 'seed': self.setup.seed}
            meta |= {'ranks': self.ranks.count} if self.ranks.count > 1 else {}
            write(self.checkpoint, trees, meta, self.ranks)
        except SAVING_FAILED as error:
            if last:
                raise
            self.event(
                'This checkpoint could not be saved, the last good one stands, the run goes on:'
                f' {error}'
            )
            return False
        return True


def load_agent(agent: Agent, path: Path) -> Path:
    """Load the agent of the newest save at `path` (a logdir, its ckpt folder or a save); returns
    the save.

    Raises:
      CheckpointError: there is none, it is damaged, or it was made for another agent.
    """
    save = find_save(path)
    trees, _ = read(save)
    if 'agent' not in trees:
        raise CheckpointError(f'{save}: holds {sorted(trees)}, expected an agent')
    agent.load(trees['agent'])
    return save
