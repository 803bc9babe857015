"""The agent as a whole: what moves under which loss, saving and loading, acting, refusals."""

import shutil
import traceback
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import feed, speak, tiny, train
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer4.actions import REAL
from dreamer4.agent import Agent
from dreamer4.batch import Batch, draw_starts
from dreamer4.nets.outputs import TwoHot
from dreamer4.optim import NonFiniteLoss
from dreamer4.state import fetch
from dreamer4.worlds.dreamer4 import lessons, shortcut
from dreamer4.worlds.dreamer4.rollout import imagine
from embodied.errors import CheckpointError

needs_compiler = pytest.mark.skipif(
    not shutil.which('g++'), reason='torch.compile needs a C++ compiler on the CPU'
)
OBS = {
    'image': spaces.Box(0, 255, (16, 16, 3), np.uint8),
    'joints': spaces.Box(-9, 9, (2,), np.float32),
    'reward': spaces.Box(-np.inf, np.inf, (), np.float32),
    'log/secret': spaces.Box(-np.inf, np.inf, (), np.float32),
}
OBS |= {flag: spaces.Box(0, 1, (), np.bool_) for flag in ('is_first', 'is_last', 'is_terminal')}
ACT = {
    'arm': spaces.Box(-1, 1, (2,), np.float32),
    'gear': spaces.Discrete(3),
    'lamps': spaces.MultiBinary(2),
    'reset': spaces.Box(0, 1, (), np.bool_),
}


def sampler(seed=0):
    """Random rows of every kind, as a replay would hand them out."""
    rng = np.random.default_rng(seed)

    def sample(batch, length):
        shape = (batch, length)
        last = rng.random(shape) < 0.1
        first = np.roll(last, 1, 1)
        return {
            'image': rng.integers(0, 256, (*shape, 16, 16, 3), dtype=np.uint8),
            'joints': rng.normal(size=(*shape, 2)).astype(np.float32),
            'arm': rng.uniform(-1, 1, (*shape, 2)).astype(np.float32),
            'gear': rng.integers(0, 3, shape).astype(np.int32),
            'lamps': rng.integers(0, 2, (*shape, 2)).astype(bool),
            'reward': rng.normal(size=shape).astype(np.float32),
            'is_first': first,
            'is_last': last,
            'is_terminal': last & (rng.random(shape) < 0.5),
        }

    return sample


def observe(num, first, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': rng.integers(0, 256, (num, 16, 16, 3), dtype=np.uint8),
        'joints': rng.normal(size=(num, 2)).astype(np.float32),
        'is_first': np.full(num, first),
    }


def agent(stage='tokenizer', **changes):
    made = Agent(OBS, ACT, *tiny(**changes), seed=0)
    made.schedule.stage = stage
    return made


def parameters(made):
    parts = {
        'tokenizer': made.world.tokenizer,
        'dynamics': made.world.dynamics,
        'policy': made.actor_critic.policy_head,
        'value': made.actor_critic.value_head,
        'slow_value': made.actor_critic.slow_value.module,
        'slow_policy': made.actor_critic.slow_policy.module,
        'acting_policy': made.actor_critic.acting_policy.module,
    }
    parts |= {k: getattr(made.world.heads, f'{k}_head') for k in ('reward', 'cont', 'behaviour')}
    return {k: [p.detach().clone() for p in m.parameters()] for k, m in parts.items()}


def moved(made, updates=3):
    before, sample = parameters(made), sampler()
    for _ in range(updates):
        train(made, sample)
    after = parameters(made)
    return {k for k in before if any(not torch.equal(a, b) for a, b in zip(before[k], after[k]))}


def test_every_stage_moves_its_parts_and_no_other():
    tokenizer = {'tokenizer'}
    model = tokenizer | {'dynamics', 'reward', 'cont', 'behaviour'}
    assert moved(agent('tokenizer', **{'schedule.tokenizer_updates': 99})) == tokenizer
    assert moved(agent('dynamics', **{'schedule.dynamics_updates': 99})) == model
    assert moved(agent('value', **{'schedule.value_updates': 99})) == model | {
        'value',
        'slow_value',
    }
    assert moved(agent('policy')) == model | {
        'value',
        'slow_value',
        'policy',
        'slow_policy',
        'acting_policy',
    }


def test_value_and_policy_losses_reach_their_own_heads_alone():
    made = agent('policy')
    batch = made.batch(sampler()(4, 9))
    context = made.world.commit(batch)
    dream = made.world.imagine(context.detach(), batch, made.updater.choose)
    losses, *_ = made.actor_critic.losses(dream, made.actor_critic.score(dream))
    own_heads = [made.actor_critic.policy_head, made.actor_critic.value_head]
    for name in ('value', 'policy'):
        everything = [
            p
            for m in (made.world.tokenizer, made.world.dynamics, made.world.heads, *own_heads)
            for p in m.parameters()
        ]
        grads = torch.autograd.grad(losses[name], everything, allow_unused=True, retain_graph=True)
        own = {id(p) for p in getattr(made.actor_critic, f'{name}_head').parameters()}
        assert all((g is not None) == (id(p) in own) for p, g in zip(everything, grads)), name


