"""Learning from a folder: the spaces come from it, nothing in it changes, no env is built."""

import json

import numpy as np
import pytest

from embodied import errors
from embodied.log import Logger, LoggerConfig
from embodied.log.logger import position
from embodied.run import collect, offline, train


@pytest.fixture
def folder(world):
    """A replay folder of a short run."""
    return world('rows', run_steps=90).run(collect).logdir / 'replay'


def learn(run):
    offline(run.make_agent, run.make_replay, run.make_logger, run.setup)
    return run


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_makes_exactly_so_many_updates_without_an_env_and_without_touching_the_folder(
    world, folder
):
    before = content(folder)
    run = learn(world('off', replay_directory=str(folder), run_updates=23))
    assert run.agent.updates == run.saved()[1]['updates'] == 23 and run.made == []
    assert content(folder) == before and not (run.logdir / 'replay').exists()
    assert set(run.agent.act_space) == {'box', 'discrete', 'multidiscrete', 'multibinary'}


def test_lines_and_reports_count_updates(world, folder):
    run = learn(
        world(
            'off',
            replay_directory=str(folder),
            run_updates=30,
            run_log_every=10,
            run_report_every=15,
        )
    )
    assert [line['updates'] for line in run.lines('metrics.jsonl')] == [1, 10, 20, 30]
    assert run.agent.reports == 2
    assert all(
        line['step'] == line['frames'] == line['episodes'] == 0
        for line in run.lines('metrics.jsonl')
    )


def test_a_warm_start_is_possible(world, folder):
    source = world('source').run(train)
    run = learn(
        world('off', replay_directory=str(folder), run_updates=2, from_checkpoint=source.logdir)
    )
    assert run.agent.updates == source.agent.updates + 2


def test_an_empty_folder_is_refused(world, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(errors.ConfigError, match='no rows'):
        learn(world('off', replay_directory=str(tmp_path / 'empty')))


def test_a_folder_that_does_not_name_its_spaces_is_refused(world, folder):
    meta = json.loads((folder / 'meta.json').read_text())
    (folder / 'meta.json').write_text(json.dumps({**meta, 'obs_space': None, 'act_space': None}))
    with pytest.raises(errors.ConfigError, match='meta.json'):
        learn(world('off', replay_directory=str(folder)))


def test_a_folder_of_streams_that_are_shorter_than_a_sequence_is_refused_at_the_start(
    world, folder
):
    run = world('off', replay_directory=str(folder))
    make = run.make_agent

    def make_agent(*spaces):
        make(*spaces).sequence_rows = 200
        return run.agent

    run.make_agent = make_agent
    with pytest.raises(
        errors.ConfigError,
        match='sequences of 200 rows, but the longest stream of the folder has 3',
    ):
        learn(run)


def test_pictures_and_points_stand_at_updates(tmp_path):
    counters = dict.fromkeys(('step', 'frames', 'episodes'), 0) | {'updates': 20}
    logger = Logger(tmp_path, LoggerConfig(('terminal', 'jsonl'), 5, 15), lambda: counters)
    logger.add({'dream': np.zeros((2, 8, 8, 3), np.uint8)})
    logger.close()
    assert [path.name for path in (tmp_path / 'videos').iterdir()] == ['000000000020-dream.gif']
    assert position(counters) == 20 and position(counters | {'frames': 8}) == 8


def test_something_is_shown_long_before_the_first_line_is_due(world, folder, capsys):
    flags = {'run_updates': 12, 'run_log_every': 1000}
    learn(world('off', replay_directory=str(folder), **flags))
    text = capsys.readouterr().out
    assert 'updates 1 (' in text and 'updates 10 (' in text
