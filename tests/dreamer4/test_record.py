"""Recording and replaying: what a CUDA graph would freeze is frozen here by a tape, so that a
CPU can tell whether that is harmless.
"""

import dataclasses
import sys
import traceback

import numpy as np
import pytest
import torch
from test_agent import ACT, OBS, agent, observe, parameters, sampler
from tiny import tiny, train
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dreamer4 import record
from dreamer4.agent import Agent
from dreamer4.record import CudaGraphs, Plain, Recorder


def state(made):
    """Every tensor that an update or acting may change in place."""
    found = []
    for part in made._parts().values():
        module = getattr(part, 'module', part)
        if isinstance(module, torch.nn.Module):
            found += [*module.parameters(), *module.buffers()]
    for optimizer in made.optimizers.values():
        found += [optimizer.rate] + [
            x for entry in optimizer.adam.state.values() for x in entry.values()
        ]
    return found


def memory(*trees):
    """Where the tensors in some trees have their numbers."""
    tensors = [x for x in tree_leaves(trees) if isinstance(x, torch.Tensor)]
    return {x.untyped_storage().data_ptr() for x in tensors}


class Tape(TorchDispatchMode):
    """Keeps every operator of a call with its tensors, and runs them again: like a CUDA graph it
    knows nothing of the Python around them, and reads and writes the very memory of the call.
    """

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        # a view shows what is in its base, an operator in place has written already
        fresh = not operator._schema.is_mutable and not memory(args, kwargs) & memory(out)
        self.calls.append((operator, args, kwargs or {}, out, fresh))
        return out

    @torch.no_grad()
    def replay(self):
        for operator, args, kwargs, out, fresh in self.calls:
            again = operator(*args, **kwargs)
            if fresh:
                for old, new in zip(tree_leaves(out), tree_leaves(again)):
                    if isinstance(old, torch.Tensor):
                        old.detach().copy_(new)


class Traced(Recorder):
    """Records on a tape. That carries the work out, so what it changed is put back."""

    def __init__(self, made):
        super().__init__()
        self.agent = made

    def record(self, work, inputs):
        tensors, random = state(self.agent), torch.get_rng_state()
        before = [x.detach().clone() for x in tensors]
        with Tape() as tape:
            outputs = work(inputs)
        for x, old in zip(tensors, before):
            x.detach().copy_(old)
        torch.set_rng_state(random)
        return tape.replay, {k: v.detach() for k, v in outputs.items()}


# How to record, the device for it, and how exactly it can agree with plain work: sums on a GPU have
# no fixed order.
RECORDERS = {
    'traced': (Traced, 'cpu', 'float32', 1),
    'cuda': (lambda made: CudaGraphs(made.device), 'cuda', 'float32', 10),
    'cuda, bfloat16': (lambda made: CudaGraphs(made.device), 'cuda', 'bfloat16', 1000),
}
each_recorder = pytest.mark.parametrize(
    'how',
    [
        pytest.param(
            how,
            marks=pytest.mark.skipif(
                how != 'traced' and not torch.cuda.is_available(), reason='needs a GPU'
            ),
        )
        for how in RECORDERS
    ],
)


def prepared(how, recorded, stage, **changes):
    """An agent that records, or one that does not, on the device of `how`."""
    recorder, device, precision, _ = RECORDERS[how]
    machine = {'machine.device': device, 'machine.precision': precision}
    made = agent(stage, **changes, **machine)
    made.recorder = recorder(made) if recorded else Plain()
    return made


@pytest.fixture(autouse=True)
def record_soon(monkeypatch):
    monkeypatch.setattr(record, 'WARM', 1)


