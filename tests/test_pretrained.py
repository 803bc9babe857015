"""A model that travels: written from a run, loaded anywhere, acting as the agent it was; and the
objects by which Python programs train one.
"""

import json
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

import dreamer4
from dreamer4.load import load_policy
from embodied.errors import CheckpointError, ConfigError

TINY = dict(
    run={'steps': 150, 'envs': 2, 'prefill': 100},
    machine={'threads': 1, 'device': 'cpu'},
    driver={'parallel': False},
    logger={'outputs': ['terminal', 'jsonl']},
    env={'pixel': {'size': 16}},
)


@pytest.fixture(scope='module')
def experiment(tmp_path_factory):
    """A few updates on pixel_catch, and an evaluation."""
    logdir = tmp_path_factory.mktemp('experiment') / 'run'
    made = dreamer4.create('pixel_catch', ['pixel', 'debug'], logdir=logdir, **TINY)
    made.train()
    made.evaluate(episodes=2, envs=1)
    return made


def test_an_experiment_says_what_signal_cut_it_short(tmp_path, monkeypatch):
    made = dreamer4.create('pixel_catch', ['pixel', 'debug'], logdir=tmp_path / 'run', **TINY)
    learn = dreamer4.Agent.train

    def cut(agent, batch):
        signal.raise_signal(signal.SIGTERM)
        return learn(agent, batch)

    monkeypatch.setattr(dreamer4.Agent, 'train', cut)
    assert made.train().interrupted == 'SIGTERM'
    monkeypatch.undo()
    assert made.train().interrupted == ''
    assert 'complete' in (made.logdir / 'events.log').read_text()


@pytest.fixture(scope='module')
def model(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp('model') / 'catch'
    return experiment.agent.save_pretrained(folder, run=experiment.logdir)


def acts(agent, steps=12):
    """Actions of the sampled policy at frames of noise."""
    frames = np.random.default_rng(0).integers(0, 255, (steps, 16, 16, 3), np.uint8)
    agent.machine.seed(1)
    policy = dreamer4.Policy(agent)
    return [int(policy.act({'image': frame})['action']) for frame in frames]


def state():
    """What loading must not touch."""
    numbers = torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()
    return (*numbers, torch.get_num_threads(), torch.get_float32_matmul_precision())


def test_training_leaves_the_threads_of_its_caller(experiment):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        experiment.train()  # goes on where the run is, which is complete
        assert torch.get_num_threads() == 2 and experiment.agent.updates > 0
    finally:
        torch.set_num_threads(threads)


def test_a_run_goes_on_with_its_own_settings_alone(experiment):
    other = dreamer4.create('pixel_catch', 'pixel', experiment.logdir, **TINY)
    with pytest.raises(ConfigError, match='run with other settings'):
        other.train()


def test_an_agent_before_training_is_the_one_that_training_begins_with(tmp_path):
    made = [dreamer4.create('pixel_catch', ['pixel', 'debug'], tmp_path, **TINY) for _ in range(2)]
    first, second = (dict(m.agent.world.dynamics.named_parameters()) for m in made)
    assert made[0].agent.updates == 0 and not (tmp_path / 'config.yaml').exists()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_summary_names_parts_parameters_their_total_and_tokens(experiment):
    text, agent = experiment.summary(), experiment.agent
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert {'tokenizer', 'dynamics', 'heads', 'actor', 'total'} <= rows.keys()
    assert f'{agent.world.dynamics.layout.size} tokens' in rows['dynamics']
    counts = [float(rows[name].split('M')[0].split()[-1]) for name in rows if 'M ' in rows[name]]
    assert counts[-1] == pytest.approx(sum(counts[:-1]), abs=0.03)


@pytest.mark.parametrize(
    'arguments, text',
    [
        (dict(configs='pixle'), 'unknown preset'),
        (dict(agent={'nothing': 1}), 'unknown key'),
        (dict(run={'steps': 'many'}), 'run.steps'),
    ],
)
def test_what_an_experiment_does_not_know_is_refused(arguments, text):
    with pytest.raises(ConfigError, match=text):
        dreamer4.create('pixel_catch', **arguments)


@pytest.mark.parametrize('known', [True, False])
def test_a_loaded_model_acts_as_the_agent_and_leaves_the_process_as_it_is(
    experiment, known, tmp_path
):
    agent, run = experiment.agent, experiment.logdir if known else None
    folder = agent.save_pretrained(tmp_path / 'model', run=run)
    expected, before = acts(agent), state()
    loaded = dreamer4.from_pretrained(folder, device='cpu')
    assert state() == before and loaded.updates == agent.updates
    assert acts(loaded) == expected and len(set(expected)) > 1
    assert ('no scores' in (folder / 'README.md').read_text()) is not known


def test_a_model_comes_without_optimizers_and_goes_on_learning(experiment, model, tmp_path):
    assert not [key for key in json.loads((model / 'agent.json').read_text()) if 'optim' in key]
    further = dreamer4.create(
        'pixel_catch', ['pixel', 'debug'], tmp_path / 'run', from_checkpoint=str(model), **TINY
    )
    further.train()
    assert further.agent.updates > experiment.agent.updates


def test_a_model_is_a_run_for_whatever_loads_one(model):
    policy = load_policy(model, mode='mode')
    assert policy.act({'image': np.zeros((16, 16, 3), np.uint8)})['action'].dtype == np.int32


def test_its_card_is_written_from_the_run(experiment, model):
    card = (model / 'README.md').read_text()
    result = json.loads((experiment.logdir / 'eval' / 'eval.json').read_text())
    assert f'return {result["mean"]:.4g} ' in card and '2 episodes' in card
    for words in ('`pixel_catch`', 'seed: 0', 'learned from: its own play', 'torch 2', 'tokens'):
        assert words in card, words
    assert '- training: return ' in card and '(95 % interval of the mean), the last ' in card
    front = card.split('---')[1]
    assert '"mean_reward"' in front and str(experiment.logdir) not in card


def test_writing_over_a_model_replaces_it_and_leaves_other_files(experiment, model, tmp_path):
    folder = shutil.copytree(model, tmp_path / 'model')
    (folder / 'notes.txt').write_text('mine')
    (folder / 'agent.safetensors').write_bytes(b'torn')
    with pytest.raises(CheckpointError):
        dreamer4.from_pretrained(folder)
    experiment.agent.save_pretrained(folder)
    assert dreamer4.from_pretrained(folder).updates and (folder / 'notes.txt').exists()
    assert not list(folder.glob('.partial-*'))


def test_an_agent_of_another_run_is_not_written_under_its_name(experiment, tmp_path):
    other = dreamer4.create('pixel_catch', ['pixel', 'debug'], tmp_path, **TINY)
    other = dreamer4.Experiment(other.config.update({'agent.heads.width': 16}))
    with pytest.raises(ConfigError, match='not one of the run'):
        other.agent.save_pretrained(tmp_path / 'model', run=experiment.logdir)


@pytest.mark.parametrize('place', ['no/such/folder', 'nofolder', '../up', '/nowhere'])
def test_a_place_that_is_neither_a_folder_nor_a_name_of_the_hub_is_named(place):
    with pytest.raises(ConfigError, match='there is no folder'):
        dreamer4.from_pretrained(place)


def test_importing_the_package_does_not_import_torch():
    program = 'import sys, dreamer4; print("torch" in sys.modules, "create" in dir(dreamer4))'
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout.split() == ['False', 'True']
    with pytest.raises(AttributeError, match='no attribute'):
        dreamer4.nothing
