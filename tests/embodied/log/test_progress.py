"""What a person sees of a run: speeds, an honest time left, returns, a line, words at the end."""

import json
import math

import pytest

from embodied.base import Status
from embodied.errors import CheckpointError
from embodied.log.progress import (
    RECENT,
    Pace,
    Returns,
    contents,
    duration,
    ending,
    left,
    live_line,
)

COUNTERS = {'step': 12_000, 'frames': 24_000, 'updates': 300, 'episodes': 40}


def paced(samples):
    """A pace after (second, updates, share, stage) samples; two frames an update."""
    pace = Pace()
    for now, updates, share, stage in samples:
        pace.add(now, {'updates': updates, 'frames': 2 * updates}, share, stage)
    return pace


def line(counters=COUNTERS, status=Status('policy'), metrics=None, pace=None, returns=None):
    """At half of a run."""
    pace = pace or paced([(0.0, 0, 0.0, 'policy'), (10.0, 100, 0.5, 'policy')])
    return live_line(counters, 0.5, status, metrics or {}, pace, returns or Returns())


def test_speeds_are_those_of_the_last_half_minute():
    done = lambda now: min(now, 50) + 10 * max(now - 50, 0)  # slow at first, then ten times as fast
    pace = paced((float(now), done(now), 0.0, '') for now in range(101))
    assert pace.speeds() == pytest.approx((10, 20))
    many = paced((tick * 1e-3, tick, 0.0, '') for tick in range(10_000))
    assert len(many._speeds) < 100 and many.speeds()[0] == pytest.approx(1000, rel=0.01)
    assert paced([(0.0, 0, 0.0, '')]).speeds() == (0, 0)


def test_time_left_follows_from_the_pace_of_the_present_stage():
    fast = [(now, 10 * now, now / 100, 'tokenizer') for now in range(21)]
    slow = [(20.0 + now, 200 + now, 0.2 + now / 1000, 'policy') for now in range(101)]
    assert paced(fast).left() == pytest.approx(80)
    assert paced(fast + slow).left() == pytest.approx(700)


def test_pauses_such_as_reports_belong_to_the_pace():
    samples = [(now + 60.0 * (now >= 100), now, now / 1000, 'policy') for now in range(0, 201)]
    assert paced(samples).left() == pytest.approx(800 * 260 / 200)


def test_time_left_is_unknown_at_the_beginning_and_while_nothing_moves():
    assert paced([(0.0, 0, 0.0, ''), (1.0, 10, 0.01, '')]).left() is None
    assert paced([(0.0, 0, 0.1, ''), (60.0, 10, 0.1, '')]).left() == math.inf
    assert paced([(0.0, 0, 0.9, ''), (1.0, 10, 1.0, '')]).left() == 0


@pytest.mark.parametrize(
    'settled, updates, words',
    [
        (True, 300, 'left 0:00:10'),
        (False, 300, 'left > 0:00:10'),
        (False, 0, 'left ?'),
        (True, 0, 'left 0:00:10'),
    ],
)
def test_time_left_is_a_bound_before_the_last_stage_and_unknown_before_the_first_update(
    settled, updates, words
):
    text = line(COUNTERS | {'updates': updates}, status=Status('stage', settled=settled))
    assert words in text.split(' | ')


def test_a_run_without_an_end_is_not_told_a_bound_of_words():
    for settled in (False, True):
        assert left(Status('stage', settled=settled), 1e9) == 'more than 100 days'


def test_the_line_begins_with_what_matters_most():
    returns = Returns()
    for score in (0.0, 1.0):
        returns.add(score, 1)
    watched = ('loss/flow', 'loss/reward', 'policy/entropy')
    status = Status('dynamics', 'waits: reward_skill 0.2', False, watched)
    metrics = {'loss/reward': 1.23456, 'loss/flow': 0.02, 'loss/cont': 9.0}
    assert (
        line(status=status, metrics=metrics, returns=returns)
        == 'dynamics waits: reward_skill 0.2 | return 0.5 (mean of 2; last 1) | step 12,000'
        ' (50%) | '
        'left > 0:00:10 | loss/flow 0.02 loss/reward 1.23 | 10 updates/s, 20 frames/s | '
        '24,000 frames, 40 episodes, 300 updates'
    )


