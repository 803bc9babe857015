"""What each choice of the recipe buys: one change at a time against the preset, equal frames,
several seeds.

    python -m benchmarks.ablate [--tasks pixel_catch] [--seeds 0 1 2] [--frames 40000] [--only
    entropy_0 k_4] [--jobs 2] [--again]

Every run is the public command line with one more flag, followed by eval_only (100 episodes). Runs
that are done are not repeated, unless --again replaces them by those of today's code. Results:
benchmarks/results/ablate.json; the table that is printed at the end is made from that file alone:
python -m benchmarks.ablate --show.
"""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from types import SimpleNamespace

import numpy as np

from embodied.interval import interval as half_width

from .command import start, write
from .learning import RESULTS, commit, machine, one_run, share


@dataclass(frozen=True)
class Variant:
    """One change: `flags` below the prefix --agent., `what` for the table, `tasks` it can be
    asked of ('' all).
    """

    what: str
    flags: tuple[str, ...] = ()
    tasks: str = ''


def change(what: str, tasks: str = '', **flags) -> Variant:
    """Variant of dotted settings, written with __ for the dot."""
    return Variant(
        what,
        tuple(
            word
            for key, value in flags.items()
            for word in (f'--agent.{key.replace("__", ".")}', str(value))
        ),
        tasks,
    )


PAPER = 'paper: '
VARIANTS = {
    'preset': change('the preset'),
    'history_forcing': change(
        PAPER + 'diffusion forcing, noisy frames beside noisy frames', shortcut__history='forcing'
    ),
    'prior_bc_frozen': change(
        PAPER + 'policy begins as the behaviour clone and is held to it',
        actor__prior='clone',
    ),
    'prior_none': change('no prior', actor__prior='none'),
    'entropy_0': change(PAPER + 'no entropy bonus', actor__entropy=0),
    'entropy_003': change('entropy bonus .003', actor__entropy=0.003),
    'entropy_01': change('entropy bonus .01', actor__entropy=0.01),
    'reinforce': change(
        'REINFORCE with normalised returns instead of PMPO', actor__loss='reinforce'
    ),
    'horizon_8': change(
        'horizon 8 from 72 starts instead of 4 from 144',
        imagination__horizon=8,
        imagination__starts=72,
    ),
    'dream_always': change('a dream at every update', imagination__every=1),
    'epochs_1': change('one gradient step of value and policy a dream', imagination__epochs=1),
    'epochs_6': change('six gradient steps of value and policy a dream', imagination__epochs=6),
    'actor_lam_95': change(
        PAPER + 'advantages with the lambda of the value (.95)', actor__lam=0.95
    ),
    'unimix_01': change('1 % of a uniform distribution in every categorical', heads__unimix=0.01),
    'no_gate': change(
        'policy begins after a count of updates, not at a reward skill',
        schedule__reward_skill=0,
        schedule__latent_error=0,
    ),
    'no_value_warmup': change('no updates of the value alone', schedule__value_updates=0),
    'anchor_0': change(PAPER + 'no share of frames at tau = 0', shortcut__anchor=0),
    'k_2': change('K = 2 denoising steps', shortcut__steps=2),
    'k_4': change(
        PAPER + 'K = 4 denoising steps and shortcuts', shortcut__steps=4, shortcut__bootstrap=0.25
    ),
    'levels_16': change(
        'K_max = 16, so that the noise of committed frames is 1/16',
        dynamics__levels=16,
        dynamics__context_signal=0.9375,
    ),
    'bootstrap_25': change(
        'shortcuts: bootstrap on a quarter of the sequences', shortcut__bootstrap=0.25
    ),
    'bootstrap_50': change(
        'shortcuts: bootstrap on half of the sequences', shortcut__bootstrap=0.5
    ),
    'context_noise': change(
        PAPER + 'committed frames with more noise (signal .875)', dynamics__context_signal=0.875
    ),
    'context_clean': change('committed frames without noise', dynamics__context_signal=1.0),
    'heads_feature': change(PAPER + 'heads read the agent feature alone', heads__reads='feature'),
    'heads_together': change(
        'one network in every head for feature and latents', heads__reads='together'
    ),
    'heads_layers_1': change('one hidden layer in every head', heads__layers=1),
    'heads_noised': change(
        'heads learn on noised frames, not on committed ones', heads__learn_on='noised'
    ),
    'tokenizer_frozen': change(PAPER + 'tokenizer frozen once warm', tokenizer_training__rate=0),
    'tokenizer_full_rate': change('tokenizer goes on at its full rate', tokenizer_training__rate=1),
    'mask_09': change(PAPER + 'masked autoencoding, p up to .9', tokenizer__mask_max=0.9),
    'normal': change(
        'normal distribution instead of 21 bins', 'pixel_reach', heads__continuous='normal'
    ),
    'truncnormal': change(
        'truncated normal distribution instead of 21 bins',
        'pixel_reach',
        heads__continuous='truncnormal',
    ),
    'bins_9': change('9 bins instead of 21', 'pixel_reach', heads__continuous=9),
}

