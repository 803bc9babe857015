"""Two tasks in one agent, from the command line to the numbers: train, resume, evaluate, offline,
load, and what is said of it.
"""

import json

import numpy as np
import pytest
import torch

from dreamer4 import load as loading
from dreamer4 import runs
from dreamer4.dream import Dream
from dreamer4.main import main
from dreamer4.play import frames
from dreamer4.play.game import Game
from dreamer4.report.examine import by_task
from dreamer4.report.page import task_table
from dreamer4.starts import Starts
from embodied.checks import main as check
from embodied.errors import ConfigError
from embodied.log.jsonl import read_lines
from embodied.published import summaries
from embodied.replay import Replay
from embodied.replay.config import unlimited
from embodied.yaml_tree import read_yaml

FLAGS = ['--configs', 'pixel', 'debug', '--machine.threads', '1', '--run.prefill', '160']
TASKS = 'pixel_reach,pixel_catch'


@pytest.fixture(scope='module')
def logdir(tmp_path_factory):
    """A run whose one env takes turns in two tasks, resumed once."""
    folder = tmp_path_factory.mktemp('runs') / 'two'
    for steps in ('200', '240'):
        flags = [*FLAGS, '--task', TASKS, '--run.envs', '1', '--run.steps', steps]
        assert main([*flags, '--logdir', str(folder), '--run.log_every', '50']) == 0
    return folder


def test_scores_and_metrics_name_their_task(logdir):
    scores = list(read_lines(logdir / 'scores.jsonl'))
    assert {line['task'] for line in scores} == {'pixel_reach', 'pixel_catch'}
    assert {line['length'] for line in scores if line['task'] == 'pixel_reach'} == {50}
    metrics = {key for line in read_lines(logdir / 'metrics.jsonl') for key in line}
    assert {'episode/score/pixel_reach', 'episode/score_of_tasks'} <= metrics
    assert read_yaml(logdir / 'config.yaml').values['task'] == TASKS
    said = (logdir / 'events.log').read_text()
    assert 'envs take turns in them: pixel_reach (1), pixel_catch (1)' in said
    assert 'Continuing' in said
    meta = json.loads((logdir / 'replay' / 'meta.json').read_text())['meta']
    assert set(meta['env']) == {'pixel', 'tasks'}


def test_every_task_is_evaluated_in_as_many_episodes(logdir, capsys):
    flags = ['--script', 'eval_only', '--from_checkpoint', str(logdir), '--eval.episodes', '3']
    assert main([*flags, '--eval.envs', '2', '--machine.threads', '1']) == 0
    found = json.loads((logdir / 'eval' / 'eval.json').read_text())
    assert {task: each['episodes'] for task, each in found['tasks'].items()} == {
        'pixel_reach': 3,
        'pixel_catch': 3,
    }
    means = [each['mean'] for each in found['tasks'].values()]
    assert found['mean'] == pytest.approx(np.mean(means)) and found['episodes'] == 6
    assert 'pixel_catch: return' in capsys.readouterr().out
    told = {run['task']: run['episodes'] for run in summaries(logdir, 100)}
    assert told == {'pixel_reach': 3, 'pixel_catch': 3}


def test_an_agent_of_several_tasks_is_loaded_for_one_of_them(logdir):
    agent, env = loading.load(logdir, task='pixel_catch', threads=1)
    rows = list(loading.play(agent, env, 9))
    assert {int(row['task_id']) for row in rows} == {1}
    with pytest.raises(ConfigError, match='pixel_memory.*pixel_'):
        loading.load(logdir, task='pixel_memory')
    assert runs.read_tasks(logdir).names == ('pixel_reach', 'pixel_catch')


def told(message):
    """Header of what goes to a page."""
    return json.loads(message[4 : 4 + int.from_bytes(message[:4], 'little')])


