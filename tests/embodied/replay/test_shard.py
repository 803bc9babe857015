"""Rows of some ranks are taken up by more or fewer: none is lost, shares are about alike, sequences
are those of one worker, and a dealing that was interrupted is completed.
"""

import os

import numpy as np
import pytest
from test_replay import check, fill, make, row

from embodied.errors import ReplayError
from embodied.ranks import Ranks
from embodied.replay.shard import _bring, deal, shard, take_all, take_up


class One(Ranks):
    """One of several ranks, which are asked one after the other."""

    def __init__(self, number, count):
        self.number, self.count = number, count


def written(folder, count, rows=60, workers=2):
    """Manifests of so many ranks, whose workers all have rows of their own."""
    saved = []
    for number in range(count):
        replay = make(shard(folder, number, count))
        for index in range(rows):
            for worker in range(workers):
                replay.add(row(index, 100 * number + worker), worker)
        saved.append(replay.save())
        replay.close()
    return saved


def loaded(folder, count, saved):
    """Replays of so many ranks that go on from manifests, None for no checkpoint."""
    replays = [make(shard(folder, number, count)) for number in range(count)]
    for number, replay in enumerate(replays):
        ranks = One(number, count)
        if saved is None:
            take_all(replay, ranks)
        else:
            replay.load(take_up(replay, ranks, saved)[number])
    return replays


def held(replays):
    """(worker, number) of all rows, sorted."""
    found = []
    for replay in replays:
        streams = [stream for stream in replay._shelf.streams if stream.chunks]
        for stream in streams:
            begin, end = replay._shelf.streams.begins, replay._shelf.streams.ends
            length = int(end[stream.slot] - begin[stream.slot])
            out = {'action': np.empty((length, 2), np.float32)}
            replay._shelf.read(stream, int(begin[stream.slot]), out)
            found += [(int(worker), int(number)) for number, worker in out['action']]
    return sorted(found)


@pytest.mark.parametrize('before, now', [(1, 2), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize('checkpoint', [True, False])
def test_no_row_is_lost_where_more_or_fewer_go_on(tmp_path, before, now, checkpoint):
    saved = written(tmp_path, before)
    replays = loaded(tmp_path, now, saved if checkpoint else None)
    expected = [
        (100 * number + worker, index)
        for number in range(before)
        for worker in range(2)
        for index in range(60)
    ]
    assert held(replays) == expected
    shares = [len(replay) for replay in replays]
    assert max(shares) - min(shares) <= 0.3 * len(expected) / now
    for replay in replays:
        check(replay.sample(8, 5))
        fill(replay, 12, begin=60)  # new rows go into streams of their own
        check(replay.sample(8, 5))
        replay.save()
        replay.close()


def test_who_is_no_more_leaves_nothing_behind(tmp_path):
    saved = written(tmp_path, 2)
    (aside := tmp_path / 'rank001' / 'unlisted').mkdir()
    (aside / saved[1]['streams'][0]['chunks'][0]).write_bytes(b'old')
    (replay,) = loaded(tmp_path, 1, saved)
    assert not list(tmp_path.glob('rank*'))
    assert [path.read_bytes() for path in (tmp_path / 'unlisted').iterdir()] == [b'old']
    replay.close()


def test_what_came_after_the_checkpoint_is_set_aside(tmp_path):
    saved = written(tmp_path, 2)
    late = make(tmp_path / 'rank001', resume='all')
    late.load(None)
    fill(late, 10, begin=200)
    late.save()
    late.close()
    (replay,) = loaded(tmp_path, 1, saved)
    assert len(replay) == 240 and not replay.rows_missing
    assert len(list((tmp_path / 'unlisted').iterdir())) == 1
    replay.close()


def test_a_dealing_that_was_interrupted_is_completed(tmp_path, monkeypatch):
    saved = written(tmp_path, 2)
    moved, replace = [], os.replace

    def failing(*paths):
        if len(moved) == 7:
            raise OSError('the disk is away')
        moved.append(paths)
        replace(*paths)

    replay = make(tmp_path)
    monkeypatch.setattr(os, 'replace', failing)
    with pytest.raises(ReplayError, match='cannot be moved.*the disk is away'):
        take_up(replay, Ranks(), saved)
    replay.close()
    monkeypatch.setattr(os, 'replace', replace)
    # as many as before, or yet another number
    for count in (2, 3):
        replays = loaded(tmp_path, count, saved)
        assert len(held(replays)) == 240 and not any(r.rows_missing for r in replays)
        for replay in replays:
            replay.close()


def test_draws_go_on_and_workers_begin_streams_of_their_own():
    chunks = [f'20260101T000000F00000{i}-{i:022d}-{i + 1:022d}-10.npz' for i in range(8)]
    stream = {'worker': 0, 'begin': 5, 'chunks': chunks, 'next': 'x', 'fresh': 80, 'touched': 99}
    saved = [{'version': 1, 'draws': draws, 'seen': 100, 'streams': [stream]} for draws in (3, 9)]
    for manifest in deal(saved[:1], 2) + deal(saved, 4):
        assert manifest['draws'] in (3, 9)
        rows = [10 * len(entry['chunks']) for entry in manifest['streams']]
        assert sum(rows) == 40
        for entry, length in zip(manifest['streams'], rows):
            assert entry['worker'] is None and entry['next'] == ''
            assert 5 <= entry['begin'] <= 85 - length
    assert {manifest['draws'] for manifest in deal(saved, 4)} == {9}


def test_rows_in_memory_alone_are_not_moved():
    _bring(make(), Ranks(), None)
