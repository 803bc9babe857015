"""Checkpoints of which every rank writes and reads its part, with gloo on the CPU."""

import contextlib

import numpy as np
import pytest
import torch.distributed as dist
from test_ranks import ACT, OBS, SETTINGS, SOON, WAYS, leaves, named, rows, settle, together
from tiny import tiny

from dreamer4 import convert, ranks, shards, sharing
from dreamer4.agent import Agent
from dreamer4.feed import Meal
from dreamer4.launch import Group
from embodied.checkpoint import Checkpoint, find_save
from embodied.errors import CheckpointError
from embodied.run import load_agent
from embodied.run.agreement import newest, write
from embodied.save import read

SHARDED = {'machine.sharded_checkpoint': True}


def cut(folder, way):
    """What a rank learned, and wrote its part of; and what it learns next."""
    settle(setattr)  # a rank begins a new stream of noise where it is loaded
    agent = Agent(OBS, ACT, *tiny(**SETTINGS | SOON | WAYS[way] | SHARDED), 0)
    found = {k: v[ranks.number() :: 2] for k, v in rows(0).items()}
    for _ in range(4):
        agent.train(Meal(agent.batch(found), None))
    trees, own = {'agent': agent.save(), 'own': {'rank': ranks.number()}}, Group()
    write(Checkpoint(folder, 1), trees, {'step': 4, 'ranks': 2}, own)
    other = Agent(OBS, ACT, *tiny(**SETTINGS | SOON | WAYS[way] | SHARDED), 1)
    other.load(newest(Checkpoint(folder, 1), own)[0]['agent'])
    for one in (agent, other):
        one.train(Meal(one.batch(found), None))
    return [{k: sharing.whole(v).numpy().copy() for k, v in named(x)} for x in (agent, other)]


@pytest.mark.parametrize('way', ['dreamer4', 'fsdp'])
def test_each_rank_writes_and_reads_its_part_and_one_process_goes_on(way, tmp_path):
    """On two processes what is loaded learns on as if it had not been; one has all of it, moments
    included, from the shards and from what the command makes of them.
    """
    (first, again), (_, other) = together(lambda: cut(tmp_path / 'ckpt', way), 2)
    for name, x in first.items():
        assert np.array_equal(again[name], x) and np.array_equal(other[name], x), name
    save = find_save(tmp_path)
    files = sorted(path.name for path in (save / 'agent.shards').iterdir())
    assert [name[:11] for name in files] == ['shard-00001', 'shard-00002']
    stored = read(save)[0]['agent']
    assert dict(leaves(stored.tree)) == {} and (save / 'own.json').exists()
    sizes = [(save / 'agent.shards' / name).stat().st_size for name in files]
    assert min(sizes) > 0.4 * max(sizes)
    assert convert.main(['checkpoint', str(tmp_path), str(tmp_path / 'plain')]) == 0
    direct, plain = (Agent(OBS, ACT, *tiny(**SETTINGS | SOON), seed) for seed in (1, 2))
    load_agent(direct, tmp_path)
    load_agent(plain, tmp_path / 'plain')
    direct, plain = (dict(leaves(agent.save())) for agent in (direct, plain))
    assert any('.optim_model.moments' in name for name in plain) and plain.keys() == direct.keys()
    assert all(np.array_equal(direct[name], x) for name, x in plain.items())


def crashes(folder):
    """Saves of two ranks: one that stands, one of which rank 1 cannot write its part, one that is
    killed before its end, and the next.
    """
    agent = Agent(OBS, ACT, *tiny(**SETTINGS | SHARDED), 0)
    own, store = Group(), Checkpoint(folder, 1)
    save = lambda step: write(store, {'agent': agent.save()}, {'step': step}, own)
    names = lambda: sorted(path.name[:8] for path in folder.iterdir())

    def last():
        dist.barrier()  # neither looks while the other is still about something
        found = newest(store, own)[1]['step'], names()
        dist.barrier()
        return found

    save(1)
    told, plain = [last()], shards.write
    if ranks.number():
        shards.write = full
    with pytest.raises(CheckpointError) as refused:
        save(2)
    told.append(last())
    shards.write, store.finish = plain, killed
    with contextlib.suppress(KeyboardInterrupt):
        save(3)
    told.append(last())
    del store.finish
    save(4)
    return [*told, last()], str(refused.value)


def full(folder, tensors):
    shards.dcp.save(tensors, storage_writer=shards.HuggingFaceStorageWriter(folder, None, 1, True))
    raise OSError('No space left on device')


def killed(*_):
    raise KeyboardInterrupt


def test_a_crash_among_the_shards_leaves_the_last_good_save(tmp_path):
    for told, refused in together(lambda: crashes(tmp_path / 'ckpt'), 2):
        (one, alone), (two, still), (three, left), (four, clean) = told
        assert (one, two, three, four) == (1, 1, 1, 4)
        assert len(alone) == len(still) == len(clean) == 1 and len(left) == 2
        assert left[0] == '.partial' and 'rank001: No space left' in refused


def test_a_damaged_shard_is_named(tmp_path):
    together(lambda: crashes(tmp_path / 'ckpt'), 2)
    save = find_save(tmp_path)
    shard = sorted((save / 'agent.shards').iterdir())[1]
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckpointError, match='shard-00002.*expected the checksum'):
        read(save)
    shard.unlink()
    with pytest.raises(CheckpointError, match='shard-00002.*found none that can be read'):
        read(save, sums=False)
