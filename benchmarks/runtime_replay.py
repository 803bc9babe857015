"""How fast the replay stores and hands out rows of 64x64x3, next to what a plain copy of the same bytes takes. A minute at most.

    python -m benchmarks.runtime_replay

Medians of several rounds on the machine at hand. Each function is bounded and returns rows of a table, so that others can call it.
"""

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embodied.chunk import ChunkName
from embodied.replay import Replay, ReplayConfig

WORKERS = 16
BATCH, LENGTH = 16, 65
IMAGE = (64, 64, 3)


def make(directory: Path | None, max_gb: float = 1.0, disk_gb: float = 2.0) -> Replay:
    """A replay with a mixture as a run has it."""
    config = ReplayConfig(
        directory='', max_gb=max_gb, disk_gb=disk_gb, chunk_rows=1024, uniform=0.5, recent=0.3, newest=0.2, recent_rows=5000,
        resume='manifest', demos='', demo_share=0.0)
    return Replay(config, directory, seed=0)


def rows(num: int = 64) -> list[dict]:
    """Different rows, made beforehand."""
    rng = np.random.default_rng(0)
    return [{
        'image': rng.integers(0, 256, IMAGE, np.uint8), 'action': rng.normal(size=6).astype(np.float32), 'reward': np.float32(step),
        'is_first': np.bool_(step == 0), 'is_last': np.bool_(step == num - 1), 'is_terminal': np.bool_(False)} for step in range(num)]


def fill(replay: Replay, num: int) -> None:
    """Add rows in turns, as a driver does."""
    made = rows()
    for count in range(num):
        replay.add(made[(count // WORKERS) % len(made)], count % WORKERS)


def add(num: int = 16_384, rounds: int = 5) -> list[tuple[str, float, str]]:
    """Rows per second into memory that is taken anew from the system, into memory that is full so that the oldest rows go, and
    into memory and a folder (close() included). The first is bounded by what the system takes to hand out pages."""
    made, stack = rows(), np.zeros((num, *IMAGE), np.uint8)
    full = make(None, max_gb=0.4)
    fill(full, 3 * num)

    def copy() -> None:
        for count in range(num):
            stack[count] = made[count % len(made)]['image']

    def to_memory() -> None:
        fill(make(None), num)

    def to_disk() -> None:
        with tempfile.TemporaryDirectory() as folder:
            replay = make(Path(folder))
            fill(replay, num)
            replay.close()
    return [
        ('add, fresh memory', num / median(to_memory, rounds), 'rows/s'),
        ('add, full memory', num / median(lambda: fill(full, num), rounds), 'rows/s'),
        ('add and save to disk', num / median(to_disk, rounds), 'rows/s'),
        ('copy of the images alone', num / median(copy, rounds), 'rows/s')]


def sample(num: int = 100, rounds: int = 5) -> list[tuple[str, float, str]]:
    """Batches per second of 16 x 65 rows from memory, from chunks mapped from disk, and from a budget of a quarter of the data."""
    table = []
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder))
        fill(replay, 20_000)
        manifest = replay.save()
        batch = replay.sample(BATCH, LENGTH)
        into = {key: np.empty_like(value) for key, value in batch.items()}
        table.append(('sample 16x65, memory', rate(lambda: replay.sample(BATCH, LENGTH), num, rounds), 'batches/s'))
        for name, max_gb in (('mapped', 1.0), ('mapped, budget 1/4 of the data', 0.06)):
            other = make(Path(folder), max_gb=max_gb)
            other.load(manifest)
            table.append((f'sample 16x65, {name}', rate(lambda: other.sample(BATCH, LENGTH), num, rounds), 'batches/s'))
        replay.close()
    table.append(('memcpy of a batch into new arrays', rate(
        lambda: {key: value.copy() for key, value in batch.items()}, num, rounds), 'batches/s'))
    table.append(('memcpy of a batch into old arrays', rate(
        lambda: [np.copyto(into[key], value) for key, value in batch.items()], num, rounds), 'batches/s'))
    return table


def index(num: int = 20_000) -> list[tuple[str, float, str]]:
    """Seconds until a folder of many chunk files (100 GB have 8,000 of full size) is indexed."""
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder))
        fill(replay, WORKERS)
        replay.close()
        for count in range(num):
            name = ChunkName(f'20260101T000000F{count:06}', f'{count:022}', f'{count + 1:022}', 1024)
            (Path(folder) / str(name)).touch()
        other = make(Path(folder))
        return [(f'index of {num:,} chunk files', median(lambda: other.load(None), 3), 's')]


def save(num: int = 50) -> list[tuple[str, float, str]]:
    """Milliseconds of save() with one new row of each of 16 workers, all files synced."""
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder))

        def step() -> None:
            fill(replay, WORKERS)
            replay.save()
        seconds = median(step, num)
        replay.close()
    return [('save() of 16 short chunks', 1000 * seconds, 'ms')]


def median(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call; one more goes before, to bring memory and caches into their usual state."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rate(work: Callable[[], object], num: int, rounds: int) -> float:
    """Calls per second, median over rounds of `num` calls."""
    def several() -> None:
        for _ in range(num):
            work()
    return num / median(several, rounds)


def main() -> None:
    """Print the table."""
    print(f'{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}')
    for measure in (add, sample, index, save):
        for name, value, unit in measure():
            print(f'{name:42} {value:12,.1f} {unit}', flush=True)


if __name__ == '__main__':
    main()
