"""The replay: rows come back bit by bit, in memory, from disk, after a resume; budgets hold;
nothing is lost silently.
"""

import errno
import gc
import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from embodied.base import FLAG, OUTCOME
from embodied.errors import (
    ConfigError,
    OutOfResources,
    ReplayEmptyError,
    ReplayError,
    ReplaySchemaError,
    ReplayWriteError,
)
from embodied.replay import Replay, ReplayConfig, npz
from embodied.replay import writer as replay_writer
from embodied.replay.chunk import NO_SUCCESSOR, Chunk, ChunkName, new_uuid

CONFIG = dict(
    directory=(),
    shares=(),
    max_gb=1.0,
    disk_gb=1.0,
    chunk_rows=10,
    uniform=1.0,
    recent=0.0,
    newest=0.0,
    recent_rows=100,
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
MIXED = dict(uniform=0.4, recent=0.3, newest=0.3)
OBS = {
    **OUTCOME,
    'image': spaces.Box(0, 255, (4, 4, 3), np.uint8),
    'count': spaces.Box(0, 2**31 - 1, (), np.int32),
}
ACT = {'reset': FLAG, 'action': spaces.Box(-1, 1, (2,))}
ROW_BYTES = 48 + 4 + 4 + 3 + 8


def row(count, worker=0, episode=7):
    """Row number `count` of a worker that does nothing but episodes of `episode` rows; all of it
    tells count and worker.
    """
    return {
        'image': np.random.default_rng([worker, count]).integers(0, 256, (4, 4, 3), np.uint8),
        'count': np.int32(count),
        'action': np.float32([count, worker]),
        'reward': np.float32(count / 3),
        'is_first': np.bool_(count % episode == 0),
        'is_last': np.bool_(count % episode == episode - 1),
        'is_terminal': np.bool_(False),
        'log/extra': np.float32(1),
    }


def make(directory=None, seed=0, events=None, read_only=False, spaces=True, **changes):
    given = dict(obs_space=OBS, act_space=ACT) if spaces else {}
    on_event = None if events is None else events.append
    return Replay(
        ReplayConfig(**{**CONFIG, **changes}),
        directory,
        seed,
        read_only=read_only,
        on_event=on_event,
        **given,
    )


def fill(replay, rows, workers=1, begin=0):
    for count in range(begin, begin + rows):
        for worker in range(workers):
            replay.add(row(count, worker), worker)


def check(sample):
    """Every sequence is, bit by bit, consecutive rows of one worker."""
    for index in range(len(sample['count'])):
        first, worker = int(sample['count'][index, 0]), int(sample['action'][index, 0, 1])
        for step in range(sample['count'].shape[1]):
            expected = row(first + step, worker)
            for key, value in stored(sample).items():
                assert value[index, step].tobytes() == expected[key].tobytes(), (
                    key,
                    first,
                    step,
                    worker,
                )


def stored(sample):
    """A sample without the names of its rows, which are those of one Replay object."""
    return {key: value for key, value in sample.items() if key != 'row_id'}


def equal(first, second):
    first, second = stored(first), stored(second)
    return first.keys() == second.keys() and all(
        first[key].tobytes() == second[key].tobytes() for key in first
    )


def chunk_files(directory):
    return sorted(path for path in directory.iterdir() if path.suffix == '.npz')


# Rows come back as they went in


@pytest.mark.parametrize('length', [1, 3, 10, 23, 41])
def test_sequences_of_any_length_are_exact_across_chunks_episodes_and_workers(length):
    replay = make()
    fill(replay, 41, workers=3)
    sample = replay.sample(20, length)
    assert sample['image'].shape == (20, length, 4, 4, 3)
    assert set(sample) == {
        'image',
        'count',
        'action',
        'reward',
        'is_first',
        'is_last',
        'is_terminal',
        'row_id',
    }
    check(sample)


def test_row_ids_name_rows_and_read_them_again():
    replay = make()
    fill(replay, 41, workers=3)
    sample = replay.sample(30, 9, without=['image'])
    assert 'image' not in sample and sample['row_id'].dtype == np.int64
    names = {}
    for row_id, count, worker in zip(
        sample['row_id'].flat, sample['count'].flat, sample['action'][..., 1].flat
    ):
        assert names.setdefault(int(row_id), (count, worker)) == (
            count,
            worker,
        ), 'equal ids are the same row'
    assert len(set(names.values())) == len(names), 'other ids are other rows'
    ids = sample['row_id'].ravel()
    again = replay.rows(ids, ['image', 'count'])
    with pytest.raises(ReplayError, match='not held any more'):
        make().rows(ids, ['image'])
    assert set(again) == {'image', 'count'} and np.array_equal(
        again['count'], sample['count'].ravel()
    )
    for image, count, worker in zip(
        again['image'], sample['count'].flat, sample['action'][..., 1].flat
    ):
        assert np.array_equal(image, row(int(count), int(worker))['image'])


def test_row_ids_outlive_other_rows_and_those_that_are_gone_are_refused(tmp_path):
    replay = make(tmp_path, disk_gb=40 * ROW_BYTES * 4 / 1e9)
    fill(replay, 30)
    old = replay.sample(1, 30)
    fill(replay, 200, begin=30)
    new = replay.sample(8, 5)
    assert np.array_equal(
        replay.rows(new['row_id'].ravel(), ['image'])['image'], new['image'].reshape(-1, 4, 4, 3)
    )
    with pytest.raises(ReplayError, match='not held any more'):
        replay.rows(old['row_id'].ravel(), ['image'])


@pytest.mark.parametrize('changes', [{}, MIXED])
def test_prepared_draws_are_those_that_would_have_been_made(changes):
    """Also where other draws, other shapes and new rows come between."""
    plain, ahead = make(**changes), make(**changes)
    rng, prepared = np.random.default_rng(0), None
    for step in range(40):
        for replay in (plain, ahead):
            fill(replay, 5, workers=2, begin=5 * step)
        for _ in range(int(rng.integers(1, 5))):
            shape = (4, 5) if rng.random() < 0.8 else (2, 3)
            assert equal(plain.sample(*shape), ahead.sample(*shape, prepared=prepared))
            prepared = ahead.prepare(4, 5)
            if rng.random() < 0.2:
                assert equal(plain.sample(3, 2, draw=7), ahead.sample(3, 2, draw=7))
            if rng.random() < 0.1:
                for replay in (plain, ahead):
                    replay.add(row(5 * step + 5, worker=5), 5 + step)
    assert plain.draws == ahead.draws


def test_a_prepared_draw_is_handed_out_as_it_is_while_nothing_has_changed():
    replay = make(**MIXED)
    fill(replay, 50)
    prepared = replay.prepare(4, 5)
    assert replay.draws == 0 and replay.sample(4, 5, prepared=prepared) is prepared.rows
    assert replay.sample(4, 5, prepared=prepared) is not prepared.rows


def test_a_draw_that_cannot_be_prepared_fails_where_it_is_made():
    replay = make()
    fill(replay, 10)
    replay.sample(1, 10)
    assert replay.prepare(1, 11) is None
    with pytest.raises(ReplayEmptyError, match='1 rows are missing'):
        replay.sample(1, 11, prepared=None)


def test_a_row_with_a_key_that_sample_adds_is_refused():
    with pytest.raises(ReplaySchemaError, match='row_id'):
        Replay(ReplayConfig(**CONFIG), None, 0, {**OBS, 'row_id': spaces.Discrete(3)}, ACT)


def test_rows_mapped_from_disk_equal_those_in_memory(tmp_path):
    memory, disk = make(), make(tmp_path, max_gb=12 * ROW_BYTES * 8 / 1e9)
    for replay in (memory, disk):
        fill(replay, 200, workers=2)
    disk.save()
    assert disk.stats()['memory_gb'] < memory.stats()['memory_gb'] / 3
    for length in (1, 15, 33):
        first, second = memory.sample(16, length), disk.sample(16, length)
        check(second)
        assert equal(first, second)


def test_samples_are_fresh_arrays():
    replay = make()
    fill(replay, 20)
    replay.sample(4, 5)['image'][:] = 0
    check(replay.sample(50, 5))


def test_every_window_is_drawn_equally_often():
    replay = make()
    fill(replay, 35)
    starts = np.concatenate([replay.sample(500, 16)['count'][:, 0] for _ in range(8)])
    counts = np.bincount(starts, minlength=20)
    assert len(counts) == 20 and ((counts - 200) ** 2 / 200).sum() < 43.8, (
        'chi-squared, 19 degrees of freedom, p < 0.001'
    )


def test_a_cut_episode_ends_truncated_also_where_the_cut_follows_the_last_row_sampled():
    replay = make()
    for count in range(8):
        replay.add(
            {**row(count), 'is_first': np.bool_(count in (0, 4)), 'is_last': np.bool_(False)}, 0
        )
    for _ in range(20):
        sample = replay.sample(8, 3)
        assert (sample['is_last'] == (sample['count'] == 3)).all()
        assert not sample['is_terminal'].any()


def test_a_sequence_may_begin_inside_an_episode_and_keeps_its_flags():
    replay = make()
    fill(replay, 30)
    sample = replay.sample(100, 2)
    assert (sample['is_first'] == (sample['count'] % 7 == 0)).all()


def test_too_few_rows_are_an_error_that_counts_them():
    replay = make()
    with pytest.raises(ReplayEmptyError, match='no sequence of 5 rows yet'):
        replay.sample(2, 5)
    fill(replay, 3, workers=4)
    with pytest.raises(
        ReplayEmptyError,
        match='longest of 4 streams has 3, 2 rows are missing. The replay holds 12',
    ):
        replay.sample(2, 5)
    with pytest.raises(ReplayEmptyError):
        make(spaces=False).sample(1, 1)


def test_recent_rows_are_drawn_from_the_last_ones_only():
    replay = make(uniform=0.0, recent=1.0, recent_rows=20)
    fill(replay, 100, workers=2)
    assert set(replay.sample(200, 4)['count'][:, 0]) == set(range(90, 97))


def test_fresh_rows_are_handed_out_once_and_soon():
    replay = make(uniform=0.0, newest=1.0)
    seen = []
    for begin in range(0, 60, 12):
        fill(replay, 12, workers=2, begin=begin)
        sample = replay.sample(6, 4)
        seen += [
            (int(worker), int(count))
            for worker, count in zip(sample['action'][:, 0, 1], sample['count'][:, 0])
        ]
    assert sorted(seen) == [(worker, count) for worker in range(2) for count in range(0, 60, 4)]
    assert replay.stats()['newest_backlog'] == 0


# Draws


def test_a_draw_is_a_function_of_seed_and_number():
    first, second, other = (make(seed=seed, **MIXED) for seed in (1, 1, 2))
    for replay in (first, second, other):
        fill(replay, 50, workers=2)
    draws = [first.sample(8, 5) for _ in range(5)]
    assert all(equal(draw, second.sample(8, 5)) for draw in draws)
    assert not equal(draws[0], draws[1]) and not equal(draws[0], other.sample(8, 5))


def test_chunk_sizes_and_budgets_of_memory_do_not_change_draws(tmp_path):
    first = make(**MIXED)
    second = make(tmp_path, chunk_rows=3, max_gb=50 * ROW_BYTES / 1e9, **MIXED)
    for begin in range(0, 60, 20):
        for replay in (first, second):
            fill(replay, 20, workers=2, begin=begin)
        assert equal(first.sample(8, 5), second.sample(8, 5))


def test_a_draw_by_number_takes_no_part_in_the_sequence_of_draws():
    first, second = make(**MIXED), make(**MIXED)
    for replay in (first, second):
        fill(replay, 50, workers=2)
    report = first.sample(4, 9, draw=10**9)
    assert equal(report, first.sample(4, 9, draw=10**9))
    assert equal(first.sample(8, 5), second.sample(8, 5))


# Resume


@pytest.mark.parametrize('resume', ['manifest', 'all'])
def test_an_interrupted_run_draws_what_an_uninterrupted_one_draws(tmp_path, resume):
    straight = make(tmp_path / 'a', **MIXED)
    fill(straight, 33, workers=3)
    for _ in range(4):
        straight.sample(8, 5)
    straight.save()

    before = make(tmp_path / 'b', **MIXED)
    fill(before, 33, workers=3)
    for _ in range(4):
        before.sample(8, 5)
    manifest = before.save()
    after = make(tmp_path / 'b', resume=resume, **MIXED)
    after.load(manifest)
    assert len(after) == len(straight) == 99

    for begin in range(33, 60, 3):
        for replay in (straight, after):
            fill(replay, 3, workers=3, begin=begin)
        expected, found = straight.sample(8, 12), after.sample(8, 12)
        check(found)
        if resume == 'manifest':
            assert equal(expected, found)
    ends = {
        int(end - begin)
        for begin, end in zip(after._shelf.streams.begins, after._shelf.streams.ends)
    }
    assert ends == {60}, 'sequences must cross the point of the resume'


def test_loading_without_a_manifest_takes_everything_and_links_chunks_again(tmp_path):
    replay = make(tmp_path)
    fill(replay, 35, workers=2)
    replay.close()
    again = make(tmp_path, read_only=True, spaces=False)
    again.load(None)
    assert len(again) == 70 and again.stats()['streams'] == 2
    check(again.sample(50, 35))
    assert again.obs_space == OBS and again.act_space == ACT


def test_loading_twice_changes_nothing(tmp_path):
    replay = make(tmp_path)
    fill(replay, 35)
    manifest = replay.save()
    again = make(tmp_path)
    for _ in range(2):
        again.load(manifest)
        assert len(again) == 35 and again.stats()['chunks'] == 4


def test_loading_over_rows_that_are_not_on_disk_is_refused(tmp_path):
    replay = make(tmp_path)
    fill(replay, 5)
    with pytest.raises(ReplayError, match='before rows are added'):
        replay.load(None)


def test_rows_written_after_the_checkpoint_are_moved_and_not_lost(tmp_path):
    replay = make(tmp_path)
    fill(replay, 25)
    manifest = replay.save()
    fill(replay, 25, begin=25)
    replay.close()
    events = []
    again = make(tmp_path, events=events)
    again.load(manifest)
    moved = sorted(path.name for path in (tmp_path / 'unlisted').iterdir())
    assert len(again) == 25 and sum(ChunkName.parse(name).length for name in moved) == 25
    assert len(events) == 1 and 'unlisted' in events[0] and moved[0] in events[0]
    fill(again, 25, begin=25)
    check(again.sample(30, 40))


def test_resume_all_keeps_rows_written_after_the_checkpoint_and_starts_a_new_stream(tmp_path):
    replay = make(tmp_path, resume='all')
    fill(replay, 25)
    manifest = replay.save()
    fill(replay, 25, begin=25)
    replay.close()
    again = make(tmp_path, resume='all')
    again.load(manifest)
    assert len(again) == 50
    fill(again, 25, begin=25)
    assert again.stats()['streams'] == 2
    check(again.sample(50, 20))


def test_listed_chunks_that_are_gone_are_named_and_the_rest_is_used(tmp_path):
    replay = make(tmp_path)
    fill(replay, 40)
    manifest = replay.save()
    gone = chunk_files(tmp_path)[1]
    gone.unlink()
    events = []
    again = make(tmp_path, events=events)
    again.load(manifest)
    assert len(again) == 30 and gone.name in events[0]
    fill(again, 10, begin=40)
    check(again.sample(60, 10))
    assert set(again.sample(300, 25)['count'][:, 0]) == set(range(20, 26)), (
        'the tail of the worker goes on'
    )


def test_many_short_saves_cost_their_data(tmp_path):
    replay = make(tmp_path, chunk_rows=1000)
    for count in range(100):
        replay.add(row(count), 0)
        manifest = replay.save()
    assert replay.stats()['memory_gb'] * 1e9 == 100 * ROW_BYTES
    again = make(tmp_path)
    again.load(manifest)
    check(again.sample(20, 60))


def test_saving_an_empty_replay_and_one_without_a_folder_works(tmp_path):
    assert make(tmp_path).save()['streams'] == []
    replay = make()
    fill(replay, 20)
    replay.sample(2, 2)
    manifest = replay.save()
    again = make()
    again.load(manifest)
    assert manifest['streams'] == [] and manifest['draws'] == 1 and len(again) == 0


@pytest.mark.parametrize(
    'manifest',
    [
        {},
        {'version': 2},
        {'version': 1, 'draws': 'x', 'seen': 0, 'streams': []},
        {'version': 1, 'draws': 0, 'seen': 0, 'streams': [{}]},
        {
            'version': 1,
            'draws': 0,
            'seen': 0,
            'streams': [
                {
                    'worker': 0,
                    'begin': 0,
                    'fresh': 0,
                    'touched': 0,
                    'next': '',
                    'chunks': ['../../etc/passwd'],
                }
            ],
        },
        {
            'version': 1,
            'draws': 0,
            'seen': 0,
            'streams': (
                2 * [{'worker': 0, 'begin': 0, 'fresh': 0, 'touched': 0, 'next': '', 'chunks': []}]
            ),
        },
    ],
)
def test_a_damaged_manifest_is_a_replay_error(tmp_path, manifest):
    with pytest.raises(ReplayError):
        make(tmp_path).load(manifest)


# Budgets


def test_memory_budget_holds_under_three_times_its_rows():
    budget = 200 * ROW_BYTES
    replay = make(max_gb=budget / 1e9)
    for count in range(600):
        replay.add(row(count), 0)
        assert replay.stats()['memory_gb'] * 1e9 <= budget
    assert 150 <= len(replay) <= 200 and replay.stats()['rows_evicted'] == 600 - len(replay)
    check(replay.sample(50, 20))
    assert replay.sample(500, 1)['count'].min() >= 400


def test_disk_budget_holds_under_three_times_its_rows_and_files_are_deleted(tmp_path):
    budget = 20 * 2500
    replay = make(tmp_path, disk_gb=budget / 1e9)
    for count in range(400):
        replay.add(row(count // 2, count % 2), count % 2)
    replay.save()
    held = sum(path.stat().st_size for path in chunk_files(tmp_path))
    assert budget * 0.7 < held <= budget and held == round(replay.stats()['disk_gb'] * 1e9)
    assert (
        sum(ChunkName.parse(path.name).length for path in chunk_files(tmp_path))
        == len(replay)
        < 400
    )
    check(replay.sample(50, 15))
    again = make(tmp_path)
    again.load(None)
    assert len(again) == len(replay)


def test_a_data_set_larger_than_memory_can_be_sampled_within_the_budget(tmp_path):
    replay = make(tmp_path)
    fill(replay, 400)
    manifest = replay.save()
    budget = 100 * ROW_BYTES
    small = make(tmp_path, max_gb=budget / 1e9)
    small.load(manifest)
    counts = []
    for _ in range(40):
        sample = small.sample(10, 15)
        check(sample)
        counts.append(sample['count'][:, 0])
        assert small.stats()['memory_gb'] * 1e9 <= budget
    assert np.unique(np.concatenate(counts)).size > 200


def test_many_workers_with_open_chunks_stay_within_the_memory_budget(tmp_path):
    budget = 300 * ROW_BYTES
    replay = make(tmp_path, chunk_rows=1000, max_gb=budget / 1e9)
    fill(replay, 60, workers=16)
    assert replay.stats()['memory_gb'] * 1e9 <= budget
    assert len(replay) == 960
    check(replay.sample(30, 60))
    replay.close()


def test_the_estimate_counts_rows(tmp_path):
    assert (
        make().estimate()
        == 'Replay: 67 bytes per row; 1 GB of memory hold 14,925,373 rows; nothing is kept on disk.'
    )
    text = make(tmp_path, chunk_rows=1000).estimate()
    rows = int(text.split('disk hold ')[1].split(' ')[0].replace(',', ''))
    assert 0.9 * 1e9 / (ROW_BYTES + 20) < rows < 1e9 / (ROW_BYTES + 20), (
        'files hold 20 bytes more a row, step ids'
    )
    assert make(spaces=False).estimate() == 'Replay: rows are not known yet.'


# Trouble with the disk


def test_a_disk_that_fails_loses_no_rows_and_is_tried_again(tmp_path, monkeypatch):
    events, working = [], Chunk.write
    replay = make(tmp_path, events=events)

    def fail(self, directory):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Chunk, 'write', fail)
    fill(replay, 45)
    with pytest.raises(ReplayWriteError, match='No space left'):
        replay.save()
    assert (
        len(events) == 1
        and 'cannot be written' in events[0]
        and replay.stats()['write_errors'] >= 1
    )
    check(replay.sample(20, 30))
    monkeypatch.setattr(Chunk, 'write', working)
    manifest = replay.save()
    assert replay.stats()['chunks_waiting'] == 0
    again = make(tmp_path)
    again.load(manifest)
    assert len(again) == 45
    check(again.sample(20, 30))


def test_failed_writes_are_retried_without_being_asked(tmp_path, monkeypatch, wait_until):
    monkeypatch.setattr(replay_writer, 'RETRY', 0.01)
    working, failures = Chunk.write, iter(range(3))

    def fail_thrice(self, directory):
        if next(failures, None) is not None:
            raise OSError(5, 'Input/output error')
        return working(self, directory)

    monkeypatch.setattr(Chunk, 'write', fail_thrice)
    replay = make(tmp_path, events=[])
    fill(replay, 20)
    wait_until(lambda: len(chunk_files(tmp_path)) >= 2)
    assert len(chunk_files(tmp_path)) == 2 and replay.stats()['write_errors'] == 3


def test_memory_stays_within_its_budget_while_the_disk_fails(tmp_path, monkeypatch):
    def fail(self, directory):
        raise OSError(28, 'No space left on device')

    budget = 200 * ROW_BYTES
    replay = make(tmp_path, max_gb=budget / 1e9, events=[])
    fill(replay, 50)
    replay.save()
    monkeypatch.setattr(Chunk, 'write', fail)
    fill(replay, 500, begin=50)
    assert replay.stats()['memory_gb'] * 1e9 <= budget
    assert len(chunk_files(tmp_path)) == 5, (
        'rows that are on disk must not make room for rows that cannot get there'
    )
    check(replay.sample(30, 10))


def test_a_slow_disk_holds_up_add_and_no_row_is_lost(tmp_path, monkeypatch):
    working = Chunk.write

    def slow(self, directory):
        time.sleep(0.005)
        return working(self, directory)

    monkeypatch.setattr(Chunk, 'write', slow)
    replay = make(tmp_path, max_gb=100 * ROW_BYTES / 1e9)
    fill(replay, 600)
    assert len(replay) == 600 and replay.stats()['memory_gb'] * 1e9 <= 100 * ROW_BYTES
    replay.close()
    assert sum(ChunkName.parse(path.name).length for path in chunk_files(tmp_path)) == 600


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    replay = make(tmp_path)
    fill(replay, 20)
    replay.close()
    half = tmp_path / f'.{chunk_files(tmp_path)[0].name}.tmp'
    half.write_bytes(b'half')
    make(tmp_path, read_only=True).load(None)
    assert half.exists()
    make(tmp_path).load(None)
    assert not half.exists()


# Trouble with descriptors, memory and reading


@pytest.fixture
def descriptors():
    """descriptors(n): this process may have n descriptors open; the limit comes back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda number: resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def many_chunks(tmp_path, monkeypatch):
    """A folder of 150 mapped chunks, and an event list for whoever reads it."""
    monkeypatch.setattr(npz, 'READ_WHOLE', 0)
    replay = make(tmp_path, chunk_rows=2)
    fill(replay, 300)
    manifest = replay.save()
    replay.close()
    return manifest, []


def open_descriptors():
    gc.collect()  # what other tests have left open would give way later
    return len(os.listdir('/proc/self/fd'))


def held_chunks():
    """Descriptors of this process for files of chunks."""
    links = [f'/proc/self/fd/{number}' for number in os.listdir('/proc/self/fd')]
    return sum(os.readlink(link).endswith('.npz') for link in links if os.path.islink(link))


def test_more_chunks_than_descriptors_are_read_and_none_is_moved(
    tmp_path, monkeypatch, descriptors
):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    descriptors(open_descriptors() + 40)
    replay = make(tmp_path, events=events)
    replay.load(manifest)
    for _ in range(60):
        check(replay.sample(8, 5))
    assert len(replay) == 300 and not events and not (tmp_path / 'broken').exists()
    replay.close()


def test_mapped_chunks_leave_three_quarters_of_the_descriptors_to_others(
    tmp_path, monkeypatch, descriptors
):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    replay = make(tmp_path, events=events)
    replay.load(manifest)
    descriptors(400)
    gc.collect()  # what other tests have left open would give way later
    before = held_chunks()
    for _ in range(60):
        check(replay.sample(8, 5))
    assert 60 < held_chunks() - before <= 100


def test_small_chunks_hold_no_descriptor(tmp_path):
    replay = make(tmp_path, chunk_rows=2)
    fill(replay, 300)
    replay.close()
    again = make(tmp_path, read_only=True)
    again.load(None)
    before = open_descriptors()
    for _ in range(60):
        check(again.sample(8, 5))
    assert open_descriptors() == before


def test_without_a_descriptor_a_draw_fails_by_name_and_is_made_when_there_is_one(
    tmp_path, monkeypatch, descriptors
):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    replay = make(tmp_path, events=events, prefetch=False)
    replay.load(manifest)
    expected = replay.sample(8, 5)
    replay.seek(0)
    replay.load(manifest)
    before = open_descriptors()
    descriptors(before)
    with pytest.raises(
        OutOfResources,
        match='cannot be read: .*Too many open files.*nothing is wrong with the file',
    ):
        replay.sample(8, 5)
    descriptors(before + 40)
    assert equal(replay.sample(8, 5), expected), 'the draw that failed is made, and is the same'
    assert len(replay) == 300 and not events and len(chunk_files(tmp_path)) == 150


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        OSError(12, 'Cannot allocate memory'),
        OSError(23, 'Too many open files in system'),
    ],
)
def test_memory_that_runs_out_is_no_damage(tmp_path, monkeypatch, error):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    replay = make(tmp_path, events=events)
    replay.load(manifest)

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(npz.mmap, 'mmap', refuse)
    with pytest.raises(OutOfResources):
        replay.sample(8, 5)
    monkeypatch.undo()
    check(replay.sample(8, 5))
    assert len(replay) == 300 and not events


def test_what_has_run_out_once_is_asked_for_again_with_everything_of_ours_given_back(
    tmp_path, monkeypatch
):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    replay = make(tmp_path, events=events)
    replay.load(manifest)
    check(replay.sample(8, 5))
    held, working = replay.stats()['memory_gb'], npz.mmap.mmap
    refusals = [OSError(24, 'Too many open files')]

    def refuse_once(*args, **more):
        if refusals:
            raise refusals.pop()
        return working(*args, **more)

    monkeypatch.setattr(npz.mmap, 'mmap', refuse_once)
    monkeypatch.setattr(npz, 'is_mapped', lambda columns: True)
    while refusals:
        check(replay.sample(1, 1))
    assert replay.stats()['memory_gb'] < held and not events


@pytest.mark.parametrize('number', [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOENT])
def test_a_file_that_cannot_be_read_is_left_where_it_is_and_out_of_the_draws(
    tmp_path, monkeypatch, number
):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    replay = make(tmp_path, events=events)
    replay.load(manifest)
    victim, working = chunk_files(tmp_path)[70], os.open

    def refuse(path, *args, **more):
        if Path(path) == victim:
            raise OSError(number, os.strerror(number))
        return working(path, *args, **more)

    monkeypatch.setattr(os, 'open', refuse)
    for _ in range(60):
        check(replay.sample(8, 5))
    assert (
        len(replay) == 298
        and replay.stats()['chunks_unreadable'] == 1
        and replay.stats()['chunks_broken'] == 0
    )
    assert victim.exists() and not (tmp_path / 'broken').exists()
    assert (
        len(events) == 1
        and victim.name in events[0]
        and os.strerror(number) in events[0]
        and 'where it is' in events[0]
    )


def test_every_column_is_compared_with_its_checksum_before_a_chunk_is_first_used_and_not_again(
    tmp_path, monkeypatch
):
    manifest, events = many_chunks(tmp_path, monkeypatch)
    victim = chunk_files(tmp_path)[70]
    content = bytearray(victim.read_bytes())
    content[content.index(row(140)['image'].tobytes()) + 7] ^= 4
    victim.write_bytes(content)
    compared, working = [], npz._check_stored
    monkeypatch.setattr(
        npz,
        '_check_stored',
        lambda file, entry, path, key: (
            compared.append((path, key)) or working(file, entry, path, key)
        ),
    )
    replay = make(tmp_path, events=events, max_gb=40 * ROW_BYTES / 1e9)
    replay.load(manifest)
    for _ in range(100):
        check(replay.sample(8, 5))
    assert (
        len(replay) == 298
        and (tmp_path / 'broken' / victim.name).exists()
        and 'checksum' in events[0]
    )
    assert len(set(compared)) == len(compared) > 149 * 7, 'a chunk that was sound is not read again'


# Files from elsewhere


def corrupt_copies(tmp_path, damage):
    """A folder with 4 chunks of 10 rows, the second of which is damaged."""
    replay = make(tmp_path)
    fill(replay, 40)
    manifest = replay.save()
    replay.close()
    victim = chunk_files(tmp_path)[1]
    damage(victim)
    return manifest, victim


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def pickle_inside(path):
    columns = dict(np.load(path))
    np.savez(path, **{**columns, 'reward': np.array([{}] * 10, object)})


def other_shape(path):
    columns = dict(np.load(path))
    np.savez(path, **{**columns, 'image': columns['image'][:, :2]})


@pytest.mark.parametrize('damage', [truncate, empty, pickle_inside, other_shape])
def test_a_broken_chunk_is_set_aside_at_first_use_and_the_draw_repeats(tmp_path, damage):
    manifest, victim = corrupt_copies(tmp_path, damage)
    events = []
    replay = make(tmp_path, events=events)
    replay.load(manifest)
    assert len(replay) == 40, 'an index is made from names alone'
    for _ in range(10):
        sample = replay.sample(8, 5)
        check(sample)
    assert len(replay) == 30 and replay.stats()['chunks_broken'] == 1
    assert (tmp_path / 'broken' / victim.name).exists() and not victim.exists()
    assert len(events) == 1 and victim.name in events[0]
    fill(replay, 10, begin=40)
    check(replay.sample(50, 28))
    assert all(victim.name not in stream['chunks'] for stream in replay.save()['streams'])


def test_a_broken_chunk_in_a_read_only_folder_is_named_and_left_there(tmp_path):
    manifest, victim = corrupt_copies(tmp_path, truncate)
    events = []
    replay = make(tmp_path, read_only=True, events=events)
    replay.load(None)
    for _ in range(10):
        check(replay.sample(8, 5))
    assert len(replay) == 30 and victim.exists() and victim.name in events[0]


def test_foreign_files_are_named_once_and_left_alone(tmp_path):
    replay = make(tmp_path)
    fill(replay, 20)
    replay.close()
    names = ['foo.npz', 'notes.txt', f'20260101T000000F000000-{new_uuid()}-x-3.npz']
    for name in names:
        (tmp_path / name).write_bytes(b'foreign')
    events = []
    again = make(tmp_path, events=events)
    again.load(None)
    assert len(again) == 20 and len(events) == 1 and all(name in events[0] for name in names)
    assert all((tmp_path / name).exists() for name in names)


def test_a_copy_of_a_chunk_under_another_name_is_not_counted_twice(tmp_path):
    replay = make(tmp_path)
    fill(replay, 20)
    replay.close()
    name = ChunkName.parse(chunk_files(tmp_path)[0].name)
    (tmp_path / str(name._replace(time='29990101T000000F000000'))).write_bytes(b'copy')
    events = []
    again = make(tmp_path, events=events)
    again.load(None)
    assert len(again) == 20 and 'older name' in events[0]


def dreamerv3_folder(tmp_path, rows=25, chunk=10, **extra):
    """What DreamerV3 leaves: compressed chunks with row ids and latents, the last one's
    successor never written.
    """
    uuids = [new_uuid() for _ in range(rows // chunk + 2)]
    for index, begin in enumerate(range(0, rows, chunk)):
        foreign = {'stepid': np.zeros(20, np.uint8), 'dyn/deter': np.zeros(8, np.float32)}
        block = [{**row(count), **foreign} for count in range(begin, min(begin + chunk, rows))]
        columns = {
            key: np.stack([item[key] for item in block])
            for key in block[0]
            if not key.startswith('log/')
        }
        succ = uuids[index + 1] if begin + chunk < rows else NO_SUCCESSOR
        np.savez_compressed(
            tmp_path / f'20260101T000000F00000{index}-{uuids[index]}-{succ}-{len(block)}.npz',
            **{**columns, **extra},
        )


@pytest.mark.parametrize('known', [True, False])
def test_folders_of_dreamerv3_load_and_their_extra_keys_are_named_once(tmp_path, known):
    dreamerv3_folder(tmp_path)
    events = []
    replay = make(tmp_path, read_only=True, spaces=known, events=events)
    replay.load(None)
    assert len(replay) == 25 and 'dyn/deter' in events[0] and 'stepid' not in events[0]
    check(replay.sample(20, 25))
    check(replay.sample(20, 4))
    assert len(events) == 1 and not (tmp_path / 'meta.json').exists()


def test_compressed_chunks_that_would_fill_memory_are_left_out(tmp_path):
    dreamerv3_folder(tmp_path, rows=50, chunk=10)
    events = []
    replay = make(tmp_path, max_gb=5 * ROW_BYTES / 1e9, events=events)
    replay.load(None)
    with pytest.raises(ReplayEmptyError):
        replay.sample(4, 2)
    assert 'when decompressed' in events[1] and 'Left where it is' in events[1]
    assert len(chunk_files(tmp_path)) == 5, 'they are sound, and memory is a matter of this run'


def test_a_folder_of_other_shapes_is_refused_by_key(tmp_path):
    replay = make(tmp_path / 'a')
    fill(replay, 20)
    replay.close()
    other = {**OBS, 'image': spaces.Box(0, 255, (8, 8, 3), np.uint8)}
    message = r"'image': expected uint8 \(8, 8, 3\), found uint8 \(4, 4, 3\)"
    with pytest.raises(ReplaySchemaError, match=message):
        Replay(ReplayConfig(**CONFIG), tmp_path / 'a', 0, other, ACT)
    (tmp_path / 'b').mkdir()
    dreamerv3_folder(tmp_path / 'b')
    replay = Replay(ReplayConfig(**CONFIG), tmp_path / 'b', 0, other, ACT, read_only=True)
    with pytest.raises(ReplaySchemaError, match=message):
        replay.load(None)


def test_a_folder_of_another_task_of_the_same_shapes_is_named(tmp_path):
    Replay(ReplayConfig(**CONFIG), tmp_path, 0, OBS, ACT, {'task': 'dmc_walker_walk', 'seed': 1})
    events = []
    replay = Replay(
        ReplayConfig(**CONFIG),
        tmp_path,
        0,
        OBS,
        ACT,
        {'task': 'dmc_walker_run', 'seed': 2},
        on_event=events.append,
    )
    assert len(events) == 1 and "task 'dmc_walker_walk' there, 'dmc_walker_run' here" in events[0]
    assert replay.meta == {'task': 'dmc_walker_run', 'seed': 2}


@pytest.mark.parametrize(
    'change',
    [
        {'reward': np.float64(1)},
        {'image': np.zeros((4, 4, 1), np.uint8)},
        {'new': np.float32(0)},
        {'count': None},
    ],
)
def test_a_row_that_does_not_fit_is_refused_and_leaves_nothing_behind(change):
    replay = make()
    fill(replay, 5)
    with pytest.raises(ReplaySchemaError, match=repr(next(iter(change)))):
        replay.add({**row(5), **change}, 0)
    fill(replay, 5, begin=5)
    check(replay.sample(10, 10))


def test_the_first_row_says_what_a_row_is_where_no_spaces_do(tmp_path):
    replay = make(tmp_path, spaces=False)
    fill(replay, 20)
    check(replay.sample(5, 5))
    replay.close()
    assert make(tmp_path).schema == replay.schema


# Demonstrations


def test_demonstrations_fill_their_share_and_are_never_changed(tmp_path):
    demos = make(tmp_path / 'demos')
    for count in range(50):
        demos.add(row(count, worker=9), 0)
    demos.close()
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (tmp_path / 'demos').iterdir())
    replay = make(tmp_path / 'own', demos=str(tmp_path / 'demos'), demo_share=0.3)
    fill(replay, 50)
    counts = []
    for _ in range(200):
        sample = replay.sample(4, 5)
        check(sample)
        assert np.array_equal(
            replay.rows(sample['row_id'].ravel(), ['count'])['count'], sample['count'].ravel()
        )
        counts.append(int((sample['action'][:, 0, 1] == 9).sum()))
    assert set(counts) == {1, 2} and abs(np.mean(counts) - 1.2) < 0.1
    manifest = replay.save()
    replay.close()
    again = make(tmp_path / 'own', demos=str(tmp_path / 'demos'), demo_share=0.3)
    again.load(manifest)
    fill(again, 5, begin=50)
    check(again.sample(8, 5))
    assert len(replay) == 50
    assert before == sorted(
        (path.name, path.stat().st_mtime_ns) for path in (tmp_path / 'demos').iterdir()
    )


@pytest.mark.parametrize('named', ['run/replay', 'run'])
def test_demonstrations_stand_in_every_place_of_a_batch_alike(tmp_path, named):
    demos = make(tmp_path / 'run/replay')
    for count in range(50):
        demos.add(row(count, worker=9), 0)
    demos.close()
    replay = make(demos=str(tmp_path / named), demo_share=0.25)
    fill(replay, 50)
    places = np.stack(
        [replay.sample(8, 3, draw=number)['action'][:, 0, 1] == 9 for number in range(600)]
    )
    assert (places.sum(1) == 2).all() and (abs(places.mean(0) - 0.25) < 0.06).all()


def test_demonstrations_that_do_not_fit_or_exist_are_refused(tmp_path):
    with pytest.raises(ReplayError, match='does not exist'):
        make(demos=str(tmp_path / 'none'), demo_share=0.5)
    with pytest.raises(ReplayError, match='holds no readable chunk'):
        make(demos=str(tmp_path), demo_share=0.5)
    dreamerv3_folder(tmp_path, reward=np.zeros(10, np.float64), rows=20)
    with pytest.raises(ReplaySchemaError, match="'reward': expected float32 .*, found float64"):
        make(demos=str(tmp_path), demo_share=0.5, events=[])


# Use


def test_adding_sampling_and_saving_from_many_threads_keeps_rows_whole(tmp_path):
    replay = make(tmp_path, max_gb=400 * ROW_BYTES / 1e9)
    fill(replay, 20, workers=4)
    errors = []

    def guarded(work):
        try:
            work()
        except Exception as error:
            errors.append(error)

    def add(worker):
        for count in range(20, 150):
            replay.add(row(count, worker), worker)

    def sample():
        for _ in range(15):
            check(replay.sample(4, 9))

    jobs = [lambda worker=worker: add(worker) for worker in range(4)] + [
        sample,
        sample,
        lambda: [replay.save() for _ in range(5)],
    ]
    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    again = make(tmp_path)
    again.load(replay.save())
    assert len(again) == 600
    check(again.sample(10, 150))


def test_read_only_and_closed_replays_refuse_rows(tmp_path):
    replay = make(tmp_path)
    fill(replay, 5)
    replay.close()
    replay.close()
    assert replay._shelf.writer._thread is None
    with pytest.raises(ReplayError, match='closed'):
        replay.add(row(5), 0)
    with pytest.raises(ReplayError, match='read-only'):
        make(tmp_path, read_only=True).add(row(5), 0)


def test_the_index_of_many_chunks_opens_one_file(tmp_path, monkeypatch):
    replay = make(tmp_path, chunk_rows=1)
    fill(replay, 2)
    replay.close()
    for index in range(3000):
        (tmp_path / f'20260101T000000F{index:06}-{index:022}-{index + 1:022}-1000.npz').touch()
    opened, working = [], npz._opened
    monkeypatch.setattr(npz, '_opened', lambda path: opened.append(path) or working(path))
    again = make(tmp_path, read_only=True)
    again.load(None)
    assert len(again) == 3_000_002 and len(opened) == 1


@pytest.mark.parametrize(
    'changes',
    [
        {'max_gb': 0.0},
        {'disk_gb': float('inf')},
        {'chunk_rows': 0},
        {'resume': 'some'},
        {'demo_share': 1.5},
        {'uniform': 0.5},
    ],
)
def test_impossible_settings_are_refused(changes):
    with pytest.raises(ConfigError, match=f'replay.{next(iter(changes))}'):
        make(**changes)


@pytest.mark.parametrize('length, expected', [(1, 19), (4, 10), (7, 4), (9, 2), (10, 1), (11, 0)])
def test_sequences_that_can_be_drawn_are_counted_stream_by_stream(length, expected):
    replay = make()
    for worker, rows in ((0, 10), (1, 6), (2, 3)):
        for count in range(rows):
            replay.add(row(count, worker), worker)
    assert replay.sequences(length) == expected and replay.longest == 10
    if expected:
        assert replay.sample(4, length)['count'].shape == (4, length)
    else:
        with pytest.raises(ReplayEmptyError):
            replay.sample(4, length)


def test_demonstrations_that_are_too_short_are_named_before_they_are_drawn(tmp_path):
    demos = make(tmp_path / 'demos')
    for count in range(6):
        demos.add(row(count), 0)
    demos.close()
    replay = make(demos=str(tmp_path / 'demos'), demo_share=0.1)
    for count in range(20):
        replay.add(row(count), 0)
    assert replay.sequences(6) == 15
    with pytest.raises(
        ReplayEmptyError,
        match='demos: the demonstrations hold no sequence of 7 rows, the longest stream has 6',
    ):
        replay.sequences(7)