def test_it_dreams_in_each_task_with_the_actions_of_that_task(logdir):
    spaces = runs.read_spaces(logdir)
    agent = loading.restored(logdir, loading.stored(logdir, {'threads': 1}), *spaces, 0)
    dream = Dream(agent, *spaces)
    starts = Starts(logdir, *spaces).draw(np.random.default_rng(0), 12, dream.context, first=True)
    moment = dream.begin(starts)
    tasks = starts['task_id'][:, -1]
    assert len(set(tasks)) == 2 and moment.task.tolist() == tasks.tolist()
    game = Game(dream, None, Starts(logdir, *spaces))
    names = {'pixel_reach', 'pixel_catch'}
    assert told(frames.frame(game, {}))['task'] in names, 'the page says which task it is'
    assert {episode['task'] for episode in told(frames.strip(game, 0))['episodes']} == names
    for _ in range(2):
        action = dream.act(moment)
        moment = dream.step(moment, action)
        assert not action['action/discrete'][tasks == 0].any()
        assert abs(action['action/box'][tasks == 1]).max() < 1e-6
    assert np.allclose(moment.entropy[tasks == 1], np.log(3), atol=0.1)


def test_random_play_collects_actions_of_the_task_and_films(tmp_path):
    flags = ['--script', 'collect', '--task', TASKS, '--run.steps', '70', '--run.films', '10']
    assert main([*FLAGS, *flags, '--run.envs', '2', '--logdir', str(tmp_path)]) == 0
    replay = Replay(unlimited(0.1), tmp_path / 'replay', 0, read_only=True)
    replay.load(None)
    rows = replay.sample(8, 10)
    reach = rows['task_id'] == 0
    assert not rows['action/discrete'][reach].any() and not rows['action/box'][~reach].any()
    assert rows['action/box'][reach].any() and rows['action/discrete'][~reach].any()
    assert len(list((tmp_path / 'films').glob('*.mp4'))) > 3


def test_it_learns_offline_from_the_same_rows(logdir, tmp_path):
    flags = ['--script', 'offline', '--replay.directory', str(logdir / 'replay')]
    made = [*FLAGS, *flags, '--logdir', str(tmp_path / 'off'), '--run.updates', '4']
    assert main(made) == 0
    assert read_yaml(tmp_path / 'off' / 'config.yaml').values['task'] == TASKS
    assert runs.read_tasks(tmp_path / 'off').names == ('pixel_reach', 'pixel_catch')


def test_it_is_compared_and_reported_task_by_task(logdir):
    look = ['--from_checkpoint', str(logdir), '--machine.threads', '1', '--script']
    assert main([*look, 'compare', '--eval.episodes', '1', '--eval.envs', '1']) == 0
    found = json.loads((logdir / 'compare' / 'compare.json').read_text())
    assert list(found['tasks']) == ['pixel_reach', 'pixel_catch']
    assert main([*look, 'report', '--report.batches', '1']) == 0
    page = (logdir / 'report' / 'report.html').read_text()
    assert 'pixel_reach: policy' in page and 'all tasks: policy' in page


@torch.no_grad()
def test_the_parts_of_an_agent_are_measured_task_by_task(logdir):
    agent = loading.restored(logdir, loading.stored(logdir, {}), *runs.read_spaces(logdir), 0)
    replay = Replay(unlimited(0.1), logdir / 'replay', 0, *runs.read_spaces(logdir), read_only=True)
    replay.load(None)
    batches = [agent.batch(replay.sample(6, 13, draw)) for draw in range(2)]
    found = by_task(agent.world, batches, ('reach', 'catch', 'not shown'))
    assert list(found) == ['reach', 'catch'] and {x['sequences'] for x in found.values()} == {6}
    alone = [batch.at((batch.task[:, 0] == 1).nonzero().flatten()) for batch in batches]
    catch = by_task(agent.world, alone, ('reach', 'catch'))['catch']
    assert catch['psnr/image'] == pytest.approx(found['catch']['psnr/image'], rel=1e-4)
    assert found['catch']['mean_real'] == pytest.approx(catch['mean_real'])
    assert found['reach']['mean_real'] != found['catch']['mean_real']
    assert 'reach' in task_table(found) and 'PSNR of image (dB)' in task_table(found)


def test_a_wrong_task_in_a_list_is_refused_with_the_nearest(tmp_path, capsys):
    assert main([*FLAGS, '--task', 'pixel_catch,pixel_rich', '--logdir', str(tmp_path)]) == 2
    assert 'pixel_reach' in capsys.readouterr().err


def test_checks_take_several_tasks(capsys):
    assert check(['--task', TASKS, '--steps', '60']) == 0
    assert (
        '2 tasks, an episode of each in turn: pixel_reach, pixel_catch' in capsys.readouterr().out
    )
