"""LeRobot data sets, laid out as their two versions are, with pyarrow and PyAV."""

import io
import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from convert_sources import count, hundredths
from PIL import Image

from embodied.replay import meta as metas

LENGTHS = [4, 3, 5]
KEY = 'observation.images.top'
CODECS = {'h264': 'libx264', 'av1': 'libsvtav1'}


def number(vector, dtype='float32', shape=(1,)):
    return {'dtype': dtype, 'shape': list(shape), 'names': None}


def features(camera):
    index = {k: number(k, 'int64') for k in ('frame_index', 'episode_index', 'index', 'task_index')}
    return {
        **({KEY: {'dtype': camera, 'shape': [64, 64, 3], 'names': ['h', 'w', 'c']}}),
        'observation.state': number('state', shape=(3,)),
        'action': number('action', shape=(2,)),
        'next.reward': number('reward'),
        'next.done': number('done', 'bool'),
        'next.success': number('success', 'bool'),
        'timestamp': number('time'),
        **index,
    }


def shade(episode, step):
    """Brightness of a frame, unlike any other."""
    return 15 + 20 * (sum(LENGTHS[:episode]) + step)


def png(value):
    out = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), value, np.uint8)).save(out, 'png')
    return {'bytes': out.getvalue(), 'path': None}


def rows(episode, camera, tasks=1):
    """Columns of one episode: its last row is done, its first task alternates."""
    length = LENGTHS[episode]
    start = sum(LENGTHS[:episode])
    last = [step == length - 1 for step in range(length)]
    columns = {
        'observation.state': [[float(episode), float(step), 0.0] for step in range(length)],
        'action': count(length, 10 * episode).tolist(),
        'next.reward': np.float32(last).tolist() if episode == 1 else [0.0] * length,
        'next.done': last,
        'next.success': last if episode == 1 else [False] * length,
        'timestamp': np.float32(np.arange(length) / 10).tolist(),
        'frame_index': list(range(length)),
        'episode_index': [episode] * length,
        'index': list(range(start, start + length)),
        'task_index': [episode % tasks] * length,
    }
    if camera == 'image':
        columns[KEY] = [png(shade(episode, step)) for step in range(length)]
    return columns


