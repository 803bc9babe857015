"""W&B and MLflow: what they are given, over frames, and that none of them ends a run. By stand-ins,
and in their offline modes where they are installed.
"""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from embodied.errors import EnvMissing
from embodied.log import Logger, LoggerConfig, mlflow, wandb
from embodied.log.mlflow import plain

VIDEO = np.zeros((3, 8, 8, 3), np.uint8)
PICTURE = np.full((4, 4, 3), 9, np.uint8)


def counters():
    return {'step': 10, 'frames': 40, 'updates': 3, 'episodes': 1}


def told(logger):
    """Something of every kind."""
    logger.text('config', '# all of it')
    logger.add({'loss': 1.5, 'broken': float('nan'), 'frame': PICTURE, 'open/loop': VIDEO}, 'train')
    logger.write()
    logger.close()


class Run:
    """A run of W&B that writes down what it is given."""

    def __init__(self, **settings):
        self.settings, self.lines, self.axes, self.config = settings, [], [], {}

    def define_metric(self, name, step_metric=None):
        self.axes.append((name, step_metric))

    def log(self, line):
        self.lines.append(line)

    def finish(self):
        self.lines.append('end')


class Config(dict):
    def update(self, values, allow_val_change):
        super().update(values)


@pytest.fixture
def runs(monkeypatch):
    made = []

    def init(**settings):
        made.append(Run(**settings))
        made[-1].config = Config()
        return made[-1]

    fake = types.SimpleNamespace(
        init=init,
        Video=lambda content, format: ('video', content.read()[:3], format),
        Image=lambda image: ('image', image.size),
    )
    monkeypatch.setitem(sys.modules, 'wandb', fake)
    monkeypatch.setattr(wandb, 'require', lambda *names: None)
    return made


def test_wandb_gets_scalars_pictures_and_videos_over_frames(tmp_path, runs):
    config = LoggerConfig(('jsonl', 'wandb'), videos=0, fps=5)
    told(Logger(tmp_path / 'run', config, counters))
    (run,) = runs
    assert run.axes == [('frames', None), ('*', 'frames')]
    assert run.config == {'config': '# all of it'} and run.lines[-1] == 'end'
    assert {'train/frame': ('image', (4, 4)), 'frames': 40} in run.lines
    assert {'train/open/loop': ('video', b'GIF', 'gif'), 'frames': 40} in run.lines
    assert {'train/loss': 1.5, 'frames': 40} in run.lines  # what is not finite is left out
    Logger(tmp_path / 'run', config, counters)
    assert runs[1].settings['id'] == run.settings['id']  # a resumed run goes on under its name
    Logger(tmp_path / 'other', config, counters)
    assert runs[2].settings['id'] != run.settings['id']


def test_a_service_that_fails_is_told_once_and_ends_nothing(tmp_path, runs):
    events = []
    config = LoggerConfig(('jsonl', 'wandb'), videos=0, fps=5)
    logger = Logger(tmp_path, config, counters, events.append)

    def refuse(line):
        raise ConnectionError('away')

    runs[0].log = refuse
    for value in range(3):
        logger.add({'x': value})
        logger.write()
    assert events == ['wandb takes no more, some of it is lost: ConnectionError: away']
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 3


@pytest.mark.parametrize('module, name', [(wandb, 'wandb'), (mlflow, 'mlflow')])
def test_a_service_that_is_not_installed_is_named(tmp_path, module, name, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(EnvMissing, match=rf'{name} is not installed.*\[{name}\]'):
        Logger(tmp_path, LoggerConfig(('jsonl', name), videos=0, fps=5), counters)


def test_wandb_writes_offline(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    events = []
    told(Logger(tmp_path, LoggerConfig(('jsonl', 'wandb'), 0, 5), counters, events.append))
    assert not events and list((tmp_path / 'wandb').glob('offline-run-*/run-*.wandb'))
    assert list((tmp_path / 'wandb').glob('offline-run-*/files/media/videos/**/*.gif'))


def test_mlflow_writes_a_folder_and_a_resumed_run_goes_on_in_it(tmp_path, monkeypatch):
    real = pytest.importorskip('mlflow')
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    events = []
    for _ in range(2):
        config = LoggerConfig(('jsonl', 'mlflow'), 0, 5)
        told(Logger(tmp_path, config, counters, events.append))
    assert not events
    client = real.MlflowClient((tmp_path / 'mlruns').as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name('dreamer4').experiment_id])
    history = client.get_metric_history(run.info.run_id, 'train/loss')
    assert [(point.value, point.step) for point in history] == [(1.5, 40)] * 2
    found = {
        artifact.path
        for folder in ('train/open/loop', 'train/frame', 'text')
        for artifact in client.list_artifacts(run.info.run_id, folder)
    }
    assert found == {
        'train/open/loop/000000000040.gif',
        'train/frame/000000000040.png',
        'text/config.md',
    }


class Client:
    """MLflow's client as far as it is used; runs and experiments live in the class."""

    runs: dict = {}

    def __init__(self, where):
        self.where = where

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        return '1'

    def create_run(self, experiment, run_name):
        self.runs['r1'] = {'points': [], 'files': {}, 'status': 'RUNNING'}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id='r1'))

    def update_run(self, run_id, status):
        self.runs[run_id]['status'] = status

    def log_batch(self, run_id, metrics):
        self.runs[run_id]['points'] += metrics

    def log_artifact(self, run_id, path, folder):
        with open(path, 'rb') as file:
            self.runs[run_id]['files'][f'{folder}/{path.rpartition("/")[2]}'] = file.read()

    def set_terminated(self, run_id):
        self.runs[run_id]['status'] = 'FINISHED'


def test_mlflow_gets_points_in_frames_and_pictures_as_files(tmp_path, monkeypatch):
    fake = types.ModuleType('mlflow')
    fake.MlflowClient = Client
    entities = types.SimpleNamespace(Metric=lambda name, value, time, step: (name, value, step))
    monkeypatch.setitem(sys.modules, 'mlflow', fake)
    monkeypatch.setitem(sys.modules, 'mlflow.entities', entities)
    monkeypatch.setattr(mlflow, 'require', lambda *names: None)
    monkeypatch.setattr(Client, 'runs', {})
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    told(Logger(tmp_path, LoggerConfig(('jsonl', 'mlflow'), 0, 5), counters))
    run = Client.runs['r1']
    assert run['points'] == [('train/loss', 1.5, 40)] and run['status'] == 'FINISHED'
    assert run['files']['text/config.md'] == b'# all of it'
    with Image.open(io.BytesIO(run['files']['train/open/loop/000000000040.gif'])) as video:
        assert video.format == 'GIF'
    Logger(tmp_path, LoggerConfig(('jsonl', 'mlflow'), 0, 5), counters)
    assert len(Client.runs) == 1 and run['status'] == 'RUNNING'


def test_names_that_mlflow_does_not_take_are_spelt_otherwise():
    assert plain('env/robot:arm (left)') == 'env/robot_arm _left_'
