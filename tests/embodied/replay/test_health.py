"""inspect tells whether rows can be learned from: faults end with status 1, remarks do not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from gymnasium import spaces

from embodied.base import FLAG, OUTCOME
from embodied.replay import Replay
from embodied.replay.config import unlimited
from embodied.replay.infer import observation_space
from embodied.replay.tool import main

LENGTH = 12


def rows(**changes):
    """An episode whose columns a test replaces."""
    steps = np.arange(LENGTH)
    columns = {
        'image': np.repeat(steps, 48).reshape(LENGTH, 4, 4, 3).astype(np.uint8),
        'joints': np.stack([steps, 0 * steps + 7], 1).astype(np.float32),
        'action': np.linspace(-1, 1, LENGTH, dtype=np.float32)[:, None],
        'reward': steps.astype(np.float32),
        'is_first': steps == 0,
        'is_last': steps == LENGTH - 1,
        'is_terminal': steps < 0,
        **changes,
    }
    columns = {key: value for key, value in columns.items() if value is not None}
    return [{key: value[index] for key, value in columns.items()} for index in range(LENGTH)]


@pytest.fixture
def look(tmp_path, capsys):
    """Store rows, and look at them: status and report."""

    def run(*, act_space=None, chunk_rows=1024, **changes):
        made = rows(**changes)
        obs_space = None
        if act_space is not None:
            obs_space = {
                key: observation_space(value.dtype, value.shape)
                for key, value in made[0].items()
                if key != 'action' and key not in OUTCOME
            } | OUTCOME
        with pytest.MonkeyPatch.context() as patch:  # as others write, who look at nothing
            patch.setattr('embodied.replay.finite.Finite.check', lambda *args: None)
            config = replace(unlimited(0.1), chunk_rows=chunk_rows)
            replay = Replay(config, tmp_path / 'made', 0, obs_space, act_space)
            for row in made:
                replay.add(row)
            replay.close()
        status = main(['inspect', str(tmp_path / 'made'), '--json'])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_a_sound_folder_has_ranges_and_no_fault(look, tmp_path, capsys):
    status, report = look()
    assert status == 0 and not report['faults']
    joints, image = report['columns']['joints'], report['columns']['image']
    assert (joints['min'], joints['max'], joints['constant_entries']) == (0, 11, [1])
    assert (image['min'], image['max'], image['repeated']) == (0, 11, 0)
    assert report['remarks'] == ['joints never changes in 1 entries: 1.']
    assert main(['inspect', str(tmp_path / 'made')]) == 0
    out = capsys.readouterr().out
    assert 'columns' in out and 'note: joints never changes' in out and 'FAULT' not in out


def holes(length=LENGTH):
    values = np.ones((length, 2), np.float32) * np.arange(length)[:, None]
    values[[3, 7], 1] = np.nan, np.inf
    return values


@pytest.mark.parametrize(
    'changes, words',
    [
        ({'joints': holes()}, 'joints holds NaN or infinities in 2 rows'),
        ({'reward': holes()[:, 1]}, 'reward holds NaN or infinities in 2 rows'),
        ({'is_last': None}, 'rows have no is_last'),
        (
            {'image': None, 'joints': np.ones((LENGTH, 2), np.float32)},
            'no observation ever changes (joints)',
        ),
        ({'image': None, 'joints': None}, 'rows hold no observation'),
    ],
)
def test_what_training_could_not_bear_ends_with_status_1(look, tmp_path, capsys, changes, words):
    status, report = look(**changes)
    assert status == 1 and any(words in fault for fault in report['faults']), report['faults']
    assert main(['inspect', str(tmp_path / 'made')]) == 1
    assert f'FAULT: {words}' in capsys.readouterr().out


@pytest.mark.parametrize('high, status', [(1.0, 0), (0.5, 1)])
def test_actions_must_lie_in_their_space(look, high, status):
    box = spaces.Box(-1, np.float32(high), (1,), np.float32)
    found, report = look(act_space={'action': box, 'reset': FLAG})
    assert found == status
    assert bool(report['faults']) == bool(status)
    if status:
        assert 'the action action spans [-1, 0.5]' in report['faults'][0]


def test_what_is_marked_as_unknown_may_be_anything(look):
    unknown = np.isin(np.arange(LENGTH), [3, 7])
    status, report = look(reward=holes()[:, 1], unlabeled_reward=unknown)
    assert status == 0 and report['columns']['reward']['max'] == 11


def test_rewards_of_no_row_known_are_remarked(look):
    status, report = look(unlabeled_reward=np.ones(LENGTH, bool))
    assert status == 0 and 'no row tells its reward.' in report['remarks']


def test_frames_that_stand_twice_and_rewards_that_never_come_are_remarked(look):
    image = np.repeat(np.arange(LENGTH) // 2, 48).reshape(LENGTH, 4, 4, 3).astype(np.uint8)
    status, report = look(image=image, reward=np.zeros(LENGTH, np.float32), action=None)
    assert status == 0 and report['columns']['image']['repeated'] == pytest.approx(6 / 11)
    assert '55% of the frames of image equal the one before.' in report['remarks']
    assert 'reward is 0 in every row.' in report['remarks']
    assert any('nobody learns to act' in remark for remark in report['remarks'])


def test_images_of_large_folders_are_sampled_and_numbers_are_not(look, monkeypatch):
    monkeypatch.setattr('embodied.replay.health.CHUNKS', 2)
    status, report = look(chunk_rows=4)
    assert report['chunks'] == 3
    assert report['columns']['joints']['rows'] == 12 and report['columns']['image']['rows'] == 8