def film(path, values, codec):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(CODECS[codec], rate=10)
        stream.height = stream.width = 64
        stream.pix_fmt = 'yuv420p'
        for value in values:
            frame = np.full((64, 64, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())


def table(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def info(folder, version, camera, data, video):
    content = {
        'codebase_version': version, 'fps': 10, 'robot_type': 'arm', 'chunks_size': 1000,
        'total_episodes': len(LENGTHS), 'total_frames': sum(LENGTHS),
        'features': features(camera), 'data_path': data, 'video_path': video,
    }  # fmt: skip
    (folder / 'meta').mkdir(parents=True, exist_ok=True)
    (folder / 'meta' / 'info.json').write_text(json.dumps(content))


def v2(folder, camera='video', codec='h264'):
    data = 'data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet'
    video = 'videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4'
    info(folder, 'v2.1', camera, data, video)
    lines = lambda entries: ''.join(json.dumps(entry) + '\n' for entry in entries)
    meta = [{'episode_index': i, 'tasks': ['push'], 'length': n} for i, n in enumerate(LENGTHS)]
    (folder / 'meta' / 'episodes.jsonl').write_text(lines(meta))
    (folder / 'meta' / 'tasks.jsonl').write_text(lines([{'task_index': 0, 'task': 'push'}]))
    for i, length in enumerate(LENGTHS):
        table(folder / data.format(episode_chunk=0, episode_index=i), rows(i, camera))
        if camera == 'video':
            path = folder / video.format(episode_chunk=0, episode_index=i, video_key=KEY)
            film(path, [shade(i, step) for step in range(length)], codec)


def v3(folder, camera='video', codec='h264', drift=0.0, gap=0, tasks=1):
    """Episodes 0 and 1 share a file, 2 has another; time stamps are off by `drift` seconds, and
    `gap` frames that belong to no episode stand before episode 1."""
    data = 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet'
    video = 'videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4'
    info(folder, 'v3.0', camera, data, video)
    names = ['push', 'pull'][:tasks]
    table(
        folder / 'meta' / 'tasks.parquet', {'task_index': range(tasks), '__index_level_0__': names}
    )
    both = [rows(i, camera, tasks) for i in (0, 1)]
    merged = {key: both[0][key] + both[1][key] for key in both[0]}
    table(folder / data.format(chunk_index=0, file_index=0), merged)
    table(folder / data.format(chunk_index=0, file_index=1), rows(2, camera, tasks))
    values = [[shade(i, step) for step in range(n)] for i, n in enumerate(LENGTHS)]
    for index, frames in ((0, values[0] + [255] * gap + values[1]), (1, values[2])):
        path = folder / video.format(video_key=KEY, chunk_index=0, file_index=index)
        film(path, frames, codec) if camera == 'video' else None
    starts = [0.0, (LENGTHS[0] + gap) / 10 + drift, 0.0]
    columns = {
        'episode_index': range(3), 'tasks': [['push']] * 3, 'length': LENGTHS,
        'data/chunk_index': [0, 0, 0], 'data/file_index': [0, 0, 1],
        'dataset_from_index': [0, 4, 7], 'dataset_to_index': [4, 7, 12],
    }  # fmt: skip
    if camera == 'video':
        columns |= {
            f'videos/{KEY}/chunk_index': [0, 0, 0], f'videos/{KEY}/file_index': [0, 0, 1],
            f'videos/{KEY}/from_timestamp': starts,
        }  # fmt: skip
    table(folder / 'meta' / 'episodes' / 'chunk-000' / 'file-000.parquet', columns)


def seen(episode):
    levels = episode['image'].mean((1, 2, 3))
    return [round((level - 15) / 20) for level in levels]


def check(episodes):
    """The second episode succeeds with its last action, so its last frame stands twice."""
    assert [seen(episode) for episode in episodes] == [
        [0, 1, 2, 3], [4, 5, 6, 6], [7, 8, 9, 10, 11]
    ]  # fmt: skip
    assert [hundredths(episode['action'][:, 0]) for episode in episodes] == [
        [0, 1, 2, 0], [10, 11, 12, 0], [20, 21, 22, 23, 0]
    ]  # fmt: skip
    assert [episode['reward'].tolist() for episode in episodes] == [
        [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0, 0]
    ]  # fmt: skip
    assert [episode['is_terminal'][-1] for episode in episodes] == [False, True, False]
    assert episodes[2]['state'][:, 1].tolist() == [0, 1, 2, 3, 4]
    assert not {'timestamp', 'index', 'next/done', 'task_id'} & set(episodes[0])


@pytest.mark.parametrize('camera, codec', [('video', 'h264'), ('video', 'av1'), ('image', None)])
@pytest.mark.parametrize('write', [v2, v3], ids=['v2.1', 'v3.0'])
def test_both_versions_become_the_same_rows(converted, tmp_path, write, camera, codec):
    write(tmp_path / 'source', camera, codec)
    check(converted('lerobot', tmp_path / 'source').episodes)
    assert converted.archive.meta['fps'] == 10 and converted.archive.meta['tasks'] == ['push']


def test_time_stamps_that_are_a_little_off_do_not_move_a_frame(converted, tmp_path):
    v3(tmp_path / 'source', drift=0.06)
    check(converted('lerobot', tmp_path / 'source').episodes)


def test_frames_of_no_episode_are_passed_over(converted, tmp_path):
    v3(tmp_path / 'source', gap=9)
    check(converted('lerobot', tmp_path / 'source').episodes)


def test_several_tasks_become_a_number_in_each_row(converted, tmp_path):
    v3(tmp_path / 'source', 'image', tasks=2)
    episodes = converted('lerobot', tmp_path / 'source').episodes
    assert [set(episode['task_id'].tolist()) for episode in episodes] == [{0}, {1}, {0}]
    assert metas.read(converted.dest)[3]['tasks'] == ['push', 'pull']


def test_the_task_may_change_within_an_episode(converted, tmp_path):
    v3(tmp_path / 'source', 'image', tasks=2)
    path = tmp_path / 'source' / 'data' / 'chunk-000' / 'file-001.parquet'
    columns = pq.read_table(path).to_pydict() | {'task_index': [0, 0, 1, 1, 1]}
    table(path, columns)
    assert converted('lerobot', tmp_path / 'source').episodes[2]['task_id'].tolist() == [
        0, 0, 1, 1, 1
    ]  # fmt: skip


def test_rows_of_an_episode_that_lie_apart_are_refused(converted, tmp_path, capsys):
    v3(tmp_path / 'source', 'image')
    path = tmp_path / 'source' / 'data' / 'chunk-000' / 'file-000.parquet'
    columns = pq.read_table(path).to_pydict() | {'episode_index': [0, 0, 1, 0, 0, 1, 1]}
    table(path, columns)
    converted('lerobot', tmp_path / 'source', status=2)
    assert 'the rows of episode 0 lie apart' in capsys.readouterr().err


def test_rows_in_many_groups_are_read_like_those_in_one(converted, tmp_path):
    v3(tmp_path / 'source', 'image')
    path = tmp_path / 'source' / 'data' / 'chunk-000' / 'file-000.parquet'
    pq.write_table(pq.read_table(path), path, row_group_size=3)
    check(converted('lerobot', tmp_path / 'source').episodes)


def test_an_interrupted_conversion_goes_on_in_the_middle_of_a_video(
    converted, tmp_path, monkeypatch
):
    from embodied.convert import job

    v3(tmp_path / 'source')
    monkeypatch.setattr(job, 'SAVE_BYTES', 1)
    whole = job._add

    def once(ledger, *args):
        if ledger.done:
            raise KeyboardInterrupt
        return whole(ledger, *args)

    with monkeypatch.context() as patch:
        patch.setattr(job, '_add', once)
        converted('lerobot', tmp_path / 'source', status=130)
    assert len(converted.episodes) == 1
    check(converted('lerobot', tmp_path / 'source').episodes)


def test_a_video_that_is_too_short_is_named(converted, tmp_path, capsys):
    v3(tmp_path / 'source')
    path = tmp_path / 'source' / 'videos' / KEY / 'chunk-000' / 'file-001.mp4'
    film(path, [15] * 3, 'h264')
    converted('lerobot', tmp_path / 'source', status=2)
    assert 'file-001.mp4: ends after 3 frames, 5 are needed' in capsys.readouterr().err
    assert len(converted.episodes) == 2


def test_versions_that_nobody_here_knows_are_refused(converted, tmp_path, capsys):
    v2(tmp_path / 'source', 'image')
    path = tmp_path / 'source' / 'meta' / 'info.json'
    path.write_text(path.read_text().replace('v2.1', 'v1.6'))
    converted('lerobot', tmp_path / 'source', status=2)
    assert "found 'v1.6'" in capsys.readouterr().err
