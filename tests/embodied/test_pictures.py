"""Pictures of every shape and dtype: which arrays are some, what they become, and that nothing else
is changed.
"""

import numpy as np
import pytest
from gymnasium import spaces

from embodied.base import FLAG, OUTCOME, Env, outcome
from embodied.errors import EnvContractError, EnvNonFinite
from embodied.pictures import displayable, picture, reading, readings, resize
from embodied.wrappers import ReadImages, wrap


def box(shape, dtype=np.uint8, low=0, high=255):
    return spaces.Box(low, high, shape, dtype)


READ = [
    (box((16, 16, 1)), (16, 16, 1)),
    (box((16, 16, 4)), (16, 16, 4)),
    (box((7, 7, 2)), (7, 7, 2)),
    (box((210, 160, 3)), (210, 160, 3)),
    (box((3, 16, 16)), (16, 16, 3)),
    (box((8, 16, 16)), (16, 16, 8)),
    (box((1, 5, 9)), (5, 9, 1)),
    (box((3, 210, 160)), (210, 160, 3)),
    (box((16, 24)), (16, 24, 1)),
    (box((4, 84, 84, 3)), (84, 84, 12)),
    (box((2, 3, 20, 30)), (20, 30, 6)),
    (box((64, 64, 3), np.float32, 0, 1), (64, 64, 3)),
    (box((3, 64, 48), np.float32, -1, 1), (64, 48, 3)),
    (box((28, 28), np.float32, 0, 1), (28, 28, 1)),
    (box((20, 20, 3), np.float64, 0, 255), (20, 20, 3)),
    (box((8, 8, 12), bool, 0, 1), (8, 8, 12)),
    (box((5, 5, 6), np.int64, 0, 10), (5, 5, 6)),
    (box((30, 40, 3), np.int32), (30, 40, 3)),
]


@pytest.mark.parametrize('space, shape', READ, ids=lambda x: str(getattr(x, 'shape', x)))
def test_pictures_of_any_layout_are_recognised(space, shape):
    found = picture(space)
    assert (
        found.space.shape == shape
        and reading(found.space) == 'image ' + 'x'.join(map(str, shape))
        and reading(found.space) in str(found)
    )
    image = found.read(space.sample())
    assert image.dtype == np.uint8 and image.shape == shape and image.flags.c_contiguous


@pytest.mark.parametrize(
    'space, words',
    [
        (box((128,)), 'vector 128'),
        (box((7, 7), np.uint8, 0, 10), 'vector 49'),
        (box((4, 2)), 'vector 8'),
        (box((64, 64, 3), np.float32, -np.inf, np.inf), 'vector 12288'),
        (box((4, 5, 3), np.float32, 0, 1), 'vector 60'),
        (box((10, 20), np.float32, -1, 1), 'vector 200'),
        (box((20, 20), np.int32, 0, 9), 'vector 400'),
        (spaces.Discrete(5), 'classes 5'),
        (spaces.MultiDiscrete([2, 3]), 'classes 2 + 3'),
        (spaces.MultiDiscrete(np.full((3, 3, 2), 4)), 'classes 18 times 4'),
        (spaces.MultiBinary((8, 8, 3)), 'flags 192'),
        (box((0, 4, 3)), 'image 0x4x3'),
        (FLAG, 'vector 1'),
    ],
    ids=str,
)
def test_what_is_no_picture_stays_what_it_is(space, words):
    assert picture(space) is None and reading(space) == words


def test_values_and_places_of_a_picture_are_kept():
    value = np.zeros((3, 9, 12), np.float32)
    value[1, 2, 5] = 1.0
    value[2, 8, 0] = 0.5
    image = picture(box((3, 9, 12), np.float32, 0, 1)).read(value)
    assert (
        image[2, 5].tolist() == [0, 255, 0]
        and image[8, 0].tolist() == [0, 0, 128]
        and image.sum() == 255 + 128
    )
    stack = np.arange(2 * 8 * 9 * 3, dtype=np.uint8).reshape(2, 8, 9, 3)
    np.testing.assert_array_equal(
        picture(box((2, 8, 9, 3))).read(stack), np.concatenate([stack[0], stack[1]], -1)
    )
    planes = picture(box((4, 4, 2), np.int32, 0, 3)).read(np.full((4, 4, 2), 2, np.int32))
    assert (planes == 170).all(), 'small integers are spread over 0 .. 255'