@pytest.mark.parametrize('lam', [0.0, 0.95])
def test_advantages_have_a_lambda_of_their_own(lam):
    """With zero they are r + gamma c V(s') - V(s), whatever the value learns from."""
    made = agent('policy', **{'actor.lam': lam, 'value.gamma': 0.9})
    speak(made.actor_critic.slow_value.module)
    batch = made.batch(sampler()(4, 9))
    dream = made.world.imagine(made.world.commit(batch), batch, made.updater.choose)
    targets = made.actor_critic.score(dream)
    assert torch.equal(targets.value, targets.returns) == (lam == 0.95)
    if not lam:
        after = made.actor_critic.scalar.mean(
            made.actor_critic.slow_value.module(dream.features[:, 1:])
        )
        assert torch.allclose(
            targets.returns,
            dream.reward[:, 1:] + 0.9 * dream.cont[:, 1:] * after,
            atol=1e-4,
        )


@pytest.mark.parametrize('reads', ['apart', 'together', 'feature', 'latents'])
def test_a_policy_that_begins_as_the_clone_does_what_the_data_does(reads):
    made = agent('dynamics', **{'heads.reads': reads, 'actor.prior': 'clone'})
    made.schedule.updates = 10**9
    speak(made.world.clone)
    x = torch.randn(5, sum(made.world.parts))
    logits = lambda policy: policy.log_probs[0]
    cloned = logits(made.world.heads.behaviour(x))
    assert not torch.allclose(logits(made.actor_critic.policy(x)), cloned)
    made._advance()
    assert made.schedule.stage == 'value'
    assert torch.allclose(logits(made.actor_critic.policy(x)), cloned)


@pytest.mark.parametrize('rate', [0.0, 1.0])
def test_a_value_that_learns_from_replay_too_teaches_the_model_nothing(rate):
    """Nor does it where the model is frozen and its frames are only looked at."""
    changes = {'model_training.rate': rate, 'tokenizer_training.rate': rate}
    found = []
    for weight in (0.0, 0.3):
        made = agent('policy', **changes | {'scales.replay': weight})
        torch.manual_seed(0)
        metrics = train(made, sampler())
        assert ('value/replay' in metrics) == (weight > 0)
        found.append(parameters(made))
    without, beside = found
    other = {k for k in beside if any(not torch.equal(*two) for two in zip(without[k], beside[k]))}
    assert other == {'value', 'slow_value'}


@pytest.mark.parametrize('epochs', [1, 3])
def test_every_epoch_is_a_step_of_value_and_policy_on_the_same_dream(epochs):
    made, dreams = agent('policy', **{'imagination.epochs': epochs}), []
    inner = made.actor_critic.losses
    made.actor_critic.losses = lambda dream, of: (dreams.append(dream), inner(dream, of))[1]
    before = {k: v.updates for k, v in made.optimizers.items()}
    train(made, sampler())
    assert len(dreams) == epochs and all(dream is dreams[0] for dream in dreams)
    assert {k: v.updates - before[k] for k, v in made.optimizers.items()} == {
        'tokenizer': 1,
        'model': 1,
        'value': epochs,
        'policy': epochs,
    }


def test_value_and_policy_may_dream_less_often_than_the_model_learns():
    made = agent('policy', **{'imagination.every': 3})
    for update in range(1, 7):
        train(made, sampler(update))
        assert [made.optimizers[k].updates for k in ('model', 'value', 'policy')] == [
            update,
            update // 3,
            update // 3,
        ]


@pytest.mark.parametrize('name', ['imagination.every', 'imagination.epochs'])
def test_a_dream_never_made_or_learned_from_is_refused(name):
    with pytest.raises(ValueError, match=f'agent.{name} must be at least 1, got 0'):
        agent(**{name: 0})


@pytest.mark.parametrize('size, share', [(1, 0.25), (4, 0.9), (2, 0.2)])
def test_a_bootstrap_share_that_leaves_one_kind_of_step_untrained_is_refused(size, share):
    with pytest.raises(ValueError, match=f'some of the agent.batch.size {size} sequences each'):
        agent(**{'batch.size': size, 'shortcut.bootstrap': share})


def test_reward_continue_and_behaviour_reach_the_trunk_but_not_the_tokenizer():
    made = agent('dynamics')
    batch = made.batch(sampler()(4, 9))
    for name in ('reward', 'cont', 'behaviour'):
        speak(getattr(made.world.heads, f'{name}_head'))
        _, parts = made.world.model_loss(batch, made.world.commit(batch), 1, True)
        trunk = torch.autograd.grad(
            parts[name],
            list(made.world.dynamics.transformer.parameters()),
            retain_graph=True,
            allow_unused=True,
        )
        assert any(g is not None and g.abs().sum() > 0 for g in trunk), name
        pixels = torch.autograd.grad(
            parts[name], list(made.world.tokenizer.parameters()), allow_unused=True
        )
        assert all(g is None for g in pixels), name


DREAMED = {'heads.learn_on': 'dreamed', 'heads.reads': 'latents'}


def test_heads_are_shown_dreams_of_what_was_done_with_what_was_paid_up_to_the_end():
    made = agent('dynamics', **DREAMED)
    torch.nn.init.normal_(made.world.dynamics.latent_out.weight)
    batch = made.batch(sampler()(4, 9))
    context, steps = made.world.commit(batch), made.config.shortcut.steps
    usable = made.world.dynamics.coordinates.known(batch.is_first)
    torch.manual_seed(3)
    x, came, there = lessons.dreamed(made.world, batch, context, usable)
    torch.manual_seed(3)
    horizon = made.config.imagination.horizon
    rows, frames = draw_starts(usable[:, :-horizon], made.config.imagination.starts)
    take = lambda x, t: batch.action[rows, frames + t]
    dream = imagine(
        made.world.dynamics, made.world.heads, context, rows, frames, horizon, steps, take
    )
    assert torch.equal(x, dream.inputs[:, 1:]) and not x.requires_grad
    for w, (row, frame) in enumerate(zip(rows.tolist(), frames.tolist())):
        alive = bool(usable[row, frame])
        for t in range(horizon):
            alive = alive and not batch.is_first[row, frame + t + 1]
            assert there[w, t] == alive
            assert came.reward[w, t] == batch.reward[row, frame + t + 1]
    assert there.any() and not there.all()


