"""The plan of a run: what is counted on no device is what a real agent has and saves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import tiny

from dreamer4 import footprint, plan, worlds
from dreamer4.agent import Agent

OBS = {'image': spaces.Box(0, 255, (16, 16, 3), np.uint8)}
ACT = {'action': spaces.Box(-1, 1, (2,), np.float32)}
SETTINGS = {'tokenizer.lpips': 0.0, 'imagination.every': 1}


@pytest.fixture(scope='module')
def counted():
    return footprint.measure(OBS, ACT, *tiny(**SETTINGS))


def test_the_plan_counts_the_numbers_of_a_real_agent(counted):
    agent = Agent(OBS, ACT, *tiny(**SETTINGS), 0)
    moved = {name: sum(p.numel() for p in o.parameters) for name, o in agent.optimizers.items()}
    assert counted.parameters == moved
    kept = vars(agent.actor_critic).values()
    copies = [part.module for part in kept if hasattr(part, 'rate')]
    assert counted.copies == sum(p.numel() for copy in copies for p in copy.parameters())
    layers = [agent.world.dynamics.transformer]
    assert counted.shared['model'] == sum(p.numel() for m in layers for p in m.parameters())


def test_nothing_is_allocated():
    parts = footprint.Parts.build(OBS, ACT, *tiny(**SETTINGS))
    assert all(p.is_meta for module in parts.modules() for p in module.parameters())


@pytest.mark.parametrize('rows', [3, 6])
def test_fakes_save_for_the_way_back_what_real_tensors_save(counted, rows):
    config, machine = tiny(**SETTINGS)
    config = footprint.share(config, rows)
    agent = Agent(OBS, ACT, config, machine, 0)
    agent.schedule.stage, agent.updates = 'policy', 1
    counts = footprint.Counts(
        [
            p
            for part in agent._parts().values()
            if isinstance(p := getattr(part, 'module', part), torch.nn.Module)
        ],
        machine,
    )
    for part in (agent.world, agent.actor_critic):
        part.optimizers = {
            name: footprint.Tally('tokenizer' if name == 'tokenizer' else 'policy', counts)
            for name in part.optimizers
        }
    stages = (*agent.world.stages, 'value', 'policy')
    turn = worlds.Turn(0, rows, stages, 1.0, np.random.default_rng(0))
    batch = footprint.blank_batch(OBS, ACT, config, agent.actions)
    with counts.hooks():
        agent.world.losses(agent.world.plan(turn), batch)
        counts.close('model')
    for phase, found in counts.bytes.items():
        assert counted.saved[phase](rows) == pytest.approx(found, rel=0.03), phase


def test_less_is_planned_where_layers_are_computed_again():
    """As much less as real tensors show: see test_savings.py."""
    deep = SETTINGS | {'dynamics.depth': 4}
    saved = lambda **more: footprint.counted(OBS, ACT, *tiny(**deep | more))['model']
    plain, again = saved(), saved(**{'machine.checkpointing': True})
    both = saved(**{'machine.checkpointing': True, 'machine.accumulate': 4})
    assert both < again < 0.8 * plain


def test_work_and_messages_that_savings_add_are_planned(counted):
    """One more pass for each saving; blocks are gathered for each slice, on the way back too, as
    counted in two processes: 8.5 times the numbers of the dynamics at one slice, 13.3 at two.
    """
    config, _ = tiny(**SETTINGS)
    saving = {'machine.checkpointing': True, 'machine.accumulate': 2}
    both = footprint.measure(OBS, ACT, *tiny(**SETTINGS | saving))
    plain, work = (sum(found.flops.values()) for found in (counted, both))
    assert both.flops['computed again'] == pytest.approx(work - plain)
    passes = plain - sum(counted.flops[k] for k in ('encode', 'imagination', 'actor critic'))
    assert 0.4 * passes < work - plain < 2 / 3 * passes
    more = plan.divide(both, config, 'fsdp', 2).sent - plan.divide(counted, config, 'fsdp', 2).sent
    model, tokenizer = counted.shared['model'], counted.shared['tokenizer']
    often = 1 / config.tokenizer_training.every
    assert more == pytest.approx(0.5 * plan.HALF * (4 * model + 2 * often * tokenizer))


def test_each_of_many_holds_its_share(counted):
    config, _ = tiny(**SETTINGS)
    config = replace(config, batch=replace(config.batch, size=8))
    alone, ddp, fsdp = (plan.divide(counted, config, kind, 4) for kind in plan.KINDS)
    assert (alone.gpus, ddp.rows, fsdp.rows) == (1, 2, 2)
    assert alone.sent == 0 and alone.buffers == 0
    learned, shared = (sum(part.values()) for part in (counted.parameters, counted.shared))
    assert 0 < shared < learned and set(counted.shared) == set(counted.parameters)
    assert ddp.moments == alone.moments == 8 * learned
    assert fsdp.moments == pytest.approx(8 * (learned - shared * 3 / 4))
    assert ddp.working == counted.working(2) < alone.working
    # an all-reduce of n sends 2 (n - 1) / n of the gradients, 4 bytes each; the tokenizer learns at
    # every second update
    sent = sum(counted.parameters.values()) - counted.parameters['tokenizer'] / 2
    assert ddp.sent == pytest.approx(2 * 3 / 4 * 4 * sent)
    assert ddp.flops == pytest.approx(alone.flops / 4)


def test_more_gpus_than_sequences_take_one_each(counted):
    config, _ = tiny(**SETTINGS)
    share = plan.divide(counted, config, 'ddp', 2 * config.batch.size)
    assert share.rows == 1
    assert share.flops == pytest.approx(sum(counted.flops.values()) / config.batch.size)


def test_the_fewest_gpus_are_the_first_that_hold_it(counted):
    config, _ = tiny(**SETTINGS)
    needed = plan.divide(counted, config, 'fsdp', 4).total / plan.KEPT
    assert plan.fewest(counted, config, 'fsdp', needed * 1.001) == 4
    assert plan.fewest(counted, config, 'none', 1000.0) is None


def test_the_command_prints_a_line_for_each_way(counted, capsys, monkeypatch):
    monkeypatch.setattr(plan, 'measure', lambda *_: counted)  # which takes seconds
    size = '--agent.batch.size 4 --agent.batch.length 4 --agent.batch.frames 8'.split()
    flags = ['--configs', 'pixel', 'debug', *size, '--image', '16', '--gpus', '2']
    assert plan.main([*flags, '--agent.tokenizer.patch', '8']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.split()[0] in plan.KINDS] == [
        ['none', '1'],
        ['ddp', '2'],
        ['fsdp', '2'],
    ]
    assert plan.main(['--configs', 'no_such_size']) == 2
