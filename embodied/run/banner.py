"""What a run says of itself when it starts."""

import os

from ..base import Agent, Feed
from ..drive import Driver
from ..pictures import readings
from ..replay import Replay
from ..tasks import names_of, repeats_of
from .setup import Setup


def banner(
    setup: Setup, agent: Agent, driver: Driver | None, replay: Replay, feed: Feed | None
) -> list[str]:
    """Lines for a person: task, envs, what is observed and done, budgets, networks, warnings."""
    lines = [f'{setup.task}, seed {setup.seed}, in {setup.logdir}']
    if driver is not None:
        rate, names = setup.run.train_ratio, ', '.join(driver.renderers)
        frames = agent.frames_per_update
        place = (
            'this process'
            if set(driver.pids) <= {os.getpid()}
            else f'{len(driver.pids)} worker process(es)'
        )
        lines.append(
            f'{driver.num_envs} envs in {place}, {driver.repeat} frame(s) per decision'
            + (f', {rate / frames:.3g} updates per decision' if frames else '')
            + (f', rendering: {names}' if names else '')
        )
        lines += told_of_tasks(driver) + readings(driver.obs_space, driver.act_space)
    return [
        *lines,
        ' '.join(filter(None, [replay.estimate(), feed.describe() if feed else ''])),
        *(agent.summary().splitlines() if hasattr(agent, 'summary') else []),
        *setup.warnings,
    ]


def told_of_tasks(driver: Driver) -> list[str]:
    """A line on several tasks: how they are dealt over the envs, and their frames per decision."""
    found = zip(names_of(driver.obs_space), repeats_of(driver.obs_space))
    named = [f'{name} ({repeat})' for name, repeat in found]
    if not named:
        return []
    few = driver.num_envs < len(named)
    how = 'envs take turns in them' if few else 'every env has one of them'
    return [f'{len(named)} tasks (frames per decision), {how}: {", ".join(named)}']
