"""The diagnosis: healthy numbers pass, and each broken part is named first."""

import json
import re
from pathlib import Path

import pytest

from dreamer4.diagnose import diagnose, find, main

HEALTHY = {
    'step': 100,
    'frames': 100,
    'updates': 10,
    'episodes': 5,
    'tokenizer/unexplained': 0.02,
    'tokenizer/latent_std': 0.5,
    'tokenizer/latent_spread': 0.3,
    'tokenizer/pixel_std': 0.1,
    'report/reward_on_first': 0.0,
    'report/reward_missed_on_last': 0.0,
    'report/psnr/image': 30.0,
    'report/psnr_mean_frame/image': 12.0,
    'report/error_1': 0.1,
    'report/error': 0.2,
    'report/shuffle_ratio': 4.0,
    'report/reward_skill': 0.8,
    'report/reward_skill_real': 0.9,
    'report/return_corr': 0.9,
    'value/explained': 0.7,
    'policy/positive': 0.5,
    'policy/entropy': 0.5,
    'policy/kl': 0.05,
    'episode/score': 0.9,
}


def logged(folder, **changes):
    folder.mkdir(exist_ok=True)
    (folder / 'metrics.jsonl').write_text(json.dumps(HEALTHY | changes) + '\n{"torn')
    return folder


RSSM = {
    'latent/kl': 0.9,
    'report/unexplained': 0.05,
    'tokenizer/unexplained': None,
    'tokenizer/latent_spread': None,
}


@pytest.mark.parametrize(
    'changes,words',
    [
        ({}, 'Nothing wrong'),
        ({'latent/kl': 0.001}, 'Nothing wrong'),  # all that is seen can be foreseen
        ({'latent/kl': 0.001, 'report/unexplained': 0.9}, 'it has collapsed'),
        ({'report/unexplained': 0.7}, 'the decoder leaves 70%'),
        ({'report/error_1': 1.2, 'report/error': 3.0}, 'First cause: one step ahead'),
        ({'report/shuffle_ratio': 1.0}, 'ignores actions'),
    ],
)
def test_a_recurrent_state_space_model_is_diagnosed_too(tmp_path, capsys, changes, words):
    main([str(logged(tmp_path, **RSSM | changes))])
    assert words in capsys.readouterr().out


def test_actions_that_change_little_but_rightly_are_not_ignored(tmp_path):
    changes = {'report/shuffle_ratio': 1.02, 'report/action_effect': 0.8}
    assert main([str(logged(tmp_path, **changes))]) == 0


def test_a_healthy_run_has_nothing_wrong(tmp_path, capsys):
    assert main([str(logged(tmp_path))]) == 0
    assert 'Nothing wrong' in capsys.readouterr().out


@pytest.mark.parametrize(
    'changes,words',
    [
        ({'tokenizer/pixel_std': 0.0, 'tokenizer/latent_spread': 0.0}, 'does the env render'),
        ({'tokenizer/latent_spread': 0.01}, 'collapsed'),
        ({'report/reward_on_first': 0.4}, 'one row late'),
        ({'report/psnr/image': 12.5}, 'small objects are missing'),
        ({'report/shuffle_ratio': 1.02}, 'ignores actions: shuffle ratio 1.02'),
        (
            {'report/action_effect': 0.03},
            'do not matter: 0.03 of what the model says that they change',
        ),
        (
            {'report/reward_missed_on_last': 16.0, 'report/reward_skill_real': 0.1},
            'where 16 would if last rows were like others: rewards are recorded one row early',
        ),
        (
            {'report/reward_skill_real': -0.1, 'report/reward_skill': -0.2},
            'not a function of what is seen',
        ),
        ({'report/error_1': 1.3}, 'do not predict'),
        ({'policy/entropy': 0.001}, 'collapsed'),
    ],
)
def test_a_fault_is_the_first_cause(tmp_path, capsys, changes, words):
    assert main([str(logged(tmp_path, **changes))]) == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith('First cause') and words in last


