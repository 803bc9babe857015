"""Envs of the user's own, as package.module:Class or a function: called with a seed, adapted,
refused in words.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied import checks, envs
from embodied.config import configs_dir, parse
from embodied.drive import Driver, DriverConfig
from embodied.errors import ConfigError, EnvContractError, EnvCrashed

ROOT = Path(__file__).parents[3]
CONFIG = parse([], configs_dir(ROOT)).env.to_dict()
MODULE = '''
import gymnasium
import numpy as np
from gymnasium import spaces
from embodied.base import FLAG, OUTCOME, Env, outcome

class Walk(Env):
    """Draws a number at every step."""
    act_space = {'action': spaces.Discrete(3), 'reset': FLAG}

    def __init__(self, seed=0, *, side=4):
        picture = spaces.Box(0, 255, (side, side, 3), np.uint8)
        self.obs_space = {'image': picture, 'seed': spaces.Box(0, 2 ** 62, (), np.int64), **OUTCOME}
        self.seed, self.rng, self.count, self.side = seed, np.random.default_rng(seed), 0, side

    def step(self, action):
        first = bool(action['reset']) or self.count == 3
        self.count = 0 if first else self.count + 1
        image = self.rng.integers(0, 256, (self.side, self.side, 3), np.uint8)
        result = outcome(0 if first else 1, is_first=first, is_last=self.count == 3)
        return {'image': image, 'seed': np.int64(self.seed), **result}

class Nested:
    Walk = Walk

class Gym(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-2, 2, (1,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def render(self):
        return np.full((20, 30, 3), 7, np.uint8)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.low + self.np_random.random(2, np.float32), {}

    def step(self, action):
        end = bool(self.np_random.random() < 0.1)
        return self.np_random.random(2, np.float32), float(action[0]), False, end, {}

class Drawn(Gym):
    metadata = {'render_modes': ['human', 'rgb_array']}
    def __init__(self, render_mode):
        assert render_mode in self.metadata['render_modes']
        self.render_mode = render_mode

class Wild(Gym):
    action_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

class Configured(Gym):
    def __init__(self, config): self.side = config['side']

def positional(number): return Walk(number)
def mode(render_mode): return Gym(render_mode)
def created(env_config): return Gym(**env_config)
def annotated(where: str): return Gym(where)
def kind(): return Walk
def without(): return Gym()
def needy(seed, width, height): return Walk(seed)
def vector(): return gymnasium.vector.SyncVectorEnv([Gym])
def text(): return 'no env'
def broken(): raise RuntimeError('the simulator is missing')
NUMBER = 3
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / 'tried').mkdir()
    (tmp_path / 'tried' / '__init__.py').touch()
    (tmp_path / 'tried' / 'worlds.py').write_text(MODULE)
    (tmp_path / 'gym_named.py').write_text(MODULE)
    (tmp_path / 'wrong.py').write_text('def make(:\n')
    (tmp_path / 'lacking.py').write_text('import nosuchpackage\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield 'tried.worlds'
    for name in ('tried', 'tried.worlds', 'gym_named'):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    'task',
    [
        'tried.worlds:Walk',
        'tried.worlds:positional',
        'tried.worlds:Nested.Walk',
        'tried.worlds:without',
        'tried.worlds:Drawn',
        'tried.worlds:mode',
        'gym_named:Gym',
    ],
)
def test_classes_and_functions_make_envs_that_keep_the_contract(module, task):
    assert envs.split(task) == ('own', task)
    envs.make_config(task, CONFIG)
    assert checks.check_env(lambda seed: envs.make(task, CONFIG, seed), 60) == []


@pytest.mark.parametrize('name', ['Walk', 'positional', 'Nested.Walk'])
def test_a_seed_is_given_to_what_takes_one(module, name):
    row = envs.make(f'{module}:{name}', CONFIG, 5 + 2**32).step(
        {'action': np.int32(0), 'reset': np.bool_(True)}
    )
    assert row['seed'] == 5


def test_settings_of_gymnasium_envs_hold_for_them_too(module):
    config = {**CONFIG, 'gym': {'image': True, 'size': 8, 'repeat': 2, 'vector': False}}
    env = envs.make(f'{module}:Gym', config, 0)
    assert env.repeat == 2 and env.obs_space['image'].shape == (8, 8, 3)
    assert (
        env.step({'action': np.zeros(1, np.float32), 'reset': np.bool_(True)})['image'] == 7
    ).all()
    env = envs.make(f'{module}:Walk', config, 0)
    assert env.repeat == 2 and env.obs_space['image'].shape == (8, 8, 3)


@pytest.mark.parametrize(
    'task, error, words',
    [
        ('tried.worlds:Wlak', ConfigError, "Unknown name 'Wlak'.*nearest: Walk"),
        ('tried.world:Walk', ConfigError, "no module 'tried.world'"),
        ('tird.worlds:Walk', ConfigError, "no module 'tird'; install the package"),
        ('wrong:make', ConfigError, r'SyntaxError.*wrong.py, line 1'),
        ('lacking:Env', ConfigError, "imports 'nosuchpackage', which is not installed"),
        ('tried.worlds:NUMBER', ConfigError, 'a class or a function'),
        ('tried.worlds:needy', ConfigError, 'it needs width, height; name a function'),
        ('tried.worlds:Configured', ConfigError, 'it needs config; name a function'),
        ('tried.worlds:created', ConfigError, 'it needs env_config; name a function'),
        ('tried.worlds:annotated', ConfigError, 'it needs where; name a function'),
        ('tried.worlds:kind', EnvContractError, 'makes the class Walk and no env of it'),
        ('tried.worlds:vector', EnvContractError, 'a vector of envs'),
        ('tried.worlds:text', EnvContractError, 'makes a builtins.str; expected'),
        ('tried/worlds.py:Walk', ConfigError, 'tried.worlds:Walk'),
        ('tried.worlds.Walk', ConfigError, 'package.module:Class'),
        ('tried.worlds:broken', RuntimeError, 'the simulator is missing'),
    ],
)
def test_what_cannot_be_made_is_said_in_words(module, task, error, words):
    with pytest.raises(error, match=words):
        envs.make(task, CONFIG, 0)


def start(task):
    config = DriverConfig(
        parallel=False,
        overlap=False,
        timeout=600,
        start_timeout=600,
        envs_per_worker=1,
        max_restarts=0,
        restart_window=3600,
    )
    Driver([envs.Maker(task, CONFIG, 0)], config).close()


@pytest.mark.parametrize('name', ['Configured', 'Wild', 'kind', 'text', 'Wlak'])
def test_an_env_that_is_refused_ends_a_run_in_one_line(module, name):
    with pytest.raises((ConfigError, EnvContractError)) as refused:
        start(f'{module}:{name}')
    text = str(refused.value)
    assert '\n' not in text and 'while starting: ' in text and 'Error' not in text, text


def test_an_env_that_raises_while_it_is_made_is_shown_from_its_own_code_on(module):
    with pytest.raises(EnvCrashed) as crashed:
        start(f'{module}:broken')
    text = str(crashed.value)
    assert 'RuntimeError: the simulator is missing\nTraceback' in text
    assert 'worlds.py' in text and 'envs/own.py' not in text


def test_the_present_folder_is_searched_by_whoever_starts_there(module, tmp_path):
    """A console script has a folder of its own first on its path, as -P leaves it."""
    code = (
        f'import sys; sys.path[:] = [p for p in sys.path if p] + [{str(ROOT)!r}]; '
        'from embodied.checks import main; sys.exit(main())'
    )
    done = subprocess.run(
        [sys.executable, '-P', '-c', code, '--task', 'tried.worlds:Walk', '--steps', '20'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': ''},
    )
    assert done.returncode == 0 and 'keeps the contract' in done.stdout, done.stderr
    assert 'observes image: image 4x4x3; seed: vector 1' in done.stdout
