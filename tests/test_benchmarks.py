"""The benchmark programs: what they compute from results, and that every variant they would run
is a configuration that exists.
"""

import argparse
import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks import ablate, attention, learning, ranks, speed
from dreamer4.agent_config import AgentConfig, check
from embodied.config import parse

CONFIGS = Path(__file__).parents[1] / 'configs'


@pytest.mark.parametrize('name', ablate.VARIANTS)
def test_every_variant_is_a_configuration_that_differs_from_the_preset_in_what_it_names(name):
    make = lambda flags: parse(['--configs', 'pixel', *flags], CONFIGS).agent.build(AgentConfig)
    flags = list(ablate.VARIANTS[name].flags)
    check(make(flags))
    assert (make(flags) == make([])) == (not flags), f'{flags} changes nothing'


def test_interval_of_three_values_is_the_one_of_student():
    mean, half = ablate.interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert math.isnan(ablate.interval([1.0])[1])


def run(variant, seed, score):
    curve = {'frames': [100, 200, 300], 'score': [-0.75, score / 2, score]}
    return {
        'variant': variant,
        'task': 'pixel_catch',
        'seed': seed,
        'eval': {'mean': score},
        'seconds': 60,
        'curve': curve,
    }


def test_the_table_orders_changes_by_what_they_reach():
    text = ablate.table([run('preset', 0, 1.0), run('preset', 1, 1.0), run('k_4', 0, 0.125)])
    rows = text.splitlines()
    assert '`preset`' in rows[4] and '100% +- 0%' in rows[4] and '200, 200' in rows[4], (
        '.5 is more than half of the way from -0.75 to 1'
    )
    assert '`k_4`' in rows[5] and '50%' in rows[5] and '300' in rows[5]
    assert ablate.half_way(run('k_4', 0, 0.0)) == float('inf')


def test_runs_that_are_made_again_replace_those_of_older_code(tmp_path, monkeypatch):
    folders = []

    def one_run(task, seed, folder, args):
        folders.append(folder)
        return {key: value for key, value in run('', seed, 0.9).items() if key != 'variant'}

    monkeypatch.setattr(ablate, 'one_run', one_run)
    monkeypatch.setattr(ablate, 'commit', lambda: 'c0ffee')
    results = {'runs': [run('k_2', 0, 0.1), run('k_4', 0, 0.2)]}
    args = argparse.Namespace(
        tasks=['pixel_catch'], seeds=[0], only=['k_2'], jobs=1, frames=1, minutes=1, again=False
    )
    ablate.missing(args, results, tmp_path / 'ablate.json')
    assert not folders
    args.again = True
    ablate.missing(args, results, tmp_path / 'ablate.json')
    found = {row['variant']: row['eval']['mean'] for row in results['runs']}
    assert found == {'k_2': 0.9, 'k_4': 0.2} and len(results['runs']) == 2
    assert folders == ['ablate/c0ffee/k_2'], 'runs of older code are not gone on with'


def test_the_table_of_attention_kernels_has_a_row_for_every_use_and_marks_the_fastest():
    agent = speed.make('pixel', '', {}, ['--machine.threads', '1'])
    uses = attention.uses(agent)
    tokens, c = agent.world.dynamics.layout.size, agent.config
    assert uses['noisy frames, time'].shape[1:5] == (
        4 * (tokens - 1),
        4 * (tokens - 1),
        c.batch.length,
        2 * c.batch.length,
    )
    slow = dict.fromkeys(attention.KERNELS, 30.0)
    found = {
        place: {
            'shape': use.shape,
            'learns': use.learns,
            'us': slow | {'explicit': 20.0, 'flex': None, 'flex, cap 50': 10.0},
        }
        for place, use in uses.items()
    }
    rows = attention.table({'presets': {'pixel': found}}).splitlines()[2:]
    assert len(rows) == len(uses) and all(
        row.count('**20**') == 1 and row.count('**') == 2 for row in rows
    )


