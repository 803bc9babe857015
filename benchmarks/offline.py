"""The paper's own setting at a small size: learn offline from a fixed replay of mixed quality, in
its three phases, and see what each of them brings.

    python -m benchmarks.offline [--seeds 0 1 2] [--configs pixel paper] [--flags --agent.KEY VALUE]

The replay: episodes of the task by its optimal policy, in which a share of the actions is
random; of another share, from all to few, in every episode. Phase 1a trains the tokenizer, 1b the
dynamics, 2 dynamics and heads, 3 the policy in the imagination of a frozen model, where it begins
as the behaviour clone (BC). Every phase is the public command line; what is done is not repeated.
Measured: open-loop reward skill on a second replay (1 perfect, 0 guessing), the return of the clone
when phase 3 begins, and that of the policy as it goes on and when it ends. Results:
benchmarks/results/<name>.json and .png.
"""

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import dreamer4
from dreamer4.parts import Parts
from embodied import envs
from embodied.base import Env, sample
from embodied.config import Config
from embodied.interval import interval
from embodied.log.jsonl import read_lines
from embodied.replay import Replay, ReplayConfig
from embodied.run.evaluation import Evaluation
from embodied.seeds import derive

from .command import start, trained, write
from .learning import BOUNDS, RESULTS, ROOT, commit, machine

SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)  # of random actions, one episode after the other
# for a CPU: most of an update is imagination in four steps a frame
FLAGS = ['--agent.imagination.starts', '48']
STAGES = ('tokenizer', 'dynamics', 'agent', 'policy')
STREAMS = 8  # that the rows are stored in
POINTS = 4  # evaluations of the policy while it learns
UNSEEN = 1000  # added to the seed of the replay that nothing learns from


def main() -> None:
    args = parse()
    path = RESULTS / f'{args.name}.json'
    results = json.loads(path.read_text()) if path.exists() else {'machine': machine(), 'runs': []}
    for seed in args.seeds:
        if any(run['seed'] == seed for run in results['runs']):
            continue
        results['runs'].append(one_run(args, seed))
        write(path, results)
        draw(results['runs'], path.with_suffix('.png'))
    results['runs'].sort(key=lambda run: run['seed'])
    print(table(results['runs']))


def parse() -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument('--name', default='offline', help='of the result files')
    parser.add_argument('--flags', nargs=argparse.REMAINDER, default=FLAGS, help='--key value ...')
    return parser.parse_args()


