"""What an update of several processes spends in telling each other, and how much of that computing
hides.

    torchrun --nproc-per-node 2 -m benchmarks.ranks [--preset pixel] [--size ''] [--updates 5]
    [--flags --machine.shard fsdp]

The same command on GPUs. Rank 0 prints seconds of an update, its share in collectives (gloo's calls
on CPUs, nccl's kernels on GPUs) and the share of these during which it also computes. An agent in
its last stage, random rows.
"""

import argparse
import os
import time

import torch
import torch.distributed as dist
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from . import speed
from .command import start

WARM = 2
Spans = list[tuple[float, float]]


def merged(spans: Spans) -> Spans:
    """The same time as spans that do not overlap, in order."""
    out: Spans = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((begin, end))
    return out


def length(spans: Spans) -> float:
    return sum(end - begin for begin, end in merged(spans))


def overlap(some: Spans, others: Spans) -> float:
    """Time in both."""
    return length(some) + length(others) - length(some + others)


def spans(profiled: profile) -> tuple[Spans, Spans]:
    """Of collectives and of computing, in microseconds: kernels on a GPU, else operators."""
    events = list(profiled.events())
    on_gpu = any(event.device_type == DeviceType.CUDA for event in events)
    talks, works = [], []
    for event in events:
        span = event.time_range.start, event.time_range.end
        if event.name.startswith(('nccl', 'gloo:')):
            talks.append(span)
        elif on_gpu:
            works += [span] if event.device_type == DeviceType.CUDA else []
        elif event.name.startswith('aten::'):
            works.append(span)
    return talks, works


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--preset', default='pixel')
    parser.add_argument('--size', default='')
    parser.add_argument('--updates', type=int, default=5)
    parser.add_argument('--flags', nargs=argparse.REMAINDER, default=[], help='of dreamer4.main')
    args = parser.parse_args()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    dist.init_process_group('cpu:gloo,cuda:nccl' if cuda else 'gloo')
    try:
        agent = speed.make(args.preset, args.size, {}, ['--machine.threads', '1', *args.flags])
        feed = speed.feed_of(agent, speed.sampler(agent))
        for _ in range(WARM):
            agent.train(feed.next())
        begun = time.perf_counter()
        for _ in range(args.updates):
            agent.train(feed.next())  # waits for the device
        plain = (time.perf_counter() - begun) / args.updates
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * cuda
        dist.barrier()
        begun = time.perf_counter()
        with profile(activities=kinds) as profiled:
            agent.train(feed.next())
            whole = time.perf_counter() - begun
        talks, works = spans(profiled)
        if not dist.get_rank():
            hidden = overlap(talks, works) / max(length(talks), 1e-9)
            print(
                f'{dist.get_world_size()} ranks, {agent.machine.config.shard}: {plain:.3f} s an'
                f' update; profiled {whole:.3f} s, of which {length(talks) / 1e6 / whole:.0%} in'
                f' {len(talks)} collectives, {hidden:.0%} of that beside computing'
            )
    finally:
        dist.destroy_process_group()


if __name__ == '__main__':
    start(main)