@pytest.mark.parametrize('stage', ['tokenizer', 'policy'])
@each_recorder
def test_a_replayed_update_does_what_the_plain_one_does(stage, how):
    """Over several updates: with other batches, learning rates and random numbers, slow copies that
    follow, and dreams at every second one.
    """
    changes = {
        'imagination.every': 2,
        'imagination.epochs': 2,
        'schedule.anneal': 3,
        'batch.single': 0.25,
        'shortcut.bootstrap': 0.25,
        'schedule.tokenizer_updates': 99,
    }
    runs, loose = [], RECORDERS[how][3]
    for recorded in (False, True):
        made, sample = prepared(how, recorded, stage, **changes), sampler()
        runs.append(([train(made, sample) for _ in range(9)], parameters(made), made))
    (plain, ours, _), (again, theirs, made) = runs
    assert len(made.recorder._made) >= 1 + (stage == 'policy'), (
        'some plans came often enough to be recorded'
    )
    for one, other in zip(plain, again):
        assert one == pytest.approx(other, rel=1e-4 * loose, abs=1e-5 * loose)
    for name in ours:
        for a, b in zip(ours[name], theirs[name]):
            assert torch.allclose(a, b, rtol=1e-4 * loose, atol=1e-6 * loose), name
    assert plain[-1] != plain[-3], 'these updates differ, so a frozen one would be seen'


@each_recorder
def test_replayed_acting_is_that_of_plain_calls_even_for_two_that_take_turns(how):
    runs = []
    for recorded in (False, True):
        made = prepared(how, recorded, 'policy')
        carries, seen = [made.init_policy(2), made.init_policy(2)], []
        for step in range(5):
            for who in (0, 1):
                carries[who], action = made.policy(
                    carries[who], observe(2, step == 0, 10 * step + who)
                )
                # on a CPU they are the recording's own memory
                seen.append({k: v.copy() for k, v in action.items()})
        runs.append((seen, carries))
    assert made.recorder._made
    for one, other in zip(*(seen for seen, _ in runs)):
        assert all(np.array_equal(one[k], other[k]) for k in one)
    for one, other in zip(*(carries for _, carries in runs)):
        assert all(
            torch.allclose(one[k].float(), other[k].float(), atol=1e-6 * RECORDERS[how][3])
            for k in one
        )


@each_recorder
def test_a_loaded_agent_makes_its_recordings_anew(how):
    """Loading replaces tensors of the optimizers; a recording would go on with the old ones."""

    def run(recorded):
        made, sample = (
            prepared(how, recorded, 'tokenizer', **{'schedule.tokenizer_updates': 99}),
            sampler(),
        )
        train(made, sample), train(made, sample)
        tree = made.save()
        train(made, sample)
        made.load(tree)
        carry = made.init_policy(2)
        for step in range(3):  # recorded before any optimizer has made a step since
            carry, _ = made.policy(carry, observe(2, step == 0, step))
        return [train(made, sample) for _ in range(3)][-1]

    loose = RECORDERS[how][3]
    assert run(False) == pytest.approx(run(True), rel=1e-4 * loose, abs=1e-6 * loose)


def test_what_was_recorded_in_a_stage_is_dropped_at_its_end():
    made, sample = (
        prepared(
            'traced',
            True,
            'tokenizer',
            **{'schedule.tokenizer_updates': 3, 'schedule.tokenizer_unexplained': 0},
        ),
        sampler(),
    )
    counts = []
    for _ in range(3):
        train(made, sample)
        counts.append(len(made.recorder._made))
    assert counts == [0, 1, 0] and made.schedule.stage == 'dynamics'


def test_a_call_is_recorded_after_the_warm_ones_and_for_every_shape_of_its_inputs():
    made = []

    class Fake(Recorder):
        def record(self, work, inputs):
            made.append(inputs['x'])
            out = {'y': torch.empty_like(inputs['x'])}
            return lambda: out['y'].copy_(work(inputs)['y']), out

    recorder = Fake()
    double = lambda tensors: {'y': 2 * tensors['x']}
    results = [
        recorder.run('double', double, {'x': torch.full((2,), float(i))})['y'].tolist()
        for i in range(4)
    ]
    assert results == [[0, 0], [2, 2], [4, 4], [6, 6]] and len(made) == 1
    (
        recorder.run('double', double, {'x': torch.zeros(3)}),
        recorder.run('double', double, {'x': torch.zeros(3)}),
    )
    assert [len(x) for x in made] == [2, 3]
    recorder.forget()
    recorder.run('double', double, {'x': torch.zeros(3)})
    assert len(made) == 2, 'warm calls come first again'


