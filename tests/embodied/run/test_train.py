"""The loop that collects and learns: how many updates it makes when, what it leaves behind, and
how it ends.
"""

import os
import shutil
import signal

import numpy as np
import pytest

from embodied import errors
from embodied.run import train
from embodied.run.setup import Counters


def test_the_agent_sees_and_learns_from_every_row_in_order(world):
    run = world().run(train)
    assert run.agent.updates > 10, (
        'the agent asserts in every call that the counter of the env goes on by one'
    )
    assert set(run.agent.modes) == {'train'}


def test_overlap_changes_neither_acts_nor_updates(world, equal):
    one, other = (
        world('on', driver_overlap=True).run(train),
        world('off', driver_overlap=False).run(train),
    )
    assert equal(one.agent.save(), other.agent.save()) and one.lines(
        'metrics.jsonl'
    ) == other.lines('metrics.jsonl')


def test_resets_are_neither_decisions_nor_frames():
    counters = Counters(repeat=2)
    for is_first, is_last in [(True, False), (False, False), (False, True), (True, False)]:
        counters.row({'is_first': is_first, 'is_last': is_last}, 0)
    assert counters() == {'step': 2, 'frames': 4, 'updates': 0, 'episodes': 1}


def test_a_run_ends_with_the_driver_step_that_completes_its_decisions(world):
    _, meta = world(run_steps=100, run_envs=3).run(train).saved()
    assert 100 <= meta['step'] < 103


@pytest.mark.parametrize('ratio', [0.0, 4.0, 24.0])
def test_updates_per_decision_are_the_train_ratio_over_the_rows_of_one_update(world, ratio):
    began = []
    run = world(
        run_steps=200,
        run_train_ratio=ratio,
        train=lambda agent: began or began.append(len(agent.modes)),
    ).run(train)
    meta = run.saved()[1]
    # from the driver step on that completes the prefill, whose first rows are resets
    decisions = meta['step'] - (48 - 3 - 3)
    assert (
        meta['updates']
        == run.agent.updates
        == pytest.approx(decisions * ratio / 16, abs=3 * ratio / 16 + 1)
    )


def test_nothing_is_learned_before_the_prefill_is_complete(world):
    acts = []
    world(run_prefill=60, train=lambda agent: acts.append(len(agent.modes))).run(train)
    assert min(acts) >= 60 / 3, 'three rows per act'


def test_pretraining_comes_at_once_after_the_prefill(world):
    acts = []
    world(
        run_pretrain=15, run_train_ratio=1.0, train=lambda agent: acts.append(len(agent.modes))
    ).run(train)
    assert acts[:15] == [acts[0]] * 15 and len(set(acts[15:])) == len(acts[15:]) > 0


