"""Stages end by measurement and never before their least number of updates."""

from dreamer4.schedule import SLOWEST, Schedule, ScheduleConfig

SETTINGS = dict(
        tokenizer_updates=2, tokenizer_unexplained=0.1, dynamics_updates=2, reward_skill=0.5, latent_error=0.8, gate_every=1,
        gate_sequences=4, value_updates=1, patience=0, anneal=0)


def schedule(**changes):
    return Schedule(ScheduleConfig(**SETTINGS | changes))


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
