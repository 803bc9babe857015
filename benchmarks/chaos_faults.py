"""dreamer4.main with envs that break at random, for benchmarks/chaos.py: every fault raises, exits,
is killed, hangs or returns NaN. Every env also starts a process of its own, as simulators do, and
never ends it.

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

import numpy as np

from embodied import envs
from embodied.base import Env
from embodied.wrappers import Wrapper

from .chaos_lives import child

KINDS = ('raise', 'exit', 'kill', 'hang', 'nan')
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

    checked = False  # the worker looks for NaN itself: the checks of the env lie below

    def __init__(self, env: Env, ledger: Path, faults: int, seed: int):
        super().__init__(env)
        self._child = child()
        self._ledger, self._faults, self._chance = ledger, faults, random.Random(seed)

    def step(self, action):
        obs = self.env.step(action)
        if self._faults and self._chance.random() < CHANCE:
            return self._break(self._chance.choice(KINDS), obs)
        return obs

    def _break(self, kind, obs):
        done = self._ledger.read_text().count('\n') if self._ledger.exists() else 0
        if done >= self._faults:
            return obs
        with open(self._ledger, 'a') as file:
            file.write(f'{kind}\n')
        if kind == 'raise':
            raise Unpicklable
        if kind == 'exit':
            os._exit(3)
        if kind == 'kill':
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == 'hang':
            time.sleep(3600)
        return {**obs, 'reward': np.float32(np.nan)}


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
    from dreamer4.parts import Parts

    breaks = {'ledger': args.ledger, 'faults': args.faults}
    plain = Parts.env

    def breaking(self, kind, index):
        return BreakingMaker(**vars(plain(self, kind, index)), **breaks)

    Parts.env = breaking
    return program.main(args.flags)


if __name__ == '__main__':
    sys.exit(main())