def test_rewards_of_dreamed_frames_teach_the_heads_and_nothing_else():
    made = agent('dynamics', **DREAMED)
    torch.nn.init.normal_(made.world.dynamics.latent_out.weight)
    for name in ('reward', 'cont'):
        speak(getattr(made.world.heads, f'{name}_head'))
    batch = made.batch(sampler()(4, 9))
    _, parts = made.world.model_loss(batch, made.world.commit(batch), 0, True)
    trunk, head = [*made.world.dynamics.parameters()], [*made.world.heads.reward_head.parameters()]
    found = torch.autograd.grad(parts['reward_dreamed'], trunk + head, allow_unused=True)
    assert all(g is None for g in found[: len(trunk)])
    assert all(g.abs().sum() > 0 for g in found[len(trunk) :])


def test_sequences_of_two_frames_are_dreamed_for_one_step():
    made = agent('dynamics', **DREAMED)
    batch = made.batch(sampler()(4, 3))
    usable = torch.ones_like(batch.is_first)
    assert lessons.dreamed(made.world, batch, made.world.commit(batch), usable)[0].shape[1] == 1


@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
def test_a_share_of_the_model_gradient_reaches_the_encoder_and_none_the_decoder(share):
    made = agent('dynamics', **{'tokenizer.kind': 'conv', 'tokenizer_training.model': share})
    torch.nn.init.normal_(made.world.dynamics.latent_out.weight)
    batch = made.batch(sampler()(4, 9))

    def gradient(joint):
        torch.manual_seed(0)
        latent = made.world.shared(batch)[0] if joint else None
        context = made.world.commit(batch, latent=latent)
        total, _ = made.world.model_loss(batch, context, 0, True)
        return total, torch.autograd.grad(
            total, [*made.world.tokenizer.parameters()], allow_unused=True, retain_graph=True
        )

    plan = made.updater.plan(made.updates, (4, 8), made.schedule)
    assert plan.world.joint == (share > 0)
    if not share:
        return
    total, grads = gradient(True)
    names = [name for name, _ in made.world.tokenizer.named_parameters()]
    reached = {name for name, g in zip(names, grads) if g is not None and g.abs().sum() > 0}
    assert any(name.startswith('encoders') for name in reached) and 'bottleneck.weight' in reached
    assert not any(name.startswith(('decoders', 'outward', 'unbottleneck')) for name in reached)
    object.__setattr__(made.config.tokenizer_training, 'model', 1.0)
    whole = dict(zip(names, gradient(True)[1]))['bottleneck.weight']
    assert torch.allclose(
        dict(zip(names, grads))['bottleneck.weight'], share * whole, rtol=1e-3, atol=1e-7
    )
    moved = made.world.tokenizer.bottleneck.weight.clone()
    metrics = train(made, sampler())
    assert (
        not torch.equal(moved, made.world.tokenizer.bottleneck.weight)
        and metrics['tokenizer/total'] == metrics['model/total']
    )


def test_a_tokenizer_that_learns_in_one_step_with_the_model_sees_frames_in_time(monkeypatch):
    """Its sequences are the first ones, which are single images where none trains large steps."""
    settings = {'tokenizer.time_every': 1, 'tokenizer_training.model': 0.5, 'batch.single': 0.5}
    made, seen = agent('dynamics', **settings, **{'shortcut.bootstrap': 0.0}), []
    losses = made.world.tokenizer.losses
    monkeypatch.setattr(
        made.world.tokenizer,
        'losses',
        lambda obs, is_first, *rest: [seen.append(is_first), losses(obs, is_first, *rest)][1],
    )
    train(made, sampler())
    assert len(seen) == 1 and not seen[0].all(1).any()


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'tokenizer.time_every': 1},
        {'tokenizer.kind': 'conv', 'tokenizer_training.model': 0.5},
        {'dynamics.moves': False},
        {'dynamics.moves': False, 'shortcut.history': 'forcing'},
        {'heads.continuous': 'normal'},
        {'heads.continuous': 'truncnormal'},
        {'heads.learn_on': 'noised'},
        {'heads.learn_on': 'predicted', 'heads.reads': 'latents'},
        {'heads.learn_on': 'dreamed', 'heads.reads': 'latents'},
        {'machine.attention': 'explicit'},
        {'actor.loss': 'reinforce'},
        {'actor.prior': 'none'},
        {'actor.prior': 'clone'},
        {'dynamics.context_signal': 0.875},
        {'dynamics.softcap': 50.0},
        {'batch.single': 0.5},
        {'batch.long_length': 16},
        {'dynamics.group': 4},
        {'machine.precision': 'bfloat16'},
    ],
    ids=lambda c: ','.join(f'{k}={v}' for k, v in c.items()) or 'default',
)
def test_every_setting_trains_acts_and_reports_finite_numbers(changes):
    made = agent('policy', **changes)
    sample = sampler()
    for _ in range(2):
        metrics = train(made, sample)
    assert all(np.isfinite(v) for v in metrics.values()), metrics
    carry = made.init_policy(2)
    for step in range(3):
        carry, action = made.policy(carry, observe(2, step == 0, step))
    assert (
        action['arm'].shape == (2, 2)
        and action['arm'].dtype == np.float32
        and np.abs(action['arm']).max() <= 1
    )
    assert action['gear'].shape == (2,) and action['gear'].dtype == np.int32
    report = made.report(feed(made, sample).fresh(0))
    assert report['openloop/image'].dtype == np.uint8 and report['openloop/image'].shape[-1] == 3
    assert all(np.isfinite(v) for v in report.values() if isinstance(v, float)), report


