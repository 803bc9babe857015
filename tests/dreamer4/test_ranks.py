"""Processes that learn as one, with gloo on the CPU: each has a share of the batch, and together
they do what one process does with all of it.

RANKS_DEVICE=cuda lets what is compared with one process learn on GPUs, two or more, with nccl.
"""

import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from gymnasium import spaces
from tiny import tiny

from dreamer4 import ranks, sharing
from dreamer4.agent import Agent
from dreamer4.feed import Meal
from dreamer4.machine import Machine
from dreamer4.nets.transformer import Transformer, View, causal_mask
from dreamer4.optim import NonFiniteLoss, OptimConfig, Optimizer, RateConfig, Rule
from dreamer4.tasks import centred, vary
from dreamer4.worlds.dreamer4.conv_tokenizer import ConvTokenizer
from dreamer4.worlds.dreamer4.moves import Moves
from dreamer4.worlds.dreamer4.scales import NumberScale, PixelScale

DEVICE = os.environ.get('RANKS_DEVICE', 'cpu')
B, T = 8, 6
OBS = {'image': spaces.Box(0, 255, (16, 16, 3), np.uint8)}
ACT = {'action': spaces.Discrete(3)}
# what is drawn from the batch is all of it: which part a rank gets must not matter here
SETTINGS = {
    'batch.size': B,
    'batch.length': T,
    'batch.frames': B * T,
    'tokenizer.lpips': 0.0,
    'shortcut.bootstrap': 0.5,  # a whole number of sequences of each of four
    'imagination.starts': 4 * B,
    'actor.prior': 0.03,
    'schedule.tokenizer_updates': 4,
    'schedule.dynamics_updates': 5,
    'schedule.value_updates': 3,
    'schedule.tokenizer_unexplained': 0.0,
    'schedule.reward_skill': 0.0,
    'schedule.latent_error': 0.0,
}
UPDATES = 20
WAYS = {
    'dreamer4': {},
    'fsdp': {'machine.shard': 'fsdp'},
    'rssm': {'world': 'dreamerv2', 'actor.loss': 'reinforce'},
}


def alike(shape, count):
    """Numbers in [0, 1) that are the same in every row (the first axis): no rank draws others."""
    rest = torch.Size(shape[1:]) if len(shape) > 1 else torch.Size(shape)
    x = (torch.arange(rest.numel()) * 0.37 + 0.11 * count) % 1
    x = x.sort().values if len(shape) == 1 else x
    return x.reshape(rest).expand(*shape).clone()


@pytest.fixture
def even(monkeypatch):
    """Draws of torch that do not depend on how many rows there are."""
    settle(monkeypatch.setattr)


def settle(put):
    flat = lambda shape: (
        tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
    )
    put(torch.Tensor, 'exponential_', lambda x: x.copy_(-alike(x.shape, 6).clamp(0.01).log()))
    here = lambda x, device=None, **_: x if device is None else x.to(device)
    put(torch, 'rand', lambda *shape, **how: here(alike(flat(shape), 1), **how))
    put(torch, 'randn', lambda *shape, **how: here(2 * alike(flat(shape), 2) - 1, **how))
    put(torch, 'rand_like', lambda x, **_: alike(x.shape, 3).to(x))
    put(torch, 'randn_like', lambda x, **_: (2 * alike(x.shape, 4) - 1).to(x))
    put(
        torch,
        'randint',
        lambda low, high, shape, **how: here((low + alike(shape, 5) * (high - low)).long(), **how),
    )


def rows(update):
    """What a replay would hand out; sequences differ in where rewards are known."""
    rng = np.random.default_rng(update)
    flags = {k: np.zeros((B, T + 1), bool) for k in ('is_first', 'is_last', 'is_terminal')}
    flags['is_first'][::3, 3] = True
    return flags | {
        'image': rng.integers(0, 255, (B, T + 1, 16, 16, 3), dtype=np.uint8),
        'action': rng.integers(0, 3, (B, T + 1)),
        'reward': rng.normal(size=(B, T + 1)).astype(np.float32),
        'unlabeled_reward': np.repeat(np.arange(B)[:, None] % 4 == 1, T + 1, 1),
    }


def learned(way, broken=None):
    """Stages, parameters after some updates on this rank's rows, every n-th of all, and what was
    measured in each.
    """
    torch.manual_seed(0)
    where = {'machine.device': DEVICE, 'machine.precision': 'float32', 'machine.graphs': False}
    agent = Agent(OBS, ACT, *tiny(**SETTINGS | WAYS[way] | where), 0)
    # one process has the weights of rank 0, and these are drawn alike
    stages, told, n, mine = [], [], ranks.count(), ranks.number()
    for update in range(UPDATES):
        found = {k: v[mine::n] for k, v in rows(update).items()}
        if agent.world.shape(update, agent.schedule.begun)[1] == 1:  # single frames
            found = {k: v[:, :2] for k, v in found.items()}
        if update == broken and mine == 1:
            found['reward'][:] = np.nan
        told.append(agent.train(Meal(agent.batch(found), None)))
        stages.append(agent.schedule.stage)
    found = {k: sharing.whole(v.detach()).cpu().numpy().copy() for k, v in named(agent)}
    return stages, found, told


