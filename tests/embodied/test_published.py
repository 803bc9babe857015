"""Scores on their published scale."""

import json

import numpy as np
import pytest

from embodied import published
from embodied.log.metrics import EpisodeStats, goals_of
from embodied.run.evaluate import FirstEpisodes


def test_a_score_is_placed_between_its_references():
    assert published.normalised('atari_pong', 14.6) == pytest.approx(1)
    assert published.normalised('atari_pong', -20.7) == pytest.approx(0)
    assert published.normalised('atari_ms_pacman', 307.3 + 6644.3 / 2) == pytest.approx(0.5)
    assert published.normalised('pixel_catch', 1) is None
    assert len(published.REFERENCES['atari']) == 26 and len(published.REFERENCES['procgen']) == 16


def test_the_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert published.iqm([100, 1, 2, 3, 4, 5, 6, -50]) == pytest.approx(3.5)
    low, high = published.iqm_interval({'a': [0.0, 1.0, 2.0], 'b': [4.0, 4.0, 4.0]})
    assert 0 < low < published.iqm([0, 1, 2, 4, 4, 4]) < high <= 4


def test_the_crafter_score_is_the_geometric_mean_of_success_rates():
    assert published.crafter_score([0.0, 0.0]) == 0
    assert published.crafter_score([1.0]) == pytest.approx(100)
    # ln(1 + 0) and ln(1 + 99) in the mean are ln 10
    assert published.crafter_score([0.0, 0.99]) == pytest.approx(9)


def rows(goals):
    """An episode of rows with log/success as given."""
    for number, value in enumerate(goals):
        yield {
            'reward': np.float32(1),
            'is_first': number == 0,
            'is_last': number == len(goals) - 1,
            'is_terminal': False,
            'log/success': np.float32(value),
            'log/speed': np.float32(3),
        }


def test_an_episode_reaches_a_goal_where_its_log_was_ever_above_zero():
    found = []
    stats = EpisodeStats(lambda score, length, logs: found.append(goals_of(logs)))
    evaluated = FirstEpisodes([2], 0)
    for goals in ([0, 1, 0], [0, 0, 0]):
        for row in rows(goals):
            stats(row, 0)
            evaluated(row, 0)
    assert found == [{'success': 1}, {'success': 0}]
    assert evaluated.result().goals == {'success': 0.5}


def run(folder, task, scores, goals):
    folder.mkdir()
    (folder / 'config.yaml').write_text(f'task: {task}\n')
    lines = [{'frames': 1, 'score': s, 'goals': g} for s, g in zip(scores, goals)]
    (folder / 'scores.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return folder


def test_runs_are_reported_with_normalised_scores_and_rates(tmp_path, capsys):
    pong = run(tmp_path / 'a', 'atari_pong', [-20.7, 14.6, 14.6], [{}] * 3)
    goals = [{'achievement_a': 1, 'achievement_b': 0}, {'achievement_a': 1, 'achievement_b': 0}]
    crafter = run(tmp_path / 'b', 'crafter_reward', [2.1, 2.1], goals)
    assert published.main([str(pong), str(crafter), '--last', '2']) == 0
    text = capsys.readouterr().out
    assert 'atari_pong: 14.6 (2 episodes of training), normalised 1.000' in text
    assert f'Crafter score {np.sqrt(101) - 1:.2f} %' in text and '  b: 0.0%' in text
    assert '2 tasks, 2 runs, normalised: mean 0.500, median 0.500, IQM 0.500' in text
    (crafter / 'eval').mkdir()
    result = {'task': 'crafter_reward', 'mean': 14.3, 'episodes': 5, 'goals': {}}
    (crafter / 'eval' / 'eval.json').write_text(json.dumps(result))
    assert published.main([str(crafter)]) == 0
    assert '14.3 (5 episodes of evaluation), normalised 1.000' in capsys.readouterr().out


def test_a_folder_without_episodes_is_refused(tmp_path, capsys):
    assert published.main([str(tmp_path)]) == 2
    assert 'holds no finished episode' in capsys.readouterr().err
