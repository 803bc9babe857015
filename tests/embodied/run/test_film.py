"""Films keep every frame of a short episode and a time lapse of a long one, within bounds."""

import numpy as np
import pytest

from embodied.run import film
from embodied.run.film import Film


def shot(count, shape=(2, 2, 1)):
    """A film of `count` frames whose first bytes count."""
    made, buffer = Film(), np.zeros((3, *shape), np.uint8)
    for number in range(count):
        buffer[1] = 0
        buffer[1].flat[:2] = divmod(number, 256)
        made.add(buffer[1])
    frames = made.frames()
    return frames, [256 * int(frame.flat[0]) + int(frame.flat[1]) for frame in frames]


@pytest.mark.parametrize('count', [1, 2, 7, 20])
def test_a_short_film_holds_every_frame(count, monkeypatch):
    monkeypatch.setattr(film, 'MOST_FRAMES', 20)
    assert shot(count)[1] == list(range(count))


@pytest.mark.parametrize('count, step', [(21, 2), (41, 4), (1000, 64), (1001, 64)])
def test_a_long_film_holds_frames_at_equal_distances_and_the_last(count, step, monkeypatch):
    monkeypatch.setattr(film, 'MOST_FRAMES', 20)
    numbers = shot(count)[1]
    assert numbers[-1] == count - 1 and len(numbers) <= 21
    assert numbers[:-1] == list(range(0, count - 1, step)) or numbers == list(range(0, count, step))


def test_bytes_are_bounded_too(monkeypatch):
    monkeypatch.setattr(film, 'MOST_BYTES', 10_000)
    frames, numbers = shot(500, (10, 20, 3))
    assert frames.nbytes <= 11_000 and numbers[-1] == 499 and len(numbers) > 5
