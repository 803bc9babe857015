"""How well the agent of a run predicts rows of its replay: the numbers of a report, and videos of
predictions beside what happened.

    python -m dreamer4.report LOGDIR [--frames DIR] [--draws 4]
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from embodied.console import steady
from embodied.errors import EmbodiedError
from embodied.files import whole
from embodied.media import gif

from . import runs
from .starts import Starts

FPS = 8  # of the videos


def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit status: 0, or 2 for a run that has none to give."""
    parser = argparse.ArgumentParser(
        prog='python -m dreamer4.report', description=__doc__.split('\n\n')[0]
    )
    parser.add_argument('logdir', type=Path, help='folder of a run')
    parser.add_argument('--frames', type=Path, help="replay folder to predict; the run's own")
    parser.add_argument('--draws', type=int, default=4, help='batches that numbers are means of')
    parser.add_argument('--out', type=Path, help='folder of the report; LOGDIR/report')
    parser.add_argument('--seed', type=int, default=0, help='of the rows that are drawn')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda')
    args = parser.parse_args(argv)
    with steady(patience=None):
        print(f'dreamer4 report: {args.logdir}', flush=True)
        try:
            report(args)
        except (EmbodiedError, OSError) as error:
            print(f'dreamer4: {str(error).splitlines()[0]}', file=sys.stderr)
            return 2
    return 0


def report(args: argparse.Namespace) -> None:
    """Measure, print and write what the command line says."""
    from .load import restored, stored

    logdir = runs.folder_of(args.logdir)
    config = stored(logdir, {'device': args.device})
    spaces = runs.read_spaces(logdir)
    agent = restored(logdir, config, *spaces, args.seed)
    starts, rng = Starts(args.frames or logdir, *spaces), np.random.default_rng(args.seed)
    numbers, videos = {}, {}
    for _ in range(max(1, args.draws)):
        told = agent.report(agent.batch(draw(starts, rng, agent)))
        for key, value in told.items():
            if isinstance(value, np.ndarray):
                videos.setdefault(key, value)
            else:
                numbers.setdefault(key, []).append(value)
    out = args.out or logdir / 'report'
    out.mkdir(parents=True, exist_ok=True)
    means = {key: float(np.mean(values)) for key, values in sorted(numbers.items())}
    for key, value in means.items():
        print(f'{key:<32} {value:.4g}')
    with whole(out / 'report.json') as file:
        file.write((json.dumps(means, indent=1) + '\n').encode())
    for key, video in videos.items():
        (out / f'{key.replace("/", "-")}.gif').write_bytes(gif(video, FPS, width=0, seconds=0))
    print(f'Files in {out}: report.json, {len(videos)} videos.')


def draw(starts: Starts, rng: np.random.Generator, agent) -> dict:
    """A batch of rows of the agent's usual size, key -> (B, T+1, ...), ending anywhere."""
    batch = agent.config.batch
    return starts.draw(rng, batch.size, batch.length + 1)
