"""python -m embodied.remote: see server.py."""

import argparse
import os
import sys
from pathlib import Path

from .. import envs
from ..config import configs_dir, parse
from ..errors import EmbodiedError
from .server import Server


def main(argv: list[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog='python -m embodied.remote',
        description='Serve envs over a socket; EMBODIED_TOKEN is what clients have to know.'
        ' Flags of the config, such as --configs or --env.dmc.size, follow.',
    )
    parser.add_argument('--task', required=True, help='as for training')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at')
    parser.add_argument('--port', type=int, default=5555)
    parser.add_argument('--envs', type=int, default=1, help='clients at once')
    parser.add_argument('--keep', action='store_true', help='envs outlive their clients')
    args, flags = parser.parse_known_args(argv)
    try:
        config = parse(flags, configs_dir(Path(__file__).parents[2] / 'dreamer4')).env.to_dict()
        envs.check(args.task, config)
        server = Server(
            lambda seed: envs.make(args.task, config, seed),
            os.environ.get('EMBODIED_TOKEN', ''),
            args.host,
            args.port,
            args.envs,
            args.keep,
            lambda text: print(text, flush=True),
        )
    except (EmbodiedError, OSError) as error:
        print(f'embodied.remote: {error}', file=sys.stderr)
        return 2
    host, port = server.address
    print(f'serving {args.task} at {host}:{port}: --task remote_{host}:{port}', flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        return 130
    finally:
        server.close()
    return 0


if __name__ == '__main__':
    sys.exit(main())