def test_the_diagnostics_that_tell_why_a_run_fails_are_all_there():
    made = agent('policy')
    metrics, report = train(made, sampler()), made.report(feed(made, sampler()).fresh(0))
    assert {
        'policy/positive',
        'policy/kl',
        'policy/entropy',
        'value/explained',
        'tokenizer/latent_std',
    } <= set(metrics)
    assert {
        'shuffle_ratio',
        'action_effect',
        'error_1',
        'error_step/1',
        'error',
        'reward_imagined',
        'reward_real',
        'return_imagined',
        'return_real',
        'return_corr',
        'reward_skill',
        'reward_skill_real',
        'latent_std',
        'psnr/image',
    } <= set(report)


@pytest.mark.parametrize('early', [False, True])
def test_rewards_that_never_come_on_last_rows_are_counted_as_missed(early):
    """Four rows an episode, a reward at its end; recorded one row early it stands on the third,
    and on no last row.
    """
    made = agent('policy')
    rows = sampler()(16, 9)
    place = np.broadcast_to(np.arange(9) % 4, (16, 9))
    rows |= {
        'is_first': place == 0,
        'is_last': place == 3,
        'is_terminal': place == 3,
        'reward': np.float32(place == (2 if early else 3)),
    }
    metrics = made.world.measure(made.batch(rows))
    # half of 32 last rows, as of the rows between
    assert metrics['reward_missed_on_last'] == (16 if early else 0)


@pytest.mark.parametrize('time_every', [0, 1, 2])
def test_acting_encodes_the_newest_frame_as_the_last_of_its_window(time_every):
    made = agent('policy', **{'tokenizer.time_every': time_every, 'tokenizer.depth': 2})
    carry, shown = made.init_policy(2), []
    for step in range(6):
        shown.append(observe(2, step == 0, step))
        carry, _ = made.policy(carry, shown[-1], 'mode')
        window = shown[-made.config.actor.context :]
        frames = {
            k: torch.stack([torch.from_numpy(obs[k]) for obs in window], 1) for k in made.world.keys
        }
        first = torch.stack([torch.from_numpy(obs['is_first']) for obs in window], 1)
        with torch.no_grad():
            whole = made.world.dynamics.pack(made.world.tokenizer.encode(frames, first))
        assert torch.allclose(carry['latent'][:, -1], whole[:, -1], atol=1e-5), step


@pytest.mark.parametrize('time_every', [0, 1])
def test_acting_is_a_function_of_the_episode_alone(time_every):
    """What an env showed before its last reset, and what other envs show, must not matter."""
    made = agent('policy', **{'tokenizer.time_every': time_every})
    speak(made.actor_critic.acting_policy.module)

    def act(before, neighbour):
        carry = made.init_policy(2)
        for obs in before:
            carry, _ = made.policy(carry, obs, 'mode')
        for step in range(3):
            obs = observe(2, step == 0, 50 + step)
            obs['image'][1] = neighbour
            carry, action = made.policy(carry, obs, 'mode')
        return {k: v[0] for k, v in action.items()}

    plain = act([], 0)
    for other in (act([observe(2, i == 0, i) for i in range(5)], 0), act([], 255)):
        assert all(np.array_equal(plain[k], other[k]) for k in plain)


def test_acting_remembers_earlier_frames_of_the_episode():
    made = agent('policy')
    speak(made.actor_critic.acting_policy.module, 3.0)
    inputs = []
    for seed in (1, 2):
        carry = made.init_policy(1)
        carry, _ = made.policy(carry, observe(1, True, seed), 'mode')
        carry['action'].zero_()
        carry, _ = made.policy(carry, observe(1, False, 9), 'mode')
        inputs.append(made.world.features(carry))
    assert not torch.allclose(inputs[0], inputs[1])


def test_a_frozen_tokenizer_is_not_trained():
    made = agent('policy', **{'tokenizer_training.rate': 0.0})
    assert not any(key.startswith('tokenizer/') for key in train(made, sampler()))


def test_a_task_id_is_read_by_the_agent_token_and_not_by_the_tokenizer():
    made = Agent(OBS | {'task_id': spaces.Discrete(3)}, ACT, *tiny(), seed=0)
    assert (
        'task_id' not in made.world.tokenizer.vectors
        and made.world.dynamics.task.num_embeddings == 3
    )
    made.schedule.stage = 'policy'
    torch.nn.init.normal_(made.world.dynamics.task.weight)
    base = sampler()
    train(
        made,
        lambda batch, length: (
            base(batch, length) | {'task_id': np.full((batch, length), 2, np.int32)}
        ),
    )
    inputs = []
    for task in (0, 1):
        carry, _ = made.policy(
            made.init_policy(1), observe(1, True) | {'task_id': np.array([task], np.int32)}, 'mode'
        )
        inputs.append(made.world.features(carry))
    assert not torch.allclose(*inputs)


@pytest.mark.parametrize('continuous', [5, *REAL])
def test_the_acting_window_holds_the_actions_that_the_replay_will_hold(continuous):
    made = agent('policy', **{'heads.continuous': continuous})
    speak(made.actor_critic.acting_policy.module, 3.0)
    carry, action = made.policy(made.init_policy(64), observe(64, True))
    stored = made.actions.encode({key: torch.from_numpy(value) for key, value in action.items()})
    assert torch.equal(carry['action'], stored)
    carry, _ = made.policy(carry, observe(64, False, 1))
    assert torch.equal(carry['code'][:, -1], stored)


