"""Drawn open-loop predictions: size, titles, and borders that say what the model was given."""

import numpy as np
import pytest

from dreamer4.video import (
    BORDER,
    DREAMT,
    HEADER,
    LABELS,
    LARGEST,
    LOST,
    SEEN,
    WIDTH,
    open_loop_video,
    rgb,
)

RNG = np.random.default_rng(0)


def images(count, height, width, channels=3, time=4):
    return RNG.integers(0, 255, (count, time, height, width, channels), np.uint8)


def drawn(shape=(2, 32, 32, 3), start=1, valid=None, same=False):
    """(truth, guess, video) of random frames (B, H, W, C)."""
    truth, guess = images(*shape), images(*shape)
    guess = truth if same else guess
    valid = np.ones(truth.shape[:2], bool) if valid is None else np.array(valid)
    return truth, guess, open_loop_video('image', truth, guess, start, valid)


def border(frame, row, column, side=96):
    """The colour of the border of one image, which is the same all around."""
    step = side + 2 * BORDER + 3
    top, left = HEADER + row * step, LABELS + column * step
    box = frame[top : top + side + 2 * BORDER, left : left + side + 2 * BORDER]
    edges = np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]])
    assert (edges == edges[0]).all()
    return tuple(edges[0]), box[BORDER:-BORDER, BORDER:-BORDER]


def test_the_border_marks_where_the_dream_begins_and_where_the_episode_ends():
    *_, video = drawn(valid=[[True, True, True, True], [True, True, True, False]])
    colours = [[border(frame, 1, column)[0] for frame in video] for column in range(2)]
    assert colours == [[SEEN, SEEN, DREAMT, DREAMT], [SEEN, SEEN, DREAMT, LOST]]
    assert len({border(frame, row, 0)[0] for frame in video for row in (0, 2)}) == 1


def test_rows_are_the_real_frame_the_predicted_one_and_their_error():
    truth, guess, video = drawn()
    for t, frame in enumerate(video):
        for column in range(2):
            real, model, error = (border(frame, row, column)[1] for row in range(3))
            np.testing.assert_array_equal(real[::3, ::3], truth[column, t])
            np.testing.assert_array_equal(model[::3, ::3], guess[column, t])
            larger = real.astype(int) < model
            assert (error[larger] >= 127).all() and (error[~larger] <= 127).all()
    *_, video = drawn(same=True)
    assert (border(video[0], 2, 0)[1] == 127).all(), 'no error is grey'


def test_titles_say_what_stands_beside_them_and_what_the_model_was_given():
    *_, video = drawn()
    ink = lambda part: (part.astype(int).sum(-1) > 200).any()
    step = 96 + 2 * BORDER + 3
    for frame in video:
        for row in range(3):
            assert ink(frame[HEADER + row * step : HEADER + (row + 1) * step, :LABELS])
    heads = [frame[:HEADER] for frame in video]
    for head, colour, other in zip(heads, [SEEN] * 2 + [DREAMT] * 2, [DREAMT] * 2 + [SEEN] * 2):
        near = lambda c: (abs(head.astype(int) - c).sum(-1) < 60).any()
        assert near(colour) and not near(other)
    assert len({head.tobytes() for head in heads}) == 4, 'the frame is counted'


@pytest.mark.parametrize(
    'shape',
    [
        (1, 8, 8, 3),
        (4, 16, 16, 1),
        (2, 64, 64, 3),
        (4, 84, 84, 4),
        (3, 210, 160, 3),
        (1, 256, 8, 2),
        (1, 8, 256, 3),
        (4, 1000, 1400, 3),
    ],
)
def test_videos_of_any_frames_are_wide_enough_and_bounded(shape):
    *_, video = drawn(shape)
    assert video.dtype == np.uint8 and video.shape[0] == 4 and video.shape[-1] == 3
    assert video.shape[2] >= WIDTH and video.shape[1] < 900
    assert video.shape[2] <= max(WIDTH, LABELS + shape[0] * (LARGEST + 10))


def test_images_of_any_channels_become_colours():
    grey, colour, four = (images(1, 2, 2, channels)[0, 0] for channels in (1, 3, 4))
    assert (rgb(grey) == grey).all() and rgb(grey).shape == (2, 2, 3)
    assert (rgb(colour) == colour).all()
    assert rgb(four).shape == (2, 8, 3) and (rgb(four)[:, 2:4, 0] == four[..., 1]).all()
