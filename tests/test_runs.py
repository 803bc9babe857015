"""A run goes on, is evaluated and is loaded on another machine than the one it was made on; what
decides what it learns stays bound.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dreamer4 import main as command
from dreamer4 import runs, versions
from dreamer4.load import load, load_policy, play
from embodied.config import Config, parse
from embodied.errors import LISTED, CheckpointError, ConfigError
from embodied.replay import ReplayConfig

SMALL = (
    '--configs debug --task dummy --agent.tokenizer.patch 8 --logger.outputs terminal jsonl'.split()
)
STEPS = ['--run.steps', '150', '--run.prefill', '100', '--machine.threads', '1']
HERE = ['--driver.parallel', 'false']
CONFIGS = Path(__file__).parents[1] / 'configs'


def call(*flags):
    return command.main([str(flag) for flag in flags])


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A few updates on the counting env."""
    logdir = tmp_path_factory.mktemp('runs') / 'run'
    assert call(*SMALL, *STEPS, *HERE, '--logdir', logdir) == 0
    return logdir


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / 'run')


def rewrite(logdir, change):
    """Store the run's configuration changed: `change` gets the tree and changes it."""
    tree = Config.load(logdir / 'config.yaml').to_dict()
    change(tree)
    Config(tree).save(logdir / 'config.yaml')


ELSEWHERE = {
    'device': 'cuda',
    'precision': 'bfloat16',
    'threads': 64,
    'attention': 'flex',
    'compile': True,
    'graphs': True,
}


def of_a_gpu(tree):
    tree['machine'] |= ELSEWHERE
    tree['run']['envs'] = 64


def of_an_old_version(tree):
    """Its keys stood below `agent`, and some of today's were not there."""
    machine = tree.pop('machine')
    tree['agent'] |= {key: machine[key] for key in versions.MOVED} | ELSEWHERE
    del tree['env']['crafter'], tree['env']['dmc']['camera']
    tree['env']['gone'] = {'size': 3}
    tree['replay']['directory'] = ''  # one folder, no list
    del tree['replay']['shares']