def test_random_actions_are_held_and_released_at_the_start_of_an_episode():
    made = agent(**{'actor.hold': 1e9})
    carry = made.init_policy(4)
    carry, a = made.policy(carry, observe(4, True))
    carry, b = made.policy(carry, observe(4, False))
    carry, c = made.policy(carry, observe(4, True))
    assert np.array_equal(a['arm'], b['arm']) and not np.array_equal(b['arm'], c['arm'])


def test_the_pace_slows_every_part_and_the_model_has_a_rate_of_its_own():
    made, sample = (
        agent(
            'policy',
            **{'schedule.anneal': 10, 'model_training.rate': 0.5, 'tokenizer_training.rate': 0.2},
        ),
        sampler(),
    )
    made.schedule.updates = 10
    made.updates = 0  # an update in which the tokenizer has its turn
    train(made, sample)
    assert {k: o.scale for k, o in made.optimizers.items()} == pytest.approx(
        {'tokenizer': 0.1, 'model': 0.25, 'policy': 0.5, 'value': 0.5}
    )


@pytest.mark.parametrize(
    'changes, rows',
    [({}, 9), ({'batch.long_length': 16}, 17), ({'batch.long_length': 4}, 9)],
)
def test_the_longest_sequence_asked_for_is_the_one_announced(changes, rows):
    made, asked = agent('dynamics', **changes), []
    for seed in range(4):
        train(made, lambda batch, length: asked.append(length) or sampler(seed)(batch, length))
    assert max(asked) == made.sequence_rows == rows


