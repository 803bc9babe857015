"""docs/metrics.md has a line for every number that a run logs, and for no other."""

import json
import re
from pathlib import Path

import pytest

from dreamer4 import main
from dreamer4.agent import WATCHED
from dreamer4.diagnose import CHECKS

PAGE = (Path(__file__).parents[1] / 'docs' / 'metrics.md').read_text()
TABLES = PAGE.split('## Pictures')[0]
ELSEWHERE = {  # what a healthy run of one task at debug size without LPIPS and stacks does not log
    'episode/score/<task>',
    'episode/score_of_tasks',
    'eval/<task>/score',
    'tokenizer/lpips',
    'tokenizer/steps_unexplained',
    'held_out/<stage>',
    'nonfinite',
    'nonfinite/<name>',
}


def rows():
    """The cells of every line of the tables that explains metrics."""
    lines = re.findall(r'^\| `.*$', TABLES, re.M)
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]


NAMES = [name for first, *_ in rows() for name in re.findall(r'`([^`]+)`', first)]


def pattern(name):
    """The expression of a name in which <...> stands for anything."""
    return re.compile(re.sub(r'<.*?>', '.+', re.escape(name)))


@pytest.fixture(scope='module')
def logged(tmp_path_factory):
    """Names of all that runs of each world model with images, vectors and all kinds of actions
    log.
    """
    flags = """--script train_eval --task dummy --run.steps 200
        --run.prefill 130 --run.log_every 20 --run.report_every 180 --run.train_ratio 24
        --eval.every 180 --agent.schedule.tokenizer_updates 4 --agent.schedule.dynamics_updates 8
        --agent.schedule.gate_every 4 --agent.schedule.value_updates 2
        --agent.shortcut.bootstrap 0.25 --agent.heads.learn_on dreamed --machine.threads 1
        --driver.parallel false --logger.outputs terminal jsonl"""
    found = set()
    for presets in ('gym debug', 'gym dreamerv3 debug'):
        logdir = tmp_path_factory.mktemp('metrics')
        assert main.main(f'{flags} --configs {presets} --logdir {logdir}'.split()) == 0
        lines = (logdir / 'metrics.jsonl').read_text().splitlines()
        found |= {name for line in lines for name in json.loads(line)}
    return found


def test_every_number_of_a_run_has_a_line(logged):
    assert 'policy/entropy' in logged and 'eval/score' in logged and 'report/error_1' in logged
    known = [pattern(name) for name in NAMES]
    assert sorted(name for name in logged if not any(p.fullmatch(name) for p in known)) == []


def test_every_line_is_of_a_number_that_is_logged(logged):
    found = lambda name: any(pattern(name).fullmatch(other) for other in logged)
    assert {name for name in NAMES if not found(name)} == ELSEWHERE


def test_every_line_says_what_it_is_and_in_which_unit():
    assert len(NAMES) == len(set(NAMES)) > 60
    for row in rows():
        assert len(row) == 4 and len(row[1]) > 3 and row[2], row


def test_what_diagnose_looks_at_is_explained_with_what_is_good():
    """Or made of metrics that are."""
    made = ('report/foreground_gain', 'policy/openness')
    good = {name: row[3] for row in rows() for name in re.findall(r'`([^`]+)`', row[0])}
    for check in CHECKS:
        names = [name for name in good if name == check.name or name.endswith(f'/{check.name}')]
        explained = names and all(good[name] for name in names)
        assert explained or check.name in made, check.name


def test_the_metrics_of_the_terminal_line_are_logged(logged):
    assert {name for names in WATCHED.values() for name in names} <= logged
