"""Learn from a fixed replay folder: no env is built, and the folder does not change."""

from typing import Any

from ..errors import ConfigError
from ..replay.infer import check_actions
from ..tree_spec import COUNT, demand
from .session import Session
from .setup import MakeAgent, MakeLogger, MakeReplay, Setup

CHECKED = 64  # sequences whose actions are checked before learning


def offline(
    make_agent: MakeAgent, make_replay: MakeReplay, make_logger: MakeLogger, setup: Setup
) -> str:
    """Run for run.updates updates, until the phases are over or until a signal asks for the end;
    then save. Returns the name of that signal, '' for none.

    Args:
      make_agent: make_agent(obs_space, act_space) is the agent, for the spaces that the folder
          names.
      make_replay: make_replay(on_event) is the replay, read-only.
      make_logger, setup: as in train().

    Raises:
      ConfigError: the folder holds no rows, only short streams, or actions outside their space.
    """
    with Session(setup, make_logger) as session:
        replay = session.open(make_replay(session.event))
        replay.load(None)
        if not len(replay):
            raise ConfigError(
                'offline: the replay folder holds no rows; give one with --replay.directory DIR'
            )
        if replay.obs_space is None or replay.act_space is None:
            raise ConfigError(
                'offline: the meta.json of the replay folder does not name the spaces of its env'
            )
        agent = make_agent(replay.obs_space, replay.act_space)
        if not replay.sequences(agent.sequence_rows):
            raise ConfigError(
                f'offline: the agent learns from sequences of {agent.sequence_rows:,} rows, but the'
                f' longest stream of the folder has {replay.longest:,}; lower agent.batch.length or'
                ' agent.batch.long_length'
            )
        replay.split(agent.sequence_rows)
        rows = replay.sample(CHECKED, agent.sequence_rows, draw=0, without=replay.obs_space)
        check_actions(rows, replay.act_space)
        session.track_parts(agent, None, None)
        session.track(
            'draws', lambda: {'draws': replay.draws}, lambda tree: replay.seek(drawn(tree))
        )
        resumed = session.begin()
        if not resumed:
            session.warm_start(agent)
        agent.take(setup.phases, anew=not resumed)
        feed = agent.feed(replay)
        session.banner(agent, None, replay, feed)

        counters, total = session.counters, setup.run.updates
        batches = feed.take(max(0, total - counters.updates))
        while session.goes_on(counters.updates < total and not agent.status().over):
            session.metrics.add(agent.train(next(batches)))
            counters.updates += 1
            session.agree()
            session.report_if_due(counters.updates, agent, replay, feed)
            share = counters.updates / total
            session.log_if_due(counters.updates, share, agent, replay, None)
            session.save_if_due()
    return session.cut_by


def drawn(tree: Any) -> int:
    """The number of draws in a checkpoint; CheckpointError if it has none."""
    demand(tree, {'draws': COUNT}, 'The draws')
    return tree['draws']