def test_a_kernel_is_timed_on_every_use():
    agent = speed.make(
        'pixel',
        '',
        {'agent.batch.size': 2, 'agent.batch.length': 4, 'agent.imagination.starts': 4},
        ['--machine.threads', '1'],
    )
    for use in attention.uses(agent).values():
        with torch.set_grad_enabled(use.learns):
            assert attention.seconds(agent, attention.call(agent, use, 'explicit', 50.0), 0) > 0


def test_share_is_the_way_from_random_to_optimal():
    assert learning.share('pixel_catch', -0.75) == 0 and learning.share('pixel_catch', 1.0) == 1
    assert learning.share('dmc_cheetah_run', 3.0) is None


def test_published_returns_are_read_at_the_frames_asked_for():
    assert round(learning.published('DreamerV3', 'dmc_cartpole_balance', 100_000)) == 934
    assert learning.published('DreamerV3', 'pixel_catch', 100_000) is None
    assert learning.published_cell('dmc_cartpole_balance', 100) == 'not published', (
        'its first point stands at thousands of frames'
    )


def test_the_picture_of_a_task_with_published_curves_is_drawn(tmp_path):
    curve = {'frames': [1000, 2000], 'seconds': [1.0, 2.0], 'score': [10.0, 20.0]}
    made = {
        'task': 'dmc_walker_walk',
        'seed': 0,
        'eval': {'mean': 20.0, 'ci95': 1.0},
        'curve': curve,
        'seconds': 2,
    }
    learning.draw([made], tmp_path / 'x.png')
    assert (tmp_path / 'x.png').stat().st_size > 5000
    assert '20' in learning.table([made])
    again = made | {'commit': 'abc1234'}
    assert (
        learning.run_name(made, [made]) == 'seed 0'
        and learning.run_name(again, [made, again]) == 'seed 0 (abc1234)'
    )


def test_the_line_of_random_play_is_known_or_measured():
    run = lambda task, mean, episodes: {
        'task': task,
        'random': {'mean': mean, 'episodes': episodes},
    }
    runs = [
        run('dmc_walker_walk', 20.0, 3),
        run('dmc_walker_walk', 40.0, 2),
        run('dmc_walker_walk', float('nan'), 0),
        run('pixel_catch', 5.0, 1),
    ]
    assert (
        learning.bounds('dmc_walker_walk', runs) == (30.0,)
        and learning.bounds('dmc_cheetah_run', runs) == ()
    )
    assert learning.bounds('pixel_catch', runs) == (-0.75, 1.0)


def test_a_run_that_ended_no_episode_is_drawn_and_listed(tmp_path):
    made = {
        'task': 'dmc_walker_walk',
        'seed': 0,
        'eval': {'mean': 2.0, 'ci95': 1.0},
        'seconds': 2,
        'curve': {'frames': [], 'seconds': [], 'score': []},
    }
    learning.draw([made], tmp_path / 'x.png')
    assert 'dmc_walker_walk' in learning.table([made])


def test_random_play_is_what_was_scored_before_the_policy_learned(tmp_path):
    write = lambda name, lines: (tmp_path / name).write_text(
        '\n'.join(map(json.dumps, lines)) + '\n'
    )
    write(
        'metrics.jsonl',
        [
            {'frames': 100, 'loss/flow': 1.0},
            {'frames': 200, 'policy/entropy': 1.0},
            {'frames': 300, 'policy/entropy': 0.9},
        ],
    )
    write(
        'scores.jsonl',
        [{'frames': f, 'score': s} for f, s in ((50, 1.0), (150, 3.0), (250, 100.0))],
    )
    assert learning.before_policy(tmp_path) == {'mean': 2.0, 'episodes': 2}
    assert learning.before_policy(tmp_path / 'absent')['episodes'] == 0


def test_time_that_is_talked_and_computed_counts_once():
    talks, works = [(5.0, 7.0), (0.0, 2.0), (1.0, 3.0)], [(2.0, 6.0), (2.5, 2.75)]
    assert ranks.merged(talks) == [(0.0, 3.0), (5.0, 7.0)]
    assert ranks.length(talks) == 5 and ranks.overlap(talks, works) == 2
    assert ranks.overlap(talks, [(8.0, 9.0)]) == 0
