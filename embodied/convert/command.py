"""The command line of conversions.

python -m dreamer4.convert FORMAT SOURCE DEST [--size 64] [--check]
python -m dreamer4.convert to-lerobot REPLAY DEST [--fps 15]
python -m dreamer4.convert --list
"""

import argparse
import sys
from pathlib import Path

from ..console import steady
from ..errors import ConfigError, EmbodiedError
from .episode import Options
from .formats import EXPORTS, FORMATS, demand, export, open_source
from .job import check, convert

CONVENTIONS = {'taken': False, 'led': True}
CHOICE = {'auto': None, 'yes': True, 'no': False}


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 where --check contradicts, or 2 with one
    line on stderr."""
    args = _parser().parse_args(argv)
    with steady(patience=None):
        try:
            return _run(args)
        except (EmbodiedError, OSError) as error:
            print(f'convert: {error}', file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print('\nconvert: interrupted; the same command goes on.', file=sys.stderr)
            return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python -m dreamer4.convert',
        description='Convert recordings into a replay folder (see docs/data.md).',
    )
    parser.add_argument('format', nargs='?', help='--list names them')
    parser.add_argument('source', nargs='?', type=Path, help='file or folder')
    parser.add_argument('dest', nargs='?', type=Path, help='replay folder; new, or to be continued')
    parser.add_argument('--list', action='store_true', help='name the formats and leave')
    parser.add_argument('--size', type=int, help='height and width that images are resized to')
    parser.add_argument('--key', default='image', help='name of frames that have none')
    parser.add_argument('--keys', nargs='+', default=[], help='observations to keep; default all')
    parser.add_argument(
        '--rename', nargs='+', default=[], metavar='OLD=NEW', help='names of observations in rows'
    )
    parser.add_argument('--action', nargs='+', default=[], help='columns that are actions')
    parser.add_argument(
        '--time', choices=CONVENTIONS, help='actions are taken at their frame, or led to it'
    )
    parser.add_argument('--bgr', choices=CHOICE, default='auto', help='blue comes first on disk')
    parser.add_argument(
        '--onehot', action='store_true', help='actions are one-hot codes of choices'
    )
    parser.add_argument(
        '--timed',
        action='store_true',
        help='episodes end by a time limit, whatever the source says',
    )
    parser.add_argument('--fps', type=float, help='frames per second of videos that are written')
    parser.add_argument(
        '--check',
        action='store_true',
        help='measure whether actions stand at their rows; a contradiction ends it',
    )
    parser.add_argument('--anyway', action='store_true', help='convert in spite of --check')
    parser.add_argument('--skip', action='store_true', help='leave out episodes that are damaged')
    return parser


def options_of(args: argparse.Namespace) -> Options:
    """What the command line says of the source.

    Raises:
      ConfigError: --rename or --size makes no sense.
    """
    pairs = [text.partition('=') for text in args.rename]
    if wrong := [text for text, (old, _, new) in zip(args.rename, pairs) if not (old and new)]:
        raise ConfigError(f'--rename takes OLD=NEW, got {wrong[0]!r}')
    if args.size is not None and args.size < 1:
        raise ConfigError(f'--size takes pixels, got {args.size}')
    return Options(
        key=args.key,
        led=CONVENTIONS.get(args.time),
        bgr=CHOICE[args.bgr],
        onehot=args.onehot,
        action=tuple(args.action),
        keys=tuple(args.keys),
        rename={old: new for old, _, new in pairs},
        size=args.size,
        timed=args.timed,
    )


def _run(args: argparse.Namespace) -> int:
    if args.list:
        for name, form in FORMATS.items():
            print(f'{name:18} {form.what:50} action {form.time}')
        print(f'of a run or its replay folder, out again: {", ".join(EXPORTS)}')
        return 0
    if not args.format or not args.source or not args.dest:
        raise ConfigError('FORMAT SOURCE DEST are needed; --list names the formats')
    demand(args.format, args.source)  # before anything is said of what is to be written
    options = options_of(args)
    if args.format in EXPORTS:
        source, dest = args.source.expanduser(), args.dest.expanduser()
        print(export(args.format, source, dest, options, args.fps))
        return 0
    request = {
        'format': args.format,
        'source': str(args.source.expanduser().resolve()),
        'options': {key: value for key, value in vars(options).items() if value},
    }
    opened = lambda: open_source(args.format, args.source, options)
    tell = lambda text: print(f'convert: {text}', file=sys.stderr)
    if args.check:
        verdict = check(opened(), options)
        print(verdict.words())
        if verdict.off and not args.anyway:
            print('Nothing is converted; --anyway does it as it is.')
            return 1
    print(convert(opened, args.dest.expanduser(), request, options, tell, args.skip))
    return 0
