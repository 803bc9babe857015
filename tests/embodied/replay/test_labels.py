"""Rows without labels: what a folder may lack, what stands in for it, and that samples say so."""

import numpy as np
import pytest
from test_replay import fill, make, row

from embodied.errors import ReplaySchemaError
from embodied.replay import Replay
from embodied.replay.labels import align
from embodied.replay.schema import Schema

OWN = {
    'image': (np.uint8, (4, 4, 3)),
    'arm': (np.float32, (2,)),
    'gear': (np.int32, ()),
    'reward': (np.float32, ()),
    'is_first': (bool, ()),
    'is_last': (bool, ()),
    'is_terminal': (bool, ()),
}


def schema(without=(), **more):
    return Schema(
        {key: spec for key, spec in {**OWN, **more}.items() if key not in without}, 'here'
    )


def aligned(theirs, own=None):
    return align(own or schema(), theirs, ('arm', 'gear'), 'there')


def test_rows_with_all_labels_need_nothing():
    assert (
        aligned(schema()).fill == {}
        and aligned(schema()).added == ()
        and aligned(schema()).words() == ''
    )


@pytest.mark.parametrize(
    'without, flags, words',
    [
        (['arm', 'gear'], {'unlabeled_action': True}, 'action'),
        (['gear'], {'unlabeled_action': True}, 'action'),
        (['reward'], {'unlabeled_reward': True}, 'reward'),
        (['is_terminal'], {'unlabeled_reward': True}, 'reward'),
        (
            ['arm', 'gear', 'reward', 'is_terminal'],
            {'unlabeled_action': True, 'unlabeled_reward': True},
            'action and no reward',
        ),
    ],
)
def test_columns_that_are_missing_are_filled_and_flagged(without, flags, words):
    labels = aligned(schema(without))
    assert (
        labels.fill == {**dict.fromkeys(without, False), **flags}
        and labels.added == tuple(sorted(flags))
        and labels.words() == words
    )


def test_flags_of_either_side_are_kept():
    flag = {'unlabeled': (bool, ())}
    assert aligned(schema(**flag)).added == ('unlabeled',) and aligned(schema(**flag)).fill == {}
    ours = aligned(schema(), schema(**flag))
    assert ours.fill == {'unlabeled': False} and ours.added == ()
    both = aligned(schema(['reward'], **flag), schema(**flag))
    assert both.fill == {'reward': False, 'unlabeled_reward': True} and both.added == (
        'unlabeled_reward',
    )
    stored = {'unlabeled_reward': (bool, ())}
    assert aligned(schema(['reward']), schema(**stored)).fill == {
        'reward': False,
        'unlabeled_reward': True,
    }


@pytest.mark.parametrize(
    'theirs, words',
    [
        (schema(['image']), "'image' is missing"),
        (schema(['is_first']), "'is_first' is missing"),
        (schema(['is_last']), "'is_last' is missing"),
        (schema(arm=(np.float32, (3,))), "'arm': expected float32 .2,., found float32 .3,."),
        (schema(unlabeled=(np.uint8, ())), "'unlabeled': expected bool"),
    ],
)
def test_what_is_no_label_must_be_there_and_fit(theirs, words):
    with pytest.raises(ReplaySchemaError, match=f'there: key {words}'):
        aligned(theirs)


def demonstrations(folder, without=(), **more):
    """A folder of rows of worker 9, some columns left out and some added."""
    with_spaces = not without and not more
    demos = make(folder, spaces=with_spaces)
    for count in range(40):
        demos.add(
            {key: value for key, value in row(count, worker=9).items() if key not in without}
            | more,
            0,
        )
    demos.close()
    return str(folder)


@pytest.mark.parametrize(
    'without, more, flags',
    [
        (('action',), {}, ['unlabeled_action']),
        (('reward', 'is_terminal'), {}, ['unlabeled_reward']),
        (('action', 'reward', 'is_terminal'), {}, ['unlabeled_action', 'unlabeled_reward']),
        ((), {'unlabeled': np.bool_(True)}, ['unlabeled']),
        ((), {'unlabeled_reward': np.bool_(True)}, ['unlabeled_reward']),
    ],
)
def test_samples_flag_the_rows_of_demonstrations_without_labels_and_no_others(
    tmp_path, without, more, flags
):
    events = []
    replay = make(
        tmp_path / 'own',
        demos=demonstrations(tmp_path / 'demos', without, **more),
        demo_share=0.5,
        events=events,
    )
    fill(replay, 50)
    for prefetch in (False, True):
        for _ in range(3):
            sample = replay.sample(8, 5, prepared=replay.prepare(8, 5) if prefetch else None)
            assert set(flags) == {key for key in sample if key.startswith('unlabeled')}
            theirs = np.array(
                [
                    np.array_equal(image, row(int(count), worker=9)['image'])
                    for image, count in zip(sample['image'][:, 0], sample['count'][:, 0])
                ]
            )
            assert theirs.sum() == 4
            for flag in flags:
                assert sample[flag].dtype == bool and (sample[flag] == theirs[:, None]).all()
            for key in without:
                assert not sample[key][theirs].any() and sample[key].dtype == row(0)[key].dtype
            assert np.array_equal(
                replay.rows(sample['row_id'].ravel(), ['image'])['image'],
                sample['image'].reshape(-1, 4, 4, 3),
            )
    assert any('hold no' in text for text in events) == bool(without)
    assert set(replay.sample(8, 5, without=['image', *flags])) == {*Replay.sample(replay, 8, 5)} - {
        'image',
        *flags,
    }


def test_rows_that_are_flagged_one_by_one_keep_their_flags(tmp_path):
    replay = make(tmp_path, spaces=False)
    for count in range(30):
        replay.add(row(count) | {'unlabeled_reward': np.bool_(count % 3 == 0)}, 0)
    sample = replay.sample(8, 5)
    assert np.array_equal(sample['unlabeled_reward'], sample['count'] % 3 == 0)


def test_keys_of_demonstrations_that_nobody_reads_are_named(tmp_path):
    events = []
    replay = make(
        demos=demonstrations(tmp_path, ('action',), torque=np.float32([0, 0])),
        demo_share=0.5,
        events=events,
    )
    assert any('torque' in text for text in events) and any(
        'hold no action' in text for text in events
    )
    fill(replay, 20)
    assert 'torque' not in replay.sample(2, 2)