def test_a_policy_that_is_sure_has_collapsed_only_if_it_is_no_better_than_random_play(tmp_path):
    sure = HEALTHY | {'policy/entropy': 0.01}
    for returns, score, code in (
        ((-0.9, -0.7, -0.6), 0.99, 0),
        ((-0.9, -0.7, -0.6), -0.5, 1),
        ((-0.733,), -0.732, 1),
        ((), 0.99, 1),
    ):
        logged(tmp_path, **sure | {'episode/score': score})
        # of the policy
        lines = [{'frames': 10, 'score': one} for one in returns] + [
            {'frames': 200, 'score': 0.99}
        ] * 9
        (tmp_path / 'scores.jsonl').write_text(
            '\n'.join(json.dumps(line) for line in lines) + '\n{"torn'
        )
        assert main([str(tmp_path)]) == code, (returns, score)


def test_reports_win_over_gates_and_missing_numbers_are_said_to_be_missing():
    assert find({'gate/error_1': 0.9, 'report/error_1': 0.1}, 'error_1') == 0.1
    assert find({'gate/error_1': 0.9}, 'error_1') == 0.9
    assert all(fine is None for *_, fine, _ in diagnose({}))


def test_a_wrong_folder_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert 'metrics.jsonl does not exist' in capsys.readouterr().err


@pytest.mark.parametrize(
    'flags, changes, words',
    [
        (
            {'report/rewards_vary': 0.0},
            {
                'report/reward_skill': 0.0,
                'report/reward_skill_real': -1.0,
                'report/return_corr': 0.0,
                'value/explained': 0.0,
                'policy/positive': 1.0,
            },
            'rewards never change',
        ),
        (
            {'tokenizer/frames_vary': 0.0, 'tokenizer/images_vary': 0.0, 'report/frames_move': 0.0},
            {
                'tokenizer/pixel_std': 0.0,
                'tokenizer/latent_spread': 0.0,
                'report/psnr/image': 12.0,
                'report/error': 100.0,
                'report/error_1': 100.0,
                'report/shuffle_ratio': 1.0,
                'report/reward_skill': 0.0,
                'report/reward_skill_real': 0.0,
            },
            'frames never change: all are black',
        ),
        (
            {'tokenizer/frames_vary': 1.0, 'tokenizer/images_vary': 0.0},
            {'tokenizer/pixel_std': 0.0, 'report/psnr/image': 12.0},
            'images never change: all are black',
        ),
        (
            {'tokenizer/frames_vary': 1.0, 'report/frames_move': 0.0},
            {'report/error': 100.0, 'report/error_1': 100.0, 'report/shuffle_ratio': 1.0},
            'frames never change within an episode',
        ),
        (
            {'report/actions_vary': 0.0},
            {'report/shuffle_ratio': 1.0, 'policy/entropy': 0.0},
            'actions never vary',
        ),
    ],
)
def test_data_that_give_nothing_to_measure_are_told_and_nothing_is_blamed(
    tmp_path, capsys, flags, changes, words
):
    assert main([str(logged(tmp_path, **changes))]) == 1, 'without the flags they are faults'
    capsys.readouterr()
    assert main([str(logged(tmp_path, **changes, **flags))]) == 0
    out = capsys.readouterr().out
    assert (
        'Nothing wrong' in out
        and out.count('To know: ') == 1
        and f'To know: {words}' in out
        and '!!' not in out
    )


def test_a_fault_beside_still_frames_is_still_found(tmp_path, capsys):
    changes = {
        'tokenizer/frames_vary': 1.0,
        'tokenizer/images_vary': 0.0,
        'tokenizer/pixel_std': 0.0,
        'report/error_1': 1.3,
    }
    assert main([str(logged(tmp_path, **changes))]) == 1
    assert (
        capsys.readouterr().out.strip().splitlines()[-1].startswith('First cause: one step ahead')
    )


@pytest.mark.parametrize('name', ['reward', 'value'])
def test_numbers_beyond_the_bins_are_named_with_the_key_to_change(tmp_path, capsys, name):
    assert main([str(logged(tmp_path, **{f'{name}/beyond': 0.02, 'value/explained': 0.01}))]) == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith('First cause: a share of 0.02') and 'agent.heads.limit' in last


