"""Trees of checkpoints are refused by place and kind unless they look like what their part
saves.
"""

import numpy as np
import pytest

from embodied.errors import CheckpointError
from embodied.tree_spec import ANYTHING, COUNT, FLAG, NUMBER, REAL, TEXT, Array, Each, Maybe, demand

SPEC = {
    'count': COUNT,
    'number': NUMBER,
    'real': REAL,
    'flag': FLAG,
    'text': TEXT,
    'any': ANYTHING,
    'maybe': Maybe(COUNT),
    'array': Array('f', None, 3),
    'map': Each({'inner': COUNT}),
    'list': Each(NUMBER, list),
}
GOOD = {
    'count': 3,
    'number': -0.5,
    'real': float('nan'),
    'flag': False,
    'text': '',
    'any': object(),
    'maybe': None,
    'array': np.zeros((7, 3), np.float32),
    'map': {'a': {'inner': 0}, 'b': {'inner': 2, 'more': 'is no matter'}},
    'list': [1, 2.5],
}


def test_what_looks_right_passes():
    demand(GOOD, SPEC, 'it')
    demand({**GOOD, 'maybe': 4, 'map': {}, 'list': [], 'surplus': 1}, SPEC, 'it')


@pytest.mark.parametrize(
    'key, value, words',
    [
        ('count', -1, 'it.count: must be a count, is -1'),
        ('count', True, 'a count'),
        ('count', 2.0, 'a count'),
        ('count', None, 'a count'),
        ('count', 2**70, 'a count'),
        ('count', np.int64(3), 'a count'),
        ('number', float('inf'), 'a finite number'),
        ('number', '1', 'number'),
        ('number', True, 'number'),
        ('number', 10**400, 'number'),
        ('real', 'nan', 'a number'),
        ('real', 10**400, 'a number'),
        ('flag', 0, 'true or false'),
        ('text', 5, 'a text'),
        ('maybe', 'x', 'a count'),
        ('array', np.zeros((7, 2), np.float32), r'\[7, 2\]'),
        ('array', np.zeros((7, 3), int), 'int64'),
        ('array', [0.0], 'an array'),
        ('map', [], 'it.map: must be a mapping'),
        ('map', {'a': {}}, 'it.map.a: inner is missing'),
        ('map', {'a': {'inner': 'x'}}, 'it.map.a.inner'),
        ('list', {}, 'must be a list'),
        ('list', [1, None], 'it.list.1'),
    ],
)
def test_what_does_not_is_named_by_place(key, value, words):
    with pytest.raises(CheckpointError, match=words):
        demand({**GOOD, key: value}, SPEC, 'it')


def test_a_missing_key_is_named_and_so_is_a_tree_that_is_none():
    with pytest.raises(CheckpointError, match='it: flag is missing'):
        demand({key: value for key, value in GOOD.items() if key != 'flag'}, SPEC, 'it')
    with pytest.raises(CheckpointError, match='it: must be a mapping, is 5'):
        demand(5, SPEC, 'it')