class Waits(TorchDispatchMode):
    """Counts the places where the host reads a number from the device: item(), float(), if
    tensor, nonzero().
    """

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.is_nonzero,
        ):
            self.found.append(''.join(traceback.format_stack(limit=6)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('stage', ['tokenizer', 'dynamics', 'policy'])
@pytest.mark.parametrize('changes', [{}, {'actor.loss': 'reinforce'}])
def test_the_host_waits_for_the_device_once_in_an_update(stage, changes, monkeypatch):
    with Waits() as waits:
        float(torch.ones(2).sum())
    assert waits.found, 'what counts the waits counts none'
    made, sample, fetched = agent(stage, **changes), sampler(), []
    train(made, sample)
    monkeypatch.setattr(
        'dreamer4.agent.fetch', lambda metrics: fetched.append(metrics) or fetch(metrics)
    )
    with Waits() as waits:
        train(made, sample)
    assert not waits.found, waits.found[0]
    assert len(fetched) == 1


@pytest.mark.parametrize(
    'changes',
    [
        {'machine.attention': 'explicit'},
        pytest.param({'machine.compile': True}, marks=[needs_compiler, pytest.mark.slow]),
    ],
)
def test_fast_and_plain_paths_give_the_same_losses_over_several_updates(changes):
    runs = []
    for settings in ({}, changes):
        made, sample = agent('policy', **settings), sampler()
        runs.append([train(made, sample) for _ in range(3)])
    for one, other in zip(*runs):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key] == pytest.approx(other[key], rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize('stage', ['tokenizer', 'dynamics', 'policy'])
def test_a_saved_and_loaded_agent_goes_on_bitwise(stage):
    def run(interrupt):
        made, sample = agent(stage, **{'schedule.gate_every': 2}), sampler()
        carry = made.init_policy(2)
        for step in range(4):
            if interrupt and step == 2:
                tree, kept = made.save(), made.save_carry(carry)
                torch.manual_seed(99)
                made = agent('tokenizer', **{'schedule.gate_every': 2})
                made.load(tree)
                carry = made.load_carry(kept)
            metrics = train(made, sample)
            carry, action = made.policy(carry, observe(2, step == 0, step))
        return metrics, action, made.save()

    (metrics_a, action_a, tree_a), (metrics_b, action_b, tree_b) = run(False), run(True)
    assert metrics_a == metrics_b
    assert all(np.array_equal(action_a[k], action_b[k]) for k in action_a)
    assert equal(tree_a, tree_b)


def equal(a, b):
    if isinstance(a, dict):
        return set(a) == set(b) and all(equal(a[k], b[k]) for k in a)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def test_loading_another_size_names_what_does_not_fit():
    tree = agent(**{'dynamics.width': 32}).save()
    with pytest.raises(CheckpointError, match='another agent.*size mismatch'):
        agent().load(tree)


@pytest.mark.parametrize(
    'path, value',
    [
        ('schedule/stage', 'dreaming'),
        ('schedule/measures/unexplained', 'high'),
        ('schedule/measures', 5),
        ('updates', 'x'),
        ('return_range/span', 2**70),
        ('optim_tokenizer/moments/0/exp_avg', np.zeros(3, np.float32)),
        ('optim_tokenizer/moments/0/step', 'x'),
        ('optim_tokenizer/moments/999', {}),
        ('optim_tokenizer/moments', None),
        ('random/cpu', np.zeros(3, np.uint8)),
        ('random', []),
        ('slow_policy/module', {}),
        ('rms', None),
    ],
)
def test_a_state_of_another_form_is_refused_and_fails_at_no_later_step(path, value):
    made = agent()
    train(made, sampler())
    tree = made.save()
    *way, last = path.split('/')
    node = tree
    for key in way:
        node = node[key]
    node[last] = value
    with pytest.raises(CheckpointError, match='another agent'):
        agent().load(tree)


def test_a_non_finite_batch_stops_the_update_and_names_the_loss():
    def sample(batch, length):
        rows = sampler()(batch, length)
        rows['joints'][:] = np.nan
        return rows

    made = agent()
    before = parameters(made)
    with pytest.raises(
        NonFiniteLoss,
        match=(
            'tokenizer.*vector.*In the batch these are not finite: obs/joints in sequence 0, frames'
            ' 0'
        ),
    ):
        train(made, sample)
    after = parameters(made)
    assert all(torch.equal(a, b) for k in before for a, b in zip(before[k], after[k]))


def changed(seed=0, **columns):
    """A sampler whose rows have other columns: key -> function of the column."""
    base = sampler(seed)

    def sample(batch, length):
        rows = base(batch, length)
        return rows | {key: change(rows[key]) for key, change in columns.items()}

    return sample


def test_rewards_beyond_the_outermost_bin_are_counted_and_said_once_also_after_a_resume():
    made = agent('policy', **{'heads.limit': 3.0, 'value.gamma': 0.9})
    assert train(made, sampler())['reward/beyond'] == 0 and made.events() == []
    large = changed(reward=lambda x: np.where(x > 0, np.float32(1000), np.float32(0)))
    for update in range(2):
        metrics = train(made, large)
        assert 0.2 < metrics['reward/beyond'] < 0.8 and metrics['reward/largest'] == 1000
        told = made.events()
        assert len(told) == (update == 0)
    assert not made.events()
    other = agent('policy', **{'heads.limit': 3.0, 'value.gamma': 0.9})
    other.load(made.save())
    train(other, large)
    assert not other.events()


def test_the_sentence_about_rewards_beyond_the_bins_names_a_limit_that_is_enough():
    made = agent('dynamics', **{'heads.limit': 3.0, 'value.gamma': 0.9})
    train(made, changed(reward=lambda x: np.full_like(x, -1000)))
    (told,) = made.events()
    assert (
        'rewards' in told
        and 'learned as 19.09, the largest is 1,000' in told
        and '--agent.heads.limit 10' in told
    )
    assert TwoHot(21, 10.0).values[-1] > 1000 / (1 - 0.9)


def test_returns_beyond_the_outermost_bin_are_counted_where_rewards_are_not():
    made = agent('policy', **{'heads.limit': 1.0, 'value.gamma': 0.99, 'imagination.horizon': 8})
    for head in (made.world.heads.reward_head, made.world.heads.cont_head):
        with torch.no_grad():
            for part in head.parts:
                part.output.bias.zero_()
                # the outermost bin, symexp(1), and never an end
                part.output.bias[20 if head is made.world.heads.reward_head else 0] = 40.0
    metrics = train(made, changed(reward=lambda x: np.ones_like(x)))
    assert (
        metrics['reward/beyond'] == 0
        and metrics['value/beyond'] > 0.5
        and metrics['value/largest'] > 2
    )
    (told,) = made.events()
    assert 'of the imagined returns' in told and '--agent.heads.limit 5' in told, (
        'rewards of one, a hundred of them'
    )


def roles_of(monkeypatch, updates, **changes):
    """What every frame of some updates was for: bool (frames,) under 'large' steps, with a
    'past', 'single' images.
    """
    made, seen, sizes = agent('dynamics', **{'schedule.dynamics_updates': 999, **changes}), [], []
    draw, loss = shortcut.draw_schedule, shortcut.loss

    def spy_draw(*args):
        sizes.append(draw(*args))
        return sizes[-1]

    def spy_loss(dynamics, context, given, is_first, *more):
        found = loss(dynamics, context, given, is_first, *more)
        seen.append(
            {
                'large': sizes[-1][1] > 0,
                'past': context.mask.sum(-1) > 1,
                'single': is_first.all(1)[:, None].expand(is_first.shape),
            }
        )
        return found

    monkeypatch.setattr(shortcut, 'draw_schedule', spy_draw)
    monkeypatch.setattr(shortcut, 'loss', spy_loss)
    for seed in range(updates):
        train(made, sampler(seed))
    return {key: torch.cat([one[key].flatten() for one in seen]) for key in seen[0]}


def test_roles_are_of_the_seed_and_the_update_whoever_makes_it():
    """Seeds differ, and a resumed run draws what an uninterrupted one draws."""

    def roles(seed, begin=0):
        made = Agent(OBS, ACT, *tiny(**{'shortcut.bootstrap': 0.4, 'batch.single': 0.3}), seed=seed)
        made.schedule.stage, found = 'dynamics', []
        for made.updates in range(begin, 12):
            found.append(made.updater.plan(made.updates, (4, 8), made.schedule).world.roles)
        return found

    assert roles(0) == roles(0) and roles(0) != roles(1)
    assert roles(0, begin=5) == roles(0)[5:]


@pytest.mark.parametrize('single', [0.0, 0.3, 0.5])
def test_large_steps_are_trained_with_a_past_and_without_whatever_the_share_of_single_images(
    monkeypatch, single
):
    frames = roles_of(monkeypatch, 20, **{'batch.size': 8, 'batch.single': single})
    share = lambda a, b: (frames[a] & b).float().mean() / frames[a].float().mean()
    assert abs(frames['large'].float().mean() - 0.25) < 0.02
    assert abs(share('large', frames['single']) - single) < 0.1
    assert abs(share('large', frames['past']) - frames['past'].float().mean()) < 0.1


@pytest.mark.parametrize('changes', [{}, {'tokenizer.time_every': 1, 'batch.frames': 16}])
def test_demonstrations_take_every_role(monkeypatch, changes):
    """The replay puts them last; they are the sequences whose images are white."""
    made, taught, learned, plans = (
        agent('dynamics', **{'batch.size': 8, 'batch.single': 0.25, **changes}),
        [],
        [],
        [],
    )
    losses, cut, plan = made.world.tokenizer.losses, Batch.cut, made.updater.plan

    def white(images):
        return (images.flatten(2) == 255).all(-1).all(1)

    def spy_cut(batch, begin, end):
        place = torch.arange(8)
        large = place < plans[-1].world.roles.large
        taught.append(
            torch.stack([white(batch.obs['image']), large, (place >= begin) & (place < end)])
        )
        return cut(batch, begin, end)

    def spy_losses(obs, *args):
        learned.append(white(obs['image']).float().mean())
        return losses(obs, *args)

    made.updater.plan = lambda *given: plans.append(plan(*given)) or plans[-1]
    made.world.tokenizer.losses = spy_losses
    monkeypatch.setattr(Batch, 'cut', spy_cut)

    def sample(batch, length):
        rows = sampler()(batch, length)
        rows['image'][batch // 2 :] = 255
        return rows

    for _ in range(40):
        train(made, sample)
    demo, large, single = torch.stack(taught, 1).flatten(1).bool()
    for role in (large, single, large & single, large & ~single):
        assert 0.3 < demo[role].float().mean() < 0.7
    assert 0.3 < torch.stack(learned).mean() < 0.7, 'the tokenizer learns from them too'


@pytest.mark.parametrize('every', range(1, 13))
def test_a_quarter_of_batches_is_long_and_of_those_that_are_dreamt_of(every):
    batch = replace(tiny()[0].batch, size=4, length=8, long_length=32)
    dreamt = [batch.shape(update)[1] == 32 for update in range(every - 1, 400 * every, every)]
    assert 0.23 < np.mean(dreamt) < 0.27 and not batch.shape(0)[1] == 32
    for begin in range(0, 380, 20):
        assert len({*dreamt[begin : begin + 20]}) == 2, 'both kinds, soon and always'


@pytest.mark.parametrize('share', [0.25, 0.75])
def test_long_batches_of_one_sequence_train_both_kinds_of_steps(share):
    made = agent(
        'policy',
        **{
            'batch.size': 4,
            'batch.length': 8,
            'batch.long_length': 32,
            'shortcut.bootstrap': share,
        },
    )
    kinds = []
    for update in range(40):
        metrics = train(made, sampler(update))
        assert all(np.isfinite(v) for v in metrics.values())
        if made.config.batch.shape(update)[0] == 1:
            kinds.append(tuple(kind for kind in ('flow', 'bootstrap') if f'loss/{kind}' in metrics))
        else:
            assert {'loss/flow', 'loss/bootstrap'} <= set(metrics)
    assert (
        set(kinds) == {('flow',), ('bootstrap',)}
        and abs(kinds.count(('bootstrap',)) / len(kinds) - share) < 0.25
    )


def mixture(flags, filler=0, seed=0, unlabeled=2):
    """A sampler of whose sequences the last ones are unlabeled, as demonstrations are; `filler`
    is what stands in their place.
    """
    base = sampler(seed)

    def sample(batch, length):
        rows, which = base(batch, length), np.arange(batch) >= batch - unlabeled
        for flag in flags:
            rows[flag] = np.broadcast_to(which[:, None], (batch, length))
        if {'unlabeled', 'unlabeled_action'} & set(flags):
            rows['arm'][which], rows['gear'][which], rows['lamps'][which] = (
                filler,
                2 * bool(filler),
                bool(filler),
            )
        if {'unlabeled', 'unlabeled_reward'} & set(flags):
            rows['reward'][which], rows['is_terminal'][which] = filler, bool(filler)
        return rows

    return sample


@pytest.mark.parametrize(
    'flags',
    [
        ['unlabeled'],
        ['unlabeled_action'],
        ['unlabeled_reward'],
    ],
)
def test_a_mixture_trains_gates_and_reports_without_the_labels_that_are_not_known(flags):
    """Bitwise the same agent whatever stands in place of unknown actions and rewards, NaN
    included.
    """
    trees, metrics, reports = [], [], []
    for filler in (0, np.nan):
        made = agent(
            'dynamics',
            **{
                'schedule.dynamics_updates': 2,
                'schedule.gate_every': 1,
                'schedule.reward_skill': 0,
                'schedule.latent_error': 0,
                'schedule.value_updates': 1,
            },
        )
        sample = mixture(flags, filler)
        metrics.append([train(made, sample) for _ in range(5)])
        assert made.schedule.stage == 'policy' and all(
            np.isfinite(v) for row in metrics[-1] for v in row.values()
        )
        reports.append(made.report(feed(made, sample).fresh(0)))
        trees.append(made.save())
    assert metrics[0] == metrics[1] and 'gate/error' in metrics[0][1]
    assert equal(trees[0], trees[1]) and equal(reports[0], reports[1])


def test_unlabeled_frames_teach_the_world_model_and_no_reward():
    """The frames of the unlabeled sequences move tokenizer and dynamics; heads of reward and
    behaviour learn from the others alone.
    """
    made = agent('dynamics')
    batch = made.batch(mixture(['unlabeled'])(4, 9))
    for name in ('reward', 'cont', 'behaviour'):
        speak(getattr(made.world.heads, f'{name}_head'))
    context = made.world.commit(batch)
    latent = context.latent.detach().requires_grad_()
    context = made.world.dynamics.commit(latent, made.world.given(batch), batch.is_first)
    _, parts = made.world.model_loss(batch, context, 0, True)
    reach = lambda loss: (
        torch.autograd.grad(loss, latent, retain_graph=True)[0].abs().sum((1, 2, 3)) > 0
    ).tolist()
    assert all(
        reach(parts[name]) == [True, True, False, False] for name in ('reward', 'cont', 'behaviour')
    )
    forced = shortcut.loss(
        made.world.dynamics,
        context,
        made.world.given(batch),
        batch.is_first,
        made.config.shortcut,
        0,
    )
    assert (forced.losses['flow'].sum(1) > 0).all()


@pytest.mark.parametrize('unit', [0.0, 1.0])
def test_rewards_that_never_change_open_the_gate_with_a_word(unit):
    made = agent(
        'dynamics',
        **{'schedule.dynamics_updates': 4, 'schedule.gate_every': 2, 'schedule.latent_error': 0},
    )
    same = changed(reward=lambda x: np.full_like(x, unit))
    for _ in range(5):
        train(made, same)
    assert made.schedule.stage == 'value' and any(
        'the rewards never change' in words for words in made.events()
    )
    waiting = agent(
        'dynamics',
        **{'schedule.dynamics_updates': 4, 'schedule.gate_every': 2, 'schedule.latent_error': 0},
    )
    for _ in range(5):
        train(waiting, sampler())
    assert waiting.schedule.stage == 'dynamics' and 'reward_skill' in waiting.status().waits


def test_frames_that_never_change_open_both_gates_with_a_word():
    still = changed(image=lambda x: np.full_like(x, 90), joints=lambda x: np.ones_like(x))
    made = agent(
        **{
            'schedule.tokenizer_updates': 2,
            'schedule.dynamics_updates': 2,
            'schedule.gate_every': 1,
            'schedule.reward_skill': 0,
        }
    )
    for _ in range(6):
        train(made, still)
    told = made.events()
    assert made.schedule.stage == 'value' and len(told) == 2
    assert 'nothing to reconstruct' in told[0] and 'nothing to predict' in told[1]
    tree = made.save()
    assert tree['schedule']['measures']['unexplained'] is None
    other = agent()
    other.load(tree)
    assert other.schedule.stage == 'value'


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('key', ['reward', 'joints'])
@pytest.mark.parametrize('changes', [{}, {'actor.loss': 'reinforce'}])
def test_an_agent_goes_on_after_a_refused_batch(key, value, changes):
    made, sound = agent('policy', **changes), sampler()

    def broken(batch, length):
        rows = sound(batch, length)
        rows[key].reshape(batch, length, -1)[0, 3] = value
        return rows

    train(made, sound)
    if (key, value) == ('reward', np.inf):
        train(made, broken)  # learned as the outermost bin
    else:
        with pytest.raises(NonFiniteLoss):
            train(made, broken)
    for _ in range(2):
        assert all(np.isfinite(v) for v in train(made, sound).values())
    state = made.save()
    for name in ('rms', 'tokenizer', 'acting_policy', 'dynamics', 'heads', 'return_range'):
        assert all(np.isfinite(v).all() for v in flat(state[name])), name


def flat(tree):
    return [x for v in tree.values() for x in flat(v)] if isinstance(tree, dict) else [tree]


def with_value(config, key, value):
    """A config with one value replaced, past the marks of the YAML file that refuse words too."""
    head, _, rest = key.partition('.')
    return replace(
        config, **{head: with_value(getattr(config, head), rest, value) if rest else value}
    )


@pytest.mark.parametrize(
    'key,value,text',
    [
        ('actor.prior', 'bc', 'actor.prior'),
        ('actor.loss', 'ppo', 'actor.loss'),
        ('machine.attention', 'flash', 'machine.attention'),
        ('machine.attention', 'flex', 'GPU'),
        ('machine.precision', 'float64', 'machine.precision'),
        ('heads.learn_on', 'all', 'heads.learn_on'),
        ('heads.learn_on', 'predicted', 'heads.reads'),
        ('heads.learn_on', 'dreamed', 'heads.reads'),
        ('shortcut.steps', 3, 'power of two'),
        ('dynamics.time_every', 0, 'time_every'),
        ('actor.hold', 0.5, 'hold'),
        ('batch.length', 1, 'agent.batch.length'),
        ('batch.long_length', 1, 'agent.batch.long_length'),
        ('dynamics.levels', 6, 'power of two'),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_built(key, value, text):
    with pytest.raises(ValueError, match=text):
        agent_config, machine = tiny()
        if key.startswith('machine.'):
            machine = with_value(machine, key.removeprefix('machine.'), value)
        else:
            agent_config = with_value(agent_config, key, value)
        Agent(OBS, ACT, agent_config, machine, seed=0)


def test_the_summary_counts_what_is_there():
    made = agent()
    text = made.summary()
    total = sum(
        p.numel()
        for m in (
            made.world.tokenizer,
            made.world.dynamics,
            made.world.heads,
            made.actor_critic.policy_head,
            made.actor_critic.value_head,
        )
        for p in m.parameters()
    )
    assert f'{total / 1e6:8.2f}M' in text and 'GFLOPs per update' in text


def test_a_tokenizer_that_learns_alone_sees_single_frames_from_all_over_the_replay():
    made, asked = agent(), []
    train(made, lambda batch, length: asked.append((batch, length)) or sampler()(batch, length))
    # a row more, which serves for the shift
    assert asked == [(made.config.batch.frames, 2)]
