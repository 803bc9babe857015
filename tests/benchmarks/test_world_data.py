"""Fixed replays: rows as the env gives them, each with its physics state, split by episode."""

import numpy as np
import pytest

from benchmarks.simulator import Simulator
from benchmarks.world_data import Recorded, record, save
from embodied.errors import ConfigError

pytestmark = pytest.mark.dmc


@pytest.fixture(scope='module')
def cartpole():
    return record('dmc_cartpole_balance', 8 * 2 * 12, True, seed=0, length=12, size=16)


def test_the_state_of_a_row_is_what_its_observation_shows_and_leads_to_the_next_row(cartpole):
    rows, simulator = cartpole.rows, Simulator.of('dmc_cartpole_balance', 2)
    states = rows['state'][:, :-1].reshape(-1, rows['state'].shape[-1])
    shown = np.concatenate([rows['position'], rows['velocity']], -1)[:, :-1].reshape(
        len(states), -1
    )
    np.testing.assert_allclose(simulator.observe(states), shown, atol=1e-6)
    after, rewards = simulator.step(states, rows['action'][:, :-1].reshape(len(states), -1))
    np.testing.assert_array_equal(after, rows['state'][:, 1:].reshape(after.shape))
    np.testing.assert_allclose(rewards, rows['reward'][:, 1:].ravel(), rtol=1e-6)


def test_rows_are_whole_episodes_of_scripted_and_random_play(cartpole):
    rows = cartpole.rows
    assert rows['is_first'].shape == (8, 13) and rows['image'].shape == (8, 13, 16, 16, 3)
    assert rows['is_first'][:, 0].all() and not rows['is_first'][:, 1:].any()
    assert rows['is_last'][:, -1].all() and not rows['is_last'][:, :-1].any()
    assert not rows['action'][:, -1].any() and not rows['reward'][:, 0].any()
    changes = (np.diff(rows['action'][:, :-1, 0]) != 0).mean(1)
    assert changes[::2].mean() > 0.8 and changes[1::2].mean() < 0.5, (
        'a law reacts at every row, random actions are held'
    )


def test_episodes_that_are_held_out_are_never_drawn_and_are_of_both_kinds(cartpole):
    assert cartpole.held_out.tolist() == [6, 7] and cartpole.learned.tolist() == [0, 1, 2, 3, 4, 5]
    drawn = cartpole.sample(cartpole.learned, np.random.default_rng(0), 200, 5)
    assert set(drawn['episode'].ravel()) == set(cartpole.learned)
    assert (
        (np.diff(drawn['row'], axis=1) == 1).all()
        and drawn['row'].max() == 12
        and drawn['row'].min() == 0
    )
    np.testing.assert_array_equal(
        drawn['position'], cartpole.rows['position'][drawn['episode'], drawn['row']]
    )


def test_what_is_written_is_what_is_read_and_an_empty_folder_says_what_to_do(cartpole, tmp_path):
    save(cartpole, tmp_path / 'x')
    read = Recorded.load(tmp_path / 'x')
    assert read.about == cartpole.about and read.rows.keys() == cartpole.rows.keys()
    for key, column in cartpole.rows.items():
        np.testing.assert_array_equal(read.rows[key], column)
    with pytest.raises(ConfigError, match='benchmarks.world_data'):
        Recorded.load(tmp_path / 'absent')


def test_the_kind_of_observation_decides_what_an_agent_sees(cartpole):
    assert cartpole.keys('image') == ['image'] and cartpole.keys('proprio') == [
        'position',
        'velocity',
    ]
    seen, acts = cartpole.spaces('image')
    assert seen['image'].shape == (16, 16, 3) and acts['action'].shape == (1,)
    blind = Recorded({k: v for k, v in cartpole.rows.items() if k != 'image'}, cartpole.about)
    with pytest.raises(ConfigError, match='--image'):
        blind.keys('image')
