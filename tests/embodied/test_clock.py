"""Clocks: ratios hold exactly and without storms, intervals are off when told so, and all
continue where they were.
"""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied.clock import Decades, Every, Ratio
from embodied.errors import CheckpointError, ConfigError


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    ratio=st.floats(0, 3),
    jumps=st.lists(st.integers(0, 20), min_size=1, max_size=40),
    start=st.integers(0, 10**9),
)
def test_updates_keep_the_ratio_within_one(ratio, jumps, start):
    clock, count = Ratio(ratio), start
    total = clock(start)
    for jump in jumps:
        count += jump
        total += clock(count)
        assert abs(total - (count - start) * ratio) <= 1 + 1e-6


def test_ten_times_a_tenth_is_one():
    clock = Ratio(0.1)
    assert [clock(count) for count in range(31)] == [0, *([0] * 9 + [1]) * 3]


def test_a_ratio_of_zero_is_never():
    clock = Ratio(0)
    assert sum(clock(count) for count in range(0, 10000, 100)) == 0


def test_what_is_owed_beyond_the_cap_is_forgotten():
    clock = Ratio(0.5, cap=4)
    assert clock(0) == 0 and clock(1_000_000) == 4 and clock(1_000_002) == 1


def test_a_cap_below_the_ratio_bounds_each_call():
    clock = Ratio(10, cap=3)
    assert [clock(count) for count in range(4)] == [0, 3, 3, 3]


def test_an_interrupted_ratio_is_due_when_an_uninterrupted_one_is():
    whole, part = Ratio(0.3), Ratio(0.3)
    expected, got = [], []
    for count in range(0, 60, 3):
        expected.append(whole(count))
        if count == 30:
            state = json.loads(json.dumps(part.save()))
            part = Ratio(0.3)
            part.load(state)
        got.append(part(count))
    assert got == expected


def test_every_so_many_steps_is_on_a_grid():
    clock = Every(steps=10)
    assert [count for count in range(0, 45, 3) if clock(count)] == [12, 21, 30, 42]


def test_steps_that_jump_over_several_intervals_are_one_event():
    clock = Every(steps=10)
    assert [clock(count) for count in (35, 36, 40, 41)] == [True, False, True, False]


def test_the_first_call_can_be_an_event():
    clock = Every(steps=10, first=True)
    assert [clock(count) for count in (0, 1, 10)] == [True, False, True]
    assert not Every(steps=0, first=True)(0)


@pytest.mark.parametrize('off', [0, 0.0, 'off'])
def test_off_is_never(off):
    assert not any(Every(steps=off)(count) for count in range(0, 1000, 10))
    time = iter(range(0, 10**6, 10**4))
    clock = Every(seconds=off, now=lambda: next(time))
    assert not any(clock() for _ in range(10))


def test_seconds_are_counted_from_the_last_event():
    time = [100.0]
    clock = Every(seconds=5, now=lambda: time[0])
    events = []
    for time[0] in (101, 104.9, 105, 109, 110.5, 115.4, 115.5):
        events.append(clock())
    assert events == [False, False, True, False, True, False, True]


def test_an_interrupted_interval_has_its_events_where_an_uninterrupted_one_has():
    clock = Every(steps=10)
    assert [clock(count) for count in (0, 9, 15)] == [False, False, True]
    again = Every(steps=10)
    again.load(json.loads(json.dumps(clock.save())))
    assert [again(count) for count in (15, 19, 20)] == [False, False, True]


def test_powers_of_ten_are_events_below_a_limit_and_once():
    clock = Decades(50)
    assert [count for count in (0, 1, 2, 9, 12, 13, 99, 100, 101) if clock(count)] == [1, 12]
    clock = Decades()
    assert [count for count in (0, 30, 31, 250) if clock(count)] == [30, 250]
    again = Decades()
    again.load(json.loads(json.dumps(clock.save())))
    assert [count for count in (300, 1000) if again(count)] == [1000]


def test_each_of_several_counts_has_its_own_powers_of_ten():
    clock = Decades()
    assert [clock(*counts) for counts in ((0, 0), (1, 0), (5, 1), (9, 9), (9, 12))] == [
        False,
        True,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    'make',
    [
        lambda: Ratio(-1),
        lambda: Ratio(float('nan')),
        lambda: Ratio(1, cap=0.5),
        lambda: Every(),
        lambda: Every(steps=1, seconds=1),
        lambda: Every(steps=-1),
        lambda: Every(steps='never'),
        lambda: Every(seconds=float('inf')),
    ],
)
def test_arguments_out_of_range_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize('clock', [Ratio(1), Every(steps=1)])
def test_a_state_of_something_else_is_refused(clock):
    with pytest.raises(CheckpointError, match=type(clock).__name__):
        clock.load({'other': 1})
