"""Optional packages: who lacks one is told a command that installs it, in a checkout or a wheel."""

import os
import re
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from embodied import extras
from embodied.errors import EnvMissing

ROOT = Path(__file__).parents[2]
SOURCES = [
    path.read_text() for name in ('embodied', 'dreamer4') for path in (ROOT / name).rglob('*.py')
]


def known_extras():
    """Extra -> what it asks for, as pyproject.toml says."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    return project['optional-dependencies']


@pytest.mark.parametrize('folder', ['.', 'docs', '/'])
def test_in_a_checkout_the_hint_is_a_command_that_installs_this_checkout(folder, monkeypatch):
    monkeypatch.chdir(ROOT / folder)
    python, *words = shlex.split(extras.install_hint('atari').removeprefix('install it with: '))
    assert os.path.abspath(python) == sys.executable and words[:3] == ['-m', 'pip', 'install']
    after = lambda flag: words[words.index(flag) + 1]
    target, extra = after('-e').rstrip(']').split('[')
    assert os.path.samefile(target, ROOT) and extra == 'atari'
    assert os.path.samefile(after('-c'), ROOT / 'constraints.txt')


def test_from_a_wheel_the_hint_names_what_the_extra_asks_for(monkeypatch, tmp_path):
    lines = [
        'numpy',
        "ale-py>=0.10; extra == 'atari'",
        'mujoco<4,>=3.1; extra == "dmc"',
        'dm_control>=1; extra == "dmc"',
    ]
    monkeypatch.setattr(extras, 'ROOT', tmp_path)
    monkeypatch.setattr(metadata, 'packages_distributions', lambda: {'embodied': ['dreamer4']})
    monkeypatch.setattr(metadata, 'requires', {'dreamer4': lines}.get)
    assert extras.install_hint('dmc').endswith("-m pip install 'mujoco<4,>=3.1' 'dm_control>=1'")


def test_every_hint_names_an_extra_that_exists_and_brings_the_module():
    hints = {extra for text in SOURCES for extra in re.findall(r'install_hint\(["\'](\w+)', text)}
    call = re.compile(r"require\('(\w+)', '(\w+)'\)")
    required = {pair for text in SOURCES for pair in call.findall(text)}
    extra_of = known_extras()
    assert hints >= {'dmc', 'lpips', 'video'} and hints <= extra_of.keys()
    assert {module for module, _ in required} >= {'ale_py', 'crafter', 'dm_control', 'pyarrow'}
    for module, extra in required:
        names = [re.split('[<>=]', name)[0].replace('-', '_') for name in extra_of[extra]]
        assert {module, f'{module}_skinny'} & {*names}  # the small build of a package


def test_no_text_names_an_installation_from_elsewhere():
    for text in SOURCES:
        assert not re.search(r'pip install [\'"]?dreamer4', text)


def test_a_module_that_cannot_be_found_is_missing_and_another_is_not():
    extras.require('json', 'dmc')
    with pytest.raises(EnvMissing, match=r'no_such_module is not installed; install .*\[dmc\]'):
        extras.require('no_such_module', 'dmc')
