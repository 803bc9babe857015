"""One three-step episode, worked by hand, through env, driver, replay, batch and imagination: where
an off-by-one would show.

The env pays 10 a for action a and shows what it was given: image value = decisions made, so every
row can be told apart.
"""

import numpy as np
import torch
from gymnasium import spaces

from dreamer4.actions import Actions
from dreamer4.batch import make_batch
from dreamer4.returns import lambda_return
from embodied.base import FLAG, OUTCOME, Env, outcome
from embodied.drive import Driver, DriverConfig
from embodied.replay import Replay
from embodied.replay.config import unlimited

CHOSEN = [1, 2, 3, 9, 1, 2, 3, 9, 1, 2]  # by row; the 9s fall on last rows and are never executed
ACTIONS = Actions({'action': spaces.Discrete(10)}, 'bins', 5, 0.0)


class Payer(Env):
    """Three decisions, then a terminal row."""

    obs_space = {'image': spaces.Box(0, 255, (1, 1, 1), np.uint8), **OUTCOME}
    act_space = {'action': spaces.Discrete(10, dtype=np.int32), 'reset': FLAG}

    def __init__(self):
        self.made, self.done = 0, True

    def step(self, action):
        if action['reset'] or self.done:
            self.made, self.done = 0, False
            return {'image': np.zeros((1, 1, 1), np.uint8), **outcome(is_first=True)}
        self.made += 1
        self.done = self.made == 3
        seen = np.full((1, 1, 1), self.made, np.uint8)
        return {
            'image': seen,
            **outcome(10.0 * int(action['action']), is_last=self.done, is_terminal=self.done),
        }


def rows():
    """Ten rows as the driver hands them to the replay, and the replay's copy of them."""
    driver = Driver([Payer], DriverConfig(False, True, 600.0, 600.0, 0, 0, 9.0))
    replay = Replay(
        unlimited(1.0),
        None,
        0,
        driver.obs_space,
        driver.act_space,
    )
    handed, chosen = [], iter(CHOSEN)
    driver.on_row(lambda row, worker: handed.append(row))
    driver.on_row(replay.add)
    driver.reset(lambda num_envs: None)
    driver(lambda carry, obs: (carry, {'action': np.array([next(chosen)], np.int32)}), steps=10)
    stored = replay.sample(1, 10)
    driver.close()
    replay.close()
    return handed, stored


def test_rows_hold_what_the_env_returned_and_what_was_chosen_after_seeing_it():
    handed, stored = rows()
    table = {
        key: [np.asarray(row[key]).item() for row in handed]
        for key in ('image', 'reward', 'action', 'is_first', 'is_terminal')
    }
    assert table['image'] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert table['reward'] == [0, 10, 20, 30, 0, 10, 20, 30, 0, 10]
    assert table['action'] == [
        1,
        2,
        3,
        0,
        1,
        2,
        3,
        0,
        1,
        2,
    ], 'the action of a last row is zero: it is never executed'
    assert table['is_first'] == [True, False, False, False] * 2 + [True, False]
    assert table['is_terminal'] == [False, False, False, True] * 2 + [False, False]
    for key, values in table.items():
        assert stored[key].reshape(-1).tolist() == values, f'the replay changed {key}'


def test_model_frames_pair_every_reward_with_the_action_that_earned_it():
    _, stored = rows()
    batch = make_batch(stored, ['image'], ACTIONS, torch.device('cpu'))
    assert batch.obs['image'].flatten().tolist() == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert batch.reward.flatten().tolist() == [10, 20, 30, 0, 10, 20, 30, 0, 10]
    assert (batch.prev_action.flatten() * batch.prev_valid.flatten()).tolist() == [
        1,
        2,
        3,
        0,
        1,
        2,
        3,
        0,
        1,
    ]
    assert batch.prev_valid.flatten().tolist() == [
        True,
        True,
        True,
        False,
        True,
        True,
        True,
        False,
        True,
    ]
    assert (batch.action.flatten() * batch.action_valid.flatten()).tolist() == [
        2,
        3,
        0,
        1,
        2,
        3,
        0,
        1,
        2,
    ]


def test_returns_of_the_imagined_episode_belong_to_the_action_that_earns_them():
    """From the first frame of the episode: rewards arrive one frame after their action, the
    terminal frame ends the sum.
    """
    _, stored = rows()
    batch = make_batch(stored, ['image'], ACTIONS, torch.device('cpu'))
    episode = slice(3, 7)  # frames with images 0 1 2 3
    reward, cont = batch.reward[:, episode], 1 - batch.is_terminal[:, episode].float()
    value = torch.full((1, 4), 1000.0)  # must not enter behind the terminal frame
    returns = lambda_return(reward, cont, value, gamma=0.5, lam=1.0)
    assert returns.tolist() == [[10 + 0.5 * (20 + 0.5 * 30), 20 + 0.5 * 30, 30]]
