"""The networks under torch's data parallelism: two processes with gloo on the CPU, each with a
batch of its own, against one process that sees both.
"""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_shortcut import WORLD
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from dreamer4.nets.transformer import View, causal_mask
from dreamer4.worlds.dreamer4.dynamics import Dynamics, DynamicsConfig, Frames, Given

RANKS, B, T = 2, 3, 4


def dynamics():
    torch.manual_seed(0)
    net = Dynamics((2, 3), 2, 1, DynamicsConfig(**WORLD), pack=1)
    torch.nn.init.normal_(net.latent_out.weight)  # zero at the start, which passes no gradient on
    return net


def batch(rank):
    """Frames and what they see, of one process."""
    torch.manual_seed(10 + rank)
    first = torch.zeros(B, T, dtype=torch.bool)
    first[0, 2] = True
    level = torch.randint(0, 8, (B, T))
    given = Given(torch.randn(B, T, 2), ~first)
    frames = Frames(torch.randn(B, T, 2, 3), level, torch.zeros_like(level), given)
    return frames, View(causal_mask(first), torch.arange(T)[None])


def loss(net, rank):
    """Of both passes: the latents without noise, and the feature of the agent token."""
    frames, view = batch(rank)
    clean, _ = net(frames, view)
    feature, present = net(frames, view, agent=True)
    return clean.square().mean() + feature.sin().mean() + present[0][0].square().mean()


def shard(net):
    for block in net.transformer.blocks:
        fully_shard(block)
    return fully_shard(net)


WRAPPERS = {
    'ddp': lambda net: DistributedDataParallel(net, broadcast_buffers=False),
    'fully_shard': shard,
}


def learn(rank, meeting, kind, queue):
    torch.set_num_threads(1)
    # a file: a free port may be another program's before both have come
    dist.init_process_group('gloo', f'file://{meeting}', rank=rank, world_size=RANKS)
    net = dynamics()
    wrapped = WRAPPERS[kind](net)
    value = loss(wrapped, rank)
    value.backward()
    whole = lambda x: x.full_tensor() if hasattr(x, 'full_tensor') else x
    grads = {k: whole(p.grad) for k, p in net.named_parameters() if p.grad is not None}
    queue.put((rank, value.item(), {k: v.numpy().copy() for k, v in grads.items()}))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize('kind', WRAPPERS)
def test_two_processes_learn_what_one_learns_from_both_batches(kind, tmp_path):
    context = mp.get_context('spawn')
    queue = context.Queue()
    workers = [
        context.Process(target=learn, args=(rank, tmp_path / 'meeting', kind, queue), daemon=True)
        for rank in range(RANKS)
    ]
    for worker in workers:
        worker.start()
    found = {rank: rest for rank, *rest in (queue.get(timeout=1800) for _ in workers)}
    for worker in workers:
        worker.join()
    net = dynamics()
    values = [loss(net, rank) for rank in range(RANKS)]
    (sum(values) / RANKS).backward()
    expected = {k: p.grad for k, p in net.named_parameters() if p.grad is not None}
    for rank, (value, grads) in found.items():
        assert value == pytest.approx(values[rank].item(), rel=1e-5)
        assert grads.keys() == expected.keys()
        for name, grad in grads.items():
            assert torch.allclose(torch.from_numpy(grad), expected[name], atol=1e-6), name
