"""docs/extending.md: files it names exist, and its second camera keeps the contract of an env."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / 'docs' / 'extending.md').read_text()


@pytest.mark.parametrize('path', sorted(set(re.findall(r'`((?:\w+/)+\w+\.(?:py|yaml))`', TEXT))))
def test_every_file_it_names_exists(path):
    assert (ROOT / path).exists()


def test_every_function_of_a_world_model_it_names_is_asked_of_one():
    source = (ROOT / 'dreamer4' / 'worlds' / '__init__.py').read_text()
    section = TEXT[TEXT.index('## Another world model') :]
    named = re.findall(r'`([a-z]+)`', section[: section.index('Write a class')])
    assert len(named) > 8 and not [name for name in named if f'def {name}(' not in source]


@pytest.mark.dmc
def test_the_second_camera_is_an_env_with_two_images(tmp_path):
    (snippet,) = re.findall(r'```python\n(.*?)```', TEXT, re.S)
    (tmp_path / 'two.py').write_text(snippet)
    (check,) = re.findall(r'^    python (-m embodied.checks --task two:\w+)$', TEXT, re.M)
    done = subprocess.run(
        [sys.executable, *check.split(), '--steps', '10'],
        capture_output=True,
        text=True,
        timeout=1800,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'side: image 64x64x3' in done.stdout and 'two:swingup keeps the contract' in done.stdout
