"""The agent in a recurrent state-space model: DreamerV1, DreamerV2 and DreamerV3 from the rows of a
replay to actions, and where gradients go.
"""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import feed, speak, train

from dreamer4.actor_critic import Real
from dreamer4.agent import Agent
from dreamer4.agent_config import AgentConfig
from dreamer4.machine import MachineConfig
from dreamer4.worlds.rssm.forms import FORMS
from embodied.config import parse
from embodied.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / 'configs'
VERSIONS = ('dreamerv1', 'dreamerv2', 'dreamerv3')
SMALL = {
    'batch.size': 3,
    'batch.length': 6,
    'rssm.deter': 16,
    'rssm.stoch': 3,
    'rssm.classes': 4,
    'rssm.units': 12,
    'rssm.depth': 2,
    'heads.bins': 21,
    'heads.limit': 3.0,
    'imagination.starts': 8,
    'imagination.horizon': 3,
    'actor.context': 4,
    'schedule.gate_sequences': 4,
    'machine.device': 'cpu',
}
OBS = {
    'image': spaces.Box(0, 255, (8, 8, 3), np.uint8),
    'joints': spaces.Box(-9, 9, (2,), np.float32),
    'reward': spaces.Box(-np.inf, np.inf, (), np.float32),
}
OBS |= {flag: spaces.Box(0, 1, (), np.bool_) for flag in ('is_first', 'is_last', 'is_terminal')}
ACT = {
    'arm': spaces.Box(-1, 1, (2,), np.float32),
    'gear': spaces.Discrete(3),
    'reset': spaces.Box(0, 1, (), np.bool_),
}


def sampler(seed=0, terminal=True):
    """Random rows of every kind, as a replay would hand them out."""
    rng = np.random.default_rng(seed)

    def sample(batch, length):
        shape = (batch, length)
        last = rng.random(shape) < 0.2
        return {
            'image': rng.integers(0, 256, (*shape, 8, 8, 3), dtype=np.uint8),
            'joints': rng.normal(size=(*shape, 2)).astype(np.float32),
            'arm': rng.uniform(-1, 1, (*shape, 2)).astype(np.float32),
            'gear': rng.integers(0, 3, shape).astype(np.int32),
            'reward': rng.normal(size=shape).astype(np.float32),
            'is_first': np.roll(last, 1, 1),
            'is_last': last,
            'is_terminal': last & (rng.random(shape) < 0.5) & terminal,
        }

    return sample


def observe(num, first, seed=0):
    rng = np.random.default_rng(seed)
    return {
        'image': rng.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8),
        'joints': rng.normal(size=(num, 2)).astype(np.float32),
        'is_first': np.full(num, first),
    }


def settings(version, **changes) -> tuple[AgentConfig, MachineConfig]:
    named = {
        k if k.startswith('machine.') else f'agent.{k}': v for k, v in (SMALL | changes).items()
    }
    config = parse(['--configs', version], CONFIGS).update(named)
    return config.agent.build(AgentConfig), config.machine.build(MachineConfig)


def agent(version='dreamerv3', stage='policy', act=ACT, **changes) -> Agent:
    made = Agent(OBS, act, *settings(version, **changes), seed=0)
    made.schedule.stage = stage
    return made


def method(version='dreamerv3', **changes):
    """Inside, policy and value of a published algorithm learn otherwise."""
    form = FORMS[version]
    return mock.patch.dict(FORMS, {version: replace(form, method=replace(form.method, **changes))})


def reseed(made):
    """Have an agent draw the same random numbers from now on."""
    made.machine.load({'cpu': torch.Generator().manual_seed(1).get_state()})


def copies(made):
    parts = {
        'world': made.world.net,
        'policy': made.actor_critic.policy_head,
        'value': made.actor_critic.value_head,
    }
    return {k: [p.detach().clone() for p in m.parameters()] for k, m in parts.items()}


def moved(made, stage):
    made.schedule.stage, before, sample = stage, copies(made), sampler()
    for _ in range(3):
        train(made, sample)
    after = copies(made)
    return {k for k in before if any(not torch.equal(a, b) for a, b in zip(before[k], after[k]))}


@pytest.mark.parametrize('version', VERSIONS)
def test_every_stage_moves_its_parts_and_no_other(version):
    wait = {'schedule.dynamics_updates': 99, 'schedule.value_updates': 99}
    assert moved(agent(version, **wait), 'dynamics') == {'world'}
    assert moved(agent(version, **wait), 'value') == {'world', 'value'}
    assert moved(agent(version), 'policy') == {'world', 'value', 'policy'}


