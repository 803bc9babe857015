"""The actor-critic without a world model: the product's policy and value dream in the true physics.

    python -m benchmarks.oracle --task dmc_cartpole_swingup --updates 3000 --seeds 0 1 2 \\
        [--agent.KEY VALUE ...]

Heads, losses, optimizers, slow copies and their pace are the agent's own, of the presets
dmc_proprio and size400k and the flags. Only the dream differs: its frames, rewards and ends come
from benchmarks/batched.py, and heads read the observation where they read feature and latents.
What a recipe does not learn here it learns in no world model. Prints a table and writes
benchmarks/results/oracle_TASK.json.
Letters: E envs, W starts, H horizon, S size of a state, O observation, F head inputs.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces

from dreamer4.agent import Agent
from dreamer4.agent_config import AgentConfig
from dreamer4.batch import Dream
from dreamer4.machine import MachineConfig, settle
from dreamer4.nets.outputs import symlog
from dreamer4.state import fetch
from embodied.config import Config, parse
from embodied.seeds import derive

from .batched import TASKS, Batched
from .command import start, write
from .learning import RESULTS, ROOT, commit, machine

FRAMES = 1000  # of an episode of the suite
RECENT = 20000  # newest states, one of which begins a dream
EPISODES = 16  # of an evaluation
COLUMNS = ('sample', 'mode', 'entropy', 'explained', 'value', 'return')  # of the table


class Oracle(Agent):
    """An agent whose dreams are true.

    Args:
        physics: of the task. config, machine, seed: as for Agent.
    """

    def __init__(self, physics: Batched, config: AgentConfig, machine: MachineConfig, seed: int):
        self.physics = physics
        size = physics.observe(physics.resets(1)).shape[1]
        super().__init__(
            {'observation': spaces.Box(-np.inf, np.inf, (size,), np.float32)},
            {'action': spaces.Box(-1, 1, (physics.actions,), np.float32)},
            config,
            machine,
            seed,
        )
        self.schedule.stage = 'value'  # there is no world model to wait for
        self.known = np.empty((0, physics.resets(1).shape[1]))
        self.mean, self.std = torch.zeros(size), torch.ones(size)

    def remember(self, states: np.ndarray) -> None:
        """Take states (N, S) among those that dreams begin with."""
        self.known = np.concatenate([self.known, states])[-RECENT:]

    def measure(self) -> None:
        """Fix the units of observations: their spread, in symlog, over the states known now."""
        seen = symlog(torch.from_numpy(self.physics.observe(self.known)))
        self.mean, self.std = seen.mean(0), seen.std(0).clamp(min=1e-3)

    def inputs(self, states: np.ndarray) -> torch.Tensor:
        """Head inputs (N, F): the observation at the front of every part, zeros behind it."""
        seen = (symlog(torch.from_numpy(self.physics.observe(states))) - self.mean) / self.std
        return torch.cat([F.pad(seen, (0, size - seen.shape[1])) for size in self.world.parts], 1)

    def decode(self, code: torch.Tensor) -> np.ndarray:
        """Actions (N, A) of a code (N, M)."""
        return self.actions.decode(code)['action'].numpy()

    @torch.no_grad()
    def choose(self, states: np.ndarray, mode: bool = False) -> torch.Tensor:
        """Code (N, M) of the policy that acts."""
        return self.actor_critic.act(self.inputs(states), mode)

    @torch.no_grad()
    def dream(self) -> Dream:
        """What World.imagine returns, with the physics as the model."""
        starts = torch.randint(len(self.known), (self.config.imagination.starts,)).numpy()
        states = self.known[starts]
        inputs, codes, rewards = [self.inputs(states)], [], [np.zeros(len(states))]
        for _ in range(self.config.imagination.horizon):
            codes.append(self.updater.choose(inputs[-1], None)[0])
            states, reward = self.physics.step(states, self.decode(codes[-1]))
            inputs.append(self.inputs(states))
            rewards.append(reward)
        reward = torch.from_numpy(np.stack(rewards, 1)).float()
        inputs, codes = torch.stack(inputs, 1), torch.stack(codes, 1)
        place = torch.from_numpy(starts)
        return Dream(inputs, codes, reward, torch.ones_like(reward), place, place * 0)

    def learn(self) -> dict[str, float]:
        """Agent.train as far as value and policy go; {} where this update does not dream."""
        plan, metrics = (
            self.updater.plan(self.updates, self.config.batch.shape(self.updates), self.schedule),
            {},
        )
        if plan.value:
            dream = self.dream()
            targets = self.actor_critic.score(dream)
            metrics = fetch(self.actor_critic.learn(dream, targets, plan.policy))
        for optimizer in self.optimizers.values():
            optimizer.check(metrics)
        self.updates += 1
        self._advance()
        return metrics


class Play:
    """Episodes of the policy that acts, which are where dreams begin.

    Args:
        envs: E, played side by side. rows: states of random play to begin with; each action is
            held as `actor.hold` says.
    """

    def __init__(self, agent: Oracle, envs: int, rows: int):
        self.agent, self.envs, self.age, self.decisions = agent, envs, 0, 0
        self.states, code, first = None, agent.actions.uniform(envs), torch.ones(envs) > 0
        while self.decisions < rows:
            code = agent.actor_critic.explore(code, first & (self.age == 0))
            self.step(code)
        agent.measure()

    def step(self, code: torch.Tensor | None = None) -> None:
        """One decision in every env: of `code`, or of the policy."""
        agent = self.agent
        if self.age == 0:
            self.states = agent.physics.resets(self.envs)
            agent.remember(self.states)
        code = agent.choose(self.states) if code is None else code
        self.states, _ = agent.physics.step(self.states, agent.decode(code))
        agent.remember(self.states)
        self.decisions += self.envs
        self.age = (self.age + 1) % (FRAMES // agent.physics.repeat)


@torch.no_grad()
def evaluate(agent: Oracle, states: np.ndarray, mode: bool, decisions: int) -> dict[str, float]:
    """Play from states (N, S): mean return, its spread, and what the value knew of it.

    'explained' is the share of the variance of discounted returns that the value explains, over
    all frames but the last 1 / (1 - gamma), whose returns lie beyond the end.
    """
    gamma, values, rewards = agent.config.value.gamma, [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(decisions):
            values.append(agent.actor_critic.value(agent.inputs(states)).numpy())
            states, reward = agent.physics.step(states, agent.decode(agent.choose(states, mode)))
            rewards.append(reward)
    returns, last = [], agent.actor_critic.value(agent.inputs(states)).numpy()
    for reward in reversed(rewards):
        last = reward + gamma * last
        returns.append(last)
    judged = max(1, decisions - round(1 / (1 - gamma)))
    value, found = np.stack(values)[:judged], np.stack(returns[::-1])[:judged]
    total = np.sum(rewards, 0)
    return {
        'score': float(total.mean()),
        'std': float(total.std()),
        'explained': float(1 - (found - value).var() / max(found.var(), 1e-12)),
        'value': float(value.mean()),
        'return': float(found.mean()),
    }


def configure(task: str, words: list[str]) -> Config:
    """Presets, then flags. Raises ConfigError."""
    machine = ['--machine.threads', '1', '--machine.device', 'cpu']
    return parse(
        ['--configs', 'dmc_proprio', 'size400k', *machine, '--task', task, *words], ROOT / 'configs'
    )


def one_run(config: Config, seed: int, updates: int, every: int, envs: int) -> dict:
    """Learn and evaluate at every `every` updates: a curve, key -> list."""
    torch.manual_seed(seed)
    physics = Batched(config.task, config.env.dmc.repeat, derive(seed, 'env') % 2**32)
    machine = config.machine.build(MachineConfig)
    settle(machine)
    agent = Oracle(physics, config.agent.build(AgentConfig), machine, derive(seed, 'agent'))
    tests = Batched(config.task, physics.repeat, derive(seed, 'eval') % 2**32).resets(EPISODES)
    start, curve, metrics = time.perf_counter(), {}, {}
    play = Play(agent, envs, config.run.prefill)
    while agent.updates <= updates:
        if agent.updates % every == 0 or agent.updates == updates:
            decisions = FRAMES // physics.repeat
            sample, mode = (evaluate(agent, tests, mode, decisions) for mode in (False, True))
            row = {
                'updates': agent.updates,
                'frames': play.decisions * physics.repeat,
                'seconds': round(time.perf_counter() - start, 1),
                'sample': sample['score'],
                'sample std': sample['std'],
                'mode': mode['score'],
                'mode std': mode['std'],
                'entropy': metrics.get('policy/entropy', float('nan')),
                **{key: sample[key] for key in ('explained', 'value', 'return')},
            }
            for key, value in row.items():
                curve.setdefault(key, []).append(value)
            print(line(seed, row), flush=True)
        play.step()
        metrics = agent.learn() or metrics
    return curve


def line(seed: int, row: dict) -> str:
    """One evaluation in words."""
    shown = ' '.join(f'{key} {row[key]:.2f}' for key in COLUMNS[2:])
    return (
        f'seed {seed} updates {row["updates"]} frames {row["frames"]} {row["seconds"]:.0f} s: '
        f'sample {row["sample"]:.0f} +- {row["sample std"]:.0f}, mode {row["mode"]:.0f}; {shown}'
    )


def table(runs: list[dict]) -> str:
    """Means over seeds by updates; of the sampled return also every seed."""
    lines = [f'{"updates":>8}{"frames":>9}' + ''.join(f'{key:>10}' for key in COLUMNS) + '  seeds']
    for i, updates in enumerate(runs[0]['curve']['updates']):
        at = lambda key: [run['curve'][key][i] for run in runs]
        means = ''.join(f'{statistics.fmean(at(key)):10.2f}' for key in COLUMNS)
        each = ' '.join(f'{score:.0f}' for score in at('sample'))
        lines.append(f'{updates:8}{at("frames")[0]:9}{means}  {each}')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--task', required=True, help=', '.join(TASKS))
    parser.add_argument('--updates', type=int, default=3000, help='of value and policy')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0])
    parser.add_argument('--every', type=int, default=500, help='updates between two evaluations')
    parser.add_argument(
        '--envs', type=int, default=8, help='that the policy acts in, one decision an update'
    )
    parser.add_argument('--name', default='', help='of the result; the task if not given')
    parser.add_argument('--json', type=Path, help='file of the result instead')
    args, words = parser.parse_known_args()
    config, runs = configure(args.task, words), []
    about = {'task': args.task, 'flags': words, 'envs': args.envs}
    about |= {'machine': machine(), 'commit': commit()}
    for seed in args.seeds:
        curve = one_run(config, seed, args.updates, args.every, args.envs)
        runs.append({'seed': seed, 'curve': curve})
        path = args.json or RESULTS / f'oracle_{args.name or args.task}.json'
        write(path, {**about, 'runs': runs})
    print(f'{args.task}, {" ".join(words) or "preset"}: returns of {EPISODES} episodes')
    print(table(runs))


if __name__ == '__main__':
    start(main)
