"""The configuration and the classes that read it know the same keys, and every key is read by somebody."""

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from dreamer4.agent_config import AgentConfig
from embodied import envs
from embodied.config import parse
from embodied.driver import DriverConfig
from embodied.logger import LoggerConfig
from embodied.replay import ReplayConfig
from embodied.run import EvalConfig, RunConfig

ROOT = Path(__file__).parents[1]
BLOCKS = {'run': RunConfig, 'eval': EvalConfig, 'driver': DriverConfig, 'replay': ReplayConfig, 'logger': LoggerConfig, 'agent': AgentConfig}
TOP = {'script', 'task', 'logdir', 'seed', 'from_checkpoint'}


def fields(kind, prefix):
    """Dotted names of all fields of a dataclass and of those inside it."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        name = f'{prefix}.{field.name}'
        yield from fields(hints[field.name], name) if dataclasses.is_dataclass(hints[field.name]) else [name]


def test_the_keys_of_every_block_are_the_fields_of_its_dataclass():
    known = {name for block, kind in BLOCKS.items() for name in fields(kind, block)} | TOP
    keys = {key for key in parse([], ROOT / 'configs').flat if not key.startswith('env.')}
    assert keys == known


@pytest.mark.parametrize('suite', envs.available())
def test_every_env_block_builds_the_config_of_its_suite(suite):
    envs.make_config(f'{suite}_x', parse([], ROOT / 'configs').env.to_dict())


def test_every_key_is_read_by_someone():
    source = '\n'.join(path.read_text() for folder in ('dreamer4', 'embodied') for path in (ROOT / folder).rglob('*.py'))
    for key in parse([], ROOT / 'configs').flat:
        name = key.rsplit('.', 1)[-1]
        uses = re.findall(rf'(?:\.|\[\'){name}\b', source)
        assert uses, f'nobody reads {key}'


@pytest.mark.parametrize('presets', [
    ['pixel'], ['dmc_vision'], ['dmc_proprio'], ['gym'], ['pixel', 'debug'], ['dmc_vision', 'debug'], *[
        [size] for size in 'size1m size5m size12m size25m size50m size100m size200m size400m paper2b'.split()]], ids='+'.join)
def test_every_preset_builds_every_block(presets):
    config = parse(['--configs', *presets], ROOT / 'configs')
    for block, kind in BLOCKS.items():
        config[block].build(kind)
