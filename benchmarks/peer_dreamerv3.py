"""DreamerV3's driver and replay, measured by request; started by benchmarks/runtime.py in a process
of its own, never imported by it.

Both projects call their runtime `embodied`, hence the separate process, whose module path holds the
peer's `embodied.core` alone. Reads one request a line from standard input (drive SECONDS, late
PAUSES SECONDS, add ROWS, add_full ROWS, sample BATCHES) and answers each with one JSON number. The
envs are the counting envs of embodied/envs/dummy.py in the interface of this peer; nothing of the
peer is kept here.
"""

import argparse
import functools
import json
import statistics
import sys
import time

import numpy as np

ENVS, SIZE, EPISODE, BATCH, LENGTH = 16, 64, 100, 16, 65


class Counting:
    """16 to 64 KB of image with noise and eight small keys per step."""

    def __init__(self, index: int):
        self._rng, self._count = np.random.default_rng(index), 0

    @property
    def act_space(self):
        import elements

        return {
            'discrete': elements.Space(np.int32, (), 0, 5),
            'box': elements.Space(np.float32, (3,)),
            'reset': elements.Space(bool),
        }

    def step(self, action):
        first = bool(action['reset'])
        self._count = 0 if first else self._count + 1
        image = np.empty((SIZE, SIZE, 3), np.uint8)
        image[..., 0], image[..., 1] = self._count % 256, 0
        image[..., 2] = self._rng.integers(256, size=(SIZE, SIZE), dtype=np.uint8)
        last = self._count == EPISODE
        return {
            'image': image,
            'count': np.int64(self._count),
            'episode': np.int64(0),
            'echo': np.zeros(4, np.float32),
            'vector': self._rng.standard_normal(3, np.float32),
            'token': np.int64(self._count % 7),
            'even': np.bool_(self._count % 2 == 0),
            'grid': np.full((2, 4), self._count, np.float32),
            'reward': np.float32(1),
            'is_first': np.bool_(first),
            'is_last': np.bool_(last),
            'is_terminal': np.bool_(last),
        }

    def close(self):
        pass


def rows(num: int = 64) -> list[dict]:
    """The rows of benchmarks/runtime_replay.py."""
    rng = np.random.default_rng(0)
    return [
        {
            'image': rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8),
            'action': rng.normal(size=6).astype(np.float32),
            'reward': np.float32(step),
            'is_first': np.bool_(step == 0),
            'is_last': np.bool_(step == num - 1),
            'is_terminal': np.bool_(False),
        }
        for step in range(num)
    ]


class Peer:
    """Answers requests; the driver and a filled replay are made when first asked for."""

    def __init__(self):
        from embodied.core.driver import Driver
        from embodied.core.replay import Replay

        self._driver, self._replay, self._rows = Driver, Replay, rows()

    @functools.cached_property
    def step(self):
        driver = self._driver(
            [functools.partial(Counting, index) for index in range(ENVS)], parallel=True
        )
        action = {'discrete': np.zeros(ENVS, np.int32), 'box': np.zeros((ENVS, 3), np.float32)}
        driver.on_step(lambda row, index: None)
        driver.reset(lambda num_envs: None)
        self.close = driver.close
        return lambda: driver(lambda carry, obs: (carry, action, {}), steps=1)

    @functools.cached_property
    def filled(self):
        replay = self._replay(LENGTH, capacity=20_000, directory=None)
        self._fill(replay, 20_000)
        return replay

    def _fill(self, replay, num):
        for count in range(num):
            replay.add(self._rows[(count // ENVS) % len(self._rows)], count % ENVS)

    def drive(self, seconds: float) -> float:
        """Env steps per second of all envs together."""
        self.step()
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            self.step()
            count += ENVS
        return count / (time.perf_counter() - start)

    def late(self, pauses: float, seconds: float) -> float:
        """Milliseconds by which a step after a pause takes longer than one without."""

        def duration(pause):
            time.sleep(pause)
            start = time.perf_counter()
            self.step()
            return 1000 * (time.perf_counter() - start)

        prompt = statistics.median(duration(0) for _ in range(50))
        return statistics.median(duration(seconds) for _ in range(int(pauses))) - prompt

    def add(self, num: float) -> float:
        """Rows per second into fresh memory."""
        replay, start = self._replay(LENGTH, capacity=None, directory=None), time.perf_counter()
        self._fill(replay, int(num))
        return num / (time.perf_counter() - start)

    def add_full(self, num: float) -> float:
        """Rows per second where every row pushes out an old one."""
        replay, start = self.filled, time.perf_counter()
        self._fill(replay, int(num))
        return num / (time.perf_counter() - start)

    def sample(self, num: float) -> float:
        """Batches per second of 16 x 65 rows from memory."""
        replay, start = self.filled, time.perf_counter()
        for _ in range(int(num)):
            replay.sample(BATCH)
        return num / (time.perf_counter() - start)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    measured, out = Peer(), sys.stdout
    sys.stdout = sys.stderr  # the peer prints
    for request in sys.stdin:
        name, *numbers = request.split()
        print(json.dumps(getattr(measured, name)(*map(float, numbers))), file=out, flush=True)
    getattr(measured, 'close', lambda: None)()


if __name__ == '__main__':
    main()