def test_several_tasks_are_told_apart_and_one_that_is_learned_excuses_a_sure_policy(
    tmp_path, capsys
):
    """Returns of a task whose unit is larger would hide that."""
    folder = logged(tmp_path, **{'episode/score/walk': 300.0, 'episode/score/catch': 0.9})
    metrics = (folder / 'metrics.jsonl').read_text().splitlines()[0]
    (folder / 'metrics.jsonl').write_text(
        metrics.replace('"policy/entropy": 0.5', '"policy/entropy": 0.001') + '\n'
    )
    played = {'walk': (250.0, 350.0), 'catch': (-0.8, -0.6)}
    lines = [
        json.dumps({'frames': 50, 'score': score, 'task': task})
        for task, scores in played.items()
        for score in scores
    ]
    (folder / 'scores.jsonl').write_text('\n'.join(lines) + '\n')
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert 'episode/score/walk             300  random play 300' in out
    assert 'episode/score/catch            0.9  random play -0.7' in out
    (folder / 'scores.jsonl').write_text('\n'.join(lines[:2]) + '\n')
    assert main([str(folder)]) == 1 and 'has collapsed' in capsys.readouterr().out


# What docs/pitfalls.md quotes of the command -> numbers that make it say so.
OPEN = [{'policy/entropy': 1.1, 'policy/openness': 1.0, 'frames': 20 + i} for i in range(10)]
PITFALLS = {
    'it has collapsed': RSSM | {'latent/kl': 0.001, 'report/unexplained': 0.9},
    'the encoder has collapsed': {'tokenizer/latent_spread': 0.01},
    'the latents are saturated': {'tokenizer/latent_std': 0.95},
    'the dynamics do not predict': {'report/error_1': 1.3},
    'dynamics ignores actions': {'report/shuffle_ratio': 1.02},
    'rollouts drift': {'report/error': 1.2},
    'The run ended by NonFiniteLoss': {},
    'it lags behind': {'value/explained': 0.1},
    'advantages are smaller than the bonus': {'episode/score': -0.8},
    'the policy has collapsed': {'policy/entropy': 0.001, 'episode/score': -0.8},
    'signs carry no preference': {'policy/positive': 1.0},
}
TEXT = (Path(__file__).parents[2] / 'docs' / 'pitfalls.md').read_text()


def test_every_symptom_of_the_page_is_one_that_the_command_names():
    assert re.findall(r'\("([^"]*)"\)', re.sub(r'\s+', ' ', TEXT)) == list(PITFALLS)


@pytest.mark.parametrize('share, blamed', [(0.5, False), (0.99, True)])
def test_a_policy_is_as_open_as_its_metric_says_however_it_began(tmp_path, capsys, share, blamed):
    """One that begins as the behaviour clone is as sure as that."""
    rows = [{'policy/entropy': 1.0, 'policy/openness': share, 'frames': 20 + i} for i in range(10)]
    rows.append(HEALTHY | rows[-1] | {'episode/score': -0.8})
    (tmp_path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    lines = [{'frames': 10, 'score': score} for score in (-0.9, -0.7, -0.6)]
    (tmp_path / 'scores.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    assert main([str(tmp_path)]) == blamed
    assert ('99% of the largest possible' in capsys.readouterr().out) == blamed


@pytest.mark.parametrize(
    'words, kind',
    [
        (words, kind)
        for words in PITFALLS
        for kind in ({}, RSSM)
        # an RSSM has no tokenizer
        if not kind or words not in ('the encoder has collapsed', 'the latents are saturated')
    ],
)
def test_a_symptom_of_the_page_is_the_first_cause_of_its_numbers(tmp_path, capsys, words, kind):
    logged(tmp_path, **kind | PITFALLS[words])
    lines = [{'frames': 10, 'score': score} for score in (-0.9, -0.7, -0.6)]
    (tmp_path / 'scores.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    last = (tmp_path / 'metrics.jsonl').read_text().splitlines()[0]
    if words == 'advantages are smaller than the bonus':
        open_still = {'policy/entropy': 1.09, 'policy/openness': 0.99}
        rows = [*map(json.dumps, OPEN), json.dumps(json.loads(last) | open_still)]
        (tmp_path / 'metrics.jsonl').write_text('\n'.join(rows))
    (tmp_path / 'events.log').write_text(
        '12:00 The run ended by NonFiniteLoss: model: a step was refused\n'
        if words.startswith('The run')
        else '12:00 The run ended by OSError: no disk\n12:01 Continuing here at step 9.\n'
    )
    assert main([str(tmp_path)]) == 1
    *_, cause = capsys.readouterr().out.strip().splitlines()
    assert cause.startswith('First cause') and words in cause
