"""What users install: a wheel that carries the configs and runs, pinned versions that fit the
requirements.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hub import stand_in
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import dreamer4
from embodied.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from a copy of the sources, without network."""
    source = tmp_path_factory.mktemp('source')
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    for name in ('configs', 'dreamer4', 'embodied'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'wheel',
            '-q',
            '--no-deps',
            '--no-build-isolation',
            '--no-index',
            '-w',
            source / 'out',
            source,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return next((source / 'out').glob('dreamer4_embodied-*.whl'))


def test_a_wheel_holds_every_module_config_and_page_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in name}
    modules = {
        str(path.relative_to(ROOT))
        for folder in ('dreamer4', 'embodied')
        for path in (ROOT / folder).glob('**/*.py')
    }
    configs = {f'dreamer4/configs/{path.name}' for path in (ROOT / 'configs').glob('*.yaml')}
    typed = {'dreamer4/py.typed', 'embodied/py.typed'}
    page = {str(path.relative_to(ROOT)) for path in (ROOT / 'dreamer4/play/page').iterdir()}
    assert names == modules | configs | typed | page


@pytest.fixture(scope='module')
def site(wheel, tmp_path_factory):
    """A folder of packages that holds the wheel, and nothing of the sources."""
    site = tmp_path_factory.mktemp('site')
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'install',
            '-q',
            '--no-deps',
            '--no-index',
            '--target',
            site,
            wheel,
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return site


def test_an_installed_wheel_runs_far_from_the_sources(site, tmp_path):
    environment = os.environ | {'PYTHONPATH': str(site)}
    result = subprocess.run(
        [sys.executable, '-m', 'dreamer4.main', '--help'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert '--run.steps' in result.stdout and 'dmc_vision' in result.stdout
    where = subprocess.run(
        [sys.executable, '-c', 'import embodied; print(embodied.__file__)'],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(site))
    script = (site / 'bin' / 'dreamer4').read_text()
    assert 'from dreamer4.__main__ import main' in script


LOADS = """
import sys
import numpy as np
import dreamer4
print(dreamer4.__file__)
agent = dreamer4.from_pretrained('me/catch', device='cpu')
agent.machine.seed(1)
policy = dreamer4.Policy(agent)
frames = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), np.uint8)
print([int(policy.act({'image': frame})['action']) for frame in frames])
"""


def test_a_model_of_the_hub_acts_as_it_did_where_only_the_wheel_is_installed(
    site, tmp_path, monkeypatch
):
    constants = pytest.importorskip('huggingface_hub.constants')
    monkeypatch.setenv('HF_TOKEN', 'hf_nobody')
    made = dreamer4.create('pixel_catch', ['pixel', 'debug'], tmp_path, env={'pixel': {'size': 16}})
    frames = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), np.uint8)
    with stand_in() as (address, repositories):
        monkeypatch.setattr(constants, 'ENDPOINT', address)
        made.agent.save_pretrained(tmp_path / 'model', push='me/catch')
        made.agent.machine.seed(1)
        policy = dreamer4.Policy(made.agent)
        expected = [int(policy.act({'image': frame})['action']) for frame in frames]
        repositories['me/catch']['setup.py'] = b'raise SystemExit("code of others")'
        environment = os.environ | {
            'PYTHONPATH': str(site),
            'HF_ENDPOINT': address,
            'HF_HOME': str(tmp_path / 'home'),
        }
        done = subprocess.run(
            [sys.executable, '-c', LOADS],
            cwd=tmp_path / 'model' / 'spaces',
            env=environment,
            capture_output=True,
            text=True,
        )
        with pytest.raises(ConfigError, match='the hub gives no such model: RepositoryNotFound'):
            dreamer4.from_pretrained('me/other')
    assert done.returncode == 0, done.stderr
    where, actions = done.stdout.splitlines()
    assert where.startswith(str(site)) and actions == str(expected)
    assert not list((tmp_path / 'home').rglob('setup.py'))
    with pytest.raises(ConfigError, match="push must be 'user/name'"):
        made.agent.save_pretrained(tmp_path / 'model', push='catch')


def test_pinned_versions_satisfy_every_requirement(wheel):
    pinned = dict(
        line.split('==')
        for line in (ROOT / 'constraints.txt').read_text().splitlines()
        if not line.startswith('#')
    )
    pinned = {canonicalize_name(name): version for name, version in pinned.items()}
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(
            next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        ).decode()
    requirements = [
        Requirement(line) for line in re.findall(r'^Requires-Dist: (.*)$', metadata, re.M)
    ]
    assert {'torch', 'numpy', 'dm_control', 'pytest'} <= {
        requirement.name for requirement in requirements
    }
    # the others are for suites and services that no test needs
    tested = re.search(r"--editable '\.\[(.*)\]'", (ROOT / 'Makefile').read_text())[1].split(',')
    assert {'dmc', 'dev'} <= {*tested}
    for requirement in requirements:
        marker = str(requirement.marker)
        if 'extra' not in marker or any(f'"{extra}"' in marker for extra in tested):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), (
                requirement
            )


@pytest.mark.parametrize(
    'body, required, status, flags',
    [
        ('pass', '1', 0, []),
        ('pytest.skip("no EGL")', '1', 1, []),
        ('pytest.skip("no EGL")', '', 0, []),
        (None, '1', 1, []),
        ('pass', '1', 0, ['-n', '1']),
        ('pytest.skip("no EGL")', '1', 1, ['-n', '1']),
    ],
)
def test_a_session_that_requires_dm_control_fails_where_none_of_its_tests_ran(
    tmp_path, body, required, status, flags
):
    (tmp_path / 'tests').mkdir()
    shutil.copy(ROOT / 'tests' / 'conftest.py', tmp_path / 'tests')
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    mark = '' if body is None else '@pytest.mark.dmc\n'
    (tmp_path / 'tests' / 'test_x.py').write_text(
        f'import pytest\n\n{mark}def test_x():\n    {body or "pass"}\n'
    )
    quiet = ['-q', '-p', 'no:cacheprovider', '-p', 'no:hypothesispytest']
    workers = ('PYTEST_XDIST_WORKER', 'PYTEST_XDIST_WORKER_COUNT', 'PYTEST_XDIST_TESTRUNUID')
    outer = {key: value for key, value in os.environ.items() if key not in workers}
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', *quiet, *flags],
        cwd=tmp_path,
        env=outer | {'REQUIRE_DMC': required},
        capture_output=True,
        text=True,
    )
    assert result.returncode == status, result.stdout + result.stderr
