"""Streams and their index: row numbers, pieces, removal, and chains from names anybody may have
made.
"""

import hypothesis
import hypothesis.strategies as st

from embodied.replay.chunk import NO_SUCCESSOR, Chunk, ChunkName, new_uuid
from embodied.replay.streams import Streams, chains


def closed(length):
    chunk = Chunk('20260101T000000F000000', new_uuid(), length)
    chunk.length, chunk.succ = length, new_uuid()
    return chunk


def streams_of(*lengths):
    streams = Streams()
    stream = streams.of(7)
    for length in lengths:
        streams.link(stream, closed(length))
    return streams, stream


def bounds(streams):
    return [(int(begin), int(end)) for begin, end in zip(streams.begins, streams.ends)]


def test_pieces_cross_chunks_and_cover_each_row_once():
    streams, stream = streams_of(5, 1, 4)
    pieces = [
        (stream.chunks.index(chunk), start, stop) for chunk, start, stop in stream.pieces(3, 5)
    ]
    assert pieces == [(0, 3, 5), (1, 0, 1), (2, 0, 2)]
    assert streams.rows == 10 and bounds(streams) == [(0, 10)]


def test_row_numbers_stay_when_the_first_chunk_goes():
    streams, stream = streams_of(5, 3)
    second = stream.chunks[1]
    streams.drop_first(stream)
    assert bounds(streams) == [(5, 8)] and streams.rows == 3
    assert list(stream.pieces(6, 2)) == [(second, 1, 3)]


def test_removing_from_the_middle_splits_and_the_worker_keeps_the_later_part():
    streams, stream = streams_of(5, 3, 4)
    first, middle, last = stream.chunks
    streams.remove(middle)
    assert bounds(streams) == [(8, 12), (0, 5)] and streams.rows == 9 and len(streams) == 2
    assert streams.of(7) is stream and stream.chunks == [last] and stream.fresh == 8
    assert streams[1].chunks == [first] and streams[1].worker is None
    assert list(streams[1].pieces(4, 1)) == [(first, 4, 5)] and list(stream.pieces(8, 1)) == [
        (last, 0, 1)
    ]


def test_removing_the_last_chunk_leaves_the_worker_an_empty_stream_that_goes_on():
    streams, stream = streams_of(5, 3)
    streams.remove(stream.chunks[1])
    assert bounds(streams) == [(8, 8), (0, 5)] and streams.rows == 5
    streams.link(streams.of(7), closed(2))
    assert bounds(streams) == [(8, 10), (0, 5)]


def test_the_index_grows_beyond_its_first_size():
    streams = Streams()
    for worker in range(40):
        streams.link(streams.of(worker), closed(worker + 1))
    assert [int(end) for end in streams.ends] == list(range(1, 41)) and streams.rows == 820


def name(time, uuid, succ, length=1):
    return ChunkName(f'2026{time:04}T000000F000000', uuid, succ, length)


def test_chains_follow_successors_in_any_order_of_names():
    a, b, c = name(1, 'a', 'b'), name(2, 'b', 'c'), name(3, 'c', 'x')
    d = name(2, 'd', NO_SUCCESSOR)
    assert chains([c, d, a, b]) == [[a, b, c], [d]]


def test_two_predecessors_and_rings_are_cut_and_nothing_is_lost():
    a, b, c = name(1, 'a', 'c'), name(2, 'b', 'c'), name(3, 'c', 'c')
    assert chains([a, b, c]) == [[a, c], [b]]
    ring = [name(1, 'a', 'b'), name(2, 'b', 'c'), name(3, 'c', 'a')]
    assert chains(ring) == [ring]


@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
@hypothesis.given(
    st.lists(
        st.tuples(st.integers(1, 9), st.sampled_from('abcdefg'), st.sampled_from('abcdefgx')),
        unique_by=lambda t: t[1],
    )
)
def test_any_names_give_chains_that_hold_each_exactly_once(specs):
    names = [name(*spec) for spec in specs]
    result = chains(names)
    assert sorted(item for chain in result for item in chain) == sorted(names)
    assert all(
        first.succ == second.uuid for chain in result for first, second in zip(chain, chain[1:])
    )
