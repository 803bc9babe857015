"""A run of several processes, as torchrun starts them: one logdir, counters of all, a checkpoint
that others go on from, however many.
"""

import faulthandler
import json
import os
import shutil
import signal
import socket

import pytest
import torch
import torch.multiprocessing as mp

from dreamer4 import main as command
from embodied.run.evaluation import Evaluation, joined

FLAGS = (
    '--configs pixel debug --task pixel_catch --env.pixel.size 16 --agent.tokenizer.patch 8'
    ' --driver.parallel false --logger.outputs terminal jsonl --machine.threads 1'
    ' --machine.device cpu'
    ' --run.envs 2 --run.prefill 60 --run.train_ratio 12 --run.steps 400'
    ' --run.log_every 20 --agent.batch.size 4 --agent.batch.length 8'
    ' --agent.schedule.tokenizer_updates 3 --agent.schedule.dynamics_updates 3'
    ' --agent.schedule.value_updates 2 --run.report_every 0 --run.save_every 0'
    ' --eval.every 150 --eval.episodes 5 --eval.envs 1 --eval.videos 0 --run.max_catchup 2'
).split()

STOP = 96  # decisions after which a process is told to end


def process(rank, count, port, flags, stop):
    torch.set_num_threads(1)
    os.environ |= {
        'RANK': str(rank),
        'LOCAL_RANK': str(rank),
        'WORLD_SIZE': str(count),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(port),
    }
    if stop == rank:  # in the middle of a decision, as a signal comes
        from embodied.run.setup import Counters

        counted, stopped = Counters.row, []

        def row(self, *args):
            counted(self, *args)
            if self.step >= STOP and not stopped:
                stopped.append(self.step)
                for _ in range(2):  # a scheduler's, and once more by the launcher
                    os.kill(os.getpid(), signal.SIGTERM)

        Counters.row = row
    status = command.main(flags)
    os._exit(status)


def run(logdir, count, *flags, stop=None):
    """Exit statuses of a command in so many processes."""
    flags = [*FLAGS, '--logdir', str(logdir), *flags]
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = mp.get_context('fork')  # torch is imported already
    workers = [
        context.Process(target=process, args=(rank, count, port, flags, stop), daemon=True)
        for rank in range(count)
    ]
    # pytest's watch is a thread that a fork has not, and whose end the child would wait for
    faulthandler.cancel_dump_traceback_later()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    return [worker.exitcode for worker in workers]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def saved(logdir):
    """Counters of the newest checkpoint, and its files."""
    newest = sorted((logdir / 'ckpt').iterdir())[-1]
    return json.loads((newest / 'counters.json').read_text()), {f.name for f in newest.iterdir()}


@pytest.fixture(scope='module')
def logdir(tmp_path_factory):
    """Of a run of two processes, the second of which was told to end."""
    folder = tmp_path_factory.mktemp('ranks') / 'run'
    assert run(folder, 2, stop=1) == [0, 0]
    return folder


def test_a_signal_to_one_process_saves_once_for_all(logdir):
    counters, files = saved(logdir)
    assert len(list((logdir / 'ckpt').iterdir())) == 1
    assert STOP <= counters['step'] < STOP + 16
    # run.prefill and run.train_ratio are of both together; an update has 32 frames
    assert counters['updates'] == pytest.approx(12 / 32 * (counters['step'] - 60), abs=3)
    assert {'agent.safetensors', 'replay.json', 'replay-rank001.json'} <= files
    assert 'agent-rank001.safetensors' not in files


def test_rank_0_alone_writes_and_knows_what_all_have_done(logdir):
    counters, _ = saved(logdir)
    scores = lines(logdir / 'scores.jsonl')
    assert len(scores) == counters['episodes'] > 4
    metrics = lines(logdir / 'metrics.jsonl')
    assert all('loss/flow' in line or line['updates'] < 5 for line in metrics[:-1])
    assert not list(logdir.glob('ranks/**/*.jsonl')) and not list(logdir.glob('ranks/**/ckpt'))
    shards = {path.name: rows(path) for path in (logdir / 'replay').glob('rank*')}
    assert shards.keys() == {'rank000', 'rank001'}
    # a reset is a row and no decision; every rank has two envs, whose episodes are as long
    assert sum(shards.values()) == pytest.approx(counters['step'] + counters['episodes'], abs=8)
    last = [line for line in metrics if 'replay/rows_seen' in line][-1]
    assert last['replay/rows_seen'] == pytest.approx(last['step'] + last['episodes'], abs=8)


def test_several_learn_from_one_folder_that_none_changes(logdir, tmp_path):
    folder = logdir / 'replay' / 'rank000'
    before = sorted(path.name for path in folder.iterdir())
    flags = f'--script offline --replay.directory {folder} --run.updates 6'.split()
    assert run(tmp_path / 'offline', 2, *flags, '--from_checkpoint', str(logdir)) == [0, 0]
    assert saved(tmp_path / 'offline')[0]['updates'] == 6
    assert 'The agent starts from' in (tmp_path / 'offline' / 'events.log').read_text()
    assert sorted(path.name for path in folder.iterdir()) == before


def rows(folder):
    return sum(int(path.stem.rpartition('-')[2]) for path in folder.glob('*.npz'))


