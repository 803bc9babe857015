"""Budgets beside what the machine has: who asks for more is told what would fit."""

import os
import re
import shutil
from types import SimpleNamespace

import pytest

from embodied import machine
from embodied.machine import disk_gb, memory_gb, over_disk, over_memory, rounded


@pytest.fixture
def limits(monkeypatch, tmp_path):
    """limits(text) pretends that a container's limit of memory reads so."""

    def pretend(text):
        (tmp_path / 'limit').write_text(text)
        monkeypatch.setattr(machine, 'LIMITS', (str(tmp_path / 'nowhere'), str(tmp_path / 'limit')))

    return pretend


def test_memory_is_that_of_the_machine_or_of_its_container(limits):
    whole = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
    for text, expected in (('500000000\n', 0.5), ('max\n', whole), ('9223372036854771712', whole)):
        limits(text)
        assert memory_gb() == expected


@pytest.mark.parametrize(
    'budgets, offered, words',
    [
        ({'a': 8.0, 'b': 0.0}, 10.0, None),
        ({'a': 0.0}, 0.0, None),
        (
            {'a': 8.1, 'b': 0.0},
            10.0,
            'a 8.1 may take 8.1 GB, but here has 10 GB.*take --a 8 or less',
        ),
        ({'a': 3.0, 'b': 7.0}, 10.0, r'a 3 \+ b 7 may take 10 GB.*take --b 5 or less'),
        ({'a': 9.0, 'b': 9.5}, 10.0, 'lower them'),
    ],
)
def test_budgets_beyond_the_memory_are_told_together_with_what_fits(budgets, offered, words):
    told = over_memory(budgets, offered, 'here')
    if words is None:
        assert told == []
    else:
        assert len(told) == 1 and re.search(words, told[0]), told


def test_a_budget_beyond_the_disk_counts_what_the_folder_already_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=2_000_000))
    (tmp_path / 'rows').mkdir()
    (tmp_path / 'rows' / 'chunk').write_bytes(bytes(1_000_000))
    assert disk_gb(tmp_path / 'rows') == pytest.approx(0.003)
    assert disk_gb(tmp_path / 'not' / 'yet') == pytest.approx(0.002)
    assert over_disk('replay.disk_gb', 0.003, tmp_path / 'rows') == []
    (told,) = over_disk('replay.disk_gb', 5.0, tmp_path / 'rows')
    assert 'replay.disk_gb is 5 GB, but the disk has 0.003 GB' in told


def test_sizes_are_rounded_down():
    assert [rounded(size) for size in (0.19, 9.99, 10.9, 123.9)] == ['0.1', '9.9', '10', '123']
