"""The table of suites: what is there is measured, what is not is said in words."""

import importlib.util

from benchmarks import pages, worlds
from embodied import envs
from embodied.config import parse


def test_every_suite_has_a_row_and_presets_that_exist():
    known = set(envs.available()) - {'dummy', 'remote'}
    assert {task.partition('_')[0] for task in worlds.TASKS} == known
    for task, (_, presets) in worlds.TASKS.items():
        config = parse(['--configs', *presets.split()], worlds.ROOT / 'configs')
        envs.make_config(task, config.env.to_dict())


def test_a_suite_is_timed_by_its_frames():
    config = parse(['--configs', 'pixel'], worlds.ROOT / 'configs').env.to_dict()
    found = worlds.speed('pixel_catch', config)
    assert found['made'] and found['fps'] > 0


def test_what_is_not_installed_is_said_in_words(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    row = worlds.measure('minigrid_Empty-8x8', 1, 1.0)
    assert row['words'] == 'the package minigrid is not installed' and 'made' not in row
    assert 'gym3' in worlds.measure('procgen_coinrun', 1, 1.0)['words']


def test_the_table_says_what_worked_and_what_did_not(monkeypatch):
    row = {'package': 'games', 'version': '1.0', 'presets': 'pixel'}
    good = row | {'made': True, 'fps': 1234.5, 'contract': '', 'trained': True}
    good |= {'updates': 7, 'losses': 9}
    tasks = {'a_b': good, 'c_d': row | {'words': 'no wheel'}}
    found = {'tasks': tasks, 'machine': {'device': 'cpu', 'cpus': 2, 'torch': '2'}}
    monkeypatch.setattr(pages, 'read', lambda name: found)
    text = pages.worlds()
    assert '| `a_b` | games 1.0 | yes | yes | 7 updates, 9 finite losses (`pixel debug`) |' in text
    assert '| 1,234 |' in text and '| `c_d` | games 1.0 | no | | | | no wheel |' in text
