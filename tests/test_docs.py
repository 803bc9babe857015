"""The documents name tests and files that exist."""

import functools
import re
from pathlib import Path

import pytest

from benchmarks import pages

ROOT = Path(__file__).parents[1]
RUNTIME = (ROOT / 'docs' / 'runtime.md').read_text()


def test_every_test_that_the_runtime_page_names_exists():
    known = {
        name
        for path in ROOT.glob('tests/**/*.py')
        for name in re.findall(r'^def test_(\w+)', path.read_text(), re.M)
    }
    named = [
        name
        for name in re.findall(r'`(\w+)`', RUNTIME)
        if name.count('_') > 2 or name == 'off_is_never'
    ]
    assert len(named) > 30 and not set(named) - known, sorted(set(named) - known)


def test_the_runtime_page_has_a_line_for_each_of_the_25_weaknesses():
    assert len(re.findall(r'^\| (?!weakness|---)', RUNTIME.split('## Measured')[0], re.M)) == 25


@pytest.fixture(scope='module', autouse=True)
def made():
    """Every table, made once: some take seconds."""
    patch = pytest.MonkeyPatch()
    for name, make in pages.TABLES.items():
        patch.setitem(pages.TABLES, name, functools.cache(make))
    yield pages.TABLES
    patch.undo()


def test_every_table_of_the_pages_is_what_the_committed_results_say():
    for page in pages.PAGES:
        text = (ROOT / page).read_text()
        assert pages.rendered(text) == text, f'{page} is not up to date: python -m benchmarks.pages'


def test_every_table_stands_on_one_page(made):
    """Also where its marks are still empty."""
    texts = {page: (ROOT / page).read_text() for page in pages.PAGES}
    for name, make in made.items():
        assert [page for page, text in texts.items() if make() in text], (
            f'<!-- {name} --> stands nowhere'
        )
        assert (
            pages.rendered(f'<!-- {name} -->\n<!-- /{name} -->')
            == f'<!-- {name} -->\n{make()}\n<!-- /{name} -->'
        )


def test_every_test_that_the_robustness_page_names_exists():
    page = (ROOT / 'docs' / 'robustness.md').read_text()
    known = {
        name
        for path in ROOT.glob('tests/**/*.py')
        for name in re.findall(r'^def test_(\w+)', path.read_text(), re.M)
    }
    rows = re.findall(r'^\| (?!trouble|environment|---).* \| (`.*`) \|$', page, re.M)
    named = {name for row in rows for name in re.findall(r'`(\w+)`', row)}
    assert len(rows) > 20 and not named - known, sorted(named - known)


PAGES = [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('benchmarks/**/*.md')]


@pytest.mark.parametrize('path', [*PAGES, *ROOT.glob('configs/*.yaml')], ids=lambda path: path.name)
def test_pages_and_configs_keep_to_100_columns(path):
    """Rows of tables apart, which Markdown cannot break."""
    lines = enumerate(path.read_text().splitlines(), 1)
    assert not [at for at, line in lines if len(line) > 100 and not line.startswith('|')]
