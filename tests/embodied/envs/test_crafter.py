"""Crafter: the world is a function of its seed, wherever its objects lie in memory."""

import random

import numpy as np
import pytest

from embodied.envs.crafter import Crafter, CrafterConfig, make
from embodied.errors import ConfigError


class Creature:
    def __init__(self, x, y):
        self.pos = np.array([x, y])


class Game:
    """As much of crafter.Env as decides which creature vanishes."""

    class action_space:
        n = 17

    def __init__(self):
        self.balanced = []

    def _balance_chunk(self, chunk, creatures):
        self.balanced.append([tuple(int(x) for x in creature.pos) for creature in creatures])


def test_creatures_are_balanced_in_the_order_of_their_places(monkeypatch):
    monkeypatch.setattr('embodied.envs.crafter._achievements', lambda: [])
    places = [(5, 1), (2, 9), (2, 3), (11, 0), (0, 7)]
    for seed in range(5):
        game = Game()
        Crafter(game, 8)
        made = [Creature(*place) for place in random.Random(seed).sample(places, len(places))]
        game._balance_chunk((0, 12, 0, 12), set(made))
        assert game.balanced == [sorted(places)]


def test_equal_seeds_and_actions_give_equal_worlds():
    pytest.importorskip('crafter')
    rows, kept = [], []
    for life in range(3):
        # another place in memory for all that follows
        kept.append([object() for _ in range(life * 1234)])
        env, rng = make('reward', CrafterConfig(size=32), 3), np.random.default_rng(0)
        rows.append(
            [
                env.step({'action': np.int32(rng.integers(17)), 'reset': np.bool_(i == 0)})
                for i in range(600)
            ]
        )
    for row, *others in zip(*rows, strict=True):
        assert all(np.array_equal(row[key], other[key]) for other in others for key in row)


def test_a_size_that_the_game_cannot_draw_is_refused():
    with pytest.raises(ConfigError, match='env.crafter.size must be at least 18, got 16'):
        make('reward', CrafterConfig(size=16), 0)
