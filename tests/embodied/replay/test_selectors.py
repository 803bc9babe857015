"""Which sequences come next: uniform, recent, newest."""

import numpy as np
import pytest

from embodied.errors import ConfigError
from embodied.replay.chunk import Chunk, new_uuid, timestamp
from embodied.replay.selectors import Mixture
from embodied.replay.streams import Streams


def streams_of(*lengths, live=True):
    """One stream per length; the chunks have no rows in memory, which selectors do not look at."""
    streams = Streams()
    for worker, length in enumerate(lengths):
        stream = streams.new(worker if live else None)
        chunk = Chunk(timestamp(), new_uuid(), 10**9)
        streams.link(stream, chunk)
        chunk.length = length
        streams.extend(stream, length)
        stream.touched = sum(lengths)
    return streams


def choose(mixture, streams, batch, length, seed=0, **kwargs):
    return mixture.choose(
        streams, batch, length, np.random.default_rng(seed), seen=streams.rows, **kwargs
    )


UNIFORM = Mixture(1.0, 0.0, 0.0, 1)


def test_every_window_of_every_stream_is_equally_likely():
    streams = streams_of(12, 3, 7, 4)
    selection = choose(UNIFORM, streams, 60_000, 4)
    windows, counts = np.unique(
        np.stack([selection.slots, selection.rows]), axis=1, return_counts=True
    )
    expected = [(0, row) for row in range(9)] + [(2, row) for row in range(4)] + [(3, 0)]
    assert [tuple(window) for window in windows.T.tolist()] == expected
    chi2 = ((counts - 60_000 / 14) ** 2 / (60_000 / 14)).sum()
    assert chi2 < 34.5, f'chi-squared {chi2:.1f} with 13 degrees of freedom, p < 0.001: not uniform'


def test_no_window_is_none():
    assert choose(UNIFORM, streams_of(3, 2), 4, 4) is None
    assert choose(UNIFORM, Streams(), 4, 1) is None


def test_recent_windows_lie_within_the_last_rows_of_each_live_worker():
    streams = streams_of(100, 60)
    selection = choose(Mixture(0.0, 1.0, 0.0, 40), streams, 5000, 5)
    assert {
        (slot, row) for slot, row in zip(selection.slots.tolist(), selection.rows.tolist())
    } == {(slot, row) for slot, end in ((0, 100), (1, 60)) for row in range(end - 20, end - 4)}


def test_recent_takes_the_last_window_where_recent_rows_are_fewer_than_its_length():
    assert set(choose(Mixture(0.0, 1.0, 0.0, 1), streams_of(100), 50, 8).rows) == {92}


def test_workers_that_stopped_adding_are_not_recent():
    streams = streams_of(100, 100)
    streams[0].touched = 100
    assert set(choose(Mixture(0.0, 1.0, 0.0, 50), streams, 200, 4).slots) == {1}


def test_without_live_workers_recent_and_newest_are_uniform():
    mixture = Mixture(0.0, 0.5, 0.5, 10)
    rows = choose(mixture, streams_of(100, live=False), 3000, 4).rows
    assert set(rows) == set(range(97))


def test_newest_hands_out_every_window_once_without_overlap_oldest_first():
    streams = streams_of(10, 10)
    mixture = Mixture(0.0, 0.0, 1.0, 1)
    selection = choose(mixture, streams, 6, 3)
    assert list(zip(selection.slots, selection.rows)) == [
        (0, 0),
        (1, 0),
        (0, 3),
        (1, 3),
        (0, 6),
        (1, 6),
    ]
    assert selection.fresh == {0: 9, 1: 9}


def test_newest_goes_on_where_it_was_with_any_length():
    streams = streams_of(10)
    streams[0].fresh = 4
    assert choose(Mixture(0.0, 0.0, 1.0, 1), streams, 1, 6).rows.tolist() == [4]
    assert choose(Mixture(0.0, 0.0, 1.0, 1), streams, 1, 6).fresh == {0: 10}


def test_newest_is_uniform_where_nothing_is_left_or_asked_for():
    streams = streams_of(10)
    streams[0].fresh = 8
    for kwargs in ({}, {'newest': False}):
        selection = choose(Mixture(0.0, 0.0, 1.0, 1), streams, 500, 3, **kwargs)
        assert selection.fresh == {} and set(selection.rows) == set(range(8))


def test_shares_of_the_mixture_hold():
    streams = streams_of(10_000)
    selection = choose(Mixture(0.5, 0.3, 0.2, 100), streams, 4000, 2)
    newest = selection.fresh[0] / 2 / 4000
    recent = (selection.rows >= 9900).mean()
    assert abs(newest - 0.2) < 0.02 and abs(recent - 0.3 - 0.5 * 0.01) < 0.03


def test_choices_are_a_function_of_the_generator():
    streams, mixture = streams_of(50, 70), Mixture(0.4, 0.3, 0.3, 20)
    first, second, other = (choose(mixture, streams, 16, 5, seed) for seed in (1, 1, 2))
    assert (
        (first.rows == second.rows).all()
        and (first.slots == second.slots).all()
        and first.fresh == second.fresh
    )
    assert (first.rows != other.rows).any()


@pytest.mark.parametrize('values', [(0.5, 0.4, 0.0, 10), (1.5, -0.5, 0.0, 10), (1.0, 0.0, 0.0, 0)])
def test_impossible_mixtures_are_refused(values):
    with pytest.raises(ConfigError, match='replay'):
        Mixture(*values)
