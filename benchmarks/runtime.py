"""Driver and replay measured beside their peers in one run: a table and
benchmarks/results/runtime.json. Three minutes.

    python -m benchmarks.runtime [--dreamerv3 PATH --with PATH ...] [--skip_resident]

gymnasium's vector envs are always there. DreamerV3 takes part where --dreamerv3 names a checkout of
its repository and --with the folders that its imports need (checkouts of elements and portal,
installed msgpack and psutil); its driver and replay run in a process of their own.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from . import runtime_driver, runtime_replay
from .command import start, write
from .learning import RESULTS, ROOT, commit, machine

DREAMERV3 = 'DreamerV3'


class Peer:
    """A process that measures on request; see peer_dreamerv3.py.

    Args:
        script: what to run. path: its PYTHONPATH. arguments: its command line.
    """

    def __init__(self, script: Path, path: list[Path], arguments: list[str] = ()):
        self._process = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, path))},
            cwd=tempfile.gettempdir(),
        )

    def ask(self, name: str, *numbers: float) -> float:
        """The measurement `name`.

        Raises:
            RuntimeError: the process ended instead of answering; its error is on stderr.
        """
        print(name, *numbers, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(
                f'the peer ended with {self._process.wait()} when asked for {name!r}; its words'
                ' stand above'
            )
        return json.loads(answer)

    def close(self) -> None:
        with self._process as process:  # closes its pipes and waits
            process.stdin.close()


@contextlib.contextmanager
def peers(dreamerv3: str, others: list[str]):
    """name -> Peer of those whose code was given."""
    if not dreamerv3:
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / 'embodied'  # the core alone: the rest of the package needs JAX
        package.mkdir()
        (package / '__init__.py').touch()
        (package / 'core').symlink_to(Path(dreamerv3).resolve() / 'embodied' / 'core')
        peer = Peer(
            ROOT / 'benchmarks' / 'peer_dreamerv3.py',
            [Path(folder), *(Path(other).resolve() for other in others)],
        )
        try:
            yield {DREAMERV3: peer}
        finally:
            peer.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--dreamerv3', default='', help='checkout of the DreamerV3 repository')
    parser.add_argument(
        '--with',
        dest='others',
        nargs='+',
        default=[],
        help='folders with the modules elements, portal, msgpack, psutil',
    )
    parser.add_argument('--skip_resident', action='store_true', help='leave out the million rows')
    args = parser.parse_args()
    print(f'machine {machine()}, commit {commit()}')
    with peers(args.dreamerv3, args.others) as beside:
        driver = runtime_driver.measure(beside)
        print(drivers(driver), flush=True)
        replay = []
        parts = [
            lambda: runtime_replay.add(beside),
            lambda: runtime_replay.sample(beside),
            runtime_replay.index,
            runtime_replay.save,
        ]
        for part in parts + ([] if args.skip_resident else [runtime_replay.resident]):
            for name, value, unit in part():
                print(f'{name:48} {value:14,.{1 if value >= 100 else 3}f} {unit}', flush=True)
                replay.append({'name': name, 'value': value, 'unit': unit})
    RESULTS.mkdir(exist_ok=True)
    result = {'machine': machine(), 'commit': commit(), 'driver': driver, 'replay': replay}
    write(RESULTS / 'runtime.json', result)


def drivers(results: dict[str, dict[str, float]]) -> str:
    """Steps per second, their ratio to AsyncVectorEnv with its defaults, and lateness after a
    pause.
    """
    base = results['AsyncVectorEnv, shared memory']['steps_per_second']
    lines = [
        f'{runtime_driver.NUM_ENVS} envs, 64x64x3 uint8 and eight small keys',
        f'{"":48} {"steps/s":>9} {"ratio":>6} {"late after pause":>17}',
    ]
    for name, result in results.items():
        rate = result['steps_per_second']
        lines.append(f'{name:48} {rate:9.0f} {rate / base:6.2f} {result["late_ms"]:14.2f} ms')
    return '\n'.join(lines)


if __name__ == '__main__':
    start(main)
