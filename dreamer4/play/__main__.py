"""Play in the dream of a run with a browser.

python -m dreamer4.play LOGDIR [--port 8000] [--frames DIR]
"""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from embodied.console import steady
from embodied.errors import EmbodiedError, EnvMissing, brief
from embodied.extras import require
from embodied.replay.infer import demand_rows, folder_of

from .. import runs


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C. Returns the exit status: 0, 1 where it cannot be served, 2 for a run that
    cannot be played.
    """
    parser = argparse.ArgumentParser(
        prog='python -m dreamer4.play', description=__doc__.split('\n')[0]
    )
    parser.add_argument('logdir', type=Path, help='folder of a run')
    parser.add_argument('--port', type=int, default=8000, help='0: any that is free')
    parser.add_argument(
        '--host', default='127.0.0.1', help='0.0.0.0: from other machines too, by a token'
    )
    parser.add_argument('--frames', type=Path, help="replay folder to begin in; the run's own")
    parser.add_argument('--out', type=Path, help='where rows and films go; LOGDIR/play')
    parser.add_argument('--alone', action='store_true', help='make no env')
    parser.add_argument('--trust', action='store_true', help='import the module the run names')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda')
    parser.add_argument(
        '--threads', type=int, default=1, help="torch's; 1 is best for small models"
    )
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    with steady(patience=None):
        print(f'dreamer4 play: {args.logdir}', flush=True)
        try:
            runs.saved(args.logdir)
            if args.frames:
                demand_rows('--frames', folder_of(args.frames))
            require('websockets', 'play')
            asyncio.run(serve(args))
        except KeyboardInterrupt:
            return 0
        except EnvMissing as error:
            print(f'dreamer4: {error}', file=sys.stderr)
            return 1
        except EmbodiedError as error:
            print(f'dreamer4: {brief(error)}', file=sys.stderr)
            return 2
        except OSError as error:
            print(f'dreamer4: {args.host}:{args.port}: {error.strerror}', file=sys.stderr)
            return 1
    return 0


async def serve(args: argparse.Namespace) -> None:
    """Serve what the command line says."""
    from .making import maker
    from .pages import LOOPBACK
    from .server import Server

    say = lambda text: print(text, flush=True)
    make, recorder, title = maker(args, say)
    token = '' if args.host in LOOPBACK else secrets.token_urlsafe(16)
    server = Server(make, recorder, title, token, say)
    await server.run(args.host, args.port, lambda url: say(f'Open {url} (Ctrl-C ends it)'))


if __name__ == '__main__':
    sys.exit(main())
