"""Collect and learn in one loop: envs step, their rows go to the replay, the agent learns from
the replay, for ever.
"""

from dataclasses import replace

from ..base import Agent, Status, Values
from ..clock import Every, Ratio
from ..errors import ConfigError, ReplayEmptyError
from ..log.jsonl import JsonLines
from ..replay import Replay
from ..replay.shard import take_all
from ..tree_spec import ANYTHING, COUNT, FLAG, Maybe, demand
from .evaluate import evaluate, spread
from .evaluation import Evaluation, joined
from .session import Session
from .setup import MakeAgent, MakeEnv, MakeLogger, MakeReplay, Setup


def train(
    make_agent: MakeAgent,
    make_env: MakeEnv,
    make_replay: MakeReplay,
    make_logger: MakeLogger,
    setup: Setup,
    evaluating: bool = False,
) -> str:
    """Run until run.steps decisions were made, or until a signal asks for the end; then save.
    Returns its name, '' for none.

    Args:
      make_agent: make_agent(obs_space, act_space) is the agent.
      make_env: make_env('env', i) is the constructor of collecting env i, make_env('eval', i) of
          evaluating env i.
      make_replay: make_replay(obs_space, act_space, meta, on_event) is the replay.
      make_logger: make_logger(counters, on_event) is the logger. setup: everything else.
      evaluating: every eval.every frames, in other envs; neither scores nor rows mix.
    """
    with Session(setup, make_logger) as session:
        driver = session.start_driver(make_env)
        replay = session.open(
            make_replay(driver.obs_space, driver.act_space, session.meta(driver), session.event)
        )
        if replay.capacity is not None and setup.run.prefill > replay.capacity:
            raise ConfigError(
                f'run.prefill is {setup.run.prefill:,} rows, but the budgets of the replay hold'
                f' {replay.capacity:,}: learning would never begin. Raise replay.disk_gb or lower'
                ' run.prefill'
            )
        agent = make_agent(driver.obs_space, driver.act_space)
        if replay.capacity is not None and replay.capacity // setup.run.envs < agent.sequence_rows:
            raise ConfigError(
                f'The agent learns from sequences of {agent.sequence_rows:,} rows of one env, but'
                f' the budgets of the replay hold {replay.capacity // setup.run.envs:,} of each of'
                f' {setup.run.envs} envs: learning would never begin. Raise replay.disk_gb, or'
                ' lower run.envs or agent.batch.length'
            )
        learner = Learner(agent, replay, session)
        evaluator = Evaluator(agent, make_env, session) if evaluating else None
        driver.on_row(replay.add)
        session.track_parts(agent, driver, replay)
        if not session.begin():
            take_all(replay, session.ranks)
            session.warm_start(agent)
        session.banner(agent, driver, replay, learner.feed)
        counters, total = session.counters, setup.run.steps
        while session.goes_on(counters.step < total):
            if pretraining := learner.pretraining:
                learner.update()
            else:
                driver(agent.policy, steps=1, during=learner.learn)
            session.agree()
            session.report_if_due(counters.step, agent, replay, learner.feed)
            count, share = counters.step + learner.pretrained, counters.step / total
            session.log_if_due(count, share, agent, replay, driver, learner.status(), pretraining)
            if evaluator:
                evaluator.evaluate_if_due()
            session.save_if_due()
    return session.cut_by


