"""Metrics: means over what is finite, and scores of whole episodes, the same when interrupted."""

import json
import math

import numpy as np
import pytest

from embodied.errors import CheckpointError
from embodied.log.metrics import EpisodeStats, Window


def row(reward=0.0, first=False, last=False, **log):
    return {
        'reward': np.float32(reward),
        'is_first': np.bool_(first),
        'is_last': np.bool_(last),
        'image': np.zeros((2, 2, 3), np.uint8),
        **{f'log/{key}': value for key, value in log.items()},
    }


EPISODE = [row(first=True), row(1.0), row(0.5), row(-0.25, last=True)]


def test_a_window_is_the_mean_since_it_was_last_taken():
    window = Window()
    window.add({'loss': 1.0, 'rare': 5})
    window.add({'loss': np.float32(3.0)}, prefix='train')
    window.add({'loss': 2.0})
    assert window.take() == {'loss': 1.5, 'rare': 5.0, 'train/loss': 3.0}
    assert window.take() == {}


def test_the_largest_of_a_window_is_its_largest_and_no_mean():
    window = Window()
    for value in (-3.0, -1.0, math.nan, -2.0):
        window.add({'reward/largest': value})
        state, window = window.save(), Window()
        window.load(state)
    assert window.take() == {'reward/largest': -1.0, 'nonfinite/reward/largest': 1.0}
    window.add({'reward/largest': -5.0})
    assert window.take() == {'reward/largest': -5.0}


def test_what_is_not_finite_is_counted_and_not_averaged():
    window = Window()
    for value in (1.0, math.nan, 3.0, math.inf):
        window.add({'loss': value, 'never': -math.inf})
    assert window.take() == {'loss': 2.0, 'nonfinite/loss': 2.0, 'nonfinite/never': 4.0}


def test_an_interrupted_window_is_equal_bit_by_bit():
    values = np.random.default_rng(0).normal(size=20)
    whole, part = Window(), Window()
    for index, value in enumerate(values):
        whole.add({'x': value})
        if index == 7:
            state = json.loads(json.dumps(part.save()))
            part = Window()
            part.load(state)
        part.add({'x': value})
    assert whole.take() == part.take()


def test_score_is_the_sum_of_rewards_and_length_counts_decisions():
    episodes = []
    stats = EpisodeStats(lambda *episode: episodes.append(episode))
    for _ in range(2):
        for item in EPISODE:
            stats(item, 0)
    assert episodes == [(1.25, 3, {})] * 2


def test_envs_are_kept_apart():
    episodes = []
    stats = EpisodeStats(lambda score, length, logs: episodes.append((score, length)))
    for index, item in enumerate(EPISODE):
        stats(item, 0)
        stats(EPISODE[0] if index < 2 else EPISODE[index], 1)
    assert episodes == [(1.25, 3), (0.25, 2)] and stats.cut == 1


def test_log_keys_become_mean_maximum_and_sum():
    episodes = []
    stats = EpisodeStats(lambda score, length, logs: episodes.append(logs))
    for index, item in enumerate(EPISODE):
        stats(
            item
            | {'log/speed': np.float32(-index - 1), 'log/view': np.zeros((2, 2))}
            | ({'log/once': True} if index == 3 else {}),
            0,
        )
    assert episodes == [
        {
            'log/speed/avg': -2.5,
            'log/speed/max': -1.0,
            'log/speed/sum': -10.0,
            'log/once/avg': 1.0,
            'log/once/max': 1.0,
            'log/once/sum': 1.0,
        }
    ]


def test_a_cut_episode_has_no_score():
    episodes = []
    stats = EpisodeStats(lambda *episode: episodes.append(episode))
    for item in EPISODE[:3] + EPISODE:
        stats(item, 0)
    assert episodes == [(1.25, 3, {})] and stats.cut == 1


def test_rows_before_the_first_beginning_do_not_count():
    episodes = []
    stats = EpisodeStats(lambda *episode: episodes.append(episode))
    for item in EPISODE[1:]:
        stats(item, 0)
    assert not episodes


@pytest.mark.parametrize('cut', range(1, 4))
def test_an_interrupted_episode_has_the_same_score(cut):
    episodes = []
    stats = EpisodeStats(lambda *episode: episodes.append(episode))
    for item in EPISODE[:cut]:
        stats(item | {'log/x': 0.1}, 3)
    state = stats.save()
    text = json.dumps(state)
    stats(EPISODE[1], 3)
    assert json.dumps(state) == text  # a state is no view
    again = EpisodeStats(lambda *episode: episodes.append(episode))
    again.load(json.loads(text))
    for item in EPISODE[cut:]:
        again(item | {'log/x': 0.1}, 3)
    assert episodes[0][:2] == (1.25, 3) and episodes[0][2]['log/x/sum'] == pytest.approx(0.4)


@pytest.mark.parametrize('part', [Window(), EpisodeStats(print)])
@pytest.mark.parametrize(
    'state', [{}, {'open': 3, 'cut': 0}, {'sums': 1, 'counts': 2, 'broken': 3}, None]
)
def test_a_state_of_something_else_is_refused(part, state):
    with pytest.raises(CheckpointError):
        part.load(state)
