"""Filling a folder with a policy that does not learn."""

import numpy as np

from embodied import RandomAgent
from embodied.convert.command import main as convert
from embodied.replay import Replay
from embodied.replay.config import unlimited
from embodied.run import collect, train


def test_so_many_decisions_are_stored_and_nothing_is_learned(world):
    run = world(run_steps=60).run(collect)
    meta = run.saved()[1]
    assert 60 <= meta['step'] < 63 and meta['updates'] == run.agent.updates == 0


def test_every_reset_is_a_row_too(world):
    # three episodes of seven decisions in each env
    run = world(run_steps=42, run_envs=2).run(collect)
    assert run.rows() == 2 * 3 * (7 + 1)


def test_a_random_agent_collects(world):
    run = world(run_steps=30)
    run.make_agent = lambda obs_space, act_space: RandomAgent(act_space, 0)
    assert run.run(collect).rows() > 30


def test_a_checkpoint_collects_with_its_policy_and_does_not_change(world):
    source = world('source').run(train)
    run = world('collected', run_steps=30, from_checkpoint=source.logdir).run(collect)
    assert run.agent.updates == source.agent.updates and set(run.agent.modes) == {'sample'}


def test_training_can_take_up_the_rows(world):
    rows = world('rows', run_steps=90).run(collect).logdir / 'replay'
    acts = []
    world(
        'run',
        replay_directory=str(rows),
        run_steps=30,
        train=lambda agent: acts.append(len(agent.modes)),
    ).run(train)
    assert acts[0] <= 3, 'they count as prefill'


def test_every_whole_episode_is_a_film_that_is_read_back(world, tmp_path, capsys):
    run = world(run_steps=45, run_envs=2, run_films=10.0).run(collect)
    films = run.logdir / 'films'
    names = {path.stem for path in films.glob('*.mp4')}
    assert len(names) == run.saved()[1]['episodes'] == 6
    assert names == {path.stem for path in films.glob('*.npz')}
    assert not list(films.glob('.*.mp4'))  # of the episodes that were cut by the end
    rows = np.load(films / f'{min(names)}.npz')
    assert len(rows['is_last']) == 8 and rows['is_last'][-1] and len(rows['rewards']) == 7

    assert convert(['video', str(films), str(tmp_path / 'back')]) == 0
    back = Replay(unlimited(0.1), tmp_path / 'back', 0, read_only=True)
    back.load(None)
    assert len(back) == 6 * 8