def named(agent):
    for name, part in agent._parts().items():
        module = getattr(part, 'module', part)
        if isinstance(module, torch.nn.Module):
            for key, x in module.state_dict().items():
                yield f'{name}.{key}', x


def work(job, rank, count, port, queue):
    torch.set_num_threads(1)
    backend = 'gloo'
    if DEVICE == 'cuda':
        torch.cuda.set_device(rank % torch.cuda.device_count())
        backend = 'cpu:gloo,cuda:nccl'
    dist.init_process_group(backend, f'tcp://127.0.0.1:{port}', rank=rank, world_size=count)
    queue.put((rank, job()))
    dist.barrier()
    dist.destroy_process_group()


def together(job, count):
    """What `job` returns in each of so many processes."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = mp.get_context('fork')  # torch is imported already
    queue = context.Queue()
    workers = [
        context.Process(target=work, args=(job, rank, count, port, queue), daemon=True)
        for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    found = dict(queue.get(timeout=1800) for _ in workers)
    for worker in workers:
        worker.join()
    return [found[rank] for rank in range(count)]


@pytest.mark.parametrize(
    'way, count', [('dreamer4', 2), ('dreamer4', 4), ('fsdp', 2), ('fsdp', 4), ('rssm', 2)]
)
def test_processes_learn_what_one_learns_through_all_stages(way, count, even):
    """Tokenizer, model, value, policy, their slow copies, scales and units. What is known of the
    rewards differs between ranks.
    """
    if DEVICE == 'cuda':  # which a process must not touch before it forks
        (one,) = together(lambda: learned(way), 1)
        count = count if torch.cuda.device_count() >= count else 2
    else:
        one = learned(way)
    (stages, alone, told), *others = one, *together(lambda: learned(way), count)
    assert stages[-1] == 'policy'
    for rank_stages, found, rank_told in others:
        assert rank_stages == stages
        for number, metrics in enumerate(told):
            # 'value/explained' correlates values that hardly differ: 3 % of it is rounding
            of_all = {k: pytest.approx(v, rel=0.05, abs=1e-3) for k, v in metrics.items()}
            assert rank_told[number] == of_all, (number, stages[number])
        assert found.keys() == alone.keys()
        for name, x in alone.items():
            assert np.allclose(found[name], x, atol=2e-4, rtol=2e-3), (
                name,
                np.abs(found[name] - x).max(),
            )


SOON = {f'schedule.{name}_updates': 1 for name in ('tokenizer', 'dynamics', 'value')}


def shared():
    """Two agents that share their transformers; the second is loaded from what the first saved."""
    settings = tiny(**SETTINGS | SOON | WAYS['fsdp'] | {'machine.precision': 'bfloat16'})
    agent, other = (Agent(OBS, ACT, *settings, seed) for seed in (0, 1))
    found = {k: v[ranks.number() :: 2] for k, v in rows(0).items()}

    def learn(one, updates):
        for _ in range(updates):
            one.train(Meal(one.batch(found), None))

    learn(agent, 4)
    box = [agent.save()]
    dist.broadcast_object_list(box, 0)
    other.load(box[0])
    for _ in range(3 * ranks.number()):  # no rank waits for the other
        obs = {'image': np.zeros((1, 16, 16, 3), np.uint8), 'is_first': np.ones(1, bool)}
        other.policy(other.init_policy(1), obs, 'mode')
    learn(agent, 1)
    learn(other, 1)
    blocks = list(other.world.dynamics.transformer.blocks)
    held = sum(sharing.own(p).numel() for b in blocks for p in b.parameters())
    other.blocks.part()
    kept = sum(sharing.own(p).numel() for b in blocks for p in b.parameters())
    return agent.save(), other.save(), held / kept


def leaves(tree, name=''):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f'{name}.{key}')
        elif isinstance(value, np.ndarray) and '.random.' not in f'{name}.{key}':
            yield f'{name}.{key}', value


def test_what_ranks_share_is_saved_whole_and_goes_on(even):
    """Moments and bfloat16 included; acting is no work that ranks do together."""
    (saved, again, held), (_, _, other) = together(shared, 2)
    saved, again = dict(leaves(saved)), dict(leaves(again))
    assert saved.keys() == again.keys() and any('.optim_model.moments' in k for k in saved)
    for name, x in saved.items():
        assert np.allclose(again[name], x, atol=1e-6), name
    assert held == other == pytest.approx(2)
    alone = Agent(OBS, ACT, *tiny(**SETTINGS), 0)
    assert {k: v.shape for k, v in leaves(alone.save()) if 'moments' not in k} == {
        k: v.shape for k, v in saved.items() if 'moments' not in k
    }


def broken(way):
    try:
        learned(way, broken=6)
    except NonFiniteLoss as error:
        return str(error)
    return ''


@pytest.mark.parametrize('way', ['dreamer4', 'fsdp'])
def test_what_is_not_finite_on_one_rank_is_refused_on_all(way):
    found = together(lambda: broken(way), 2)
    assert all('model: a step was refused' in text for text in found)


def measures():
    """Statistics of a batch, of which each of four ranks has one uneven quarter."""
    x = torch.arange(16.0).reshape(4, 4)[ranks.number()].requires_grad_()
    weight = torch.arange(16).reshape(4, 4)[ranks.number()] % 5 < 2
    from dreamer4.optim import RunningRange, RunningRMS
    from dreamer4.returns import pmpo
    from dreamer4.tasks import weighted_mean

    mean = weighted_mean(x, weight)
    mean.backward()
    p = torch.nn.Parameter(torch.zeros(4))
    p.grad = x.grad.clone()
    q, reduce, told = torch.nn.Parameter(torch.zeros(2, 3)), dist.all_reduce, []
    q.grad = torch.full((2, 3), float(ranks.number()))
    dist.all_reduce = lambda *args: (told.append(args), reduce(*args))
    ranks.average([p, q])
    dist.all_reduce = reduce
    assert len(told) == 1 and (q.grad == 1.5).all()
    scale, span = RunningRMS({'a': 0.0}, 0.9), RunningRange()
    scale('a', mean)
    span.fold(x.detach()[None])
    sets = pmpo(x.detach()[None], x.detach()[None] - 3, weight[None].float(), 0.5, 0.1, ranks.mean)
    parts = ranks.mean(mean), scale.squares[0], span.span, ranks.mean(sets), p.grad.sum()
    return [float(part) for part in parts]


def test_statistics_of_uneven_ranks_are_those_of_the_whole_batch():
    x, found = torch.arange(16.0), together(measures, 4)
    weight = (torch.arange(16) % 5 < 2).float()
    mean = (x * weight).sum() / weight.sum()
    low, high = np.quantile(x.numpy(), [0.05, 0.95])
    good, bad = weight * (x >= 3), weight * (x < 3)
    least = 0.1 * weight.sum()
    sets = 0.5 * sum(
        sign * (which * x).sum() / which.sum().maximum(least)
        for sign, which in ((1, bad), (-1, good))
    )
    span = 1 + 0.01 * (high - low - 1)
    # the gradient of a mean with respect to its own numbers adds up to one; a rank has a quarter
    for mean_, square, span_, sets_, grad in found:
        assert mean_ == pytest.approx(float(mean), rel=1e-6)
        assert square == pytest.approx(0.1 * float(mean) ** 2, rel=1e-5)
        assert span_ == pytest.approx(span, rel=1e-5)
        assert sets_ == pytest.approx(float(sets), rel=1e-5)
        assert grad == pytest.approx(1.0, rel=1e-5)


def spread():
    """Loss of latents that lack spread, of a rank's share, and its gradient."""
    torch.manual_seed(0)
    net = ConvTokenizer({'image': OBS['image']}, tiny(**SETTINGS)[0].tokenizer)
    latent = (
        0.1 * torch.randn(8, 1, *net.latent_shape) + torch.arange(8.0)[:, None, None, None] / 99
    )
    share = 8 // ranks.count()
    latent = latent[share * ranks.number() : share * (ranks.number() + 1)].requires_grad_()
    loss = net.kept(latent)['spread']
    loss.backward()
    return loss.item(), latent.grad.numpy()


