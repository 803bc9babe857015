"""The table of suites: what cannot be made is refused at once, in the words of make()."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from embodied import envs
from embodied.config import configs_dir, parse
from embodied.errors import ConfigError, EnvMissing

CONFIG = parse([], configs_dir(Path(__file__).parents[3])).env.to_dict()
MISTAKES = [
    ('pixel_cach', {}, 'nearest: pixel_catch'),
    ('pixel_catch', {'pixel': {'size': 12}}, 'multiple of 8, got 12'),
    ('dummy_boxes', {}, 'nearest: box'),
    ('dummy', {'dummy': {'length': 0}}, 'at least 1, got 0'),
    ('gym_CartPole-v9', {}, 'nearest: gym_CartPole-v1'),
    ('gym_CartPole-v1', {'gym': {'repeat': 0}}, 'at least 1'),
    ('crafter_rewards', {}, 'nearest: crafter_reward'),
    ('pixels_catch', {}, 'nearest: pixel'),
    ('CartPole-v1', {}, 'did you mean gym_CartPole-v1'),
    ('ALE/Pong-v5', {}, 'did you mean gym_ale_py:ALE/Pong-v5'),
    ('minigrid:MiniGrid-Empty-5x5-v0', {}, 'mean gym_minigrid:MiniGrid-Empty-5x5-v0'),
    ('walker-walk', {}, 'did you mean dmc_walker_walk'),
    ('pixel catch', {}, 'did you mean pixel_catch'),
    ('Pong', {}, 'did you mean atari_pong'),
    ('GYM_CartPole-v1', {}, r'did you mean gym_CartPole-v1\?'),
    ('coin:Coin()', {}, r'did you mean coin:Coin\?'),
    ('worlds.coin.Coin', {}, 'did you mean worlds.coin:Coin'),
    ('coin.py', {}, r'did you mean coin:<Class>\?'),
    ('worlds/my_coin.py', {}, r'did you mean worlds.my_coin:<Class>\?'),
    ('/home/me/coin.py', {}, r'did you mean coin:<Class>\?'),
    ('worlds/coin.py:Coin', {}, 'from the present folder: worlds.coin:Coin'),
    ('/home/me/coin.py:Coin', {}, 'from its folder /home/me, started there: coin:Coin'),
    ('dmc_cheetah_run', {'dmc': {'size': 0}}, 'at least 1'),
    ('dmc_cheetah_run', {'dmc': {'quality': 'quick'}}, 'quality'),
    ('dmc_cheetah_run', {'dmc': {'image': False, 'proprio': False}}, 'nothing to observe'),
    ('atari_pong', {'atari': {'noops': -1}}, 'noops'),
]


def changed(changes):
    return {suite: values | changes.get(suite, {}) for suite, values in CONFIG.items()}


@pytest.mark.parametrize('task, changes, words', MISTAKES)
def test_a_mistake_is_refused_without_making_the_env(task, changes, words):
    for refuse in (envs.check, lambda task, config: envs.make(task, config, 0)):
        with pytest.raises(ConfigError, match=words):
            refuse(task, changed(changes))


@pytest.mark.parametrize(
    'task, module, extra',
    [
        ('atari_pong', 'ale_py', 'atari'),
        ('crafter_reward', 'crafter', 'crafter'),
        ('dmc_cheetah_run', 'dm_control', 'dmc'),
    ],
)
def test_a_suite_that_is_not_installed_says_how_to_install_it(task, module, extra, monkeypatch):
    find = importlib.util.find_spec
    hide = lambda name: None if name == module else find(name)
    monkeypatch.setattr(importlib.util, 'find_spec', hide)
    for refuse in (envs.check, lambda task, config: envs.make(task, config, 0)):
        with pytest.raises(EnvMissing, match=rf'{module} is not installed.*\[{extra}\]'):
            refuse(task, CONFIG)


@pytest.mark.dmc
def test_a_known_task_is_checked_without_its_simulator():
    """A misspelt name of dm_control needs the suite, which may know more tasks than the list."""
    tasks = ('pixel_catch', 'dummy', 'gym_CartPole-v1', 'dmc_cup_catch')
    program = (
        f'import sys; from embodied import envs; config = {CONFIG!r}\n'
        f'for task in {tasks}: envs.check(task, config)\n'
        "print([name for name in ('torch', 'dm_control', 'mujoco') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == '[]'
