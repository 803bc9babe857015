"""How fast the replay stores and hands out rows of 64x64x3, next to a plain copy of the same bytes;
a part of benchmarks/runtime.py.

Medians of several rounds, in which the peers alternate. Each function is bounded and returns rows
of a table: name, value, unit.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from embodied.replay import Replay, ReplayConfig
from embodied.replay.chunk import ChunkName

WORKERS = 16
BATCH, LENGTH = 16, 65
IMAGE = (64, 64, 3)


def make(directory: Path | None, max_gb: float = 1.0, disk_gb: float = 2.0) -> Replay:
    """A replay with the mixture of a run."""
    config = ReplayConfig(
        directory=(),
        shares=(),
        max_gb=max_gb,
        disk_gb=disk_gb,
        chunk_rows=1024,
        uniform=0.5,
        recent=0.3,
        newest=0.2,
        recent_rows=5000,
        resume='manifest',
        demos='',
        demo_share=0.0,
        video='',
        video_share=0.0,
        held_out=0.0,
        relevant=0.0,
        relevance='demos',
        prefetch=True,
    )
    return Replay(config, directory, seed=0)


def rows(num: int = 64) -> list[dict]:
    """Different rows, made beforehand."""
    rng = np.random.default_rng(0)
    return [
        {
            'image': rng.integers(0, 256, IMAGE, np.uint8),
            'action': rng.normal(size=6).astype(np.float32),
            'reward': np.float32(step),
            'is_first': np.bool_(step == 0),
            'is_last': np.bool_(step == num - 1),
            'is_terminal': np.bool_(False),
        }
        for step in range(num)
    ]


def fill(replay: Replay, num: int) -> None:
    """Add rows env by env, as a driver does."""
    made = rows()
    for count in range(num):
        replay.add(made[(count // WORKERS) % len(made)], count % WORKERS)


def add(peers: dict, num: int = 16_384, rounds: int = 5) -> list[tuple[str, float, str]]:
    """Rows per second into memory that is taken anew from the system, into memory that is full so
    that the oldest rows go, and into memory and a folder (close() included). The first is bounded
    by what the system takes to hand out pages. `peers`: name -> benchmarks.runtime.Peer.
    """
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

    table = turns(
        {
            'add, fresh memory': lambda: num / once(to_memory),
            **{
                f'add, fresh memory, {name}': lambda peer=peer: peer.ask('add', num)
                for name, peer in peers.items()
            },
            'add, full memory': lambda: num / once(lambda: fill(full, num)),
            **{
                f'add, full memory, {name}': lambda peer=peer: peer.ask('add_full', num)
                for name, peer in peers.items()
            },
            'add and save to disk': lambda: num / once(to_disk),
            'copy of the images alone': lambda: num / once(copy),
        },
        rounds,
    )
    return [(name, value, 'rows/s') for name, value in table.items()]


def sample(peers: dict, num: int = 100, rounds: int = 5) -> list[tuple[str, float, str]]:
    """Batches per second of 16 x 65 rows from memory, from chunks mapped from disk, and from a
    budget of a quarter of the data.
    """
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder))
        fill(replay, 20_000)
        manifest = replay.save()
        mapped, tight = make(Path(folder)), make(Path(folder), max_gb=0.06)
        for other in (mapped, tight):
            other.load(manifest)
        batch = replay.sample(BATCH, LENGTH)
        into = {key: np.empty_like(value) for key, value in batch.items()}
        store, rng = np.ones((20_000, *IMAGE), np.uint8), np.random.default_rng(0)

        def windows() -> None:
            images = np.empty((BATCH, LENGTH, *IMAGE), np.uint8)
            for index, start in enumerate(rng.integers(0, len(store) - LENGTH, BATCH)):
                images[index] = store[start : start + LENGTH]

        repeated = lambda work: lambda: num / once(lambda: several(work, num))
        table = turns(
            {
                'sample 16x65, memory': repeated(lambda: replay.sample(BATCH, LENGTH)),
                **{
                    f'sample 16x65, memory, {name}': lambda peer=peer: peer.ask('sample', num)
                    for name, peer in peers.items()
                },
                'sample 16x65, mapped from disk': repeated(lambda: mapped.sample(BATCH, LENGTH)),
                'sample 16x65, budget 1/4 of the data': repeated(
                    lambda: tight.sample(BATCH, LENGTH)
                ),
                'copy of random windows of one array': repeated(windows),
                'memcpy of a batch into new arrays': repeated(
                    lambda: {key: value.copy() for key, value in batch.items()}
                ),
                'memcpy of a batch into old arrays': repeated(
                    lambda: [np.copyto(into[key], value) for key, value in batch.items()]
                ),
            },
            rounds,
        )
        replay.close()
    return [(name, value, 'batches/s') for name, value in table.items()]


def index(num: int = 20_000) -> list[tuple[str, float, str]]:
    """Seconds until a folder of many chunk files (100 GB have 8,000 of full size) is indexed."""
    with tempfile.TemporaryDirectory() as folder:
        replay = make(Path(folder))
        fill(replay, WORKERS)
        replay.close()
        for count in range(num):
            name = ChunkName(
                f'20260101T000000F{count:06}', f'{count:022}', f'{count + 1:022}', 1024
            )
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


def resident(num: int = 1_000_000, max_gb: float = 4.0) -> list[tuple[str, float, str]]:
    """Gigabytes that a full budget of memory adds to a fresh process after `num` rows went
    through it.
    """
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_resident, (num, max_gb))


def _resident(num, max_gb):
    made, before = rows(), rss()
    replay = make(None, max_gb=max_gb)
    for count in range(num):
        replay.add(made[(count // WORKERS) % len(made)], count % WORKERS)
    return [
        (f'resident after {num:,} rows, budget {max_gb} GB', rss() - before, 'GB'),
        (f'rows kept in {max_gb} GB', len(replay), 'rows'),
    ]


def rss() -> float:
    """Resident memory of this process, 10^9 bytes."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e9


def several(work: Callable[[], object], num: int) -> None:
    """Call `num` times, keeping no result: a held batch would cost fresh memory."""
    for _ in range(num):
        work()


def once(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def turns(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Medians of several alternating rounds, after a warm-up round for memory and caches."""
    results = [{name: work() for name, work in contestants.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(result[name] for result in results[1:]) for name in contestants}


def median(work: Callable[[], object], rounds: int) -> float:
    """Median seconds of a call, after a warm-up call."""
    return turns({'': lambda: once(work)}, rounds)['']
