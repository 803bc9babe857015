"""A lab for world models: trains one on a fixed replay and measures what it knows, without acting.

    python -m benchmarks.world_data --task dmc_cartpole_balance --out FOLDER --image
    python -m benchmarks.world --data FOLDER --obs proprio --updates 500 \\
        --configs dmc_proprio size400k [--agent.KEY VALUE ...]

The agent is the product's and learns by Agent.train from the episodes that are not held out: the
tokenizer alone until its stage ends, then tokenizer, dynamics and reward; the policy never begins.
Everything is measured on held-out episodes, and the effect of actions against the simulator
restarted from the recorded states (benchmarks/world_measure.py). Prints tables and writes
benchmarks/results/world_NAME.json.
"""

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from dreamer4.agent import Agent
from dreamer4.agent_config import AgentConfig
from dreamer4.machine import MachineConfig, settle
from embodied.config import parse
from embodied.errors import ConfigError

from .command import start, write
from .learning import RESULTS, ROOT, commit, machine
from .simulator import Simulator
from .speed import feed_of
from .world_data import Recorded
from .world_measure import STEPS, Lab

NEVER = 10**9


def make(recorded: Recorded, kind: str, words: list[str], seed: int) -> Agent:
    """The agent of a configuration, for one kind of observation; its policy never begins.

    Args:
        kind: 'proprio' or 'image'. words: of a command line, --configs and --agent.KEY VALUE.
    """
    config = parse(['--machine.threads', '1', '--machine.device', 'cpu', *words], ROOT / 'configs')
    machine = config.machine.build(MachineConfig)
    settle(machine)
    config = config.agent.build(AgentConfig)
    schedule = replace(config.schedule, dynamics_updates=NEVER, gate_every=NEVER)
    return Agent(*recorded.spaces(kind), replace(config, schedule=schedule), machine, seed)


def train(agent: Agent, recorded: Recorded, kind: str, budget: 'Budget', seed: int) -> dict:
    """Train tokenizer and world model; updates, CPU seconds and the last metrics of each."""
    rng, unused = (
        np.random.default_rng(seed),
        tuple(key for key in recorded.rows if key not in recorded.needed(kind)),
    )
    sample = lambda batch, length: recorded.sample(recorded.learned, rng, batch, length, unused)
    feed = feed_of(agent, sample)
    start, found = time.process_time(), {}
    for stage in ('tokenizer', 'dynamics'):
        begun, before, metrics = time.process_time(), agent.updates, {}
        while agent.schedule.stage == stage:
            if budget.spent(stage, agent.updates - before, time.process_time() - start):
                if stage == 'dynamics':
                    break
                agent.schedule.config = (
                    replace(  # this update of the tokenizer is its last one alone
                        agent.schedule.config, tokenizer_updates=0, tokenizer_unexplained=0
                    )
                )
            metrics = agent.train(feed.next())
        found[stage] = {
            'updates': agent.updates - before,
            'seconds': time.process_time() - begun,
            'metrics': metrics,
        }
    return found


class Budget:
    """How long each stage lasts.

    Args:
        updates: of the world model after the stage of the tokenizer, or seconds: of CPU time in
            all, of which the tokenizer has a share alone.
    """

    def __init__(self, updates: int | None, seconds: float | None, share: float):
        if (updates is None) == (seconds is None):
            raise ConfigError('give either --updates or --seconds')
        self.updates, self.seconds, self.share = updates, seconds, share

    def spent(self, stage: str, updates: int, seconds: float) -> bool:
        """Whether a stage ends after `updates` of its own, `seconds` after the beginning of all."""
        if self.seconds is None:
            return stage == 'dynamics' and updates >= self.updates
        return seconds >= self.seconds * (self.share if stage == 'tokenizer' else 1)


