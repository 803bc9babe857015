"""Stages end by measurement and never before their least number of updates."""

import pytest

from dreamer4.schedule import SLOWEST, Schedule, ScheduleConfig
from embodied.errors import ConfigError

SETTINGS = dict(
    tokenizer_updates=2,
    tokenizer_unexplained=0.1,
    dynamics_updates=2,
    agent_updates=0,
    reward_skill=0.5,
    latent_error=0.8,
    action_effect=0.0,
    gate_every=1,
    gate_sequences=4,
    value_updates=1,
    policy_updates=0,
    plateau=0,
    patience=0,
    anneal=0,
)


def schedule(**changes):
    return Schedule(ScheduleConfig(**SETTINGS | changes), ('tokenizer', 'dynamics'))


def test_a_stage_waits_for_its_measure_and_says_so():
    s = schedule()
    for _ in range(5):
        s.advance()
    assert s.stage == 'tokenizer' and 'not measured' in s.waits_for()
    s.measure('unexplained', 0.3, 0.0)
    s.advance()
    assert s.waits_for() == 'tokenizer waits: unexplained 0.30, needs < 0.1'
    s.measure('unexplained', 0.05, 0.0)
    s.advance()
    assert s.stage == 'dynamics'
    s.measure('reward_skill', 0.9, 0.0)
    s.measure('latent_error', 0.9, 0.0)
    for _ in range(5):
        s.advance()
    assert s.waits_for() == 'dynamics waits: latent_error 0.90, needs < 0.8'
    s.measure('latent_error', 0.1, 0.0)
    s.advance()
    assert s.stage == 'value' and s.reached('dynamics') and not s.reached('policy')
    s.advance()
    assert s.stage == 'policy' and s.waits_for() == ''


def test_the_updates_before_the_policy_are_counted_down_to_it():
    s = schedule(tokenizer_updates=4, tokenizer_unexplained=0, reward_skill=0, latent_error=0)
    before = []
    while s.stage != 'policy':
        before.append(s.status().before)
        s.advance()
    assert before == [7, 6, 5, 4, 3, 2, 1] and s.status().before == 0
    waiting = schedule()
    for _ in range(9):
        waiting.advance()
    assert waiting.status().before == 1 + 2 + 1  # one at least, however long it waits
    waiting.take(('1a',), anew=False)
    assert waiting.status().before == 0


def test_a_model_whose_actions_do_not_matter_teaches_no_policy():
    s = schedule(tokenizer_unexplained=0.0, reward_skill=0.0, latent_error=0.0, action_effect=0.1)
    measured = lambda effect, vary: s.note({'action_effect': effect, 'actions_vary': vary})
    for _ in range(3):
        s.advance()
        measured(0.03, 1.0)
    s.advance()
    assert s.waits_for() == 'dynamics waits: action_effect 0.03, needs > 0.1'
    measured(5.0, 0.0)  # nothing to measure
    assert s.waits_for()
    measured(0.7, 1.0)
    assert not s.waits_for()


def test_counts_alone_decide_where_limits_are_zero():
    s = schedule(tokenizer_unexplained=0.0, reward_skill=0.0, latent_error=0.0)
    stages = []
    for _ in range(6):
        stages.append(s.stage)
        s.advance()
    assert stages == ['tokenizer', 'tokenizer', 'dynamics', 'dynamics', 'value', 'policy']


def test_patience_ends_a_stage_that_never_gets_ready():
    s = schedule(patience=3)
    for _ in range(5):
        assert s.stage == 'tokenizer'
        s.advance()
    assert s.stage == 'dynamics'


def test_state_goes_on_where_it_was():
    s = schedule()
    s.measure('unexplained', 0.05, 0.0)
    for _ in range(3):
        s.advance()
    other = schedule()
    other.load_state_dict(s.state_dict())
    assert other.state_dict() == s.state_dict() and other.stage == 'dynamics'


def test_the_pace_halves_after_so_many_updates_of_the_policy_and_not_before_it_learns():
    s = schedule(anneal=100)
    s.updates = 1000
    assert s.pace() == 1, 'the tokenizer learns at its full rate, however long it takes'
    s.stage, s.updates = 'policy', 0
    assert s.pace() == 1
    s.updates = 100
    assert s.pace() == 0.5
    s.updates = 200
    assert s.pace() == 0.2
    s.updates = 100_000
    assert s.pace() == SLOWEST
    assert schedule(anneal=0).pace() == 1


def passed(s, updates=3):
    """Stage after some updates, and all that was said."""
    return [words for _ in range(updates) for words in s.advance()], s.stage


def test_one_bad_measurement_holds_a_stage_back_for_two_good_ones_and_no_longer():
    s = schedule(latent_error=0.0, value_updates=99)
    s.stage = 'dynamics'
    s.measure('reward_skill', -284.0, 0.5)
    assert (
        passed(s) == ([], 'dynamics')
        and s.waits_for() == 'dynamics waits: reward_skill 0.00, needs > 0.5'
    )
    for _ in range(2):
        s.measure('reward_skill', 0.98, 0.5)
    assert passed(s, 1) == ([], 'value')


