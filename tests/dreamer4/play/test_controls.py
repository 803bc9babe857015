"""Actions between page and env, and messages: all kinds of spaces, and what is refused."""

import json

import numpy as np
import pytest
from gymnasium import spaces

from dreamer4.play import controls, messages
from dreamer4.play.messages import MessageError

SPACES = {
    'turn': spaces.Discrete(3),
    'arm': spaces.Box(-2, 2, (2, 2), np.float32),
    'flags': spaces.MultiBinary(3),
    'rows': spaces.MultiDiscrete([2, 4]),
}


def test_every_kind_of_space_is_described_in_json():
    told = json.loads(json.dumps(controls.describe(SPACES)))
    assert [(c['kind'], c['size']) for c in told] == [
        ('discrete', 1),
        ('box', 4),
        ('multibinary', 3),
        ('multidiscrete', 2),
    ]
    assert told[0]['counts'] == [3] and told[3]['counts'] == [2, 4] and told[1]['low'] == [-2] * 4


def test_the_resting_action_lies_in_every_space():
    resting = controls.resting(SPACES)
    assert all(resting[key] in space for key, space in SPACES.items())
    assert resting['turn'] == 1 and not resting['arm'].any()


def test_an_action_is_read_in_the_shape_and_dtype_of_its_space():
    said = {'turn': 2, 'arm': [0, 1, -9, 9], 'flags': [1, 0, 1], 'rows': [1, 3]}
    action = controls.read(said, SPACES)
    assert all(action[key] in space for key, space in SPACES.items())
    assert action['arm'].tolist() == [[0, 1], [-2, 2]], 'beyond a range is its bound'


@pytest.mark.parametrize(
    'change',
    [
        {'turn': 3},
        {'turn': 0.5},
        {'turn': True},
        {'turn': [1, 1]},
        {'arm': [0, 1]},
        {'arm': [0, 1, 2, float('nan')]},
        {'flags': [0, 2, 0]},
        {'rows': [1, -1]},
        {'rows': None},
        {'other': 1},
    ],
    ids=str,
)
def test_an_action_that_is_none_is_refused_by_name(change):
    said = {'turn': 2, 'arm': [0, 1, 0, 0], 'flags': [1, 0, 1], 'rows': [1, 3]} | change
    with pytest.raises(ValueError, match=f"action: .*'{next(iter(change))}'"):
        controls.read(said, SPACES)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'x',
        '[]',
        '{}',
        '{"type": 3}',
        '{"type": "explode"}',
        '{"type": "goto"}',
        '{"type": "goto", "node": -1}',
        '{"type": "goto", "node": true}',
        '{"type": "goto", "node": 1, "more": 2}',
        '{"type": "speed", "value": NaN}',
        '{"type": "speed", "value": 1e9}',
        '{"type": "who", "who": ["you"]}',
        '{"type": "save", "what": "../x"}',
        '[' * 100_000,
        b'\xff\x00',
    ],
    ids=lambda text: str(text)[:30],
)
def test_a_malformed_message_is_refused_in_words(text):
    with pytest.raises(MessageError):
        messages.read(text)


def test_messages_are_read():
    assert messages.read('{"type": "goto", "node": 3}') == {'type': 'goto', 'node': 3}
    assert messages.read('{"type": "play"}') == {'type': 'play'}
