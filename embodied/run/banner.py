"""What a run says of itself when it starts."""

import os

from ..base import Agent, Feed
from ..drive import Driver
from ..pictures import readings
from ..replay import Replay
from .setup import Setup


def banner(
    setup: Setup, agent: Agent, driver: Driver | None, replay: Replay, feed: Feed | None
) -> list[str]:
    """Lines for a person: task, envs, what is observed and done, budgets, networks, warnings."""
    lines = [f'{setup.task}, seed {setup.seed}, in {setup.logdir}']
    if driver is not None:
        per_decision = setup.run.train_ratio / max(1, agent.frames_per_update)
        place = (
            'this process'
            if set(driver.pids) <= {os.getpid()}
            else f'{len(driver.pids)} worker process(es)'
        )
        lines.append(
            f'{driver.num_envs} envs in {place}, {driver.repeat} frame(s) per decision,'
            f' {per_decision:.3g} updates per decision, rendering:'
            f' {", ".join(driver.renderers) or "none that is named"}'
        )
        lines += readings(driver.obs_space, driver.act_space)
    return [
        *lines,
        ' '.join(filter(None, [replay.estimate(), feed.describe() if feed else ''])),
        *(agent.summary().splitlines() if hasattr(agent, 'summary') else []),
        *setup.warnings,
    ]