def test_the_spread_of_latents_is_that_of_all_ranks():
    loss, gradient = spread()
    found = together(spread, 2)
    assert [one for one, _ in found] == pytest.approx([loss] * 2)
    # a step takes the mean of the ranks' gradients
    assert np.concatenate([own for _, own in found]) / 2 == pytest.approx(gradient, abs=1e-6)


def known():
    """What ends a stage and what scales know, of rows whose ranks differ: in brightness, in how
    many images are black, in tasks, and in which numbers a task has. Each rank has two sequences.
    """
    torch.manual_seed(0)
    agent = Agent(OBS, ACT, *tiny(**SETTINGS), 0)
    agent.schedule.stage = 'dynamics'
    whole = {k: v[:4] for k, v in rows(0).items()}
    whole['image'][:2] //= 3
    whole['image'][0, 3:] = 0
    some = slice(2 * ranks.number(), 4 if ranks.count() == 1 else 2 * ranks.number() + 2)
    batch = agent.batch({k: v[some] for k, v in whole.items()})
    found = agent.gate.measure(batch)
    tokenizer = agent.world.tokenizer
    found |= tokenizer.losses(batch.obs, batch.is_first)[1]
    task = (torch.arange(4 * T).reshape(4, T) > 7).long()
    pixels, numbers, moves = PixelScale((16, 16, 3), 2), NumberScale(2, 3), Moves(1, 2, 3)
    pixels.measure(batch.obs['image'], task[some], but_dark=True)
    x = torch.randn(4, T, 2)
    numbers.measure(x[some], task[some])
    moves.measure(x[some][:, :, None], batch.is_first, task[some])
    apart = centred(x[some], task[some], 3, ranks.mean)
    found |= {'mean': pixels.mean.mean(), 'apart': apart.square()}
    measured = *pixels.variance, *numbers.mean, *numbers.variance, *moves.usual
    found |= {f'measured{i}': x.square().sum() for i, x in enumerate(measured)}
    # each rank has the same all over, and what it has is not what the other has
    same, none = torch.full((2, T, 1), float(ranks.number())), torch.zeros(2, T).long()
    found |= {'differ': vary(same, None, 1), 'tasks differ': vary(same, none, 1)}
    found['alike'] = vary(same, none + ranks.number(), 2)
    return {
        k: float(ranks.mean(torch.as_tensor(x, dtype=torch.float32).mean()))
        for k, x in found.items()
    }