def test_an_error_a_thousand_times_that_of_copying_is_an_error_like_any_other():
    s = schedule(reward_skill=0.0, value_updates=99)
    s.stage = 'dynamics'
    s.measure('latent_error', 1e3, 0.5)
    for _ in range(2):
        s.measure('latent_error', 0.3, 0.5)
    assert passed(s) == ([], 'value')


def test_where_there_is_nothing_to_measure_a_stage_ends_by_its_count_and_says_so():
    s = schedule(value_updates=99)
    s.measure('unexplained', None, 0.98)
    words, stage = passed(s)
    assert stage == 'dynamics' and words == [
        'The tokenizer stage ends unmeasured: the frames never change, so there is nothing to'
        ' reconstruct.'
    ]
    s.measure('reward_skill', None, 0.5)
    s.measure('latent_error', 0.1, 0.5)
    words, stage = passed(s)
    assert stage == 'value' and len(words) == 1 and 'the rewards never change' in words[0]


def test_what_cannot_be_measured_now_does_not_erase_what_was_measured_before():
    s = schedule(latent_error=0.0, value_updates=99)
    s.stage = 'dynamics'
    s.measure('reward_skill', 0.1, 0.5)
    s.measure('reward_skill', None, 0.5)
    s.measure('reward_skill', float('nan'), 0.5)
    assert passed(s) == ([], 'dynamics') and s.measures['reward_skill'] == 0.1
    other = schedule(latent_error=0.0, value_updates=99)
    other.stage = 'dynamics'
    other.measure('reward_skill', None, 0.5)
    other.measure('reward_skill', 0.1, 0.5)
    assert passed(other) == (
        [],
        'dynamics',
    ), 'rewards that began to change are measured from then on'


def test_a_stage_that_ends_by_patience_says_what_was_missing():
    s = schedule(patience=3, latent_error=0.0, value_updates=99)
    s.stage = 'dynamics'
    s.measure('reward_skill', 0.2, 0.5)
    words, stage = passed(s, 5)
    assert (
        stage == 'value'
        and 'by schedule.patience, after 5 updates: reward_skill 0.20, needs > 0.5' in words[0]
    )


COUNTED = dict(tokenizer_unexplained=0.0, reward_skill=0.0, latent_error=0.0)
WHOLE = ('tokenizer', 'dynamics', 'agent')


def phased(long=False, **changes):
    config = ScheduleConfig(
        **SETTINGS | COUNTED | dict(agent_updates=2, policy_updates=2) | changes
    )
    return Schedule(config, WHOLE, long)


def run_out(s):
    """The stages of the updates until all is over."""
    stages = []
    while not s.over:
        stages.append(s.stage)
        s.advance()
    return stages


def test_phases_end_where_they_are_told_and_the_next_run_begins_behind_them():
    s = phased()
    s.take(('1a', '1b'), anew=True)
    assert run_out(s) == ['tokenizer'] * 2 + ['dynamics'] * 2
    other = phased()
    other.load_state_dict(s.state_dict())
    other.take(('2', '3'), anew=True)
    assert run_out(other) == ['agent'] * 2 + ['value'] + ['policy'] * 2
    again = phased()
    again.load_state_dict(other.state_dict())
    again.take(('2',), anew=True)
    assert run_out(again) == ['agent'] * 2, 'a phase may be made anew'


def test_a_run_that_is_resumed_goes_on_and_may_be_given_more_phases():
    s = phased()
    s.take(('1a',), anew=True)
    run_out(s)
    for phases, stages in ((('1a',), []), (('1a', '1b'), ['dynamics'] * 2), ((), None)):
        s.take(phases, anew=False)
        if stages is not None:
            assert run_out(s) == stages
    assert not s.over and s.stage == 'agent'


def test_phases_that_cannot_be_are_refused():
    for phases in (('1a', '2'), ('4',), ('1b', '1a', '1a')):
        with pytest.raises(ConfigError, match='in succession'):
            phased().take(phases, anew=True)
    with pytest.raises(ConfigError, match='has only come to tokenizer'):
        phased().take(('2',), anew=True)
    with pytest.raises(ConfigError, match='agent.schedule.agent_updates'):
        schedule().take(('1a', '1b', '2'), anew=True)


def test_a_stage_ends_when_its_held_out_measure_no_longer_falls():
    s = phased(plateau=2)
    for value, stage in ((1.0, 'tokenizer'), (0.5, 'tokenizer'), (0.7, 'tokenizer')):
        s.compare(value)
        s.advance()
        assert s.stage == stage
    assert '1/2 without a better one' in s.waits_for()
    s.compare(0.6)
    s.advance()
    assert s.stage == 'dynamics' and s.best is None, 'the next stage has a measure of its own'


def test_long_sequences_alone_end_the_stages_of_the_dynamics():
    s, long = phased(long=True), []
    while not s.over:
        long.append((s.stage, s.all_long))
        s.advance()
    count = lambda stage, flag: long.count((stage, flag))
    assert count('dynamics', False) == count('agent', False) == 2
    assert count('dynamics', True) == count('agent', True) == 1
    assert not any(flag for stage, flag in long if stage not in ('dynamics', 'agent'))
