"""How much memory a conversion takes, against the size of its source.

    python -m benchmarks.conversions [--gb 1 2] [--formats rlds video]

For each format and size, a source of noise is made: half of its frames are one long episode, half
are episodes of 50. `python -m dreamer4.convert` converts it, and its largest resident memory and
its time are a line of the table. Who holds files, videos or episodes takes twice as much of a
source twice as large.
"""

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from embodied.convert.lerobot_out import Table

SIDE, ROWS_SIDE, SHORT, FPS = 256, 192, 50, 10
KEY = 'observation.images.top'


def picture() -> bytes:
    """A PNG of noise, which takes as much as its pixels and is decoded at once."""
    from PIL import Image

    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(out, 'png', compress_level=0)
    return out.getvalue()


def film(path: Path, length: int, content: bytes) -> None:
    """A video whose frames are all that picture."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('png', rate=FPS)
        stream.height = stream.width = SIDE
        stream.pix_fmt = 'rgb24'
        for step in range(length):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = step
            container.mux(packet)


def acted(length: int) -> np.ndarray:
    """Actions, (length, 2)."""
    return np.random.default_rng(0).uniform(-1, 1, (length, 2)).astype(np.float32)


def video(folder: Path, lengths: list[int], content: bytes) -> None:
    """A video per episode, its actions beside it."""
    for number, length in enumerate(lengths):
        film(folder / f'{number}.avi', length, content)
        np.save(folder / f'{number}.actions.npy', acted(length))


def images(folder: Path, lengths: list[int], content: bytes) -> None:
    """A folder of pictures per episode."""
    for number, length in enumerate(lengths):
        (folder / str(number)).mkdir()
        for step in range(length):
            (folder / str(number) / f'{step}.png').write_bytes(content)
        np.save(folder / f'{number}.actions.npy', acted(length))


def minari(folder: Path, lengths: list[int], content: bytes) -> None:
    """One HDF5 file, a picture per row."""
    import h5py

    _minari(folder, 'hdf5', len(lengths))
    with h5py.File(folder / 'main_data.hdf5', 'w') as file:
        for number, length in enumerate(lengths):
            group = file.create_group(f'episode_{number}')
            group['actions'], group['rewards'] = acted(length - 1), np.zeros(length - 1)
            group['terminations'] = np.zeros(length - 1, bool)
            rows = group.create_dataset('observations', length, h5py.vlen_dtype(np.uint8))
            for step in range(length):
                rows[step] = np.frombuffer(content, np.uint8)


def minari_parquet(folder: Path, lengths: list[int], content: bytes) -> None:
    """A Parquet file per episode."""
    _minari(folder, 'parquet', len(lengths))
    for number, length in enumerate(lengths):
        (folder / str(number)).mkdir()
        table = Table(folder / str(number) / 'part-0.parquet', {}, SHORT)
        for action in acted(length).tolist():
            table.add(
                {
                    'observations': content,
                    'actions': action,
                    'rewards': 0.0,
                    'terminations': False,
                }
            )
        table.close()


def _minari(folder: Path, form: str, count: int) -> None:
    box = lambda shape, kind: {'type': 'Box', 'dtype': kind, 'shape': shape, 'low': 0, 'high': 255}
    meta = {
        'observation_space': json.dumps(box([SIDE, SIDE, 3], 'uint8')),
        'action_space': json.dumps(box([2], 'float32')),
        'total_episodes': count,
        'data_format': form,
    }
    (folder / 'metadata.json').write_text(json.dumps(meta))


def lerobot_v2(folder: Path, lengths: list[int], content: bytes) -> None:
    """Version 2.1: a table and a video per episode."""
    data, movie = 'data/{episode_index}.parquet', 'videos/{episode_index}.avi'
    _lerobot(folder, 'v2.1', 'video', data, movie)
    lines = [{'episode_index': n, 'length': length} for n, length in enumerate(lengths)]
    (folder / 'meta' / 'episodes.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    (folder / 'meta' / 'tasks.jsonl').write_text('{"task_index": 0, "task": "look"}')
    for number, length in enumerate(lengths):
        table = Table(folder / data.format(episode_index=number), {}, SHORT)
        for action in acted(length).tolist():
            table.add({'action': action, 'episode_index': number})
        table.close()
        film(folder / movie.format(episode_index=number), length, content)


def lerobot_v3(folder: Path, lengths: list[int], content: bytes) -> None:
    """Version 3.0: one table of all episodes, with the pictures in it."""
    _lerobot(folder, 'v3.0', 'image', 'data/{file_index}.parquet', '')
    tasks = Table(folder / 'meta' / 'tasks.parquet', {}, 1)
    tasks.add({'task_index': 0, 'task': 'look'})
    tasks.close()
    (folder / 'meta' / 'episodes' / 'chunk-000').mkdir(parents=True)
    meta = Table(folder / 'meta' / 'episodes' / 'chunk-000' / 'file-000.parquet', {}, SHORT)
    table = Table(folder / 'data' / '0.parquet', {}, SHORT)
    for number, length in enumerate(lengths):
        place = {'data/chunk_index': 0, 'data/file_index': 0}
        meta.add({'episode_index': number, 'length': length} | place)
        for action in acted(length).tolist():
            shot = {'bytes': content, 'path': None}
            table.add({'action': action, 'episode_index': number, KEY: shot})
    table.close()
    meta.close()


def _lerobot(folder: Path, version: str, camera: str, data: str, movie: str) -> None:
    feature = lambda kind, *shape: {'dtype': kind, 'shape': shape, 'names': None}
    features = {KEY: feature(camera, SIDE, SIDE, 3), 'action': feature('float32', 2)}
    content = {
        'codebase_version': version,
        'fps': FPS,
        'chunks_size': 1000,
        'features': features | {'episode_index': feature('int64', 1)},
        'data_path': data,
        'video_path': movie,
    }
    for name in ('meta', 'data'):
        (folder / name).mkdir()
    (folder / 'meta' / 'info.json').write_text(json.dumps(content))


def rlds(folder: Path, lengths: list[int], content: bytes) -> None:
    """One shard, a message per episode."""
    group = lambda **parts: {'featuresDict': {'features': parts}}
    tensor = {'tensor': {'dtype': 'float32', 'shape': {'dimensions': [2]}, 'encoding': 'none'}}
    step = group(observation=group(cam={'image': {}}), action=tensor)
    features = group(steps={'sequence': {'feature': step, 'length': '-1'}})
    (folder / 'features.json').write_text(json.dumps(features))
    with open(folder / 'noise-train.tfrecord-00000-of-00001', 'wb') as file:
        for length in lengths:
            shots, size = _entry(b'steps/observation/cam', 1, length, _part(1, content))
            rest, more = _entry(b'steps/action', 2, 1, _part(1, acted(length).tobytes()))
            head = b'\x0a' + _varint(size + more)
            file.write(struct.pack('<QI', len(head) + size + more, 0) + head)
            for piece in (*shots, *rest, bytes(4)):
                file.write(piece)


def _entry(key: bytes, kind: int, count: int, value: bytes) -> tuple[Iterator[bytes], int]:
    """A feature that holds a value many times: its bytes piece by piece, and how many they are."""
    size = count * len(value)
    listed = bytes([8 * kind + 2]) + _varint(size)
    feature = b'\x12' + _varint(len(listed) + size) + listed
    name = _part(1, key)
    head = b'\x0a' + _varint(len(name) + len(feature) + size) + name + feature
    return (piece for piece in (head, *[value] * count)), len(head) + size


def _part(field: int, content: bytes) -> bytes:
    return bytes([8 * field + 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    made = b''
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


SOURCES = {
    'video': ('video', video),
    'images': ('images', images),
    'rlds': ('rlds', rlds),
    'minari (HDF5)': ('minari', minari),
    'minari (Parquet)': ('minari', minari_parquet),
    'lerobot (v2.1, video)': ('lerobot', lerobot_v2),
    'lerobot (v3.0, pictures)': ('lerobot', lerobot_v3),
}


def measure(form: str, source: Path, dest: Path) -> tuple[float, float]:
    """MB of memory and seconds that a conversion takes."""
    command = [sys.executable, '-m', 'dreamer4.convert', form, str(source), str(dest)]
    command += ['--size', str(ROWS_SIDE)]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f'conversions: {" ".join(command)} returned {process.returncode}')
    return usage.ru_maxrss / 1e3, time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description='Measure the memory of conversions.')
    parser.add_argument('--gb', type=float, nargs='+', default=[1, 2], help='of sources')
    parser.add_argument('--formats', nargs='+', choices=SOURCES, default=list(SOURCES))
    args = parser.parse_args()
    content = picture()
    print('| format | source | rows | memory | seconds |\n|---|---|---|---|---|')
    for name in args.formats:
        form, write = SOURCES[name]
        for size in args.gb:
            frames = int(size * 1e9 / len(content)) // (2 * SHORT) * SHORT
            with tempfile.TemporaryDirectory() as folder:
                (source := Path(folder) / 'source').mkdir()
                write(source, [frames, *[SHORT] * (frames // SHORT)], content)
                stored = sum(p.stat().st_size for p in source.rglob('*') if p.is_file())
                memory, seconds = measure(form, source, Path(folder) / 'rows')
            found = f'{stored / 1e9:.1f} GB | {2 * frames:,} | {memory:.0f} MB | {seconds:.0f}'
            print(f'| {name} | {found} |', flush=True)


if __name__ == '__main__':
    main()