def test_gates_and_scales_are_those_of_the_whole_batch(even):
    """Shares of errors and skills, too, which are no means of those of the ranks."""
    alone, found = known(), together(known, 2)
    assert {'gate/error', 'gate/reward_skill', 'gate/action_effect', 'unexplained'} <= alone.keys()
    assert alone['gate/actions_vary'] == 1 and 0 < alone['unexplained']
    for one in found:
        assert one.pop('differ') and one.pop('tasks differ') and not one.pop('alike')
        assert one == {k: pytest.approx(alone[k], rel=1e-4, abs=1e-6) for k in one}


def clipped(clip):
    """A transformer after steps of LaProp; ranks have parts of its tensors and of its batch."""
    torch.manual_seed(0)
    net, machine = Transformer(16, 2, 2, 1, 1, 0.0), tiny(**WAYS['fsdp'])[1]
    sharing.share(net, Machine(machine, 0))
    rate = RateConfig(0.01)
    config = OptimConfig(1, tokenizer=rate, model=rate, policy=rate, value=rate)
    optimizer = Optimizer('model', [net], config, Rule(True, 0.99, 0.0, clip))
    first = torch.zeros(4, 3, dtype=torch.bool)
    view = View(causal_mask(first), torch.arange(3)[None])
    for update in range(4):
        x = torch.linspace(-1, 1, 4 * 3 * 2 * 16).reshape(4, 3, 2, 16).sin() * 3 ** (update % 3)
        x, n, mine = x.roll(update, 0), ranks.count(), ranks.number()
        own = View(view.mask[mine::n], view.positions)
        y, _ = net(x[mine::n], torch.ones(2, 2, dtype=torch.bool), own)
        optimizer.begin()
        optimizer.step((y.cumsum(-1) * x[mine::n]).square().mean())
    return {k: sharing.whole(p.detach()).numpy().copy() for k, p in net.named_parameters()}


@pytest.mark.parametrize('clip', [0.01, 0.0])
def test_a_tensor_that_ranks_share_is_clipped_by_its_norm_and_not_by_that_of_a_part(clip):
    alone, found = clipped(clip), together(lambda: clipped(clip), 2)
    for one in found:
        assert one == {k: pytest.approx(x, abs=2e-4) for k, x in alone.items()}


def test_noise_of_each_rank_is_its_own_and_begins_anew_where_a_run_goes_on(monkeypatch):
    seeds = set()
    for number in range(3):
        monkeypatch.setattr(ranks, 'number', lambda number=number: number)
        seeds |= {ranks.own(7), ranks.own(7, 20), ranks.own(8)}
    assert {7, 8} < seeds and len(seeds) == 8  # rank 0 has the noise of one process
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def test_a_batch_that_cannot_be_cut_is_refused():
    from dreamer4.agent_config import share

    config, _ = tiny()
    config = replace(config, batch=replace(config.batch, size=6))
    assert share(config, 3).batch.size == 2
    with pytest.raises(ValueError, match='agent.batch.size must be a multiple of the 4'):
        share(config, 4)
    long, _ = tiny(**{'batch.size': 8, 'batch.length': 8, 'batch.long_length': 32})
    assert share(long, 2).batch.long == (1, 32) and long.batch.long == (2, 32)
    with pytest.raises(ValueError, match='a long sequence of agent.batch.long_length 32'):
        share(long, 4)  # they would make twice as many frames as one process
