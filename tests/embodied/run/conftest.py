"""An agent that checks what it is given against the counting env, and the scripts around both,
in this process.
"""

import contextlib
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from embodied import envs
from embodied.base import Status
from embodied.base import sample as draw
from embodied.checkpoint import Checkpoint
from embodied.drive import DriverConfig
from embodied.log import Logger, LoggerConfig
from embodied.replay import Replay, ReplayConfig
from embodied.run import EvalConfig, RunConfig, Setup
from embodied.seeds import derive

ENV = {'dummy': {'length': 7, 'terminal': False, 'size': 4}}
RUN = {
    'steps': 120,
    'updates': 30,
    'envs': 3,
    'train_ratio': 8.0,
    'max_catchup': 64.0,
    'prefill': 48,
    'pretrain': 0,
    'log_every': 25,
    'report_every': 50,
    'save_every': 0.0,
    'actions': (),
    'keep': 2,
    'films': 0.0,
}
EVAL = {'every': 40, 'episodes': 5, 'envs': 2, 'mode': 'sample', 'videos': 2, 'length': 1000}
REPLAY = {
    'directory': (),
    'shares': (),
    'max_gb': 0.1,
    'disk_gb': 0.1,
    'chunk_rows': 16,
    'uniform': 0.5,
    'recent': 0.3,
    'newest': 0.2,
    'recent_rows': 30,
    'resume': 'manifest',
    'demos': '',
    'demo_share': 0.0,
    'video': '',
    'video_share': 0.0,
    'held_out': 0.0,
    'relevant': 0.0,
    'relevance': 'demos',
    'prefetch': True,
}
DRIVER = {
    'parallel': False,
    'overlap': True,
    'timeout': 600.0,
    'start_timeout': 600.0,
    'envs_per_worker': 0,
    'max_restarts': 0,
    'restart_window': 3600.0,
}
SEQUENCES, LENGTH = 2, 8
# what a pause may change
CLOCKS = {'seconds', 'replay/chunks', 'replay/chunks_waiting', 'replay/memory_gb', 'replay/disk_gb'}


class PlainFeed:
    """Rows as they are stored, all of one shape."""

    def __init__(self, replay, shape):
        self.replay, self.shape = replay, shape

    def take(self, count):
        prepared = None
        for left in reversed(range(count)):
            rows = self.replay.sample(*self.shape, prepared=prepared)
            prepared = self.replay.prepare(*self.shape) if left else None
            yield rows

    def fresh(self, draw):
        return self.replay.sample(*self.shape, draw)

    def describe(self):
        return ''


class CheckingAgent:
    """Asserts that the env's own counter never skips or repeats, in what it sees and in what it
    learns from.

    Its parameters are numbers that depend on every batch, and its actions depend on them and on its
    generator, so that two runs are equal only if every batch, act and draw was.
    """

    frames_per_update = SEQUENCES * LENGTH
    sequence_rows = LENGTH

    def __init__(
        self, obs_space, act_space, seed=0, act=lambda agent: None, train=lambda agent: None
    ):
        """Args: act and train are called with this agent at each of its policy() and train()
        calls.
        """
        self.act_space = {key: space for key, space in act_space.items() if key != 'reset'}
        assert not any(key in obs_space for key in self.act_space)
        self.rng = np.random.default_rng(seed)
        self.weights, self.updates, self.reports, self.modes = np.zeros(4), 0, 0, []
        self.on_act, self.on_train = act, train

    def init_policy(self, num_envs):
        return {'count': np.full(num_envs, -1), 'episode': np.full(num_envs, -1)}

    def policy(self, carry, obs, mode='train'):
        first, count, episode = obs['is_first'], obs['count'], obs['episode']
        assert not any(key.startswith('log/') for key in obs)
        np.testing.assert_array_equal(
            count, np.where(first, 0, carry['count'] + 1), 'the policy missed or repeated a row'
        )
        np.testing.assert_array_equal(
            episode,
            np.where(first, np.maximum(carry['episode'] + 1, episode), carry['episode']),
            'the carry is of another episode',
        )
        self.modes.append(mode)
        self.on_act(self)
        seed = np.random.default_rng(
            [int(self.rng.integers(2**31)), int(abs(self.weights).sum() * 1e6) % 2**31]
        )
        action = {key: draw(space, seed, len(first)) for key, space in self.act_space.items()}
        return {'count': count.copy(), 'episode': episode.copy()}, action

    def feed(self, replay):
        return PlainFeed(replay, (SEQUENCES, self.sequence_rows))

    def train(self, batch):
        count, first, last = batch['count'], batch['is_first'], batch['is_last']
        assert count.shape == (SEQUENCES, self.sequence_rows)
        np.testing.assert_array_equal(
            count[:, 1:],
            np.where(first[:, 1:], 0, count[:, :-1] + 1),
            'rows of a sequence do not follow',
        )
        assert (first[:, 1:] == last[:, :-1]).all(), 'an episode begins where one ends'
        assert not batch['box'][last].any(), 'the action of a last row is zeros'
        features = np.array(
            [count.mean(), batch['vector'].mean(), batch['box'].mean(), batch['reward'].mean()],
            np.float64,
        )
        self.weights = 0.9 * self.weights + 0.1 * features
        self.updates += 1
        self.on_train(self)
        return {'loss': float(self.weights.sum()), 'count': float(count.mean())}

    def report(self, batch):
        assert batch['count'].shape == (SEQUENCES, self.sequence_rows)
        self.reports += 1
        return {'error': float(self.weights.sum()), 'video': np.zeros((3, 4, 4, 3), np.uint8)}

    def save(self):
        return {
            'weights': self.weights.copy(),
            'updates': self.updates,
            'rng': self.rng.bit_generator.state,
        }

    def load(self, tree):
        self.weights, self.updates = tree['weights'].copy(), tree['updates']
        self.rng.bit_generator.state = tree['rng']

    def save_carry(self, carry):
        return carry

    def load_carry(self, tree):
        return {key: value.copy() for key, value in tree.items()}

    def status(self):
        return Status('checking', metrics=('loss',))

    def events(self):
        return []

    def take(self, phases, anew):
        self.phases = phases, anew