class Foreign(TorchFunctionMode):
    """Finds what touches a tensor of another device than `device`, or makes one of numbers that the
    host holds: on a GPU each is an error or a copy that the host waits for.
    """

    MAKERS = (
        torch.tensor,
        torch.as_tensor,
        torch.from_numpy,
        torch.Tensor.item,
        torch.Tensor.tolist,
    )

    def __init__(self, device):
        super().__init__()
        self.device, self.found, self._inner = torch.device(device), [], Operators(self)

    def __enter__(self):
        self._inner.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._inner.__exit__(*error)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.MAKERS:
            self.note(func)
        return func(*args, **(kwargs or {}))

    def note(self, func):
        self.found.append(f'{func}: ' + ''.join(traceback.format_stack(limit=6)))


class Operators(TorchDispatchMode):
    """The half of Foreign that sees operators, those of the backward pass among them."""

    def __init__(self, outer):
        super().__init__()
        self.outer = outer

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # in place and without a result; torch has none of it for 'meta'
        fused = func.overloadpacket is torch.ops.aten._fused_adamw_
        out = None if fused else func(*args, **(kwargs or {}))
        leaves = torch.utils._pytree.tree_leaves((args, kwargs, out))
        if any(
            isinstance(x, torch.Tensor) and x.device.type != self.outer.device.type for x in leaves
        ):
            self.outer.note(func)
        return out


@pytest.fixture
def elsewhere(monkeypatch):
    """An agent on a device that is not the CPU: 'meta', which has shapes and no numbers, in the
    place of a GPU.
    """
    monkeypatch.setattr('dreamer4.agent.check_machine', lambda *_: None)
    monkeypatch.setattr('dreamer4.machine.find_device', torch.device)
    monkeypatch.setattr(
        sys.modules['torch.optim.optimizer'],
        '_get_fused_kernels_supported_devices',
        lambda: ['cpu', 'meta'],
    )
    adamw = torch.optim.AdamW  # plain on 'meta', where there is no kernel
    monkeypatch.setattr(
        torch.optim, 'AdamW', lambda groups, **more: adamw(groups, **more | {'fused': True})
    )
    return lambda stage, **changes: on_meta(stage, changes)


def on_meta(stage, changes):
    config, machine = tiny(**changes)
    made = Agent(OBS, ACT, config, dataclasses.replace(machine, device='meta'), seed=0)
    made.schedule.stage = stage
    return made


@pytest.mark.parametrize(
    'stage, changes',
    [
        ('tokenizer', {}),
        ('policy', {}),
        (
            'policy',
            {
                'actor.loss': 'reinforce',
                'tokenizer.time_every': 1,
                'batch.single': 0.5,
                'heads.continuous': 'truncnormal',
            },
        ),
        (
            'policy',
            {
                'shortcut.history': 'forcing',
                'heads.continuous': 'normal',
                'actor.prior': 'clone',
                'heads.learn_on': 'noised',
            },
        ),
    ],
)
def test_an_update_touches_no_tensor_of_another_device(elsewhere, stage, changes):
    made = elsewhere(stage, **changes | {'imagination.horizon': 1})
    for made.updates in range(2):
        plan = made.updater.plan(made.updates, (4, 8), made.schedule)
        batch = made.batch(sampler()(4, 9))
        with Foreign('meta') as foreign:
            made.updater.carry_out(plan, batch)
        assert not foreign.found, foreign.found[0]


@pytest.mark.parametrize('kind', ['explore', 'sample', 'mode'])
def test_acting_touches_no_tensor_of_another_device(elsewhere, kind):
    made = elsewhere('policy')
    seen = {f'seen/{k}': torch.from_numpy(v).to('meta') for k, v in observe(2, True).items()}
    with Foreign('meta') as foreign:
        made.player.act(kind, made.init_policy(2) | seen)
    assert not foreign.found, foreign.found[0]


@pytest.mark.parametrize(
    'foreign_work',
    [
        lambda: torch.tensor([1.0, 2.0], device='meta'),
        lambda: torch.zeros(2).to('meta'),
        lambda: torch.ones(2, device='meta') + torch.ones(()),
    ],
)
def test_what_finds_foreign_tensors_finds_them(foreign_work):
    with Foreign('meta') as foreign:
        foreign_work()
    assert foreign.found