def test_a_run_without_envs_counts_updates():
    pace = paced([(0.0, 0, 0.0, ''), (10.0, 100, 0.5, '')])
    counters = {'step': 0, 'frames': 0, 'updates': 300, 'episodes': 0}
    assert line(counters, pace=pace) == 'policy | updates 300 (50%) | left 0:00:10 | 10 updates/s'


def test_returns_are_means_of_the_last_episodes_and_the_best_such_mean_is_kept():
    returns = Returns()
    assert returns.mean is None and str(returns) == ''
    for number in range(RECENT - 1):
        returns.add(1.0, number)
    assert returns.best is None and returns.mean == 1
    for number in range(RECENT, 100):
        returns.add(2.0 if number < 60 else 0.0, number)
    assert (returns.best, returns.best_frames, returns.mean, returns.last) == (2.0, 39, 0.0, 0.0)


def test_a_return_that_is_not_finite_has_no_part_in_means():
    returns = Returns()
    for score in (1.0, math.nan, 3.0, math.inf):
        returns.add(score, 0)
    assert returns.mean == 2 and 'last inf' in str(returns)


def test_interrupted_returns_go_on():
    whole, part = Returns(), Returns()
    for number in range(50):
        score = math.sin(number)
        whole.add(score, number)
        part.add(score, number)
        if number in (3, 30):
            state = json.loads(json.dumps(part.save()))
            part = Returns()
            part.load(state)
    assert part.save() == whole.save()
    for state in ({}, None, {'last': 1, 'best': 1, 'best_frames': 1, 'recent': 3}):
        with pytest.raises(CheckpointError):
            part.load(state)


@pytest.mark.parametrize(
    'complete, words',
    [
        (True, 'complete; the same command with a larger --run.steps goes on.'),
        (False, 'the same command goes on.'),
    ],
)
def test_the_end_says_how_far_how_well_where_and_what_next(complete, words, tmp_path):
    returns = Returns()
    for number in range(RECENT + 5):
        returns.add(float(number < RECENT), number)
    (tmp_path / 'scores.jsonl').touch()
    saved, result, files = ending(COUNTERS, 3723, complete, 'run.steps', returns, tmp_path)
    assert saved == f'Saved after 1:02:03: 12,000 steps, 300 updates, 40 episodes; {words}'
    assert result == 'Return 0.75 (mean of 20; last 0); best mean of 20 in a row 1, at 19 frames.'
    assert files == f'Files in {tmp_path}: scores.jsonl.'
    assert len(ending(COUNTERS, 0, complete, 'run.steps', Returns(), tmp_path)) == 2


def test_an_end_before_the_policy_learns_says_so_and_what_it_takes(tmp_path):
    status = Status('tokenizer', '330/800', before=1000)
    given = COUNTERS, 60, True, 'run.steps', Returns(), tmp_path, status
    assert ending(*given, 0.0625)[1] == (
        'Stage tokenizer: the policy has learned nothing yet; it begins after 1,000 more updates,'
        ' 16,000 steps, or later.'
    )
    assert 'steps' not in ending(*given)[1]  # offline no step is made


def test_contents_name_folders_and_join_the_files_of_tensorboard(tmp_path):
    for name in ('events.out.tfevents.1', 'events.out.tfevents.2', 'lock', '.x', 'config.yaml'):
        (tmp_path / name).touch()
    (tmp_path / 'ckpt').mkdir()
    assert contents(tmp_path) == ['ckpt/', 'config.yaml', 'TensorBoard events']


def test_durations_are_short():
    assert [duration(seconds) for seconds in (0, 59.9, 3723, 1e9, math.inf, math.nan)] == [
        '0:00:00',
        '0:00:59',
        '1:02:03',
        'more than 100 days',
        '?',
        'more than 100 days',
    ]
