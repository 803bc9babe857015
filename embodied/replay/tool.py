"""The command line of the replay: what is in a replay folder, one of its episodes as a picture, and
episodes from files (importer.py).

    python -m embodied.replay inspect DIR [--json] [--verify]
    python -m embodied.replay export DIR --episode N --out FILE[.gif|.png|.mp4|.npz] [--key image]
    [--fps 15] python -m embodied.replay import FILE... --out DIR [--key image] [--size 64]
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..console import steady
from ..errors import EmbodiedError, ReplayError
from ..media import gif, png, write_mp4
from ..pictures import displayable
from . import npz
from .archive import Archive
from .health import examine
from .infer import folder_of
from .schema import Schema

LISTED = 20  # episodes that inspect prints; --json has all


def inspect(directory: Path, verify: bool = False) -> dict[str, Any]:
    """Everything that `inspect` prints, as JSON-able values; see Archive for `verify`."""
    archive = Archive(directory, verify)
    episodes = list(archive.episodes())
    complete = [
        episode
        for episode in episodes
        if episode.whole and episode.ends in ('terminal', 'truncated')
    ]
    return {
        'directory': str(directory),
        'rows': archive.streams.rows,
        'chunks': archive.chunks,
        'streams': len(archive.streams),
        'bytes': archive.bytes,
        'row_bytes': archive.schema.nbytes,
        'schema': {
            key: {'dtype': dtype.name, 'shape': list(shape)}
            for key, dtype, shape in archive.schema.specs
        },
        'meta': archive.meta,
        'episodes': len(episodes),
        'complete': len(complete),
        'returns': _summary(
            [episode.score for episode in complete if not math.isnan(episode.score)]
        ),
        'lengths': _summary([episode.length for episode in complete]),
        **examine(archive, archive.act_space),
        'broken': archive.broken,
        'unverified': archive.unverified,
        'notes': archive.notes,
        'list': [
            {
                'episode': number,
                **episode._asdict(),
                'score': None if math.isnan(episode.score) else episode.score,
            }
            for number, episode in enumerate(episodes)
        ],
    }


def _summary(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        'mean': float(np.mean(values)),
        'min': float(np.min(values)),
        'max': float(np.max(values)),
        'last': float(values[-1]),
    }


def render(report: dict[str, Any]) -> str:
    """The report of inspect() as text for a terminal."""
    lines = [
        (
            f'{report["directory"]}: {report["rows"]:,} rows in {report["chunks"]:,} chunks and'
            f' {report["streams"]:,} streams, {report["bytes"]:,} bytes on disk,'
            f' {report["row_bytes"]:,} bytes per row'
        ),
        '',
        'schema',
    ]
    lines += [
        f'  {key:24} {spec["dtype"]:8} {tuple(spec["shape"])}'
        for key, spec in report['schema'].items()
    ]
    if report['meta']:
        lines += ['', 'meta', *(f'  {key:24} {value}' for key, value in report['meta'].items())]
    lines += [
        '',
        (
            f'episodes: {report["episodes"]:,}, of which {report["complete"]:,} from their first to'
            ' their last row'
        ),
    ]
    for name in ('returns', 'lengths'):
        if report[name]:
            lines.append(
                f'  {name:8} '
                + '  '.join(f'{key} {value:.6g}' for key, value in report[name].items())
            )
    lines += _columns(report['columns'])
    shown = report['list'][-LISTED:]
    if shown:
        lines += ['', f'last {len(shown)} episodes', '   number     rows       return  end']
        lines += [
            f'  {item["episode"]:7} {item["length"]:8} {_number(item["score"])}  {item["ends"]}'
            f'{"" if item["whole"] else ", beginning lost"}'
            for item in shown
        ]
    unread = report['unverified']
    rest = f'; {unread} large files were not read whole, which --verify does' if unread else ''
    lines += ['', f'broken files: {len(report["broken"])}{rest}']
    lines += [f'  {why}' for why in report['broken'].values()]
    lines += [f'note: {text}' for text in report['notes'] + report['remarks']]
    return '\n'.join(lines + [f'FAULT: {text}' for text in report['faults']])


def _columns(columns: dict[str, Any]) -> list[str]:
    """Lines on what the columns hold."""
    lines = ['', 'columns                         min        max  constant  not finite  repeated']
    for key, column in columns.items():
        ends = (
            '-' if value is None else f'{value:.4g}' for value in (column['min'], column['max'])
        )
        constant = f'{column["constant"]}/{column["entries"]}'
        repeated = f'{column["repeated"]:.1%}' if 'repeated' in column else ''
        low, high = ends
        lines.append(
            f'  {key:24} {low:>9} {high:>10} {constant:>9} {column["nonfinite"]:>11} {repeated:>9}'
        )
    return lines


def _number(score: float | None) -> str:
    return f'{"unlabeled":>12}' if score is None else f'{score:12.4f}'


def export(directory: Path, number: int, out: Path, key: str | None, fps: float) -> str:
    """Write the frames of an episode; the suffix of `out` chooses the format. Returns what was done
    as a sentence.

    Raises:
      ReplayError: there is no such episode or key, or the package for the format is missing.
    """
    archive = Archive(directory)
    episodes = list(archive.episodes())
    if not -len(episodes) <= number < len(episodes):
        raise ReplayError(
            f'{directory}: there is no episode {number}; it holds {len(episodes)}, numbered from 0.'
        )
    episode = episodes[number]
    key = key or _image_key(archive.schema)
    frames = archive.column(
        archive.streams[episode.slot], _known(archive.schema, key), episode.first, episode.length
    )
    writers = {'.gif': _write_gif, '.png': _write_pngs, '.mp4': _write_mp4, '.npz': _write_npz}
    if out.suffix not in writers:
        raise ReplayError(f'{out}: the name must end in one of {", ".join(writers)}.')
    out.parent.mkdir(parents=True, exist_ok=True)
    writers[out.suffix](out, frames, fps)
    return (
        f'Wrote {out}: {len(frames)} frames of {key!r}, episode {number}, return'
        f' {episode.score:.4f}, {episode.ends}.'
    )


def _image_key(schema: Schema) -> str:
    images = list(schema.images)
    if not images:
        raise ReplayError(
            'The rows hold no image; name a column with --key and write .npz. They hold'
            f' {_names(schema)}.'
        )
    return 'image' if 'image' in images else images[0]


def _known(schema: Schema, key: str) -> str:
    if key not in schema:
        raise ReplayError(f'The rows have no column {key!r}; they have {_names(schema)}.')
    return key


def _names(schema: Schema) -> str:
    return ', '.join(key for key, _, _ in schema.specs)


def _rgb(frames: np.ndarray) -> np.ndarray:
    """(T, H, W, 3) uint8 from images of any number of channels."""
    if frames.dtype != np.uint8 or frames.ndim != 4:
        raise ReplayError(
            f'Images must be uint8 (height, width, channels), this column is {frames.dtype}'
            f' {frames.shape[1:]}; use .npz.'
        )
    frames = displayable(frames)
    return np.repeat(frames, 3, -1) if frames.shape[-1] == 1 else np.ascontiguousarray(frames)


def _write_gif(out: Path, frames: np.ndarray, fps: float) -> None:
    out.write_bytes(gif(_rgb(frames), fps, width=0, seconds=0))


def _write_pngs(out: Path, frames: np.ndarray, fps: float) -> None:
    """One numbered file per frame: out.png becomes out-0000.png and so on."""
    digits = max(4, math.ceil(math.log10(len(frames) + 1)))
    for index, frame in enumerate(_rgb(frames)):
        out.with_name(f'{out.stem}-{index:0{digits}}.png').write_bytes(png(frame))


def _write_mp4(out: Path, frames: np.ndarray, fps: float) -> None:
    write_mp4(out, _rgb(frames), fps)


def _write_npz(out: Path, frames: np.ndarray, fps: float) -> None:
    with open(out, 'wb') as file:
        npz.write(file, {'frames': np.ascontiguousarray(frames)})


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 where inspect found what training could
    not bear or --verify a broken file, or 2 with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog='python -m embodied.replay', description='Look into a replay folder.'
    )
    commands = parser.add_subparsers(dest='command', required=True)
    look = commands.add_parser(
        'inspect', help='episodes, returns, ranges, schema; status 1 if nobody could learn from it'
    )
    look.add_argument('directory', type=Path)
    look.add_argument('--json', action='store_true', help='everything, with all episodes, as JSON')
    look.add_argument(
        '--verify', action='store_true', help='read every byte; exit status 1 if a file is broken'
    )
    take = commands.add_parser(
        'export', help='write an episode as .gif, .png sequence, .mp4 or .npz'
    )
    take.add_argument('directory', type=Path)
    take.add_argument(
        '--episode',
        type=int,
        required=True,
        help='number as inspect lists them; negative counts from the end',
    )
    take.add_argument('--out', type=Path, required=True, help='file; its suffix chooses the format')
    take.add_argument('--key', help='column; the first image if not given')
    take.add_argument('--fps', type=float, default=15.0, help='frames per second')
    bring = commands.add_parser(
        'import', help='add videos (.gif, .mp4) and arrays (.npz) to a folder, an episode each'
    )
    bring.add_argument('files', type=Path, nargs='+')
    bring.add_argument(
        '--out',
        type=Path,
        required=True,
        help='replay folder, as for --replay.demos; made where there is none',
    )
    bring.add_argument('--key', default='image', help='name of the frames, as the env calls them')
    bring.add_argument('--size', type=int, help='height and width that images are resized to')
    args = parser.parse_args(argv)
    with steady(patience=None):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    try:
        if args.command == 'import':
            # which adds to a replay, and that knows this command line
            from .importer import import_files

            print(import_files(args.files, args.out, args.key, args.size, print))
        elif args.command == 'inspect':
            report = inspect(folder_of(args.directory), args.verify)
            print(json.dumps(report, indent=1) if args.json else render(report))
            return int(bool(report['faults']) or args.verify and bool(report['broken']))
        else:
            print(export(folder_of(args.directory), args.episode, args.out, args.key, args.fps))
    except (EmbodiedError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