def test_every_line_holds_the_counters_and_the_means_since_the_last(world):
    lines = world(run_log_every=25).run(train).lines('metrics.jsonl')
    assert all({'step', 'frames', 'updates', 'episodes'} <= line.keys() for line in lines)
    assert {line['step'] // 25 for line in lines} == set(range(120 // 25 + 1))
    assert {'loss', 'count', 'episode/score', 'replay/rows', 'env/restarts'} <= lines[-2].keys()


def test_what_was_measured_after_the_last_line_is_written_at_the_end(world):
    lines = world(run_log_every=1000).run(train).lines('metrics.jsonl')
    assert lines[-1]['step'] >= 120 and 'loss' in lines[-1]


def test_the_first_lines_come_soon_however_rare_they_are_to_be(world):
    """At 1, 10, 100 decisions and updates, once in a run that is interrupted too."""
    run = world('pieces', run_log_every=1000, run_steps=72).run(train)
    steps = [(line['step'], line['updates']) for line in run.lines('metrics.jsonl')[:-1]]
    assert [step < 10 for step, _ in steps[:2]] == [True, False] and steps[1][0] < 20
    assert [updates for _, updates in steps[2:]] == [1, 10]
    run = world('pieces', run_log_every=1000, run_steps=95).run(train)
    again = [(line['step'], line['updates']) for line in run.lines('metrics.jsonl')[:-1]]
    assert again == steps
    assert not world('off', run_log_every=0, run_steps=90).run(train).lines('metrics.jsonl')[:-1]


def test_scores_are_keyed_by_frames_and_complete(world):
    scores = world().run(train).lines('scores.jsonl')
    total = sum(n % 3 for n in range(1, 8))
    assert all(
        line['score'] == total and line['length'] == 7 and line['frames'] == line['step']
        for line in scores
    )
    assert len(scores) == 120 // 7 // 3 * 3


def test_reports_leave_the_training_batches_as_they_are(world, equal):
    some, none = (
        world('some', run_report_every=30).run(train),
        world('none', run_report_every=0).run(train),
    )
    assert some.agent.reports >= 2 and none.agent.reports == 0
    assert equal(some.agent.save(), none.agent.save())
    assert list(some.logdir.glob('videos/*.gif')) and any(
        'report/error' in line for line in some.lines('metrics.jsonl')
    )


def test_rows_that_a_lost_run_left_are_kept_and_count_as_prefill(world):
    first = world(run_steps=90, run_train_ratio=0.0).run(train)
    shutil.rmtree(first.logdir / 'ckpt')
    acts = []
    again = world(run_steps=30, train=lambda agent: acts.append(len(agent.modes))).run(train)
    assert acts[0] <= 3 and again.rows() > 90 + 30
    steps = [line['step'] for line in again.lines('scores.jsonl')]
    assert steps == sorted(steps) and max(steps) <= 32, 'lines of the lost run stand elsewhere'
    assert again.lines('scores.lost.jsonl')


def test_a_warm_start_takes_the_agent_alone(world, equal):
    source = world('source').run(train)
    before = source.saved()[0]['agent']
    warm = world('warm', from_checkpoint=source.logdir, run_steps=3).run(train)
    tree, meta = warm.saved()
    assert (
        np.array_equal(tree['agent']['weights'], before['weights'])
        and tree['agent']['updates'] == before['updates']
    )
    assert meta['step'] == 3 and meta['updates'] == 0


def test_a_resumed_run_does_not_start_warm_again(world):
    source = world('source').run(train)
    warm = world('warm', from_checkpoint=source.logdir, run_steps=90).run(train)
    count = warm.agent.updates
    assert (
        world('warm', from_checkpoint=source.logdir, run_steps=90).run(train).agent.updates == count
    )


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_its_step_and_saves(world, number):
    handler = signal.getsignal(number)
    stop = lambda agent: signal.raise_signal(number) if agent.updates == 5 else None
    run = world(run_steps=10**6, train=stop).run(train)
    assert run.saved()[1]['updates'] == run.agent.updates >= 5
    assert signal.getsignal(number) is handler


def test_an_env_that_fails_for_good_ends_the_run_after_a_checkpoint(world):
    def fail(agent):
        if agent.updates == 5:
            raise errors.EnvCrashed('env 1 is gone')

    run = world(train=fail)
    with pytest.raises(errors.EnvCrashed, match='env 1 is gone'):
        run.run(train)
    assert run.saved()[1]['updates'] == 4, 'the fifth was not counted yet'


def test_an_agent_that_fails_leaves_the_last_good_checkpoint(world):
    def fail(agent):
        if agent.updates == 5:
            raise FloatingPointError('loss is nan')

    run = world(train=fail)
    with pytest.raises(FloatingPointError):
        run.run(train)
    assert run.saved() is None


def test_a_disk_that_fails_does_not_end_a_run_but_its_last_save_does(world, monkeypatch):
    from embodied.checkpoint import Checkpoint

    calls = []

    def refuse(self, trees, meta):
        calls.append(meta['step'])
        raise errors.CheckpointError('no space left on device')

    monkeypatch.setattr(Checkpoint, 'save', refuse)
    with pytest.raises(errors.CheckpointError, match='no space left'):
        world(run_save_every=1e-6).run(train)
    assert len(calls) > 10 and calls[-1] >= 120


def events(run):
    return (run.logdir / 'events.log').read_text()


def noting(world, notes, **config):
    """A world whose updates note how many rows the replay holds."""
    run = world(**config)
    working = run.make_replay

    def make_replay(*given):
        run.replay = working(*given)
        return run.replay

    run.make_replay = make_replay
    run._hooks['train'] = lambda agent: notes.append(len(run.replay))
    return run


def test_a_run_whose_rows_were_deleted_collects_the_prefill_anew_and_goes_on(world):
    first = world(run_steps=60).run(train)
    made = first.saved()[1]['updates']
    shutil.rmtree(first.logdir / 'replay')
    notes = []
    run = noting(world, notes).run(train)
    meta = run.saved()[1]
    assert meta['step'] == 120 and meta['updates'] == made + len(notes) > made
    assert min(notes) >= 48, 'nothing is learned from a handful of rows'
    assert 'are not there any more' in events(
        run
    ) and '0 are left: the prefill is collected anew' in events(run)
    assert 'rows again, learning goes on' in events(run)


def test_a_run_that_lost_some_rows_and_has_enough_goes_on_at_once(world):
    first = world(run_steps=90, run_prefill=32).run(train)
    sorted((first.logdir / 'replay').glob('*.npz'))[0].unlink()
    notes = []
    run = noting(world, notes, run_prefill=32).run(train)
    assert notes[0] < 100 and 'anew' not in events(run) and 'are not there any more' in events(run)


def test_a_run_that_ends_while_it_collects_anew_goes_on_collecting(world):
    first = world(run_steps=60).run(train)
    shutil.rmtree(first.logdir / 'replay')
    made = first.saved()[1]['updates']
    assert world(run_steps=75).run(train).saved()[1]['updates'] == made
    notes = []
    run = noting(world, notes).run(train)
    assert run.saved()[1]['updates'] > made and min(notes) >= 48


class Killed(Exception):
    """Nothing handles it, so nothing is saved."""


def test_a_draw_that_finds_no_rows_any_more_ends_no_run(world):
    """In the middle of several updates at one number of decisions, as where the last chunk turns
    out to be damaged.
    """
    notes = []
    run = noting(world, notes, run_steps=200, run_train_ratio=64.0)
    note = run._hooks['train']

    def lose(agent):
        note(agent)
        if agent.updates == 10:
            run.replay._shelf.clear()

    run._hooks['train'] = lose
    meta = run.run(train).saved()[1]
    assert meta['step'] >= 200 and meta['updates'] == len(notes) > 20 and min(notes) >= 48
    assert 'the prefill is collected anew' in events(run) and 'learning goes on' in events(run)


def test_a_small_budget_that_turned_over_before_a_kill_loses_no_run(world):
    small = {'replay_disk_gb': 25e-6, 'replay_chunk_rows': 8, 'run_prefill': 32}
    first = world(run_steps=90, **small).run(train)
    names = {name for stream in first.saved()[0]['replay']['streams'] for name in stream['chunks']}

    def kill(agent):
        if not names & {path.name for path in (first.logdir / 'replay').glob('*.npz')}:
            raise Killed

    with pytest.raises(Killed):
        world(run_steps=1000, train=kill, **small).run(train)
    notes = []
    run = noting(world, notes, run_steps=200, **small).run(train)
    assert run.saved()[1]['step'] >= 200 and 'take their place' in events(run)
    assert min(notes) >= 32 and not (run.logdir / 'replay' / 'unlisted').exists()


def test_rows_that_are_deleted_under_a_run_are_collected_anew(world):
    def delete(agent):
        if agent.updates == 10:
            for path in (run.logdir / 'replay').glob('*.npz'):
                path.unlink()

    # Of each chunk only the file has the rows soon after it is full.
    run = world(
        run_steps=300,
        replay_chunk_rows=8,
        replay_max_gb=8e-6,
        replay_uniform=1.0,
        replay_recent=0.0,
        replay_newest=0.0,
        train=delete,
    )
    run.run(train)
    assert run.saved()[1]['step'] == 300 and 'cannot be read' in events(run)
    assert run.saved()[1]['updates'] > 20


def test_a_prefill_that_the_replay_cannot_hold_is_refused(world):
    with pytest.raises(
        errors.ConfigError,
        match='run.prefill is 1,000,000 rows, but the budgets .* learning would never begin',
    ):
        world(run_prefill=10**6, replay_disk_gb=0.01, replay_max_gb=0.01).run(train)


def test_a_second_run_in_the_same_logdir_is_refused_while_the_first_one_runs(world):
    def second(agent):
        with pytest.raises(errors.FolderInUse, match=f'process {os.getpid()}'):
            world().run(train)
        refused.append(True)

    refused = []
    world(run_steps=60, train=second).run(train)
    assert refused
    world(run_steps=70).run(train)  # the lock ends with the run


def test_updates_of_the_pretraining_are_logged_while_no_decision_is_made(world):
    lines = (
        world(run_pretrain=60, run_log_every=20, run_train_ratio=1.0)
        .run(train)
        .lines('metrics.jsonl')
    )
    pretraining = [line for line in lines if 0 < line['updates'] <= 60]
    assert len(pretraining) >= 3 and len({line['step'] for line in pretraining[:3]}) < 3
    assert len({line['updates'] for line in pretraining}) == len(pretraining)


def longer(run, rows):
    """The same, with an agent that learns from sequences of so many rows."""
    make = run.make_agent

    def make_agent(*spaces):
        make(*spaces).sequence_rows = rows
        return run.agent

    run.make_agent = make_agent
    return run


def test_learning_begins_when_a_sequence_can_be_drawn_and_the_run_goes_on_until_then(world):
    """48 rows are there after 16 acts, but they are 16 of each env."""
    acts = []
    run = longer(
        world(
            run_prefill=48, run_report_every=10, train=lambda agent: acts.append(len(agent.modes))
        ),
        24,
    ).run(train)
    assert 24 <= min(acts) <= 27 and run.agent.updates > 10
    told = (run.logdir / 'events.log').read_text()
    assert (
        told.count('Learning waits for longer streams') == 1
        and 'sequences of 24 rows of one env, and the longest of 3 has 1' in told
    )
    again = longer(world(run_steps=150), 24).run(train)
    assert again.agent.updates > run.agent.updates


def test_a_run_goes_on_after_a_restart_that_left_no_sequence(world):
    """Where all rows of the folder are loaded anew, the streams of the run before are not
    continued, and each is too short.
    """
    longer(world(run_steps=70, replay_resume='all'), 20).run(train)
    run = world(run_steps=160, replay_resume='all', run_report_every=10)
    for path in (run.logdir / 'replay').glob('*.npz'):
        path.unlink()
    before = run.saved()[1]['updates']
    assert before and longer(run, 30).run(train).agent.updates > before and run.agent.reports


def test_budgets_that_never_hold_a_sequence_are_refused_at_the_start(world):
    with pytest.raises(
        errors.ConfigError,
        match='sequences of 3,000 rows of one env, but the budgets .* of each of 3 envs',
    ):
        longer(world(replay_disk_gb=1e-3, replay_max_gb=1e-3), 3000).run(train)


def test_demonstrations_that_are_too_short_end_the_run_before_it_learns(world):
    from embodied.run import collect

    demos = world('demos', run_steps=15).run(collect).logdir / 'replay'
    run = longer(world(replay_demos=str(demos), replay_demo_share=0.5), 20)
    with pytest.raises(
        errors.ReplayEmptyError, match='the demonstrations hold no sequence of 20 rows'
    ):
        run.run(train)
    assert run.agent.updates == 0
