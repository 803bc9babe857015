"""Frames that an agent saves by what it learned offline, on curves whose answer is known."""

import numpy as np
import pytest

from benchmarks import offline, onward
from benchmarks.onward import EPISODES


def part(scores, length=50):
    """A run of episodes of `length` frames."""
    frames = (length * np.arange(1, len(scores) + 1)).tolist()
    tail = float(np.mean(scores[-max(1, len(scores) // 10) :]))
    known = {'frames': frames, 'score': list(scores)}
    return {**known, 'all': known, 'final': tail, 'eval': {'mean': tail}}


def run(scratch, onward_):
    before = {'imagination': {'mean': 30.0}}
    found = {'task': 'pixel_reach', 'seed': 0, 'offline': before}
    return {**found, 'scratch': part(scratch), 'onward': part(onward_)}


SLOW = [5.75] * 400 + [45.75] * 600  # from scratch: random for 400 episodes
FAST = [25.75] * 100 + [45.75] * 400


def test_frames_count_until_so_many_whole_episodes_are_good():
    assert onward.reached([1, 2, 3], [9, 9, 9], 1) is None, 'three episodes say nothing'
    frames = list(range(1, 2 * EPISODES + 1))
    assert onward.reached(frames, [0.0] * EPISODES + [1.0] * EPISODES, 1.0) == 2 * EPISODES
    assert onward.reached(frames, [0.0] * EPISODES + [1.0] * EPISODES, 0.5) == 1.5 * EPISODES


def test_both_runs_are_held_to_the_score_of_the_one_from_scratch():
    rows = onward.compared(run(SLOW, FAST))
    assert [row['target'] for row in rows] == pytest.approx([41.75, 43.75, 45.75])
    assert [row['scratch'] for row in rows] == [50 * (400 + n) for n in (36, 38, 40)]
    assert [row['onward'] for row in rows] == [50 * (100 + n) for n in (32, 36, 40)]
    assert rows[-1]['ratio'] == pytest.approx(140 / 440)
    assert onward.compared(run(SLOW, [25.75] * 500))[0]['ratio'] is None


def test_the_table_and_the_picture_tell_both(tmp_path):
    told = onward.table([run(SLOW, FAST), run(SLOW, [25.75] * 500)])
    assert '| 0 | 100% | 45.8 | 22,000 | 7,000 | 0.32 |' in told and 'not reached' in told
    onward.draw([run(SLOW, FAST)], tmp_path / 'x.png')
    assert (tmp_path / 'x.png').stat().st_size > 5000


def test_the_picture_of_an_offline_run_shows_the_policy_over_its_updates(tmp_path):
    summary = lambda mean: {'mean': mean, 'ci95': 1.0, 'episodes': 9}
    made = {'task': 'pixel_reach', 'seed': 0, 'updates': {'policy': 100}, 'data': {'mean': 20.0}}
    made |= {'bc': summary(21.0), 'imagination': summary(40.0)}
    made['curve'] = [{'begin': 7, 'updates': 50, **summary(33.0)}]
    offline.draw([made], tmp_path / 'x.png')
    assert (tmp_path / 'x.png').stat().st_size > 5000
