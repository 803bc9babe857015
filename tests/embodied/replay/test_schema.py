"""The schema of rows: what is checked, what errors name, and what meta.json keeps."""

import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from gymnasium import spaces

from embodied.base import FLAG, OUTCOME
from embodied.errors import ReplaySchemaError
from embodied.replay import meta as metas
from embodied.replay.schema import Schema

OBS = {
    **OUTCOME,
    'image': spaces.Box(0, 255, (8, 8, 3), np.uint8),
    'arm/joints': spaces.Box(-np.inf, np.inf, (3,)),
    'log/x': FLAG,
}
ACT = {
    'reset': FLAG,
    'move': spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32)),
    'turn': spaces.Discrete(4, start=1, dtype=np.int32),
    'keys': spaces.MultiDiscrete([2, 5], dtype=np.int32),
    'buttons': spaces.MultiBinary(6),
}
SCHEMA = Schema.from_spaces(OBS, ACT)


def row(**changes):
    values = {key: np.zeros(shape, dtype)[()] for key, dtype, shape in SCHEMA.specs}
    return {**values, **changes}


def test_rows_are_observations_without_log_and_actions_without_reset():
    assert [key for key, _, _ in SCHEMA.specs] == [
        'arm/joints',
        'buttons',
        'image',
        'is_first',
        'is_last',
        'is_terminal',
        'keys',
        'move',
        'reward',
        'turn',
    ]
    assert SCHEMA.nbytes == 3 * 4 + 6 + 192 + 3 + 2 * 4 + 2 * 4 + 4 + 4
    assert Schema.from_row({**row(), 'log/score': 3.0}) == SCHEMA


def test_a_fitting_row_passes_and_plain_numbers_fit_their_kind():
    assert len(SCHEMA.check(row(reward=0.5, turn=3, is_last=True, **{'log/any': 'text'}))) == len(
        SCHEMA.specs
    )


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'reward': np.float64(0)}, r"'reward': expected float32 \(\), got float64 \(\)"),
        (
            {'image': np.zeros((8, 8), np.uint8)},
            r"'image': expected uint8 \(8, 8, 3\), got uint8 \(8, 8\)",
        ),
        ({'reward': 1}, "'reward': expected float32 .*, got int 1"),
        ({'turn': 'left'}, "'turn': expected int32 .*, got str 'left'"),
        ({'stepid': np.zeros(20, np.uint8)}, "unknown key 'stepid'"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_key(changes, message):
    with pytest.raises(ReplaySchemaError, match=message):
        SCHEMA.check(row(**changes))


def test_a_missing_key_is_named():
    values = row()
    del values['move']
    with pytest.raises(ReplaySchemaError, match="lacks the key 'move'"):
        SCHEMA.check(values)
    with pytest.raises(ReplaySchemaError, match="lacks the key 'move'"):
        SCHEMA.check({**values, 'other': 1.0})


@pytest.mark.parametrize('spec', [('O', ()), ('<U3', ()), ('c16', ()), ('>f4', ())])
def test_dtypes_that_cannot_be_stored_are_refused(spec):
    with pytest.raises(ReplaySchemaError, match="'a' has dtype"):
        Schema({'a': spec}, 'test')


def test_meta_json_keeps_schema_spaces_and_facts(tmp_path):
    meta = {'task': 'pixel_catch', 'repeat': 1, 'seed': 3}
    (tmp_path / 'meta.json').write_bytes(metas.encode(SCHEMA, OBS, ACT, meta))
    schema, obs_space, act_space, found = metas.read(tmp_path)
    assert schema == SCHEMA and found == meta
    assert obs_space == OBS and act_space == ACT
    assert all(space.dtype == ACT[key].dtype for key, space in act_space.items())
    json.loads((tmp_path / 'meta.json').read_text(), parse_constant=pytest.fail)


def test_a_folder_without_meta_json_says_nothing(tmp_path):
    assert metas.read(tmp_path) is None


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'[]',
        b'{}',
        b'{"version": 2}',
        b'\xff\xfe',
        b'[' * 100_000,
        (
            b'{"version": 1, "keys": {"a": {"dtype": "object", "shape": []}}, "obs_space": null,'
            b' "act_space": null, "meta": {}}'
        ),
        (
            b'{"version": 1, "keys": {"../a": {"dtype": "uint8", "shape": []}}, "obs_space": null,'
            b' "act_space": null, "meta": {}}'
        ),
        (
            b'{"version": 1, "keys": {"a": {"dtype": "uint8", "shape": [1e9]}}, "obs_space": null,'
            b' "act_space": null, "meta": {}}'
        ),
        (
            b'{"version": 1, "keys": {"a": {"dtype": "uint8", "shape": [99999999, 99999999]}},'
            b' "obs_space": null, "act_space": null, "meta": {}}'
        ),
    ],
)
def test_a_damaged_meta_json_is_named(tmp_path, content):
    (tmp_path / 'meta.json').write_bytes(content)
    with pytest.raises(ReplaySchemaError, match='meta.json'):
        metas.read(tmp_path)


@hypothesis.settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=list(hypothesis.HealthCheck),
    derandomize=True,
)
@hypothesis.given(
    st.recursive(
        st.none()
        | st.integers(-5, 5)
        | st.text(max_size=3)
        | st.sampled_from(['uint8', 'Box', 'Discrete', 'MultiBinary']),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ['kind', 'dtype', 'shape', 'n', 'start', 'nvec', 'low', 'high', 'a']
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_in_place_of_spaces_gives_a_schema_error_and_nothing_else(tmp_path, tree):
    content = json.loads(metas.encode(SCHEMA, OBS, ACT, {}))
    content['obs_space'] = tree
    (tmp_path / 'meta.json').write_text(json.dumps(content))
    try:
        metas.read(tmp_path)
    except ReplaySchemaError:
        pass


def test_comparing_names_the_first_key_that_differs():
    specs = {key: (dtype, shape) for key, dtype, shape in SCHEMA.specs}
    SCHEMA.compare(Schema({**specs, 'z': (np.uint8, ())}, ''), 'there', extra=True)
    for changed, message in [
        (
            {**specs, 'image': (np.uint8, (16, 16, 3))},
            r"'image': expected uint8 \(8, 8, 3\), found uint8 \(16, 16, 3\)",
        ),
        ({key: spec for key, spec in specs.items() if key != 'turn'}, "'turn' is missing"),
        ({**specs, 'z': (np.uint8, ())}, "'z' is found there"),
    ]:
        with pytest.raises(ReplaySchemaError, match=f'there: key {message}'):
            SCHEMA.compare(Schema(changed, ''), 'there')
