"""The configuration and the classes that read it know the same keys, and every key is read by
somebody.
"""

import contextlib
import dataclasses
import re
import typing
from pathlib import Path

import pytest

from dreamer4 import machine
from dreamer4.agent_config import AgentConfig, check
from dreamer4.report.config import ReportConfig
from embodied import envs
from embodied.config import MARK, parse, read_folder
from embodied.drive import DriverConfig
from embodied.errors import ConfigError, EnvMissing
from embodied.log import LoggerConfig
from embodied.replay import ReplayConfig
from embodied.run import EvalConfig, RunConfig

ROOT = Path(__file__).parents[1]
BLOCKS = {
    'run': RunConfig,
    'eval': EvalConfig,
    'driver': DriverConfig,
    'replay': ReplayConfig,
    'logger': LoggerConfig,
    'report': ReportConfig,
    'agent': AgentConfig,
    'machine': machine.MachineConfig,
}
TOP = {'script', 'task', 'logdir', 'seed', 'from_checkpoint', 'phases', 'trust'}


def fields(kind, prefix):
    """Dotted names of all fields of a dataclass and of those inside it."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = f'{prefix}.{field.name}'
        yield from (
            fields(hints[field.name], name)
            if dataclasses.is_dataclass(hints[field.name])
            else [name]
        )


def test_the_keys_of_every_block_are_the_fields_of_its_dataclass():
    known = {name for block, kind in BLOCKS.items() for name in fields(kind, block)} | TOP
    keys = {key for key in parse([], ROOT / 'configs').flat if not key.startswith('env.')}
    assert keys == known


@pytest.mark.parametrize('suite', envs.available())
def test_every_env_block_builds_the_config_of_its_suite(suite):
    envs.make_config(f'{suite}_x', parse([], ROOT / 'configs').env.to_dict())


def test_every_key_is_read_by_someone():
    source = '\n'.join(
        path.read_text()
        for folder in ('dreamer4', 'embodied')
        for path in (ROOT / folder).rglob('*.py')
    )
    for key in parse([], ROOT / 'configs').flat:
        name = key.rsplit('.', 1)[-1]
        uses = re.findall(rf'(?:\.|\[\'){name}\b', source)
        assert uses, f'nobody reads {key}'


TASKS = {
    'dmc': 'dmc_cheetah_run',
    'procgen': 'procgen_coinrun',
    'minigrid': 'minigrid_Empty-8x8',
    'brax': 'brax_ant',
}


def choices():
    """Key -> the words that its mark names, for keys that take nothing but words."""
    comments = read_folder(ROOT / 'configs')[0].comments
    marks = {key: MARK.search(text) for key, text in comments.items()}
    options = {key: mark[1].split('|') for key, mark in marks.items() if mark}
    types = {'bool', 'int', 'float', 'str', 'any'}
    return {key: words for key, words in options.items() if not types & set(words)}


# Keys of the agent that no preset sets. There are to be fewer, never more.
UNSET = {
    'tokenizer.conv',
}


def leaves(tree, path=()):
    """Dotted keys of nested dicts."""
    for key, value in tree.items():
        where = (*path, key)
        yield from leaves(value, where) if isinstance(value, dict) else ['.'.join(where)]


MOST_KEYS = 85  # of the agent: a new one replaces another, or is a constant beside its source


def test_a_key_of_the_agent_is_set_by_a_preset_and_they_are_few():
    presets = read_folder(ROOT / 'configs')[1].values()
    named = {key for preset in presets for key in leaves(preset)}
    keys = {key for key in parse([], ROOT / 'configs').flat if key.startswith('agent.')}
    assert len(keys) <= MOST_KEYS
    assert {key.removeprefix('agent.') for key in keys - named} <= UNSET


# words that work beside another setting alone
LATENTS = ['--agent.heads.reads', 'latents']
NEEDS = {('agent.heads.learn_on', word): LATENTS for word in ('predicted', 'dreamed')}


def test_every_word_of_a_mark_is_one_that_the_class_behind_it_takes():
    """What is no such word is refused by the mark, before anything is built."""
    for key, words in choices().items():
        for word in words:
            others = NEEDS.get((key, word), [])
            config = parse([f'--{key}', word, '--machine.device', 'cpu', *others], ROOT / 'configs')
            for block, kind in BLOCKS.items():
                built = config[block].build(kind)
                if block == 'agent':
                    check(built)
                    agent = built
                if block == 'machine' and word != 'flex':  # which is refused on a CPU
                    machine.check(built, agent)
            if key.startswith('env.'):
                suite = key.split('.')[1]
                with contextlib.suppress(EnvMissing):  # which comes after the values are checked
                    envs.check(TASKS[suite], config.env.to_dict())
        with pytest.raises(ConfigError, match=f'--{key}: expected .*{words[-1]}, got'):
            parse([f'--{key}', 'anything'], ROOT / 'configs')


FREE = ('machine.device',)


def test_keys_whose_values_are_a_few_words_say_so_by_a_mark():
    """So that a misspelt one is answered at once, and --help lists them all the same way."""
    for key, text in read_folder(ROOT / 'configs')[0].comments.items():
        assert ' | ' not in text or MARK.search(text) or key in FREE, key


@pytest.mark.parametrize(
    'presets',
    [
        ['pixel'],
        ['dmc_vision'],
        ['dmc_proprio'],
        ['gym'],
        *[
            [suite]
            for suite in (
                'atari100k crafter procgen memmaze metaworld vizdoom retro craftax dmlab minigrid'
                ' mujoco'.split()
            )
        ],
        ['mujoco', 'brax'],
        ['mujoco', 'unity'],
        ['pixel', 'remote'],
        ['robot'],
        ['robot', 'debug'],
        ['pixel', 'cameras'],
        ['pixel', 'debug'],
        ['dmc_vision', 'debug'],
        ['dmc_vision_cpu', 'debug'],
        ['pixel', 'paper'],
        ['pixel', 'paper', 'paper_online'],
        ['dmc_vision', 'paper', 'paper2b'],
        *[
            [size]
            for size in (
                'size1m size5m size12m size25m size50m size100m size200m size400m paper2b'.split()
            )
        ],
    ],
    ids='+'.join,
)
def test_every_preset_builds_every_block(presets):
    config = parse(['--configs', *presets], ROOT / 'configs')
    for block, kind in BLOCKS.items():
        built = config[block].build(kind)
        if block == 'agent':
            check(built)


@pytest.mark.parametrize('form', ['dreamerv1', 'dreamerv2', 'dreamerv3'])
@pytest.mark.parametrize('task', ['pixel', 'gym', 'dmc_proprio', 'dmc_vision', 'dmc_vision_cpu'])
def test_an_rssm_goes_behind_the_preset_of_every_kind_of_task(task, form):
    config = parse(['--configs', task, form], ROOT / 'configs').agent.build(AgentConfig)
    check(config)
