"""A run that was interrupted equals one that was not: agent, envs, draws of the replay, and
every line on disk.
"""

import signal

import numpy as np
import pytest

from embodied import errors
from embodied.checkpoint import Checkpoint
from embodied.run import collect, offline, train

LOGS = 'metrics.jsonl', 'scores.jsonl', 'eval/scores.jsonl'


def alike(one, other, equal):
    """Assert that two runs are bitwise where the other is."""
    (trees, meta), (others, other_meta) = one.saved(), other.saved()
    assert meta == other_meta
    for name in ('agent', 'driver', 'episodes', 'counters', 'ratio', 'metrics'):
        assert equal(trees.get(name), others.get(name)), name
    assert (
        trees['replay']['draws'] == others['replay']['draws']
        and trees['replay']['seen'] == others['replay']['seen']
    )
    for name in LOGS:
        assert one.lines(name) == other.lines(name), name


@pytest.mark.parametrize('task', ['dummy', 'dummy_box'])
def test_a_run_in_pieces_equals_one_in_one_piece(world, equal, task):
    whole = world('whole', task=task).run(train)
    # in the prefill, within an episode, one driver step, just before its end
    for steps in (20, 55, 56, 91, 120):
        parts = world('parts', task=task, run_steps=steps).run(train)
    alike(whole, parts, equal)


def test_a_run_that_signals_cut_equals_one_in_one_piece(world, equal):
    """The signals come while the agent learns, in pretraining and later."""
    whole = world('whole', run_pretrain=20).run(train)
    for update in (3, 11, 19, 28, 0):
        parts = world(
            'parts',
            run_pretrain=20,
            train=lambda agent: agent.updates == update and signal.raise_signal(signal.SIGTERM),
        ).run(train)
    alike(whole, parts, equal)


def test_a_run_with_evaluations_in_pieces_equals_one_in_one_piece(world, equal):
    whole = world('whole').run(train, evaluating=True)
    assert len(whole.lines('eval/scores.jsonl')) == 3
    for steps in (39, 45, 83, 120):
        parts = world('parts', run_steps=steps).run(train, evaluating=True)
    alike(whole, parts, equal)


def test_what_a_killed_run_wrote_after_its_checkpoint_is_made_again(world, equal, monkeypatch):
    """Killed: everything after the first checkpoint stays on disk, and no other is written."""
    whole = world('whole', run_save_every=0.0).run(train, evaluating=True)
    world('killed', run_steps=50).run(train, evaluating=True)

    class Killed(Exception):
        """Nothing handles it, so nothing is saved."""

    def kill(agent):
        if agent.updates > 20:
            raise Killed

    killed = world('killed', train=kill)
    with pytest.raises(Killed):
        killed.run(train, evaluating=True)
    assert (
        killed.saved()[1]['step'] <= 53 < max(line['step'] for line in killed.lines('scores.jsonl'))
    )
    alike(whole, world('killed').run(train, evaluating=True), equal)


def test_a_run_goes_on_with_more_steps(world):
    assert world(run_steps=60).run(train).saved()[1]['step'] == 60
    assert world(run_steps=90).run(train).saved()[1]['step'] == 90


def test_a_run_that_is_complete_makes_no_further_step(world, equal):
    one = world().run(train).saved()
    other = world().run(train).saved()
    assert one[1] == other[1] and equal(one[0]['agent'], other[0]['agent'])


def test_offline_in_pieces_equals_offline_in_one_piece(world, equal):
    rows = world('rows').run(train).logdir / 'replay'
    run = lambda name, updates: learn(
        world(name, replay_directory=str(rows), run_updates=updates, run_log_every=5)
    )
    whole = run('whole', 30)
    for updates in (7, 8, 22, 30):
        parts = run('parts', updates)
    (trees, meta), (others, other_meta) = whole.saved(), parts.saved()
    assert (
        meta == other_meta
        and equal(trees['agent'], others['agent'])
        and trees['draws'] == others['draws']
    )
    assert whole.lines('metrics.jsonl') == parts.lines('metrics.jsonl')


def test_collecting_in_pieces_equals_collecting_in_one_piece(world, equal):
    whole = world('whole', run_steps=90).run(collect)
    for steps in (31, 32, 90):
        parts = world('parts', run_steps=steps).run(collect)
    assert whole.saved()[1] == parts.saved()[1] and whole.lines('scores.jsonl') == parts.lines(
        'scores.jsonl'
    )
    assert whole.rows() == parts.rows()


def test_a_checkpoint_of_something_else_is_refused(world):
    run = world(run_steps=30).run(train)
    checkpoint = Checkpoint(run.logdir / 'ckpt', 2)
    trees, meta = checkpoint.load()
    trees['counters'] = {'decisions': 3}
    checkpoint.save(trees, meta)
    with pytest.raises(errors.CheckpointError, match='counters'):
        world(run_steps=60).run(train)