@pytest.mark.parametrize('version', VERSIONS)
def test_all_parts_learn_from_the_third_update_on(version):
    made = agent(version, stage='dynamics')
    for _ in range(2):
        train(made, sampler())
    assert made.status().stage == 'policy'


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'rssm.conv': 'pooled'},
        {'heads.continuous': 5, 'actor.loss': 'pmpo'},
        {'imagination.every': 2},
        {'world': 'dreamerv1'},
        {'world': 'dreamerv2'},
    ],
    ids=str,
)
def test_every_setting_trains_acts_and_reports_finite_numbers(changes):
    made, carry = agent(**changes), None
    for update in range(2):
        metrics = train(made, sampler(update))
        assert all(np.isfinite(v) for v in metrics.values()), metrics
    carry = made.init_policy(2)
    for mode in ('train', 'sample', 'mode'):
        carry, action = made.policy(carry, observe(2, False), mode)
    assert action['arm'].shape == (2, 2) and action['gear'].shape == (2,)
    report = made.report(feed(made, sampler()).fresh(0))
    assert all(np.isfinite(v).all() for v in report.values())
    assert report['openloop/image'].shape[0] == 6 and report['openloop/image'].dtype == np.uint8


@pytest.mark.parametrize('version', VERSIONS)
def test_a_saved_and_loaded_agent_goes_on_bitwise(version):
    made = agent(version, stage='dynamics')
    for update in range(4):
        train(made, sampler(update))
    tree, carry = (
        made.save(),
        made.save_carry(made.policy(made.init_policy(2), observe(2, True))[0]),
    )
    found = []
    for other in (made, Agent(OBS, ACT, *settings(version), seed=7)):
        other.load(tree)
        metrics = [train(other, sampler(update)) for update in (4, 5)]
        acted, action = other.policy(other.load_carry(carry), observe(2, False, 1))
        found.append((metrics, {k: v.numpy() for k, v in acted.items()} | action))
    assert found[0][0] == found[1][0]
    assert all(np.array_equal(found[0][1][k], found[1][1][k]) for k in found[0][1])


@pytest.mark.parametrize('version', VERSIONS)
def test_acting_is_a_function_of_the_episode_alone(version):
    made = agent(version)
    speak(made.actor_critic.acting_policy.module)
    carry, found = made.init_policy(2), []
    for _ in range(3):  # of another episode
        carry, _ = made.policy(carry, observe(2, False, 5))
    for start in (made.init_policy(2), carry):
        reseed(made)
        carry, action = made.policy(start, observe(2, True, 1), 'sample')
        carry, action = made.policy(carry, observe(2, False, 2), 'sample')
        found.append((carry['deter'], action['arm']))
    assert torch.equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])


def test_acting_remembers_earlier_frames_and_actions_of_the_episode():
    made, found = agent(), []
    for past, act in ((1, 0.0), (3, 0.0), (1, 1.0)):
        reseed(made)
        carry, _ = made.policy(made.init_policy(2), observe(2, True, past), 'sample')
        carry['action'] = carry['action'] * 0 + act
        carry, _ = made.policy(carry, observe(2, False, 2), 'sample')
        found.append(carry['deter'])
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_states_of_a_batch_are_those_that_acting_would_have_had():
    """Rows are shifted by one: the action of row t leads to frame t, counted behind the shift."""
    made = agent()
    latents = made.world.net.rssm.latents
    latents.sample = latents.mode
    rows = sampler(3)(2, 7)
    rows['is_first'][:], rows['is_last'][:], rows['is_terminal'][:] = False, False, False
    rows['is_first'][:, 1] = True  # the first frame of the batch, and one inside
    rows['is_first'][0, 4], rows['is_last'][0, 3] = True, True
    batch = made.batch(rows)
    states = made.world.see(batch).state
    carry = made.world.begin(2)
    for t in range(6):
        seen = {k: torch.from_numpy(rows[k][:, t + 1]) for k in ('image', 'joints', 'is_first')}
        code = made.actions.encode({k: torch.from_numpy(rows[k][:, t]) for k in ('arm', 'gear')})
        carry = made.world.observe(carry, seen, code)
        assert torch.allclose(carry['deter'], states.deter[:, t], atol=1e-5), t


