"""A world model that is played: what begins it, what a step says, that moments are values."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from dreamer4.dream import Dream
from dreamer4.load import load
from dreamer4.starts import Starts
from dreamer4.worlds import Sampling
from dreamer4.worlds.dreamer4 import shortcut
from embodied.errors import ConfigError

BOTH = pytest.mark.parametrize('world', ['dreamer4', 'rssm'])


@pytest.fixture(scope='module')
def loaded(played):
    """World model -> (agent, env, starts) of its run."""
    found = {}

    def parts(world):
        if world not in found:
            agent, env = load(played(world))
            found[world] = agent, env, Starts(played(world), env.obs_space, env.act_space)
        return found[world]

    return parts


def begun(loaded, world, count=2, **settings):
    agent, env, starts = loaded(world)
    dream = Dream(agent, env.obs_space, env.act_space, **settings)
    rows = starts.draw(np.random.default_rng(0), count, dream.context)
    return dream, dream.begin(rows), rows


def acting(count, x=0.5, y=-0.5):
    return {'action': np.full((count, 2), (x, y), np.float32)}


def same(a, b):
    return all(torch.equal(a.carry[k], b.carry[k]) for k in a.carry) and np.array_equal(
        a.obs['image'], b.obs['image']
    )


@BOTH
def test_a_dream_begins_at_real_frames_and_goes_on_past_the_window(loaded, world):
    dream, moment, rows = begun(loaded, world, 3)
    assert np.array_equal(moment.obs['image'], rows['image'][:, -1])
    for _ in range(2 * dream.context + 20):  # the training window has 12 frames
        moment = dream.step(moment, acting(3))
    image = moment.obs['image']
    assert image.shape == (3, 16, 16, 3) and image.dtype == np.uint8
    for name in ('reward', 'cont', 'value', 'entropy'):
        value = getattr(moment, name)
        assert value.shape == (3,) and np.isfinite(value).all(), name
    assert (0 <= moment.cont).all() and (moment.cont <= 1).all() and np.isnan(moment.spread).all()


@BOTH
def test_what_is_believed_of_a_real_frame_is_what_acting_knows(loaded, world):
    agent, env, _ = loaded(world)
    dream = Dream(agent, env.obs_space, env.act_space)
    first = env.step({'action': np.zeros(2, np.float32), 'reset': np.bool_(True)})
    seen = {key: np.asarray(value)[None] for key, value in first.items()}
    moment = dream.begin({k: v[:, None] for k, v in (seen | acting(1)).items()})
    carry = agent.world.begin(1)
    with torch.no_grad(), dream.machine.random():
        frame = {k: torch.from_numpy(seen[k]) for k in ('image', 'is_first')}
        carry = agent.world.observe(carry, frame, torch.zeros(1, agent.actions.code_size))
    later = dream.see(moment, acting(1), seen | {'is_first': np.array([False])})
    if world == 'dreamer4':  # whose latents are no samples
        assert torch.equal(carry['latent'], moment.carry['latent'])
        assert dream.error(moment, later) == 0, 'the same frame has the same latents'
    assert later.reward.shape == (1,)


@BOTH
def test_a_kept_moment_is_gone_back_to_and_branches(loaded, world):
    dream, moment, _ = begun(loaded, world)
    kept = {k: v.clone() for k, v in moment.carry.items()}
    dream.reseed(7)
    first = dream.step(moment, acting(2))
    dream.step(first, acting(2))
    assert all(torch.equal(kept[k], moment.carry[k]) for k in kept), 'a step changed the past'
    dream.reseed(7)
    assert same(dream.step(moment, acting(2)), first)
    other = dream.step(moment, acting(2, -1, 1))
    assert not torch.equal(other.features, first.features)


def test_rows_of_a_batch_do_not_touch_each_other(loaded):
    dream, moment, rows = begun(loaded, 'dreamer4', 3, sampling=Sampling(mean=True))
    together = dream.step(moment, acting(3))
    for row in range(3):
        alone = dream.begin({k: v[row : row + 1] for k, v in rows.items()})
        alone = dream.step(alone, acting(1))
        assert np.allclose(alone.value[0], together.value[row], atol=1e-5)
        difference = alone.obs['image'][0].astype(int) - together.obs['image'][row]
        assert np.abs(difference).max() <= 1


def test_samples_differ_and_the_mean_is_one_look_in_the_smallest_step(loaded, monkeypatch):
    dream, moment, _ = begun(loaded, 'dreamer4', sampling=Sampling(steps=4))
    torch.nn.init.normal_(dream.world.dynamics.latent_out.weight, std=0.3)  # at first it is zero
    latents = []
    for seed in (1, 2):
        dream.reseed(seed)
        latents.append(dream.step(moment, acting(2)).carry['latent'][:, -1])
    assert not torch.equal(*latents)
    asked, sample = [], shortcut.sample
    note = lambda *args, **kw: asked.append((args[4], kw['smallest'])) or sample(*args, **kw)
    monkeypatch.setattr(shortcut, 'sample', note)
    for how in (Sampling(steps=4), Sampling(steps=4, mean=True), Sampling()):
        dream.sampling = how
        dream.step(moment, acting(2))
    assert asked == [(4, False), (1, True), (1, False)]


@BOTH
def test_spread_is_that_of_samples(loaded, world):
    dream, moment, _ = begun(loaded, world, samples=4)
    spread = dream.step(moment, acting(2)).spread
    assert spread.shape == (2,) and (spread > 0).all() and (spread < 1).all()


def test_a_model_of_means_has_no_spread_and_takes_one_step(loaded):
    agent, env, starts = loaded('dreamer4')
    means = copy.copy(agent)
    known = replace(agent.config.shortcut, anchor=1.0, bootstrap=0.0)
    means.config = replace(agent.config, shortcut=known)
    dream = Dream(means, env.obs_space, env.act_space, samples=4)
    moment = dream.begin(starts.draw(np.random.default_rng(0), 2, dream.context))
    assert np.isnan(dream.step(moment, acting(2)).spread).all()
    with pytest.raises(ValueError, match=r'anchor 1 .* got 4 steps'):
        dream.sampling = Sampling(steps=4)


def test_noise_of_the_context_reaches_the_next_frame(loaded):
    dream, moment, _ = begun(loaded, 'dreamer4')
    found = []
    for noise in (None, 0.03125, 0.5):
        dream.sampling = Sampling(mean=True, noise=noise)
        dream.reseed(0)
        found.append(dream.step(moment, acting(2)).carry['latent'][:, -1])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


@pytest.mark.parametrize('how', [Sampling(steps=3), Sampling(steps=1024), Sampling(noise=1.0)])
def test_a_setting_that_the_model_cannot_follow_is_refused(loaded, how):
    with pytest.raises(ValueError, match='sampling: '):
        begun(loaded, 'dreamer4', sampling=how)


@BOTH
def test_the_policy_is_told_by_component_and_acts_from_it(loaded, world):
    dream, moment, _ = begun(loaded, world)
    told = dream.policy(moment)
    assert [(c.key, c.index) for c in told] == [('action', 0), ('action', 1)]
    likeliest = dream.act(moment, likeliest=True)['action']
    for choice in told:
        if world == 'rssm':  # a normal, in this preset
            assert (choice.std > 0).all() and len(choice.values) == 0
            best = choice.mean
        else:
            assert np.allclose(choice.probs.sum(1), 1, atol=1e-5)
            best = choice.values[choice.probs.argmax(1)]
        assert np.allclose(likeliest[:, choice.index], best)


def test_the_agent_and_the_caller_keep_their_random_numbers(loaded):
    agent = loaded('dreamer4')[0]
    ours, theirs = torch.get_rng_state(), agent.machine.save()['cpu']
    dream, moment, _ = begun(loaded, 'dreamer4', samples=3)
    dream.act(dream.step(moment, acting(2)))
    assert torch.equal(ours, torch.get_rng_state())
    assert torch.equal(theirs, agent.machine.save()['cpu'])


def test_moments_are_put_together_by_row(loaded):
    dream, moment, _ = begun(loaded, 'dreamer4')
    later = dream.step(moment, acting(2))
    mixed = moment.put(np.array([False, True]), later)
    assert mixed.value[0] == moment.value[0] and mixed.value[1] == later.value[1]
    assert torch.equal(mixed.carry['latent'][1], later.carry['latent'][1])
    assert np.array_equal(mixed.obs['image'][0], moment.obs['image'][0])


def test_starts_reach_over_the_beginning_of_a_stream_with_rows_of_their_own(loaded):
    _, _, starts = loaded('dreamer4')
    rows = starts.before(0, 2, 8)
    assert rows['image'].shape == (8, 16, 16, 3)
    assert rows['is_first'].tolist() == [True] * 6 + [False] * 2
    after = starts.after(0, 2)
    assert np.array_equal(after['image'][0], rows['image'][-1])
    assert after['is_last'][-1] and not after['is_last'][:-1].any()


def test_starts_are_never_last_frames_and_may_be_first_ones(loaded):
    _, _, starts = loaded('dreamer4')
    rng = np.random.default_rng(1)
    assert not starts.draw(rng, 200, 1)['is_last'].any()
    assert starts.draw(rng, 5, 3, first=True)['is_first'][:, -1].all()
    with pytest.raises(IndexError, match='frames 0 to'):
        starts.before(0, 10_000, 2)


def test_frames_of_another_env_are_refused_by_name(loaded, played):
    _, env, _ = loaded('dreamer4')
    other = env.obs_space | {'image': env.obs_space['reward']}
    with pytest.raises(ConfigError, match="knows 'image' of shape"):
        Starts(played('dreamer4'), other, env.act_space)
    with pytest.raises(ConfigError, match='no frames to begin at'):
        Starts(played('dreamer4') / 'ckpt', env.obs_space, env.act_space)
