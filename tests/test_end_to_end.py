"""Whole runs through the public command line: train, kill, resume, evaluate, learn offline,
collect; from pixels of dm_control too. In processes of their own where a process is what is
tested, else in this one.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dreamer4 import main
from embodied.checkpoint import Checkpoint

TINY = """--machine.threads 1 --run.prefill 100 --run.report_every 100 --run.log_every 50
    --agent.schedule.gate_sequences 4""".split()


def command(*flags):
    return [sys.executable, '-m', 'dreamer4.main', *map(str, flags)]


def run(*flags, status=0):
    """A command in this process; what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main.main([str(flag) for flag in flags])
    done = SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())
    assert found == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def run_apart(*flags):
    """A command in a process of its own."""
    done = subprocess.run(command(*flags), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def lines(path):
    return [json.loads(text) for text in Path(path).read_text().splitlines()]


def trees(logdir):
    return Checkpoint(Path(logdir) / 'ckpt', 2).load()


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def pixel(logdir, steps, *flags):
    return [
        '--configs',
        'pixel',
        'debug',
        '--task',
        'pixel_catch',
        '--logdir',
        logdir,
        '--run.steps',
        steps,
        *TINY,
        *flags,
    ]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A short run on pixel_catch."""
    logdir = tmp_path_factory.mktemp('trained') / 'run'
    run_apart(*pixel(logdir, 220))
    return logdir


def test_a_run_leaves_what_the_readme_promises(trained):
    assert (
        (trained / 'config.yaml').exists()
        and list(trained.glob('events.out.tfevents*'))
        and list((trained / 'videos').glob('*.gif'))
    )
    metrics, scores = lines(trained / 'metrics.jsonl'), lines(trained / 'scores.jsonl')
    assert {'step', 'frames', 'updates', 'episodes', 'seconds'} <= set(metrics[-1])
    assert metrics[-1]['step'] >= 220 and metrics[-1]['updates'] > 5
    assert all(set(row) == {'frames', 'step', 'score', 'length'} for row in scores)
    assert not any('nonfinite' in row for row in metrics)


def test_scores_are_those_of_the_rows_in_the_replay(trained, tmp_path):
    """Two ways to the same numbers: scores.jsonl and the stored rows of the run."""
    _, meta = trees(trained)
    replay_rows = [np.load(path) for path in (trained / 'replay').glob('*.npz')]
    stored = sorted(
        np.concatenate([rows['reward'][rows['is_last']] for rows in replay_rows]).tolist()
    )
    assert stored == sorted(row['score'] for row in lines(trained / 'scores.jsonl')), (
        'catch pays only on the last row of an episode'
    )
    decisions = sum(int((~rows['is_first']).sum()) for rows in replay_rows)
    assert decisions == meta['step']


def test_eval_only_runs_exactly_the_episodes_asked_for_and_ends(trained, tmp_path):
    run(
        '--configs',
        'pixel',
        'debug',
        '--task',
        'pixel_catch',
        '--script',
        'eval_only',
        '--from_checkpoint',
        trained,
        '--eval.episodes',
        5,
        '--eval.videos',
        1,
        '--logdir',
        tmp_path,
    )
    result = json.loads((tmp_path / 'eval' / 'eval.json').read_text())
    assert set(result) >= {
        'mean',
        'std',
        'ci95',
        'episodes',
        'returns',
        'lengths',
        'task',
        'checkpoint',
        'seed',
    }
    assert result['episodes'] == len(result['returns']) == 5 and set(result['lengths']) == {7}
    assert result['mean'] == pytest.approx(np.mean(result['returns']))
    assert len(list((tmp_path / 'eval').glob('*.gif'))) == 1


def test_offline_learns_from_the_replay_of_a_run_without_changing_it(trained, tmp_path):
    before = {
        path.name: path.read_bytes() for path in (trained / 'replay').iterdir() if path.is_file()
    }
    run(
        '--configs',
        'pixel',
        'debug',
        '--script',
        'offline',
        '--replay.directory',
        trained / 'replay',
        '--logdir',
        tmp_path / 'off',
        '--run.updates',
        60,
        *TINY,
        '--run.log_every',
        20,
    )
    assert {
        path.name: path.read_bytes() for path in (trained / 'replay').iterdir() if path.is_file()
    } == before
    metrics = lines(tmp_path / 'off' / 'metrics.jsonl')
    assert metrics[-1]['updates'] == 60 and any('policy/entropy' in row for row in metrics)


def test_collect_fills_a_folder_that_offline_can_read(tmp_path):
    run(
        '--configs',
        'pixel',
        'debug',
        '--task',
        'pixel_reach',
        '--script',
        'collect',
        '--run.steps',
        150,
        '--logdir',
        tmp_path / 'c',
        '--replay.directory',
        tmp_path / 'rows',
    )
    run(
        '--configs',
        'pixel',
        'debug',
        '--script',
        'offline',
        '--replay.directory',
        tmp_path / 'rows',
        '--logdir',
        tmp_path / 'off',
        '--run.updates',
        3,
        *TINY,
    )


def test_train_eval_keeps_evaluation_apart(tmp_path):
    run(*pixel(tmp_path / 'r', 210, '--script', 'train_eval', '--eval.every', 100))
    evaluations = lines(tmp_path / 'r' / 'eval' / 'scores.jsonl')
    assert len(evaluations) == 2 and all(row['episodes'] == 2 for row in evaluations)
    assert any('eval/score' in row for row in lines(tmp_path / 'r' / 'metrics.jsonl'))


def test_an_interrupted_run_equals_one_that_was_not(tmp_path):
    """Parameters, optimizer, random states, rows and logs, bitwise; the interruption falls in
    the middle of episodes, and another process goes on.
    """
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    run(*pixel(whole, 320))
    for go, steps in ((run, 171), (run, 233), (run_apart, 320)):
        go(*pixel(parts, steps))
    (a, meta_a), (b, meta_b) = trees(whole), trees(parts)
    assert meta_a == meta_b
    assert equal(a['agent'], b['agent']), 'parameters, optimizers or random states differ'
    assert equal(a['driver']['envs'], b['driver']['envs'])
    assert lines(whole / 'scores.jsonl') == lines(parts / 'scores.jsonl')


def updates_of(logdir):
    """Updates that the newest checkpoint knows of; 0 without one."""
    saves = Checkpoint(logdir / 'ckpt', 2).saves() if (logdir / 'ckpt').exists() else []
    return trees(logdir)[1]['updates'] if saves else 0


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, wait_until):
    logdir = tmp_path / 'run'
    process = subprocess.Popen(
        command(*pixel(logdir, 100000, '--run.save_every', 0.5)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: updates_of(logdir))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    saved = trees(logdir)[1]
    run(*pixel(logdir, saved['step'] + 100))
    meta = trees(logdir)[1]
    assert meta['step'] >= saved['step'] + 100 and meta['updates'] > saved['updates']
    steps = [row['step'] for row in lines(logdir / 'metrics.jsonl')]
    assert steps == sorted(set(steps)), 'a step was logged twice'


def test_sigterm_saves_and_ends_cleanly(tmp_path, wait_until):
    logdir = tmp_path / 'run'
    process = subprocess.Popen(
        command(*pixel(logdir, 100000)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until((logdir / 'metrics.jsonl').exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
    assert trees(logdir)[1]['step'] > 0


def test_a_truncated_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    logdir = tmp_path / 'run'
    run(*pixel(logdir, 60))
    run(*pixel(logdir, 120))
    newest = Checkpoint(logdir / 'ckpt', 2).saves()[-1]
    target = newest / 'agent.safetensors'
    target.write_bytes(target.read_bytes()[:-100])
    done = run(*pixel(logdir, 180))
    assert 'Passing over a damaged checkpoint' in done.stdout and 'agent.safetensors' in done.stdout
    assert trees(logdir)[1]['step'] >= 180


def test_a_resume_with_other_settings_is_refused_with_the_keys_that_differ(trained):
    done = run(*pixel(trained, 220, '--agent.value.gamma', 0.5), status=2)
    assert (
        'agent.value.gamma' in done.stderr
        and '0.9 -> 0.5' in done.stderr
        and 'Traceback' not in done.stderr
    )


def test_a_checkpoint_of_another_size_is_refused_with_the_names_that_do_not_fit(trained, tmp_path):
    done = run(
        '--configs',
        'pixel',
        'debug',
        '--task',
        'pixel_catch',
        '--script',
        'eval_only',
        '--from_checkpoint',
        trained,
        '--logdir',
        tmp_path,
        '--agent.dynamics.width',
        64,
        status=2,
    )
    assert (
        'made for another agent' in done.stderr
        and 'agent.dynamics.width is 32 in the run, 64 here' in done.stderr
        and 'Traceback' not in done.stderr
    )


def test_a_replay_of_another_tasks_shapes_is_refused_by_key(trained, tmp_path):
    done = run(
        *pixel(
            tmp_path / 'r', 220, '--replay.directory', trained / 'replay', '--env.pixel.size', 64
        ),
        status=1,
    )
    assert 'image' in done.stderr and 'Traceback' not in done.stderr


def test_damaged_and_foreign_files_in_the_replay_are_named_and_nothing_else_is_lost(
    trained, tmp_path
):
    folder = tmp_path / 'rows'
    folder.mkdir()
    for path in (trained / 'replay').iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / 'notes.txt').write_text('mine')
    broken = sorted(folder.glob('*.npz'))[0]
    broken.write_bytes(broken.read_bytes()[:100])
    done = run(
        '--configs',
        'pixel',
        'debug',
        '--script',
        'offline',
        '--replay.directory',
        folder,
        '--logdir',
        tmp_path / 'off',
        '--run.updates',
        3,
        *TINY,
    )
    assert broken.name in done.stdout
    assert (folder / 'notes.txt').read_text() == 'mine'


@pytest.mark.parametrize(
    'flags,words',
    [
        (['--tsk', 'pixel_catch'], "unknown key 'tsk'; nearest: task"),
        (['--task', 'pixel_catch', '--configs', 'pixl'], 'nearest: pixel'),
        (['--task', 'pixel_ctch'], 'nearest: pixel_catch'),
        (['--task', 'pixel_catch', '--script', 'trian'], 'nearest: train'),
        (['--task', 'pixel_catch', '--run.envs', 'many'], 'run.envs'),
        (['--task', 'pixel_catch', '--run.envs', '2.5'], 'run.envs'),
        ([], '--task is missing'),
        (['--task', 'pixel_catch', '--script', 'eval_only'], '--from_checkpoint is missing'),
        (
            ['--task', 'pixel_catch', '--script', 'eval_only', '--from_checkpoint', 'nowhere'],
            'nowhere',
        ),
        (['--script', 'offline'], '--replay.directory is missing'),
        (['--task', 'pixel_catch', '--agent.actor.prior', 'bc'], 'agent.actor.prior'),
        (['--task', 'gym_CartPol-v1'], 'CartPole'),
    ],
)
def test_mistakes_on_the_command_line_are_one_line_and_status_two(flags, words, tmp_path):
    done = run(*flags, '--logdir', tmp_path / 'x', status=2)
    message = done.stderr.strip().splitlines()[-1]
    assert words in message and message.startswith('dreamer4: ') and 'Traceback' not in done.stderr
    assert not (tmp_path / 'x' / 'config.yaml').exists(), 'a start that failed left a run behind'


def test_help_lists_every_key_with_default_and_comment(capsys):
    with pytest.raises(SystemExit):
        main.main(['--help'])
    text = capsys.readouterr().out
    assert (
        '--agent.imagination.horizon 15' in text
        and 'imagined frames' in text
        and 'dmc_vision' in text
    )


@pytest.mark.parametrize('task', ['gym_CartPole-v1', 'dummy'])
def test_other_suites_run_too(task, tmp_path):
    run(
        '--configs',
        'gym',
        'debug',
        '--task',
        task,
        '--run.steps',
        160,
        '--logdir',
        tmp_path / 'r',
        *TINY,
    )
    assert lines(tmp_path / 'r' / 'metrics.jsonl')[-1]['updates'] > 0


@pytest.mark.dmc
def test_dm_control_from_pixels_trains_resumes_evaluates_and_learns_offline(tmp_path):
    logdir = tmp_path / 'run'
    flags = [
        '--configs',
        'dmc_vision',
        'debug',
        '--task',
        'dmc_cheetah_run',
        '--logdir',
        logdir,
        *TINY,
        '--run.train_ratio',
        16,
        '--run.prefill',
        128,
    ]
    run(*flags, '--run.steps', 160)
    run(*flags, '--run.steps', 210)
    metrics = lines(logdir / 'metrics.jsonl')
    assert metrics[-1]['frames'] == 2 * metrics[-1]['step'] and not any(
        'nonfinite' in row for row in metrics
    )
    assert list((logdir / 'videos').glob('*openloop*.gif'))
    run(
        '--configs',
        'dmc_vision',
        'debug',
        '--task',
        'dmc_cheetah_run',
        '--script',
        'offline',
        '--replay.directory',
        logdir / 'replay',
        '--logdir',
        tmp_path / 'off',
        '--run.updates',
        5,
        *TINY,
    )