def test_an_action_that_is_not_known_is_none_and_the_state_stays():
    made = agent()
    latents = made.world.net.rssm.latents
    latents.sample = latents.mode
    rows = sampler(3)(2, 7)
    for flag in ('is_first', 'is_last', 'is_terminal'):
        rows[flag][:] = False
    rows['unlabeled_action'] = np.zeros((2, 7), bool)
    rows['unlabeled_action'][:, 3] = True
    found = []
    for value in (0.0, 0.7):
        rows['arm'][:, 3] = value
        found.append(made.world.see(made.batch(rows)).state.deter)
    assert torch.equal(*found)
    rows['image'][:, 1] = 255 - rows['image'][:, 1]
    assert not torch.equal(made.world.see(made.batch(rows)).state.deter[:, 4], found[0][:, 4])


@pytest.mark.parametrize(
    'version, square', [('dreamerv1', 0.5), ('dreamerv2', 0.5), ('dreamerv3', 1)]
)
def test_images_and_vectors_weigh_as_they_do_in_the_paper(version, square):
    """Normals of unit variance, or plain squares (DreamerV3)."""
    made = agent(version)
    losses = made.world.losses((), made.batch(sampler()(3, 7)))
    parts = {k.removeprefix('loss/'): v for k, v in losses.metrics.items() if 'loss/' in k}
    balance = FORMS[version].dyn * parts.pop('dyn') + FORMS[version].rep * parts.pop('rep')
    seen = parts.pop('image') + parts.pop('vector')
    expected = balance + square * seen + sum(parts.values())
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_rewards_that_do_not_exist_or_are_not_known_are_not_learned():
    made = agent()
    torch.nn.init.normal_(made.world.net.reward_head.output.weight)
    rows = sampler(3)(3, 7)
    rows['unlabeled_reward'] = np.zeros((3, 7), bool)
    rows['unlabeled_reward'][1, 4] = True
    rows['is_first'][0, 2] = True
    batch = made.batch(rows)
    reward = batch.reward.clone()
    reward[0, 1] = reward[1, 3] = 50.0
    state = made.world.see(batch).state
    plain = made.world.head_losses(state, batch)
    assert plain == made.world.head_losses(state, replace(batch, reward=reward))
    reward[2, 2] += 1
    other = batch.is_first.clone()
    other[2, 2] = False
    changed = made.world.head_losses(state, replace(batch, reward=reward, is_first=other))
    assert plain['reward'] != changed['reward']


def gradients(loss, modules):
    """Which of the modules a loss reaches, by name."""
    found = set()
    for name, module in modules.items():
        grads = torch.autograd.grad(
            loss, list(module.parameters()), allow_unused=True, retain_graph=True
        )
        if any(g is not None and g.abs().sum() > 0 for g in grads):
            found.add(name)
    return found


def dreamt(made):
    """Losses of the world model, a dream, and what both can reach."""
    ours = made.actor_critic
    for head in (ours.policy_head, ours.value_head, ours.slow_value.module):
        speak(head)
    torch.nn.init.normal_(made.world.net.reward_head.output.weight)
    losses = made.world.losses((), made.batch(sampler(terminal=False)(3, 7)))
    dream = made.world.imagine(losses.context, losses.batch, made.updater.choose)
    modules = {
        'encoder': made.world.net.encoder,
        'rssm': made.world.net.rssm,
        'decoder': made.world.net.decoder,
        'policy': ours.policy_head,
        'value': ours.value_head,
    }
    return losses, dream, modules


@pytest.mark.parametrize('version', VERSIONS)
def test_policy_and_value_losses_reach_their_own_heads_alone(version):
    made = agent(version)
    _, dream, modules = dreamt(made)
    parts, *_ = made.actor_critic.losses(dream, made.actor_critic.score(dream))
    assert gradients(parts['policy'], modules) == {'policy'}
    assert gradients(parts['value'], modules) == {'value'}
    assert all(p.requires_grad for m in modules.values() for p in m.parameters())


@pytest.mark.parametrize('act', [{k: ACT[k]} | {'reset': ACT['reset']} for k in ('arm', 'gear')])
def test_backpropagation_tells_the_policy_what_its_actions_earn(act):
    """Actions and classes alike: with the gradient of the dream alone, imagined reward rises."""
    made = agent('dreamerv1', act=act, **{'actor.entropy': 0.0, 'imagination.starts': 64})
    torch.nn.init.normal_(made.world.net.reward_head.output.weight)
    rows = sampler(terminal=False)(3, 7)
    losses = made.world.losses((), made.batch(rows))
    optimizer = torch.optim.Adam(made.actor_critic.policy_head.parameters(), 3e-2)

    def imagined():
        torch.manual_seed(0)
        return made.world.imagine(losses.context, losses.batch, made.updater.choose)

    before = imagined().reward[:, 1:].mean().item()
    for _ in range(15):
        dream = imagined()
        assert dream.reward.requires_grad and not dream.action.requires_grad
        optimizer.zero_grad()
        (-dream.reward[:, 1:].mean()).backward()
        optimizer.step()
    assert imagined().reward[:, 1:].mean().item() > before + 0.02
    assert all(p.grad is None for p in made.world.net.parameters())