# What rows of the results say whose settings are gone, because the change won nothing.
RETIRED = {
    'tokenizer_ema': 'EMA of the tokenizer (.02)',
    'tokenizer_snapshot': 'tokenizer copied every 500 updates',
    'prior_behaviour': 'prior: behaviour cloned from the replay',
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tasks', nargs='+', default=['pixel_catch'])
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--frames', type=int, default=40000, help='of training, per run')
    parser.add_argument('--minutes', type=float, default=10, help='of training at most, per run')
    parser.add_argument(
        '--only',
        nargs='+',
        default=list(VARIANTS),
        choices=list(VARIANTS),
        metavar='VARIANT',
        help=', '.join(VARIANTS),
    )
    parser.add_argument('--jobs', type=int, default=1, help='runs at the same time')
    parser.add_argument('--again', action='store_true', help='also make runs that are done')
    parser.add_argument('--show', action='store_true', help='only print the table')
    args = parser.parse_args()
    path = RESULTS / 'ablate.json'
    results = json.loads(path.read_text()) if path.exists() else {'machine': machine(), 'runs': []}
    if not args.show:
        RESULTS.mkdir(exist_ok=True)
        missing(args, results, path)
    print(table(results['runs']))


def missing(args: argparse.Namespace, results: dict, path) -> None:
    """Make the runs that are asked for and not there yet, seed by seed, so that an early stop
    leaves whole comparisons.
    """
    key_of = lambda run: (run['variant'], run['task'], run['seed'])
    there = set() if args.again else {key_of(run) for run in results['runs']}
    todo = [
        (name, task, seed)
        for seed in args.seeds
        for name in args.only
        for task in args.tasks
        if task.startswith(VARIANTS[name].tasks) and (name, task, seed) not in there
    ]
    # runs of older code are not gone on with
    folder = f'ablate/{commit()}' if args.again else 'ablate'
    # two threads each, in each other's way, would be far slower
    lock, alone = Lock(), [] if args.jobs == 1 else ['--machine.threads', '1']

    def make(name: str, task: str, seed: int) -> None:
        run = one_run(
            task,
            seed,
            f'{folder}/{name}',
            SimpleNamespace(
                flags=alone + list(VARIANTS[name].flags),
                frames=args.frames,
                minutes=args.minutes,
                episodes=100,
            ),
        )
        with lock:
            kept = [old for old in results['runs'] if key_of(old) != (name, task, seed)]
            results['runs'] = [*kept, {'variant': name, 'jobs': args.jobs, **run}]
            write(path, results)
            print(
                f'{name} {task} seed {seed}: {run["eval"]["mean"]:.3g} after'
                f' {run["seconds"]:.0f} s',
                flush=True,
            )

    with ThreadPoolExecutor(args.jobs) as pool:
        for done in [pool.submit(make, *key) for key in todo]:
            done.result()


def described(name: str) -> str:
    """What a variant changes, in words."""
    return RETIRED[name] if name in RETIRED else VARIANTS[name].what


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t); nan for a single value."""
    half = half_width(values)
    return float(np.mean(values)), np.nan if half is None else half


def half_way(run: dict) -> float:
    """Frames until the training return was half of the way from random to optimal; infinite if
    it never was.
    """
    return next(
        (
            frames
            for frames, score in zip(run['curve']['frames'], run['curve']['score'])
            if share(run['task'], score) >= 0.5
        ),
        float('inf'),
    )


def table(runs: list[dict]) -> str:
    """Markdown, a block per task, best first: the share of the way from random to optimal that
    eval_only finds after training, and the frames until training was half way there.
    """
    lines = []
    for task in dict.fromkeys(run['task'] for run in runs):
        last = max(run['curve']['frames'][-1] for run in runs if run['task'] == task)
        lines += [
            '',
            f'**{task}**, {last:,} frames',
            '',
            (
                '| change | way to optimal at the end, mean and 95 % interval | each seed | half'
                ' way after frames, each seed |'
            ),
            '|---|---|---|---|',
        ]
        rows = []
        for name in dict.fromkeys(run['variant'] for run in runs):
            mine = sorted(
                (run for run in runs if (run['variant'], run['task']) == (name, task)),
                key=lambda run: run['seed'],
            )
            if mine:
                mean, half = interval([share(task, run['eval']['mean']) for run in mine])
                rows.append(
                    (
                        mean,
                        (
                            f'| {described(name)} (`{name}`) | {mean:.0%}'
                            + (f' +- {half:.0%}' if len(mine) > 1 else '')
                            + ' | '
                            + ', '.join(f'{share(task, run["eval"]["mean"]):.0%}' for run in mine)
                            + ' | '
                            + ', '.join(
                                'never'
                                if (frames := half_way(run)) == float('inf')
                                else f'{frames:,}'
                                for run in mine
                            )
                            + ' |'
                        ),
                    )
                )
        lines += [text for _, text in sorted(rows, reverse=True)]
    return '\n'.join(lines[1:])


if __name__ == '__main__':
    start(main)