class World:
    """Constructors for the scripts, with one logdir.

    Attributes:
      agent: the last one that was made.
      made: ('env' or 'eval', number) of every env constructor that was asked for.
    """

    def __init__(
        self,
        logdir,
        task='dummy',
        seed=0,
        act=lambda agent: None,
        train=lambda agent: None,
        **config,
    ):
        """Args: act and train go to the agent; further ones are keys of the blocks, as
        run_steps=10, and from_checkpoint.
        """
        part = lambda name, values: {
            **values,
            **{
                key.removeprefix(f'{name}_'): value
                for key, value in config.items()
                if key.startswith(f'{name}_')
            },
        }
        self.logdir, self.made, self.agent = Path(logdir), [], None
        self.logdir.mkdir(parents=True, exist_ok=True)
        self._task, self._seed, self._hooks = task, seed, {'act': act, 'train': train}
        self._replay_config = ReplayConfig(**part('replay', REPLAY))
        self.setup = Setup(
            task,
            seed,
            self.logdir,
            config.get('from_checkpoint'),
            RunConfig(**part('run', RUN)),
            EvalConfig(**part('eval', EVAL)),
            DriverConfig(**part('driver', DRIVER)),
        )

    def make_agent(self, obs_space, act_space):
        self.agent = CheckingAgent(obs_space, act_space, derive(self._seed, 'agent'), **self._hooks)
        return self.agent

    def make_env(self, kind, index):
        self.made.append((kind, index))
        return functools.partial(envs.make, self._task, ENV, derive(self._seed, kind, index))

    def make_replay(self, *given):
        *known, on_event = given
        obs_space, act_space, meta = known or (None, None, None)
        folder = self._replay_config.directory or self.logdir / 'replay'
        return Replay(
            self._replay_config,
            folder,
            derive(self._seed, 'replay'),
            obs_space,
            act_space,
            meta,
            read_only=obs_space is None,
            on_event=on_event,
        )

    def make_logger(self, counters, on_event):
        return Logger(
            self.logdir, LoggerConfig(('terminal', 'jsonl'), videos=5, fps=5), counters, on_event
        )

    def run(self, script, **more):
        """The script with this world's constructors."""
        script(
            self.make_agent, self.make_env, self.make_replay, self.make_logger, self.setup, **more
        )
        return self

    def lines(self, name):
        """The objects of a .jsonl file of the logdir, without what a pause may change."""
        text = (self.logdir / name).read_text() if (self.logdir / name).exists() else ''
        return [
            {key: value for key, value in json.loads(line).items() if key not in CLOCKS}
            for line in text.splitlines()
        ]

    def saved(self):
        """(trees, meta) of the newest checkpoint."""
        return Checkpoint(self.logdir / 'ckpt', 2).load()

    def rows(self):
        """All rows in the replay folder, as one dict of columns per worker stream, by the order
        of their files.
        """
        with contextlib.closing(
            Replay(self._replay_config, self.logdir / 'replay', 0, read_only=True, on_event=print)
        ) as replay:
            replay.load(None)
            return len(replay)


def same(one, other):
    """Whether two trees are bitwise equal."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[key], other[key]) for key in one)
        )
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@pytest.fixture
def world(tmp_path):
    """world(name, **config): a World in a folder of this name; the same name is the same folder."""
    return lambda name='run', **config: World(tmp_path / name, **config)


@pytest.fixture
def equal():
    return same
