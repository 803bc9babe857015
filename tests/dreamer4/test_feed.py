"""A feed prepares the next draw while the agent learns, and draws what it would draw without."""

import types

import numpy as np
import pytest
from test_cache import fill, replay

from dreamer4.feed import Ahead


class Clockwork:
    """Makes the work of a thread happen at once, and counts it."""

    def __init__(self):
        self.made = 0

    def submit(self, work, *args):
        self.made += 1
        result = work(*args)
        return types.SimpleNamespace(result=lambda: result)


def equal(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(value, other[key]) for key, value in one.items() if key != 'row_id'
    )


def test_draws_are_those_of_the_replay_alone():
    """Also where measurements, other shapes and new rows come between."""
    plain, made = replay(), replay()
    ahead, rng = Ahead(made), np.random.default_rng(0)
    ahead.thread = Clockwork()
    for step in range(30):
        for one in (plain, made):
            fill(one, 5, begin=5 * step)
        count = int(rng.integers(1, 5))
        ahead.expect(count)
        for _ in range(count):
            without = ('image',) if rng.random() < 0.3 else ()
            assert equal(plain.sample(4, 3, None, without), ahead.sample(4, 3, None, without))
            if rng.random() < 0.3:
                assert equal(plain.sample(6, 2), ahead.sample(6, 2))
            if rng.random() < 0.2:
                assert equal(plain.sample(3, 2, 7), ahead.sample(3, 2, 7))
    assert ahead.thread.made > 20 and plain.draws == made.draws


def test_a_thread_prepares_draws_while_the_caller_works():
    plain, made = replay(), replay()
    for one in (plain, made):
        fill(one, 50)
    ahead = Ahead(made)
    ahead.expect(20)
    for _ in range(25):
        assert equal(plain.sample(8, 5), ahead.sample(8, 5))
    assert ahead.thread is not None
    assert ahead.next is None, 'nothing is prepared beyond what was expected'


@pytest.mark.parametrize('prefetch, made', [(True, 4), (False, 0)])
def test_a_measurement_between_expected_draws_costs_one_preparation(prefetch, made):
    rows = replay(prefetch=prefetch)
    fill(rows, 50)
    ahead, clockwork = Ahead(rows), Clockwork()
    ahead.thread = clockwork
    ahead.expect(5)
    for index in range(5):
        ahead.sample(4, 5)
        if index == 2:
            ahead.sample(8, 5)
    assert clockwork.made == made and ahead.next is None


def test_an_interrupted_feed_goes_on_with_the_draws_of_one_that_was_not():
    made = [replay(uniform=0.7, recent=0.3, newest=0.0) for _ in range(3)]
    for one in made:
        fill(one, 50)
    whole, first, again = made
    expected = [whole.sample(4, 5) for _ in range(9)]
    ahead = Ahead(first)
    ahead.expect(5)
    drawn = [ahead.sample(4, 5) for _ in range(3)]  # ends with a fourth one prepared
    again.seek(first.draws)
    ahead = Ahead(again)
    ahead.expect(6)
    drawn += [ahead.sample(4, 5) for _ in range(6)]
    assert all(equal(one, other) for one, other in zip(drawn, expected, strict=True))
