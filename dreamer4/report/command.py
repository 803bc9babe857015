"""From the folder of a run to its report.

The rows are those that the run did not learn from, where it held some out; otherwise its own, or
those of another folder.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from embodied.config import Config
from embodied.console import steady
from embodied.errors import EmbodiedError, EnvMissing, brief
from embodied.extras import require
from embodied.files import whole
from embodied.media import gif
from embodied.replay import Replay, ReplayConfig
from embodied.replay.infer import demand_rows, folder_of
from embodied.replay.several import paths

from .. import runs
from .config import ReportConfig

BATCHES = 2


def main(argv: list[str] | None = None) -> int:
    """Write the report; returns the exit status: 0, 1 where a package is missing, or 2 for a run
    that has none to give.
    """
    parser = argparse.ArgumentParser(
        prog='python -m dreamer4.report', description='How good the parts of a trained agent are.'
    )
    parser.add_argument('logdir', type=Path, help='folder of a run')
    parser.add_argument('--frames', default='', help="replay folder to predict; the run's own")
    parser.add_argument('--batches', type=int, default=BATCHES, help='that numbers are means of')
    parser.add_argument(
        '--thorough', action='store_true', help='all signal levels and denoising steps: minutes'
    )
    parser.add_argument('--out', type=Path, help='folder of the report; LOGDIR/report')
    parser.add_argument('--seed', type=int, default=0, help='of the rows that are drawn')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda')
    args = parser.parse_args(argv)
    with steady(patience=None):
        try:
            size = ReportConfig(args.batches, args.thorough)
            report(args.logdir, args.frames, size, args.out, args.seed, args.device)
        except EnvMissing as error:
            print(f'dreamer4: {error}', file=sys.stderr)
            return 1
        except (EmbodiedError, OSError) as error:
            print(f'dreamer4: {brief(error)}', file=sys.stderr)
            return 2
    return 0


def report(
    place: Path,
    frames: str | Sequence[str] = '',
    size: ReportConfig = ReportConfig(BATCHES, False),
    out: Path | None = None,
    seed: int = 0,
    device: str = 'auto',
) -> Path:
    """Measure a run, and write report.json, report.html, plots and videos.

    Args:
        place: its logdir, or a checkpoint in it. frames: replay folders to predict; none for the
            run's own. size: how much is measured. out: folder, LOGDIR/report if not given. seed: of
            the draws.

    Returns:
        the page.

    Raises:
        ConfigError: there is no run, or no rows that its agent could predict.
        EnvMissing: the package that draws is not installed.
    """
    logdir = runs.saved(place)
    told = runs.completed(logdir)
    rows_of(told, logdir, frames)
    require('matplotlib', 'report')
    say = lambda words: print(f'dreamer4 report: {words}', flush=True)
    say(str(logdir))
    from ..load import restored, stored  # torch takes seconds
    from . import examine, figures, page

    config = stored(logdir, {'device': device})
    agent = restored(logdir, config, *runs.read_spaces(logdir), seed)
    with opened(told, logdir, frames, agent.sequence_rows, seed) as (rows, words):
        length = agent.config.batch.length + 1
        drawn = (rows.sample(agent.config.batch.size, length, n) for n in range(size.batches))
        batches = (agent.batch(batch) for batch in drawn)
        several = runs.read_tasks(logdir)
        tasks = several.names if several else ()
        found = examine.measure(agent, batches, say, size.thorough, tasks)
    sections = dict(found.numbers)
    if (compared := logdir / 'compare' / 'compare.json').exists():
        sections = {'compare': json.loads(compared.read_text())} | sections
    say('plots and page')
    out = out or logdir / 'report'
    out.mkdir(parents=True, exist_ok=True)
    plots = figures.draw(sections, page.history(logdir))
    lines = about(agent, told.task, size, words)
    clips = {name: gif(video, page.FPS, width=0, seconds=0) for name, video in found.videos.items()}
    content = page.write(found, clips, sections, plots, f'Report of {logdir.name}', lines, logdir)
    files = {'report.json': (json.dumps({'about': lines} | sections, indent=1) + '\n').encode()}
    files |= {f'{name.replace("/", "-")}.png': picture for name, picture in plots.items()}
    files |= {f'{name.replace("/", "-")}.gif': clip for name, clip in clips.items()}
    for name, made in (files | {'report.html': content}).items():
        with whole(out / name) as file:
            file.write(made)
    for key, value in sections['open_loop'].items():
        print(f'{key:<32} {value:.4g}')
    print(f'Open {out / "report.html"} ({len(plots)} plots, {len(found.videos)} videos).')
    return out / 'report.html'


def about(agent, task: str, size: ReportConfig, words: str) -> list[str]:
    """The first lines of a report. Args: words: what the rows are that were predicted."""
    c, stage = agent.config, f'{agent.updates:,} updates, stage {agent.schedule.stage}'
    lines = [f'{task}: agent.world {c.world}, {stage}.']
    lines.append(f'{size.batches * c.batch.size} sequences of {c.batch.length} frames, {words}.')
    if not size.thorough and c.world == 'dreamer4':
        lines.append('Some signal levels and denoising steps; --report.thorough true has all.')
    return lines


def rows_of(told: Config, logdir: Path, frames: str | Sequence[str]) -> list[Path]:
    """The folders whose rows are predicted. Args, Raises: as report(); told: the run's settings."""
    named = paths(frames or told.replay.directory or logdir / 'replay', True)
    for folder in (found := [folder_of(name) for name in named]):
        demand_rows('--frames (the rows to predict)', folder)
    return found


@contextmanager
def opened(
    told: Config, logdir: Path, frames: str | Sequence[str], length: int, seed: int
) -> Iterator[tuple[Replay, str]]:
    """The rows that are predicted, and in words what they are.

    Args:
        told: configuration of the run, see runs.completed. frames: another folder. length: rows of
            the longest sequence that the run has learned from.
    """
    folders = rows_of(told, logdir, frames)
    apart = told.script == 'offline' and not frames
    plain = dict(uniform=1.0, recent=0.0, newest=0.0, demos='', demo_share=0.0, relevant=0.0)
    plain |= dict(video='', video_share=0.0)
    plain |= dict(directory=(), shares=()) if frames else {}
    own = told.replay.build(ReplayConfig)
    settings = replace(own, **plain, held_out=own.held_out if apart else 0.0)
    obs_space, act_space = runs.read_spaces(logdir)
    where = ', '.join(map(str, folders))
    rows = Replay(settings, folders, seed, obs_space, act_space, read_only=True, on_event=print)
    try:
        rows.load(None)
        rows.split(length)
        if rows.held_out:
            yield rows, f'of episodes of {where} that nothing learned from'
        else:
            yield rows, f'of {where}' + ('' if frames else ', which the agent has learned from')
    finally:
        rows.close()