def table(found: dict) -> str:
    """What a run found, for people."""
    head = lambda name: f'{name:34}' + ''.join(f'{step:>9}' for step in STEPS)
    line = lambda name, values: (
        f'{name:34}' + ''.join(f'{values[str(step)]:9.3f}' for step in STEPS)
    )
    effects = lambda key: {step: one[key] for step, one in found['effects'].items()}
    gate = lambda key: {str(k): found['gate'].get(f'{key}_step/{k}', math.nan) for k in STEPS}
    ahead, spread = found['prediction'], found['spread']
    lines = [
        head('imagined frames'),
        line('error over copy-last', ahead['error over copy-last']),
        line(f'reward rms (std {ahead["reward std"]:.3f})', ahead['reward rms']),
        line('effect of actions: correlation', effects('correlation')),
        line('  near the goal', effects('near')),
        line('  sign right', effects('sign')),
        line('  sign right, larger half', effects('large')),
        line('  slope', effects('slope')),
        line('  share that happens, no simulator', gate('action_effect')),
        line('sums of rewards: correlation', effects('returns')),
        f'latents: std {ahead["latent std"]:.3f}, step {ahead["latent step"]:.4f}',
        'returns of 8 decisions: '
        + ', '.join(
            f'{kind} {spread[kind]["between"]:.3f} between first moves, '
            f'{spread[kind]["within"]:.3f} within'
            for kind in ('imagined', 'real')
        )
        + f'; correlation between {spread["correlation between"]:.2f}',
        '',
    ]
    return '\n'.join([*lines, probe_table(found['probes'])])


def probe_table(found: dict) -> str:
    """Median and rms of the errors of all probes, overall and near the goal."""
    lines = [f'{"probes: median / rms":24}{"std":>9}' + ''.join(f'{name:>17}' for name in found)]
    for place in ('all', 'near'):
        for name, first in found['latent'][place].items():
            cells = [one[place].get(name) for one in found.values()]
            shown = ''.join(
                f'{cell["median"]:9.4f}{cell["rms"]:8.4f}' if cell else f'{"-":>17}'
                for cell in cells
            )
            lines.append(
                f'{name + (" (goal)" if place == "near" else ""):24}{first["std"]:9.4f}{shown}'
            )
    return '\n'.join(lines)


def run(
    recorded: Recorded, kind: str, words: list[str], budget: Budget, starts: int, seed: int
) -> tuple[Agent, dict]:
    """Train and measure; returns the agent and everything found."""
    agent = make(recorded, kind, words, seed)
    trained = train(agent, recorded, kind, budget, seed)
    begun = time.process_time()
    lab = Lab(
        agent,
        recorded,
        Simulator.of(recorded.about['task'], recorded.about['repeat']),
        starts,
        seed,
    )
    found = {
        'trained': trained,
        'prediction': lab.prediction(),
        'effects': lab.effects(),
        'spread': lab.spread(),
        'probes': lab.probes(),
        'gate': {name: float(x) for name, x in agent.world.measure(lab.unseen.batch).items()},
    }
    return agent, found | {'seconds of measuring': time.process_time() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--data', required=True, type=Path, help='folder made by benchmarks.world_data'
    )
    parser.add_argument(
        '--task', default='', help='checked against the task of the folder, if given'
    )
    parser.add_argument(
        '--obs', required=True, choices=('proprio', 'image'), help='what the agent sees'
    )
    parser.add_argument(
        '--updates', type=int, help='of the world model, after the stage of the tokenizer'
    )
    parser.add_argument('--seconds', type=float, help='of CPU time in all')
    parser.add_argument(
        '--share', type=float, default=0.3, help='of --seconds that the tokenizer learns alone'
    )
    parser.add_argument('--starts', type=int, default=256, help='of imagined sequences')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--name', default='', help='of the result; as the task and --obs if not given'
    )
    parser.add_argument(
        '--json', type=Path, help='file of the result instead of benchmarks/results/world_NAME.json'
    )
    args, words = parser.parse_known_args()
    recorded, budget = Recorded.load(args.data), Budget(args.updates, args.seconds, args.share)
    task = recorded.about['task']
    if args.task not in ('', task):
        raise ConfigError(f'--task {args.task}: {args.data} holds {task}')
    _, found = run(recorded, args.obs, words, budget, args.starts, args.seed)
    path = args.json or RESULTS / f'world_{args.name or f"{task}_{args.obs}"}.json'
    about = {
        'task': task,
        'obs': args.obs,
        'flags': words,
        'seed': args.seed,
        'machine': machine(),
        'commit': commit(),
    }
    write(path, about | found)
    stages = ', '.join(
        f'{name} {one["updates"]} updates in {one["seconds"]:.0f} CPU s'
        for name, one in found['trained'].items()
    )
    print(
        f'{task} from {args.obs}, seed {args.seed}, {" ".join(words)}\n'
        f'{stages}; measured in {found["seconds of measuring"]:.0f} s\n'
    )
    print(table(found))


if __name__ == '__main__':
    start(main)