def options(about: str) -> argparse.ArgumentParser:
    """What both offline programs can be told."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--task', default='pixel_catch', help='one of the built-in ones')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--configs', nargs='+', default=['pixel', 'paper'])
    parser.add_argument('--rows', type=int, default=40000, help='of the replay')
    parser.add_argument('--tokenizer', type=int, default=1000, help='updates of phase 1a')
    parser.add_argument('--dynamics', type=int, default=2000, help='updates of phase 1b')
    parser.add_argument('--agent', type=int, default=2000, help='updates of phase 2')
    parser.add_argument('--policy', type=int, default=1000, help='updates of phase 3')
    parser.add_argument('--episodes', type=int, default=200, help='of an evaluation')
    return parser


def folder_of(args: argparse.Namespace, seed: int) -> Path:
    """Where a seed keeps its replays and its run."""
    return ROOT / 'logdir' / args.name / f'{args.task}-{seed}'


def one_run(args: argparse.Namespace, seed: int) -> dict:
    """The record of one seed: of the replay, the networks and the evaluation."""
    folder = folder_of(args, seed)
    config = dreamer4.create(args.task, args.configs).config
    returns = collect(args.task, config, folder / 'data', args.rows, seed)
    collect(args.task, config, folder / 'unseen', args.rows // 10, seed + UNSEEN)
    halfway = folder / 'halfway.json'  # phase 3 goes on in the same run
    if not halfway.exists():
        clone = phases(args, seed, folder, ['1a', '1b', '2'])
        measured = unseen_skill(clone, folder / 'unseen')
        bc = summary(clone.evaluate(episodes=args.episodes))
        write(halfway, {'measured': measured, 'bc': bc})
    found = {
        'task': args.task,
        'seed': seed,
        'commit': commit(),
        'configs': args.configs,
        'flags': args.flags,
        'rows': args.rows,
        'updates': {key: getattr(args, key) for key in STAGES},
        'data': {'mean': float(np.mean(returns)), 'episodes': len(returns)},
        **json.loads(halfway.read_text()),
    }
    found['curve'] = learn_policy(args, seed, folder)
    better = phases(args, seed, folder, ['1a', '1b', '2', '3'])
    found['imagination'] = summary(better.evaluate(episodes=args.episodes))
    print(table([found]), flush=True)
    return found


def learn_policy(args: argparse.Namespace, seed: int, folder: Path) -> list[dict]:
    """Phase 3 in pieces: updates of the policy and its return behind each."""
    path = folder / 'curve.json'
    found = json.loads(path.read_text()) if path.exists() else []
    *_, last = read_lines(folder / 'run' / 'metrics.jsonl')
    begin = found[-1]['begin'] if found else last['updates']
    for part in range(len(found) + 1, POINTS):
        updates = args.policy * part // POINTS
        run = phases(args, seed, folder, ['1a', '1b', '2', '3'], begin + updates)
        told = summary(run.evaluate(episodes=max(1, args.episodes // POINTS)))
        found.append({'begin': begin, 'updates': updates, **told})
        path.write_text(json.dumps(found))
    return found


def phases(
    args: argparse.Namespace, seed: int, folder: Path, names: list[str], updates: int = 0
) -> dreamer4.Experiment:
    """The run of a seed after some phases, or after so many updates of all; one that is further
    already stays as it is.
    """
    counts = {f'{stage}_updates': getattr(args, stage) for stage in STAGES}
    made = dreamer4.create(
        args.task,
        args.configs,
        folder / 'run',
        script='offline',
        seed=seed,
        phases=names,
        replay={'directory': [str(folder / 'data')]},
        agent={'schedule': counts},
        run={'report_every': 1000, 'log_every': 100} | ({'updates': updates} if updates else {}),
    )
    return trained(dreamer4.Experiment(made.config.update(told(args.flags))))


def told(flags: list[str]) -> dict[str, str]:
    """Key -> value of --key value ..."""
    return {key.removeprefix('--'): value for key, value in zip(flags[::2], flags[1::2])}


def collect(task: str, config: Config, folder: Path, rows: int, seed: int) -> list[float]:
    """Fill a folder with a replay of mixed quality, unless it is full; returns of its episodes."""
    scores = folder.with_suffix('.json')
    if scores.exists():
        return json.loads(scores.read_text())
    env = envs.make(task, config.env.to_dict(), derive(seed, 'env'))
    rng, expert = np.random.default_rng(derive(seed, 'play')), innermost(env)
    settings = config.replay.build(ReplayConfig)
    meta = {'task': task, 'env': {'pixel': config.env.pixel.to_dict()}}
    replay = Replay(settings, folder, seed, env.obs_space, env.act_space, meta)
    space, returns, over = expert.action_space, [], True
    for _ in range(rows):
        if over:
            share, stream = SHARES[len(returns) % len(SHARES)], len(returns) % STREAMS
            returns.append(0.0)
            action = {'action': np.zeros(space.shape, space.dtype)}
        obs = env.step({**action, 'reset': np.bool_(over)})
        over, returns[-1] = bool(obs['is_last']), returns[-1] + float(obs['reward'])
        chosen = (
            sample(space, rng, 1)[0] if rng.random() < share else expert.optimal_action()['action']
        )
        action = {'action': np.zeros_like(chosen) if over else chosen}
        replay.add(obs | action, stream)
    replay.save()
    replay.close()
    scores.write_text(json.dumps(returns))
    return returns


def innermost(env: Env) -> Env:
    """The task inside all wrappers."""
    while hasattr(env, 'env'):
        env = env.env
    return env


def unseen_skill(run: dreamer4.Experiment, folder: Path) -> dict[str, float]:
    """Open-loop measures of the world model on a replay that no phase learned from."""
    config = run.config.update({'replay.directory': [str(folder)]})
    replay = Parts(config, run.logdir).offline_replay(print)
    try:
        replay.load(None)
        found = run.agent.report(run.agent.feed(replay).fresh(0))
    finally:
        replay.close()
    return {key: value for key, value in found.items() if isinstance(value, float)}


def summary(result: Evaluation) -> dict:
    return {'mean': result.mean, 'ci95': result.ci95, 'episodes': len(result.returns)}


def table(runs: list[dict]) -> str:
    """Markdown: a row per seed, and their mean with the interval between seeds."""
    lines = [
        '| seed | return of the data | reward skill, open loop | BC | BC + imagination |',
        '|---|---|---|---|---|',
    ]
    for run in runs:
        cells = [f'{run["data"]["mean"]:.3g}', f'{run["measured"]["reward_skill"]:.2f}']
        for key in ('bc', 'imagination'):
            cells.append(f'{run[key]["mean"]:.3g} +- {run[key]["ci95"] or 0:.2g}')
        lines.append(f'| {run["seed"]} | {" | ".join(cells)} |')
    if len(runs) > 1:
        cells = []
        for key in ('data', 'measured', 'bc', 'imagination'):
            values = [run[key]['reward_skill' if key == 'measured' else 'mean'] for run in runs]
            cells.append(f'{np.mean(values):.3g} +- {interval(values):.2g}')
        lines.append(f'| all | {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(runs: list[dict], path: Path) -> None:
    """Returns of the policy over its updates, a panel per seed, beside the clone and the data."""
    words = 'updates of the policy in imagination', 'return per episode'
    with panels(runs, 3.6, words, path) as axes:
        for axis, run in zip(axes, runs):
            ends = ({'updates': 0, **run['bc']}, {'updates': run['updates']['policy']})
            points = [ends[0], *run['curve'], ends[1] | run['imagination']]
            x, y, spread = (
                [point[key] or 0 for point in points] for key in ('updates', 'mean', 'ci95')
            )
            axis.errorbar(x, y, spread, marker='o', capsize=3, label='policy, 95 % interval')
            axis.axhline(run['bc']['mean'], color='tab:orange', label='behaviour clone')
            axis.axhline(
                run['data']['mean'], color='tab:green', linestyle='--', label='mean of the data'
            )
            for value, style, name in zip(
                BOUNDS.get(run['task'], ()), (':', '-.'), ('random', 'optimal')
            ):
                axis.axhline(value, color='gray', linestyle=style, label=name)


@contextlib.contextmanager
def panels(runs: list[dict], width: float, words: tuple[str, str], path: Path) -> Iterator:
    """The axes of a picture with a panel per run, to be drawn into; written to `path` at the end.

    Args:
        runs: each with 'task' and 'seed'. width: inches of a panel. words: of both axes.
    """
    import matplotlib

    matplotlib.use('agg')
    from matplotlib import pyplot

    size = (width * len(runs), 3.4)
    figure, axes = pyplot.subplots(1, len(runs), figsize=size, squeeze=False, sharey=True)
    yield axes[0]
    for axis, run in zip(axes[0], runs):
        axis.set_title(f'{run["task"]}, seed {run["seed"]}')
        axis.set_xlabel(words[0])
    axes[0][0].set_ylabel(words[1])
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == '__main__':
    start(main)
