"""Memory for work: layers that are computed again on the way back, batches that pass in slices.
Neither changes what is learned.
"""

import numpy as np
import pytest
import torch
from test_ranks import ACT, OBS, SETTINGS, named, rows
from test_shortcut import WORLD
from tiny import tiny

from dreamer4.agent import Agent
from dreamer4.feed import Meal
from dreamer4.nets.transformer import Transformer, View, causal_mask
from dreamer4.worlds.dreamer4 import shortcut
from dreamer4.worlds.dreamer4.dynamics import Dynamics, DynamicsConfig, Given

SAVINGS = {
    'checkpointing': {'machine.checkpointing': True},
    'slices': {'machine.accumulate': 3},
    'both': {'machine.checkpointing': True, 'machine.accumulate': 2},
}
SOON = {f'schedule.{name}_updates': 1 for name in ('tokenizer', 'dynamics', 'value')}


def learned(**changes):
    """The parameters after two updates of every part."""
    agent = Agent(OBS, ACT, *tiny(**SETTINGS | SOON | {'tokenizer.time_every': 1} | changes), 0)
    for update in range(5):
        agent.train(Meal(agent.batch(rows(update)), None))
    assert agent.schedule.stage == 'policy'
    return {k: v.numpy().copy() for k, v in named(agent)}


@pytest.fixture(scope='module')
def plain():
    return learned()


@pytest.mark.parametrize('saving', SAVINGS)
def test_updates_are_those_of_the_whole_batch(saving, plain):
    found = learned(**SAVINGS[saving])
    assert found.keys() == plain.keys()
    for name, x in plain.items():
        assert np.allclose(found[name], x, atol=2e-5), (name, np.abs(found[name] - x).max())


def passes(slices=1, recompute=False):
    """Bytes that wait for the way back after both passes of the dynamics, and the gradients."""
    torch.manual_seed(0)
    net = Dynamics((2, 3), 2, 1, DynamicsConfig(**WORLD), pack=1)
    torch.nn.init.normal_(net.latent_out.weight)
    for layer in net.modules():
        if isinstance(layer, Transformer):
            layer.slices = slices
            for block in layer.blocks:
                block.recompute = recompute
    batch, time = 5, 4
    first = torch.zeros(batch, time, dtype=torch.bool)
    first[0, 2] = True
    given, kept = Given(torch.randn(batch, time, 2), ~first), {}

    def keep(x):
        kept[x.untyped_storage()._cdata] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        context = net.commit(torch.rand(batch, time, 2, 3), given, first)
        config = shortcut.ShortcutConfig('commit', 2, 0.5, 0.1)
        losses = shortcut.loss(net, context, given, first, config, 2).losses
        total = sum(x.sum() for x in losses.values()) + context.feature.sin().sum()
    size = sum(x.untyped_storage().nbytes() for x in kept.values())
    total.backward()
    return size, {k: p.grad for k, p in net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('how', [{'slices': 2}, {'recompute': True}])
def test_less_waits_for_the_way_back_and_gradients_are_the_same(how):
    """The second pass looks at keys of the first, whose gradient crosses the border of both."""
    (plain, expected), (less, found) = passes(), passes(**how)
    assert less < 0.5 * plain
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        assert torch.allclose(found[name], grad, atol=1e-4, rtol=1e-4), name


def test_a_slice_has_its_rows_of_what_differs_among_them():
    torch.manual_seed(0)
    net, x = Transformer(16, 2, 2, 1, 1, 0.0), torch.randn(5, 4, 3, 16)
    first = torch.rand(5, 4) < 0.4
    positions = torch.arange(4) + torch.arange(5)[:, None]
    view = View(causal_mask(first), positions)
    mask = torch.ones(3, 3, dtype=torch.bool)
    out, present = net(x, mask, view)
    net.slices = 9  # more than there are rows
    sliced, kept = net(x, mask, view)
    assert torch.allclose(out, sliced, atol=1e-6)
    for pair, others in zip(present, kept):
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(pair, others))


def test_what_has_no_transformer_refuses():
    with pytest.raises(ValueError, match='machine.accumulate are for transformers'):
        Agent(OBS, ACT, *tiny(world='dreamerv3', **SAVINGS['slices']), 0)
    with pytest.raises(ValueError, match='machine.shard fsdp shares transformers'):
        Agent(OBS, ACT, *tiny(world='dreamerv3', **{'machine.shard': 'fsdp'}), 0)
    with pytest.raises(ValueError, match='machine.shard fsdp does not go with machine.compile'):
        Agent(OBS, ACT, *tiny(**{'machine.shard': 'fsdp', 'machine.compile': True}), 0)
    with pytest.raises(ValueError, match='machine.accumulate must be at least 1; got 0'):
        Agent(OBS, ACT, *tiny(**{'machine.accumulate': 0}), 0)
