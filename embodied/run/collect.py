"""Fill a replay folder with a policy, without learning, and where asked a folder of videos."""

from ..replay.shard import take_all
from .films import Films
from .session import Session
from .setup import MakeAgent, MakeEnv, MakeLogger, MakeReplay, Setup


def collect(
    make_agent: MakeAgent,
    make_env: MakeEnv,
    make_replay: MakeReplay,
    make_logger: MakeLogger,
    setup: Setup,
) -> str:
    """Run for run.steps decisions or until a signal asks for the end; then save. Returns the name
    of that signal, '' for none.

    Args:
      make_agent: an agent that only acts: random, or from setup.from_checkpoint.
      make_env, make_replay, make_logger, setup: as in train().
    """
    with Session(setup, make_logger) as session:
        driver = session.start_driver(make_env)
        replay = session.open(
            make_replay(driver.obs_space, driver.act_space, session.meta(driver), session.event)
        )
        agent = make_agent(driver.obs_space, driver.act_space)
        driver.on_row(replay.add)
        if setup.run.films:
            counters, acts = session.counters, driver.act_space.keys() - {'reset'}
            films = Films(session.folder / 'films', acts, setup.run.films, counters)
            driver.on_row(session.open(films))
        session.track_parts(agent, driver, replay)
        if not session.begin():
            take_all(replay, session.ranks)
            session.warm_start(agent)
        session.banner(agent, driver, replay)
        mode = 'train' if setup.from_checkpoint is None else 'sample'
        act = lambda carry, obs: agent.policy(carry, obs, mode)
        counters, total = session.counters, setup.run.steps
        while session.goes_on(counters.step < total):
            driver(act, steps=1)
            session.log_if_due(counters.step, counters.step / total, agent, replay, driver)
            session.save_if_due()
    return session.cut_by