def test_as_many_go_on_and_evaluate_and_then_more_and_one_alone(logdir, tmp_path):
    """Exactly eval.episodes episodes, of all ranks together; the rows of both are those of one.
    What two have saved in shards is gone on from and evaluated by any number.
    """
    flags = '--script train_eval --run.steps 124 --eval.every 110'.split()
    shared = '--machine.shard fsdp --machine.sharded_checkpoint true'.split()
    assert run(logdir, 2, *flags, *shared) == [0, 0]
    counters, files = saved(logdir)
    assert 'agent.shards' in files
    look = f'--script eval_only --from_checkpoint {logdir} --logdir {tmp_path / "look"}'
    look += ' --driver.parallel false --eval.episodes 2 --eval.videos 0 --machine.device cpu'
    assert command.main(look.split()) == 0
    shutil.copytree(logdir, tmp_path / 'four')
    assert run(tmp_path / 'four', 4, '--run.steps', '140') == [0] * 4
    four, files = saved(tmp_path / 'four')
    assert 140 <= four['step'] < 140 + 2 * 4 and four['updates'] > counters['updates']
    assert 'replay-rank003.json' in files and 'agent.shards' not in files
    assert 124 <= counters['step'] < 124 + 2 * 2 + 1
    assert {'driver.json', 'driver-rank001.json'} <= files
    assert [line['episodes'] for line in lines(logdir / 'eval' / 'scores.jsonl')] == [5]
    both = sum(rows(path) for path in (logdir / 'replay').glob('rank*'))
    assert run(logdir, 1, '--run.steps', '140') == [0]
    later, files = saved(logdir)
    assert later['step'] == 140 and later['updates'] > counters['updates']
    assert 'replay-rank001.json' not in files and not list((logdir / 'replay').glob('rank*'))
    # two envs, each with a reset and some steps
    assert both + 140 - counters['step'] + 2 <= rows(logdir / 'replay') <= both + 24
    events = (logdir / 'events.log').read_text()
    assert 'Continuing' in events and 'The checkpoint is of 2 process(es), this run has 1' in events


def test_where_one_is_killed_all_go_on_from_the_last_checkpoint(logdir, tmp_path):
    """Rank 1 of two dies without a word, once."""
    shutil.copytree(logdir, folder := tmp_path / 'run')
    before, _ = saved(folder)
    last = before['step'] + 16
    flags = [*FLAGS, '--logdir', str(folder), '--run.steps', str(last)]
    args = flags, before['step'] + 8, tmp_path / 'killed'
    launcher = mp.get_context('fork').Process(target=launch, args=args)
    faulthandler.cancel_dump_traceback_later()  # see run
    launcher.start()
    launcher.join(300)
    assert launcher.exitcode == 0 and (tmp_path / 'killed').exists()
    counters, files = saved(folder)
    assert last <= counters['step'] < last + 2 * 2 + 1
    assert counters['updates'] > before['updates'] and 'replay-rank001.json' in files
    begun = (folder / 'events.log').read_text().split('Continuing ')
    place = f'{folder} after {before["step"]} steps, {before["updates"]} updates'
    assert sum(text.startswith(place) for text in begun) == 2


def launch(flags, step, killed):
    """torchrun --nproc-per-node 2 --max-restarts 3, without its seconds of start."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    how = {'rdzv_backend': 'c10d', 'rdzv_endpoint': '127.0.0.1:0', 'local_addr': '127.0.0.1'}
    how |= {'start_method': 'fork', 'monitor_interval': 0.1, 'max_restarts': 3}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, run_id='test', **how)
    statuses = elastic_launch(config, mortal)(flags, step, killed)
    os._exit(sum(statuses.values()))


def mortal(flags, step, killed):
    """The program; rank 1 is killed at that step, unless that has been."""
    from embodied.run.setup import Counters

    counted = Counters.row

    def row(self, *args):
        counted(self, *args)
        if self.step >= step and os.environ['RANK'] == '1' and not killed.exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    Counters.row = row
    torch.set_num_threads(1)
    return command.main(flags)


def test_a_joined_evaluation_is_that_of_all_episodes():
    parts = [
        Evaluation([1.0, 2.0, 3.0], [5, 5, 5], {}, 1, {'success': 1.0}),
        Evaluation([6.0], [4], {}),
    ]
    assert joined(parts) == Evaluation([1.0, 2.0, 3.0, 6.0], [5, 5, 5, 4], {}, 1, {'success': 0.75})
    assert joined([parts[1], None]) is None


def test_what_is_work_for_one_process_is_refused(monkeypatch, capsys):
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert command.main([*FLAGS, '--script', 'collect']) == 2
    assert 'work for one process' in capsys.readouterr().err
    assert command.main([*FLAGS, '--machine.shard', 'none']) == 2
    assert 'machine.shard' in capsys.readouterr().err
    assert command.main([*FLAGS, '--machine.device', 'cuda:1']) == 2
    assert 'machine.device names one device' in capsys.readouterr().err
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')
    monkeypatch.setenv('TORCHELASTIC_MAX_RESTARTS', '3')
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
    assert command.main(FLAGS) == 2
    assert 'TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1' in capsys.readouterr().err
    monkeypatch.delenv('GROUP_WORLD_SIZE')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert command.main([*FLAGS, '--machine.device', 'auto']) == 2
    assert 'a machine of 1 GPU(s)' in capsys.readouterr().err
