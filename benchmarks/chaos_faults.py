"""dreamer4.main with envs that break at random, for benchmarks/chaos.py: every fault raises, exits,
is killed or hangs.

    python -m benchmarks.chaos_faults LEDGER FAULTS [arguments of dreamer4.main]

Every fault is written to the file LEDGER before it happens; once FAULTS lines stand there the envs
stay sound.
"""

import argparse
import dataclasses
import os
import random
import signal
import sys
import time
from pathlib import Path

from embodied import envs
from embodied.base import Env
from embodied.wrappers import Wrapper

KINDS = ('raise', 'exit', 'kill', 'hang')
CHANCE = 1 / 80  # per step


class Unpicklable(Exception):
    """What many simulators raise: an exception that cannot travel to another process."""

    def __init__(self):
        super().__init__('broken')
        self.handle = open(os.devnull)


class Breaking(Wrapper):
    """Breaks at random moments; what has happened stands in a file that all workers share.

    Args:
        ledger: the file. faults: how many there will be. seed: of the moments.
    """

    def __init__(self, env: Env, ledger: Path, faults: int, seed: int):
        super().__init__(env)
        self._ledger, self._faults, self._chance = ledger, faults, random.Random(seed)

    def step(self, action):
        if self._chance.random() < CHANCE:
            self._break(self._chance.choice(KINDS))
        return self.env.step(action)

    def _break(self, kind):
        done = self._ledger.read_text().count('\n') if self._ledger.exists() else 0
        if done >= self._faults:
            return
        with open(self._ledger, 'a') as file:
            file.write(f'{kind}\n')
        if kind == 'raise':
            raise Unpicklable
        if kind == 'exit':
            os._exit(3)
        if kind == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)


@dataclasses.dataclass(frozen=True)
class BreakingMaker(envs.Maker):
    """envs.Maker of a breaking env."""

    ledger: Path = Path()
    faults: int = 0

    def __call__(self) -> Env:
        return Breaking(super().__call__(), self.ledger, self.faults, self.seed)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('ledger', type=Path, help='file that lists the faults')
    parser.add_argument('faults', type=int, help='lines of it, after which envs stay sound')
    parser.add_argument('flags', nargs=argparse.REMAINDER, help='arguments of dreamer4.main')
    args = parser.parse_args()
    from dreamer4 import main as program

    ledger, faults = args.ledger, args.faults
    plain = program.Parts.env

    def breaking(self, kind, index):
        return BreakingMaker(**vars(plain(self, kind, index)), ledger=ledger, faults=faults)

    program.Parts.env = breaking
    return program.main(args.flags)


if __name__ == '__main__':
    sys.exit(main())