# and 'learner', which earlier ones lack
PARTS = (
    'agent',
    'clock-log',
    'clock-report',
    'counters',
    'driver',
    'episodes',
    'logger',
    'metrics',
    'ratio',
    'replay',
)


def changed(run, change):
    """The run's checkpoint with its trees changed, its sums valid."""
    store = Checkpoint(run.logdir / 'ckpt', 1)
    trees, meta = store.load()
    change(trees)
    store.save(trees, meta)


def test_these_are_all_parts_of_a_checkpoint(world):
    assert set(world(run_steps=20).run(train).saved()[0]) == {*PARTS, 'learner', 'clock-soon'}


@pytest.mark.parametrize('name', PARTS)
def test_a_checkpoint_without_one_of_its_parts_is_refused_by_name(world, name):
    run = world(run_steps=30).run(train)
    changed(run, lambda trees: trees.pop(name))
    with pytest.raises(errors.CheckpointError, match=f'holds no {name}, only'):
        world(run_steps=60).run(train)


def put(path, value):
    def change(trees):
        *way, last = path
        node = trees
        for key in way:
            node = node[key]
        node[last] = value

    return change


@pytest.mark.parametrize(
    'path, value',
    [
        (('counters', 'step'), -1),
        (('counters', 'step'), 2**70),
        (('counters', 'updates'), 'x'),
        (('counters', 'episodes'), None),
        (('ratio', 'count'), 'x'),
        (('ratio', 'owed'), float('nan')),
        (('clock-log', 'last'), []),
        (('clock-report', 'first'), 'yes'),
        (('metrics', 'sums', 'loss'), None),
        (('metrics', 'counts', 'loss'), 0),
        (('metrics',), 5),
        (('episodes', 'open'), [1]),
        (('episodes', 'open', '0'), {'score': 0.0, 'length': 1, 'log': {'log/x': [1.0]}}),
        (('episodes', 'open', 'x'), {}),
        (('episodes', 'cut'), -1),
        (('logger', 'bytes', 'metrics'), -1),
        (('logger', 'seconds'), 'long'),
        (('logger', 'counters'), {}),
        (('driver', 'restarts'), -1),
        (('driver', 'envs'), 'x'),
        (('driver', 'reset'), np.zeros(9, bool)),
        (('driver', 'action'), {}),
        (('driver', 'carry'), {}),
        (('driver', 'carry', 'count'), np.zeros(9, np.int64)),
        (('agent',), []),
        (('agent', 'weights'), 'x'),
        (('agent', 'rng'), {}),
    ],
)
def test_a_part_that_is_not_what_it_saves_is_refused_by_name_and_nothing_runs(world, path, value):
    run = world(run_steps=60).run(train)
    changed(run, put(path, value))
    with pytest.raises(errors.CheckpointError):
        world(run_steps=90).run(train)
    assert Checkpoint(run.logdir / 'ckpt', 1).load()[1]['step'] == 60, 'the run did not go on'


@pytest.mark.parametrize(
    'path, value',
    [
        (('streams',), {}),
        (('streams', 0, 'begin'), 2**40),
        (('streams', 0, 'fresh'), 2**70),
        (('streams', 0, 'chunks', 0), 7),
        (('streams', 0, 'chunks', 0), '../x.npz'),
        (('streams', 0, 'worker'), 1),
        (('draws',), 1e300),
        (('draws',), -1),
        (('seen',), None),
        (('version',), 9),
    ],
)
def test_a_manifest_of_another_form_is_refused_by_name(world, path, value):
    changed(world(run_steps=30).run(train), put(('replay', *path), value))
    with pytest.raises(errors.ReplayError, match='manifest|name of a chunk'):
        world(run_steps=60).run(train)


def test_a_checkpoint_from_before_the_learner_was_part_of_it_is_taken_up(world, equal):
    whole = world('whole').run(train)
    parts = world('parts', run_steps=60).run(train)
    changed(parts, lambda trees: trees.pop('learner'))
    alike(whole, world('parts').run(train), equal)


def test_evaluations_may_begin_in_a_run_that_had_none_and_end(world):
    world(run_steps=30).run(train)
    assert world(run_steps=60).run(train, evaluating=True).lines('eval/scores.jsonl')
    assert world(run_steps=90).run(train).saved()[1]['step'] == 90


def test_a_collected_logdir_is_not_trained_in(world):
    world(run_steps=30).run(collect)
    with pytest.raises(
        errors.CheckpointError, match='holds no ratio, only .*; it is of another script'
    ):
        world(run_steps=60).run(train)


def learn(run):
    offline(run.make_agent, run.make_replay, run.make_logger, run.setup)
    return run