@pytest.mark.parametrize('change', [of_a_gpu, of_an_old_version])
def test_a_run_of_another_machine_loads_evaluates_and_goes_on_here(copied, change, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    rewrite(copied, change)
    agent, env = load(copied)
    assert len(list(play(agent, env, 5))) == 5
    evaluate = ['--script', 'eval_only', '--from_checkpoint', copied, '--eval.episodes', 1]
    assert call(*evaluate, *HERE, '--logdir', copied) == 0
    assert call(*SMALL, *STEPS, *HERE, '--logdir', copied, '--run.steps', 160) == 0


@pytest.mark.parametrize(
    'flags',
    [
        ['--machine.precision', 'bfloat16'],
        ['--machine.attention', 'explicit'],
        ['--machine.cache.frames_gb', '0.01'],
        ['--run.envs', '1'],
        ['--run.envs', '3'],
        ['--replay.chunk_rows', '64'],
    ],
    ids=' '.join,
)
def test_a_run_goes_on_with_other_settings_of_the_machine(copied, flags, capsys):
    assert call(*SMALL, *STEPS, *HERE, '--logdir', copied, '--run.steps', 190, *flags) == 0
    assert 'Continuing' in capsys.readouterr().out
    last = json.loads((copied / 'metrics.jsonl').read_text().splitlines()[-1])
    assert last['step'] >= 190


@pytest.mark.parametrize(
    'flags',
    [
        ['--run.train_ratio', '8'],
        ['--seed', '1'],
        ['--env.dummy.length', '9'],
        ['--agent.value.gamma', '0.9'],
        ['--replay.uniform', '0.4', '--replay.newest', '0.2'],
    ],
    ids=' '.join,
)
def test_what_decides_what_is_learned_is_bound(copied, flags, capsys):
    assert call(*SMALL, *STEPS, *HERE, '--logdir', copied, *flags) == 2
    error = capsys.readouterr().err
    assert 'holds a run with other settings' in error and flags[0].lstrip('-') in error


def test_settings_that_differ_stand_below_each_other_and_the_rest_is_counted(copied, capsys):
    flags = [*SMALL, *STEPS, *HERE, '--logdir', copied, r'--agent\..*\.layers', 3]
    flags += ['--agent.value.gamma', 0.9, '--agent.actor.lam', 0.5]
    assert call(*flags, r'--agent\..*\.width', 24, r'--agent\.optim\..*\.lr', 0.5) == 2
    first, *below = capsys.readouterr().err.splitlines()
    assert first.endswith('the old values again:') and len(first) < 200 + len(str(copied))
    assert all(line.startswith('  agent.') and ' -> ' in line for line in below[:-1])
    assert len(below) == LISTED + 1 and below[-1].startswith('  and ')


def without(*keys):
    """Stores the configuration of a version that has no such keys below `agent`."""

    def change(tree):
        for key in keys:
            block, name = key.split('.')
            del tree['agent'][block][name]

    return change


def test_a_run_that_lacks_a_key_goes_on_as_it_did_whatever_the_command_says(copied, capsys):
    """By the default; a preset of today does not change it."""
    rewrite(copied, without('value.gamma'))
    flags = [*SMALL, *STEPS, *HERE, '--logdir', copied, '--run.steps', 160]
    assert call(*flags, '--agent.value.gamma', '0.5') == 0
    line = 'is a run of an older version; what its config.yaml lacks is agent.value.gamma 0.99.'
    assert line in capsys.readouterr().out and line in (copied / 'events.log').read_text()
    assert runs.read(copied).agent.value.gamma == 0.99
    assert call(*flags, '--agent.value.gamma', '0.5') == 2  # now it is one of the run's settings


def test_a_key_whose_default_changed_what_is_done_takes_what_was_done_before(copied, monkeypatch):
    rewrite(copied, without('heads.unimix', 'actor.lam'))
    monkeypatch.setitem(versions.BEFORE, 'agent.heads.unimix', 0.25)
    with pytest.warns(UserWarning, match=r'lacks is agent\.heads\.unimix 0\.25, agent\.actor\.lam'):
        agent, _ = load(copied)
    assert agent.config.heads.unimix == 0.25 and agent.config.actor.lam == 0.95


OLD_FLAGS = '--agent.threads 1 --agent.device=cpu --agent.cache.frames_gb 0 --task dummy'.split()


def test_flags_of_an_older_version_do_what_they_did_and_name_those_of_today(tmp_path, capsys):
    flags = [*OLD_FLAGS, '--logger.tensorboard', 'false', '--logdir', tmp_path / 'no' / '{']
    assert (
        command.configure([*map(str, flags)]).flat.items()
        >= {
            'machine.threads': 1,
            'machine.device': 'cpu',
            'machine.cache.frames_gb': 0.0,
            'logger.outputs': ('terminal', 'jsonl'),
            'task': 'dummy',
        }.items()
    )
    told = capsys.readouterr().err
    assert '--agent.threads is now --machine.threads' in told and told.count('\n') == 4


@pytest.mark.parametrize('anneal, goal', [('true', (0.9, 0.6)), ('false', ())])
def test_a_bonus_that_fell_with_the_rates_is_one_that_is_steered(copied, anneal, goal):
    words = ['--task', 'dummy', '--agent.actor.anneal', anneal, '--logdir', str(copied)]
    assert command.configure(words).agent.actor.openness == goal

    def change(tree):
        del tree['agent']['actor']['openness']
        tree['agent']['actor']['anneal'] = anneal == 'true'

    rewrite(copied, change)
    assert runs.completed(copied).agent.actor.openness == (), 'it plays, and its bonus stays'


def test_who_reads_all_of_an_older_run_gets_what_it_lacks_and_no_more(copied):
    def change(tree):
        del tree['replay']['held_out'], tree['agent']['dynamics']['moves']
        tree['replay']['gone'] = 1

    rewrite(copied, change)
    config = runs.completed(copied)
    assert config.replay.build(ReplayConfig).held_out == 0 and config.run.envs == 2
    assert config.agent.dynamics.moves is False, 'as it was done before there was the key'


def test_values_before_a_key_are_of_keys_that_there_are():
    assert versions.BEFORE.keys() <= runs.defaults().keys()


def test_draws_of_a_loaded_policy_follow_its_seed(trained):
    def drawn(seed):
        policy = load_policy(trained, seed=seed)
        obs = {key: np.zeros(space.shape, space.dtype) for key, space in policy.obs_space.items()}
        return np.stack([policy.act(obs)['box'] for _ in range(6)])

    assert np.array_equal(drawn(1), drawn(1)) and not np.array_equal(drawn(1), drawn(2))


PART = {'rule': 'adamw', 'beta1': 0.9, 'beta2': 0.99, 'weight_decay': 1e-3, 'clip': 1.0}


def of_an_optimizer_for_each_part(tree):
    """And with weights that nobody set."""
    parts = ('tokenizer', 'model', 'policy', 'value')
    rates = {name: tree['agent']['optim'][name] for name in parts}
    tree['agent']['optim'] = {
        name: PART | rate | {'warmup': 10 if name in ('policy', 'value') else 100}
        for name, rate in rates.items()
    }
    tree['agent']['scales'] |= {'dynamics': 1.0, 'decay': 0.99}
    tree['agent']['shortcut'] |= {'ramp': 0.1, 'context_mix': 0.5}


def test_settings_that_are_gone_are_understood_where_they_said_what_is_done_now(copied, capsys):
    rewrite(copied, of_an_optimizer_for_each_part)
    again = runs.read(copied)
    assert again.agent.optim.warmup == 100
    assert 'rule' not in again.agent.optim
    assert call(*SMALL, *STEPS, *HERE, '--logdir', copied, '--run.steps', 160) == 0
    assert 'older version' not in capsys.readouterr().out  # nothing is made up for


@pytest.mark.parametrize('key, value', [('scales.decay', 0.5), ('optim.model.clip', 9.0)])
def test_settings_that_are_gone_and_meant_something_else_are_refused_by_name(copied, key, value):
    def change(tree):
        of_an_optimizer_for_each_part(tree)
        *way, last = key.split('.')
        block = tree['agent']
        for name in way:
            block = block[name]
        block[last] = value

    rewrite(copied, change)
    with pytest.raises(ConfigError, match='this one does not know.*agent.(scales|optim)'):
        load(copied)


def as_it_was(world):
    """The block `agent` of a preset, in the keys by which a published algorithm once was told."""
    tree = parse(['--configs', 'pixel', *([world] if world != 'dreamer4' else [])], CONFIGS)
    agent = tree.to_dict()['agent']
    agent['world'] = 'dreamer4' if world == 'dreamer4' else 'rssm'
    for key, value in versions.PUBLISHED['dreamerv3'].items() if world == 'dreamer4' else ():
        agent[key.split('.')[0]][key.split('.')[1]] = value
    for key, value in versions.PUBLISHED[world].items():
        agent[key.split('.')[0]][key.split('.')[1]] = value
    rates, of_all = agent['optim'], agent['optim'].pop('warmup')
    for name in ('tokenizer', 'model', 'policy', 'value'):
        heads = world == 'dreamer4' and name in ('policy', 'value')
        rates[name]['warmup'] = 10 if heads else of_all
    heads, actor = agent['heads'], agent['actor']
    if isinstance(heads['continuous'], int):
        heads |= {'continuous': 'bins', 'action_bins': heads['continuous']}
    agent['batch'] |= {'long_every': 0, 'long_last': 0, 'long_length': 128}
    prior = {'slow': actor['prior'], 'prior': 'slow', 'acting': 0.01, 'beta': 0.3}
    if world != 'dreamer4':
        prior = {'slow': 0.03, 'prior': 'none', 'acting': 1.0, 'beta': 0.0}
    actor |= prior | {'floor': 0.1, 'start': 'uniform'}
    agent['tokenizer'] |= {'heads': 4, 'unmasked': 0.25}
    agent['tokenizer_training'] |= {'every': 2, 'slow': 1.0}
    del agent['dynamics']['group']
    agent['dynamics'] |= {'heads': 4, 'kv_heads': 4, 'pack': 2}
    agent['rssm'] |= {'hidden': agent['rssm']['units'], 'layers': agent['heads']['layers']}
    return agent


@pytest.mark.parametrize('world', versions.PUBLISHED)
def test_an_algorithm_that_was_told_by_its_parts_is_known_by_its_name(world):
    presets = ['pixel', *([world] if world != 'dreamer4' else [])]
    today = parse(['--configs', *presets], CONFIGS).to_dict()['agent']
    assert versions.renamed({'agent': as_it_was(world)})['agent'] == today


@pytest.mark.parametrize(
    'key, value', [('rssm.dyn', 0.5), ('value.replay', 0.1), ('rssm.hidden', 999)]
)
def test_parts_of_no_algorithm_that_is_known_stay(key, value):
    block, name = key.split('.')
    agent = as_it_was('dreamerv3')
    agent[block][name] = value
    assert versions.renamed({'agent': agent})['agent'][block][name] == value


def test_a_run_of_a_version_with_other_settings_is_refused_in_one_line(copied, capsys):
    rewrite(copied, lambda tree: tree['agent'].update(moves={'plan': 3}))
    with pytest.raises(ConfigError, match=r'another version.* agent\.moves\.plan of its'):
        load(copied)
    assert call('--script', 'eval_only', '--from_checkpoint', copied, '--logdir', copied) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'agent.moves.plan' in error


@pytest.mark.parametrize('place', ['.', 'ckpt', 'save'])
def test_a_checkpoint_has_one_logdir(trained, place):
    source = next(trained.glob('ckpt/*')) if place == 'save' else trained / place
    assert runs.folder_of(source) == trained


def state():
    return (
        torch.get_rng_state().numpy().tobytes(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        np.random.get_state()[1].tobytes(),
    )


def test_loading_and_acting_leave_the_process_as_it_is(copied):
    rewrite(copied, lambda tree: tree['machine'].update(threads=3))
    before = state()
    agent, env = load(copied)
    list(play(agent, env, 3))
    assert state() == before


def test_an_agent_draws_the_same_numbers_whatever_its_caller_draws(trained):
    played = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        agent, env = load(trained)
        found = list(play(agent, env, 6))
        played.append(np.stack([row['box'] for row in found]))
    assert np.array_equal(*played)


PAYLOAD = """from pathlib import Path
Path({mark!r}).write_text('executed')
from embodied.envs.dummy import Dummy, DummyConfig
def make(seed):
    return Dummy('box', DummyConfig(10, True, 16), seed)
"""


@pytest.fixture
def downloaded(copied, tmp_path, monkeypatch):
    """A run whose config names modules of its own folder, with that folder's parent as the present
    one; returns the folder, the file that executed code leaves, and a function that sets the task.
    """
    mark = tmp_path / 'mark'
    for place in (copied / 'payload.py', tmp_path / 'nearby.py'):
        place.write_text(PAYLOAD.format(mark=str(mark)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', ['', str(copied), *sys.path])
    set_task = lambda task: rewrite(copied, lambda tree: tree.update(task=task))
    yield copied, mark, set_task
    for name in ('payload', 'nearby', 'run', 'run.payload'):
        sys.modules.pop(name, None)


OF_A_MODULE = ['run.payload:make', 'payload:make', 'nearby:make', 'gym_run.payload:X-v0']


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize('task', [*OF_A_MODULE, 'gym_nearby:X-v0'])
def test_a_run_of_others_executes_no_code_of_theirs(downloaded, task, trust, capsys):
    logdir, mark, set_task = downloaded
    set_task(task)
    with pytest.raises(ConfigError, match='say --task|Say --task'):
        load(logdir, trust=trust)
    for script in ('eval_only', 'collect'):
        flags = ['--script', script, '--from_checkpoint', logdir, '--trust', trust, *HERE]
        assert call(*flags, '--logdir', logdir / 'out') == 2
        error = capsys.readouterr().err
        assert error.count('\n') == 1 and task in error and '--task' in error
    assert not mark.exists()


def test_a_module_of_an_installed_package_is_imported_where_the_user_trusts_the_run(
    copied, tmp_path, monkeypatch
):
    site = tmp_path / 'site'
    site.mkdir()
    (site / 'installed_env.py').write_text(PAYLOAD.format(mark=str(tmp_path / 'mark')))
    monkeypatch.syspath_prepend(str(site))
    rewrite(copied, lambda tree: tree.update(task='installed_env:make'))
    with pytest.raises(ConfigError, match='--trust'):
        load(copied)
    with pytest.raises(CheckpointError, match='another agent'):  # which the env of the task is not
        load(copied, trust=True)
    assert (tmp_path / 'mark').exists()


def test_a_module_that_the_user_names_is_searched_for_in_the_present_folder(downloaded):
    logdir, mark, set_task = downloaded
    set_task('nearby:make')
    with pytest.raises(CheckpointError, match='another agent'):
        load(logdir, task='nearby:make')
    assert mark.exists()


def test_an_evaluation_is_written_into_its_run(copied):
    flags = ['--script', 'eval_only', '--from_checkpoint', copied / 'ckpt', '--eval.episodes', 1]
    assert call(*flags, '--eval.videos', 0, *HERE) == 0
    assert json.loads((copied / 'eval' / 'eval.json').read_text())['episodes'] == 1


WANDERER = """import os
from embodied.envs.dummy import Dummy, DummyConfig
class Wanderer(Dummy):
    def step(self, action):
        os.chdir({elsewhere!r})
        return super().step(action)
def make(seed):
    return Wanderer('box', DummyConfig(10, True, 16), seed)
"""


def test_folders_are_those_of_the_start_also_where_an_env_changes_the_present_one(
    tmp_path, monkeypatch
):
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (tmp_path / 'wanderer.py').write_text(WANDERER.format(elsewhere=str(elsewhere)))
    monkeypatch.syspath_prepend(tmp_path)
    flags = ['--task', 'wanderer:make', '--logdir', 'one', '--replay.directory', 'rows']
    for steps in (120, 150):
        monkeypatch.chdir(tmp_path)
        assert call(*SMALL, *flags, *STEPS, *HERE, '--run.steps', steps) == 0
    assert not list(elsewhere.iterdir())
    assert {'config.yaml', 'metrics.jsonl', 'ckpt'} <= {
        path.name for path in (tmp_path / 'one').iterdir()
    }
    assert list((tmp_path / 'rows').glob('*.npz'))
    sys.modules.pop('wanderer', None)