class Camera(Env):
    """Shows what it is given."""

    act_space = {'go': spaces.Discrete(2), 'reset': FLAG}

    def __init__(self, space, *values):
        self.obs_space = {
            'view': space,
            'state': spaces.Box(-np.inf, np.inf, (50, 60), np.float32),
            **OUTCOME,
        }
        self.values = list(values)

    def step(self, action):
        return {
            'view': self.values.pop(0),
            'state': np.zeros((50, 60), np.float32),
            **outcome(is_first=bool(action['reset'])),
        }


RESET = {'go': np.int32(0), 'reset': np.bool_(True)}
UNIT = spaces.Box(0, 1, (3, 8, 10), np.float64)


def test_a_wrapped_env_shows_images_and_says_what_they_were():
    env = wrap(Camera(UNIT, np.full((3, 8, 10), 0.5), np.full((3, 8, 10), 1.5)))
    assert env.obs_space['view'] == spaces.Box(0, 255, (8, 10, 3), np.uint8)
    assert (env.step(RESET)['view'] == 128).all() and (env.step(RESET)['view'] == 255).all()
    notes = dict(env.notes())
    assert 'channels first, in 0 .. 1 is read as image 8x10x3' in notes['picture view']
    assert 'read as vector 3000' in notes['large state']
    assert (
        'leaves its declared box: 1.5 came' in notes['bounds view']
        and 'cut off' in notes['bounds view']
    )
    assert readings(env.obs_space, env.act_space) == [
        'observes view: image 8x10x3; state: vector 3000',
        'acts by go: classes 2',
    ]


@pytest.mark.parametrize('side, size, noted', [(128, 0, False), (130, 0, True), (130, 64, False)])
def test_a_picture_of_many_pixels_is_noted_where_it_is_not_resized(side, size, noted):
    camera = Camera(box((side, 128, 3)))
    notes = dict(wrap(ReadImages(camera, size) if size else camera).notes())
    assert ('large view' in notes) == noted
    assert not noted or '16,640 pixels' in notes['large view'] and '.size 64' in notes['large view']


@pytest.mark.parametrize(
    'value, error, words',
    [
        (np.full((3, 8, 10), np.nan), EnvNonFinite, "'view' is not finite: nan at"),
        (
            np.zeros((8, 10, 3)),
            EnvContractError,
            r"'view': expected float32\[3, 8, 10\], got float32\[8, 10, 3\]",
        ),
    ],
)
def test_a_picture_that_cannot_be_read_is_refused_before_it_becomes_one(value, error, words):
    with pytest.raises(error, match=words):
        wrap(Camera(UNIT, value)).step(RESET)


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_observed_images_are_resized_where_asked(channels):
    source = np.zeros((20, 12, channels), np.uint8)
    source[:, :6, channels - 1] = 200
    env = ReadImages(Camera(box(source.shape), source), size=6)
    assert (
        env.obs_space['view'].shape == (6, 6, channels)
        and 'resized to 6x6' in dict(env.notes())['picture view']
    )
    image = env.step(RESET)['view']
    assert (
        (image[:, :2, channels - 1] == 200).all()
        and (image[:, 4:] == 0).all()
        and not image[..., : channels - 1].any()
    )
    np.testing.assert_array_equal(image, resize(source, 6))


def test_only_colours_and_grey_are_shown_as_such():
    assert displayable(np.zeros((5, 4, 6, 3), np.uint8)).shape == (5, 4, 6, 3)
    assert displayable(np.zeros((4, 6, 2), np.uint8)).shape == (4, 12, 1)
    stack = np.arange(4 * 6 * 9, dtype=np.uint8).reshape(4, 6, 9)
    assert (displayable(stack) == stack[..., 6:]).all()