def test_reinforce_and_backpropagation_share_the_objective_whatever_rewards_are():
    """DreamerV2, Eq. 6: both grow with the size of rewards, so that rho stays what it is."""
    made = agent('dreamerv2', **{'actor.entropy': 0.0})
    _, dream, _ = dreamt(made)
    ours = made.actor_critic
    for _ in range(300):  # a running range would have come to that of the returns
        targets = ours.score(dream)
    low, high = targets.returns.detach().quantile(torch.tensor([0.05, 0.95]))
    assert high - low > 2
    objective = ours.losses(dream, targets)[1]['policy/loss']
    x, mean = dream.features[:, :-1].detach(), lambda v: (v * targets.weight).sum()
    advantage = targets.returns - ours.value(x)
    policy = ours.policy(x)
    reinforce = mean(policy.log_prob(dream.action) * advantage)
    expected = -(0.9 * reinforce + 0.1 * mean(targets.returns)) / targets.weight.sum()
    assert objective == pytest.approx(expected.item(), rel=1e-4)


def test_without_backpropagation_a_dream_has_no_gradient():
    _, dream, _ = dreamt(agent('dreamerv3'))
    assert not dream.features.requires_grad and not dream.reward.requires_grad


def test_the_replay_loss_teaches_the_value_by_itself_and_the_world_model_by_its_features():
    made = agent('dreamerv3')
    losses, dream, modules = dreamt(made)
    real = Real(losses.batch, losses.features)
    ours = made.actor_critic
    targets = ours.score(dream)
    assert gradients(ours.replay_loss(real.detach(), dream, targets), modules) == {'value'}
    assert gradients(ours.teach(dream, targets, real), modules) == {'encoder', 'rssm'}


def test_the_replay_loss_leaves_out_steps_into_another_episode_and_unknown_rewards():
    made = agent('dreamerv3')
    losses, dream, _ = dreamt(made)
    targets = made.actor_critic.score(dream)
    last = torch.zeros_like(losses.batch.is_last)
    last[0, 2] = True
    batch = replace(losses.batch, is_last=last, is_first=last.roll(1, 1))
    loss = lambda b: made.actor_critic.replay_loss(
        Real(b, losses.features.detach()), dream, targets
    ).item()
    reward = batch.reward.clone()
    reward[0, 3] += 5  # on a first frame
    assert loss(batch) == loss(replace(batch, reward=reward))
    reward[0, 4] += 5
    assert loss(batch) != loss(replace(batch, reward=reward))
    known, other = batch.reward_valid.clone(), reward.clone()
    known[0, 5] = False
    other[0, 5] += 5  # of no earlier return either
    assert loss(replace(batch, reward=reward, reward_valid=known)) == loss(
        replace(batch, reward=other, reward_valid=known)
    )
    assert loss(replace(batch, reward_valid=known & False)) == 0


def test_the_regulariser_is_the_loss_towards_the_slow_value():
    with method(regulariser=0.5):
        made = agent('dreamerv3')
    _, dream, _ = dreamt(made)
    ours, x, target = made.actor_critic, dream.features[:, :-1], dream.reward[:, 1:]
    logits = ours.value_head(x)
    slow = ours.scalar.mean(ours.slow_value.module(x))
    expected = ours.scalar.loss(logits, target) + 0.5 * ours.scalar.loss(logits, slow)
    assert torch.allclose(ours.value_loss(logits, x, target), expected)


@pytest.mark.parametrize('version, online', [('dreamerv2', False), ('dreamerv3', True)])
def test_returns_are_continued_with_the_value_of_the_paper(version, online):
    made = agent(version)
    _, dream, _ = dreamt(made)
    ours = made.actor_critic
    head = ours.value_head if online else ours.slow_value.module
    value = ours.scalar.mean(head(dream.features))
    gamma = made.config.value.gamma
    last = dream.reward[:, -1] + gamma * dream.cont[:, -1] * value[:, -1]
    assert torch.allclose(ours.score(dream).returns[:, -1], last, atol=1e-5)


def test_a_discounted_dream_weighs_late_decisions_less():
    weights = []
    for discounted in (False, True):
        with method(discounted=discounted):
            made = agent('dreamerv3')
        weights.append(made.actor_critic.score(dreamt(made)[1]).weight)
    gamma = made.config.value.gamma
    assert torch.allclose(weights[1], weights[0] * gamma ** torch.arange(3.0), atol=1e-6)


