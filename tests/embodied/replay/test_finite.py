"""No row with NaN or infinities is stored, unless what nobody knows stands there."""

import numpy as np
import pytest
from test_replay import ACT, CONFIG, OBS, fill, make, row

from embodied.errors import ReplayNonFinite
from embodied.replay import Replay, ReplayConfig


@pytest.mark.parametrize('key', ['reward', 'action'])
@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_refused_by_key_and_worker(key, bad):
    replay = make()
    fill(replay, 3)
    values = row(3)
    values[key] = np.full_like(values[key], bad)[()]
    with pytest.raises(ReplayNonFinite, match=f'worker 0.*{key}.*{bad}'):
        replay.add(values, 0)
    rows = len(replay)
    replay.add(row(3), 0)
    assert len(replay) == rows + 1, 'nothing of the refused row is left'


@pytest.mark.parametrize(
    'flag, key, stored',
    [
        ('unlabeled_reward', 'reward', True),
        ('unlabeled_action', 'action', True),
        ('unlabeled', 'reward', True),
        ('unlabeled_reward', 'action', False),
    ],
)
def test_what_is_unlabeled_may_be_anything(flag, key, stored):
    replay = Replay(ReplayConfig(**CONFIG), None, 0, {**OBS, flag: OBS['is_first']}, ACT)
    values = {**row(0), flag: np.bool_(True)}
    values[key] = np.full_like(values[key], np.nan)[()]
    if stored:
        replay.add(values, 0)
    else:
        with pytest.raises(ReplayNonFinite):
            replay.add(values, 0)
    assert len(replay) == stored