class Learner:
    """Makes the updates that are due.

    Attributes:
      feed: what the agent learns from.
      pretraining: whether the prefill is complete and run.pretrain updates are not yet made.
    """

    def __init__(self, agent: Agent, replay: Replay, session: Session):
        run, self.feed = session.setup.run, agent.feed(replay)
        self._agent, self._replay, self._session, self._run = agent, replay, session, run
        self._due = Ratio(run.train_ratio / agent.frames_per_update, run.max_catchup)
        self._told = self._checked = False
        # whether there were enough rows once; None: it did if there were updates
        self._begun = None
        session.track('ratio', self._due.save, self._due.load)
        session.track('learner', self._save, self._load, optional=True)

    @property
    def filled(self) -> bool:
        """Whether an update can draw its sequences: at first, and again where rows are gone, there
        must be as many rows as the prefill asks for, and as two updates take, and as many different
        sequences as one draws; rows of an earlier run count.
        """
        length, rows, ranks = (
            self._agent.sequence_rows,
            self._agent.frames_per_update,
            self._session.ranks,
        )
        if ranks.count > 1 and self._begun and self._checked:
            return True  # or they would have to ask each other at every decision
        held, sequences = self._held()
        if self._begun is None:
            self._begun = self._session.counters.updates > 0
        if self._begun and not sequences or not self._checked and self._lost_too_many:
            self._begin_anew()
        self._checked = True
        if self._begun:  # a small budget may have evicted some since
            return True
        enough = held >= self._needed
        if enough and sequences * length < rows and not self._told:
            self._told = True
            self._session.event(
                f'Learning waits for longer streams: the agent learns from sequences of {length:,}'
                f' rows of one env, and the longest of {self._run.envs} has'
                f' {self._replay.longest:,}.'
            )
        self._begun = enough and sequences * length >= rows
        if self._begun and self._session.counters.updates:
            self._session.event(
                f'The replay holds {len(self._replay):,} rows again, learning goes on.'
            )
        return self._begun

    @property
    def _lost_too_many(self) -> bool:
        """Whether rows of the checkpoint that this run goes on from are gone, and too few are
        left.
        """
        gone = sum(self._session.ranks.sum([self._replay.rows_missing]))
        return bool(self._begun and gone and self._held()[0] < self._needed)

    def _begin_anew(self) -> None:
        """Collect before the next update: from the few rows that are left much would be learned
        that is wrong.
        """
        self._begun = False
        self._session.event(
            f'Rows that the agent was learning from are gone, {len(self._replay):,} are left: the'
            ' prefill is collected anew, and learning goes on when the replay holds'
            f' {self._needed:,}.'
        )

    def _held(self) -> tuple[int, int]:
        """Rows of all ranks, and so many sequences that each rank has its share of them."""
        own = len(self._replay), self._replay.sequences(self._agent.sequence_rows)
        rows, sequences = zip(*self._session.ranks.gather(own))
        return sum(rows), len(rows) * min(sequences)

    @property
    def _needed(self) -> int:
        return max(self._run.prefill, 2 * self._agent.frames_per_update)

    def status(self) -> Status:
        """Of the agent, or before it learns how far the prefill is."""
        if self.filled:
            return self._agent.status()
        rows, needed = self._held()[0], self._needed
        waits = f'{rows:,} of {needed:,} rows' if rows < needed else 'waits for longer streams'
        before = self._agent.status().before
        return Status('prefill', waits, settled=False, before=before)

    @property
    def pretrained(self) -> int:
        """Updates of run.pretrain made so far; they count for run.log_every, as no decision is
        made meanwhile.
        """
        return min(self._session.counters.updates, self._run.pretrain)

    @property
    def pretraining(self) -> bool:
        return self.filled and self._session.counters.updates < self._run.pretrain

    def learn(self) -> None:
        """The updates that are due at this number of decisions."""
        self._session.agree()
        if self.filled:
            self.update(self._due(self._session.counters.step))

    def update(self, count: int = 1) -> None:
        """So many updates, fewer where the rows turn out to be gone."""
        try:
            for batch in self.feed.take(count):
                self._session.metrics.add(self._agent.train(batch))
                self._session.counters.updates += 1
        # the files of the last rows were damaged, or somebody deleted them
        except ReplayEmptyError:
            # where there are several ranks, the others are in the middle of this update
            if self._session.ranks.count > 1 or self._replay.sequences(self._agent.sequence_rows):
                raise
            self._begin_anew()

    def _save(self) -> Values:
        return {'begun': self._begun}

    def _load(self, tree: Values) -> None:
        demand(tree, {'begun': Maybe(FLAG)}, 'The learner')
        self._begun = tree['begun']


class Evaluator:
    """Evaluates every eval.every frames and keeps the results apart from those of training."""

    def __init__(self, agent: Agent, make_env: MakeEnv, session: Session):
        self._agent, self._make_env, self._session = agent, make_env, session
        self._due = Every(steps=session.setup.eval.every)
        folder = session.folder / 'eval'
        folder.mkdir(parents=True, exist_ok=True)
        self._scores = JsonLines(folder / 'scores.jsonl', session.event)
        session.track('evaluator', self._save, self._load, optional=True)

    def evaluate_if_due(self) -> None:
        """Evaluate if it is time: eval/score in the metrics, a line in eval/scores.jsonl, a
        video.
        """
        session, before = self._session, self._due.save()
        if not self._due(session.counters.frames):
            return
        result = joined(session.ranks.gather(self._evaluated()))
        if result is None:
            self._due.load(before)  # still due when the run goes on
            return
        now, count = session.counters(), len(result.returns)
        if not session.ranks.number:
            self._scores.append(
                {
                    'frames': now['frames'],
                    'step': now['step'],
                    'score': result.mean,
                    'std': result.std,
                    'episodes': count,
                }
                | ({'tasks': {k: v.mean for k, v in result.tasks.items()}} if result.tasks else {})
            )
        session.logger.add(
            {'score': result.mean, 'std': result.std, 'episodes': count, 'cut': result.cut}, 'eval'
        )
        session.logger.add(result.goals, 'eval/goal')
        for task, each in result.tasks.items():
            session.logger.add({'score': each.mean}, f'eval/{task}')
        session.logger.add(result.videos, 'eval')
        session.event(f'Evaluation at {now["frames"]:,} frames: {result}')
        for task, each in result.tasks.items():
            session.event(f'  {task}: {each}')

    def _evaluated(self) -> Evaluation | None:
        """This rank's share of the episodes, in envs of its own; videos are rank 0's."""
        setup, number = self._session.setup, self._session.ranks.number
        episodes = spread(setup.eval.episodes, self._session.ranks.count)[number]
        if not episodes:
            return Evaluation([], [], {})
        return evaluate(
            self._agent,
            lambda kind, index, *task: self._make_env(
                kind, number * setup.eval.envs + index, *task
            ),
            replace(setup.eval, episodes=episodes),
            setup.driver,
            not number,
            self._session.event,
            lambda: self._session.interrupted,
            notes=False,
            tasks=setup.tasks,
        )

    def _save(self) -> Values:
        return {
            'due': self._due.save(),
            'bytes': self._scores.bytes,
            'counters': self._session.counters(),
        }

    def _load(self, tree: Values) -> None:
        """Go on where the checkpoint was: lines of evaluations after it are removed."""
        demand(
            tree,
            {'due': ANYTHING, 'bytes': COUNT, 'counters': {'step': COUNT, 'updates': COUNT}},
            'The evaluator',
        )
        self._due.load(tree['due'])
        if not self._session.ranks.number:
            self._scores.cut(tree['bytes'], tree['counters'])