def test_dreams_of_a_model_without_a_continue_head_never_end():
    made = agent('dreamerv1')
    _, dream, _ = dreamt(made)
    assert (dream.cont == 1).all()
    assert agent('dreamerv2').world.net.cont_head is not None


def test_dreams_begin_where_they_say_and_not_at_terminal_frames():
    made = agent()
    rows = sampler(4)(3, 7)
    rows['is_terminal'][:, ::3] = True
    losses = made.world.losses((), made.batch(rows))
    dream = made.world.imagine(losses.context, losses.batch, made.updater.choose)
    assert torch.equal(dream.features[:, 0], losses.context.feature[dream.rows, dream.frames])
    assert losses.batch.is_terminal.any()
    assert not losses.batch.is_terminal[dream.rows, dream.frames].any()


def test_every_task_of_several_is_observed():
    made = Agent(OBS | {'task_id': spaces.Discrete(3)}, ACT, *settings('dreamerv3'), seed=0)
    rows = sampler()(3, 7) | {'task_id': np.zeros((3, 7), np.int32)}
    one = made.world.see(made.batch(rows)).post
    rows['task_id'][:] = 2
    assert not torch.allclose(one, made.world.see(made.batch(rows)).post)


def test_a_posterior_that_says_nothing_is_no_good_model():
    """The error is of observations: a collapsed state is not called predictable."""
    made = agent()
    for part in (made.world.net.rssm.posterior, made.world.net.rssm.prior):
        torch.nn.init.zeros_(part[-1].weight)
        torch.nn.init.zeros_(part[-1].bias)
    report = made.report(feed(made, sampler()).fresh(0))
    assert report['unexplained'] > 0.9 and report['kl'] < 1e-4


@pytest.mark.parametrize(
    'changes, text',
    [
        ({'world': 'rssm'}, 'agent.world: expected dreamer4 or dreamerv1'),
        ({'world': 'dreamerv1', 'imagination.epochs': 2}, 'imagination.epochs must be 1, got 2'),
        ({'actor.prior': 'clone'}, 'needs a world model that imitates'),
        ({'rssm.deter': 12}, '8 blocks must divide'),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(changes, text):
    with pytest.raises((ValueError, ConfigError), match=text):
        agent('dreamerv3', **changes)


def test_the_summary_counts_what_is_there():
    made = agent()
    ours = (made.world.net, made.actor_critic.policy_head, made.actor_critic.value_head)
    total = sum(p.numel() for m in ours for p in m.parameters())
    assert f'{total / 1e6:.2f}M  on cpu' in made.summary()
    flops = made.world.summary().flops
    assert set(flops) == {'encode', 'recurrence', 'decode', 'heads', 'imagination'}
    # a frame of heads: two hidden layers of 28 x 12, outputs of 12 x 21 and 12 x 1; 3 x 6 frames
    assert flops['heads'] == 3 * 18 * 2 * (2 * 28 * 12 + 12 * 22)


@pytest.mark.parametrize(
    'version, updates', [('dreamerv1', 80), ('dreamerv2', 240), ('dreamerv3', 200)]
)
def test_an_agent_learns_which_of_two_buttons_pays(version, updates):
    """From random rows alone: reward model, dreams, value and policy work together."""
    rng = np.random.default_rng(0)
    act = {'press': spaces.Discrete(2), 'reset': ACT['reset']}

    def sample(batch, length):
        press, none = rng.integers(0, 2, (batch, length)), np.zeros((batch, length), bool)
        reward = np.zeros((batch, length), np.float32)
        reward[:, 1:] = press[:, :-1]
        joints = rng.normal(size=(batch, length, 2)).astype(np.float32)
        flags = {'is_first': none, 'is_last': none, 'is_terminal': none}
        return {'joints': joints, 'press': press, 'reward': reward} | flags

    rates = {f'optim.{part}.lr': 1e-2 for part in ('model', 'policy', 'value')}
    changes = rates | {'optim.warmup': 0}
    obs = {k: v for k, v in OBS.items() if k != 'image'}
    made = Agent(obs, act, *settings(version, **changes), seed=0)
    for _ in range(updates):
        metrics = train(made, sample)
    seen = {'joints': np.zeros((64, 2), np.float32), 'is_first': np.ones(64, bool)}
    _, action = made.policy(made.init_policy(64), seen, 'sample')
    assert action['press'].mean() > 0.8, metrics
