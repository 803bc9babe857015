"""Several cameras: shared weights, masks between them, and one of them dark."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import CONFIGS, tiny, train

from dreamer4.agent import Agent
from dreamer4.agent_config import check
from dreamer4.cameras import darkened, turned
from dreamer4.worlds.dreamer4.moves import LEAST
from dreamer4.worlds.dreamer4.tokenizer import Tokenizer
from embodied import envs
from embodied.base import is_image
from embodied.config import parse

VIEWS = {
    'left': spaces.Box(0, 255, (8, 8, 3), np.uint8),
    'right': spaces.Box(0, 255, (8, 8, 3), np.uint8),
    'far': spaces.Box(0, 255, (4, 12, 3), np.uint8),
}
SPACES = VIEWS | {'joints': spaces.Box(-1, 1, (3,), np.float32)}


def made(**changes):
    torch.manual_seed(0)
    config, _ = tiny(**{'tokenizer.patch': 4, 'tokenizer.share_cameras': True} | changes)
    return Tokenizer(SPACES, config.tokenizer)


def frames(seed=0, batch=2, time=3):
    rng = np.random.default_rng(seed)
    obs = {
        k: torch.as_tensor(rng.integers(0, 256, (batch, time, *s.shape), np.uint8))
        for k, s in VIEWS.items()
    }
    obs['joints'] = torch.as_tensor(rng.normal(size=(batch, time, 3)), dtype=torch.float32)
    return obs, torch.zeros(batch, time, dtype=torch.bool)


def test_cameras_of_any_size_share_weights_and_those_of_one_grid_their_places():
    tokenizer, apart = made(), made(**{'tokenizer.share_cameras': False})
    assert set(tokenizer.inward) == {'cameras:3', 'joints'} == set(tokenizer.outward)
    assert set(apart.inward) == {'left', 'right', 'far', 'joints'}
    assert set(tokenizer.place.grid) == {'2x2', '1x3'}
    place = tokenizer.place()
    left, right = (place[tokenizer.layout[f'image/{k}']] for k in ('left', 'right'))
    # the same places, a constant apart: that of the camera
    assert torch.allclose(left - left[0], right - right[0], atol=1e-6)
    assert not torch.allclose(left, right)
    assert place.shape == (tokenizer.layout.size, tokenizer.config.width)
    obs, first = frames()
    latent, guess = tokenizer(obs, first)
    assert latent.shape == (2, 3, 4, 4) and guess['far'].shape == (2, 3, 4, 12, 3)
    tokenizer.losses(obs, first)[0]['image'].backward()
    assert tokenizer.outward['cameras:3'].weight.grad.abs().sum() > 0


def test_two_cameras_that_see_the_same_are_told_apart():
    tokenizer, (obs, first) = made(), frames()
    swapped = obs | {'left': obs['right'], 'right': obs['left']}
    assert not torch.allclose(tokenizer.encode(obs, first), tokenizer.encode(swapped, first))


def test_no_patch_of_a_camera_sees_another_camera():
    tokenizer, (obs, first) = made(), frames()
    seen = []
    inner = tokenizer.encoder.forward
    tokenizer.encoder.forward = lambda x, mask, view, *rest: (
        seen.append(inner(x, mask, view, slice(None), slice(None))[0]),
        inner(x, mask, view, *rest),
    )[1]
    tokenizer.encode(obs, first)
    tokenizer.encode(obs | {'right': 255 - obs['right']}, first)
    same = (seen[0] - seen[1]).abs().amax((0, 1, 3)) < 1e-6
    for name in ('image/left', 'image/far', 'vector/joints'):
        assert same[tokenizer.layout[name]].all(), name
    assert not same[tokenizer.layout['image/right']].any()
    assert not same[tokenizer.layout['latent']].any()


def test_one_camera_is_dark_for_a_while_in_a_share_of_the_sequences():
    torch.manual_seed(0)
    obs, _ = frames(batch=4000, time=6)
    obs = {k: x.clamp(min=1) if is_image(x[0, 0].numpy()) else x for k, x in obs.items()}
    found = darkened(obs, list(VIEWS), 0.3)
    dark = torch.stack([(found[k] == 0).flatten(2).all(2) for k in VIEWS])  # (camera, B, T)
    assert all(torch.equal(found[k][~d], obs[k][~d]) for k, d in zip(VIEWS, dark))
    assert torch.equal(found['joints'], obs['joints'])
    hit = dark.any(-1)  # (camera, B)
    assert (hit.sum(0) <= 1).all() and abs(hit.any(0).float().mean() - 0.3) < 0.03
    assert (hit.float().mean(1) - 0.1).abs().max() < 0.02
    spans = dark.any(0)[hit.any(0)].float()
    assert (spans.diff(dim=1).abs().sum(1) <= 2).all() and 0.2 < spans.mean() < 0.8
    assert all(torch.equal(darkened(obs, list(VIEWS), 0.0)[k], obs[k]) for k in obs)


def test_dark_frames_do_not_count_as_what_a_camera_usually_shows():
    tokenizer = made(**{'tokenizer.camera_dropout': 0.5})
    obs, _ = frames()
    tokenizer.measure(obs)
    mean = tokenizer.scale['left'].mean.clone()
    dark = {k: torch.cat([x, torch.zeros_like(x)], 1) for k, x in obs.items()}
    other = made(**{'tokenizer.camera_dropout': 0.5})
    other.measure(dark)
    assert torch.allclose(other.scale['left'].mean, mean, atol=1e-6)


@pytest.mark.parametrize(
    'change, words',
    [
        ({'tokenizer.camera_dropout': 1.5}, 'camera_dropout must be a share'),
        ({'tokenizer.share_cameras': True, 'tokenizer.kind': 'conv'}, 'needs .*kind patches'),
        ({'tokenizer.share_cameras': True, 'world': 'dreamerv3'}, 'belong to agent.world dreamer4'),
    ],
)
def test_what_several_cameras_cannot_be_combined_with_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        check(tiny(**change)[0])


def test_each_camera_of_pixel_cameras_shows_one_coordinate():
    config = parse([], CONFIGS).env.to_dict()
    env = envs.make('pixel_cameras', config, 0)
    row = env.step({'action': np.zeros(2, np.float32), 'reset': np.bool_(True)})
    inner = env
    while not hasattr(type(inner), 'VIEWS'):
        inner = inner.env
    world, grid = inner.world, np.linspace(-1.1, 1.1, 32)
    for view, axis in (('above', 0), ('side', 1)):
        for channel, name in enumerate(('position', 'goal')):
            profile = row[view][..., channel].max(0)
            assert abs(grid[profile.argmax()] - world[name][axis]) < 0.05
            # the other coordinate is nowhere: both blobs stand in the middle of the frame
            assert row[view][..., channel].max(1).argmax() in (15, 16)
    alone = envs.make('pixel_above', config, 0)
    assert {k for k, s in alone.obs_space.items() if is_image(s)} == {'above'}


def learner(share):
    """An agent that drops cameras in a share of the sequences."""
    config, machine = tiny(
        **{
            'tokenizer.patch': 4,
            'tokenizer.share_cameras': True,
            'tokenizer.camera_dropout': share,
            'schedule.tokenizer_updates': 1,
            'schedule.tokenizer_unexplained': 0,
        }
    )
    acts = {'action': spaces.Box(-1, 1, (2,), np.float32)}
    return Agent(SPACES, acts, config, machine, 0)


def test_that_a_camera_goes_dark_is_no_move():
    agent, rows = learner(1.0), (4, 9)
    still = {k: x[:, :1].expand(4, 9, *x.shape[2:]).numpy() for k, x in frames(0, 4)[0].items()}
    still |= dict.fromkeys(('is_first', 'is_last', 'is_terminal'), np.zeros(rows, bool))
    still |= {'reward': np.zeros(rows, np.float32), 'action': np.zeros((*rows, 2), np.float32)}
    seen = darkened({k: torch.as_tensor(x) for k, x in still.items()}, list(VIEWS), 1.0)
    assert turned(seen, list(VIEWS)).any() and not turned(seen, list(VIEWS))[:, 0].any()
    agent.schedule.stage = 'dynamics'
    train(agent, lambda *shape: still)
    assert agent.world.dynamics.coordinates.count == 1
    assert agent.world.dynamics.coordinates.usual.max() == LEAST


def test_a_preset_of_several_cameras_trains():
    agent, rng = learner(0.5), np.random.default_rng(0)

    def sample(rows, time):
        found = {k: x.numpy() for k, x in frames(int(rng.integers(99)), rows, time)[0].items()}
        flags = dict.fromkeys(('is_first', 'is_last', 'is_terminal'), np.zeros((rows, time), bool))
        return (
            found
            | flags
            | {
                'reward': np.zeros((rows, time), np.float32),
                'action': rng.uniform(-1, 1, (rows, time, 2)).astype(np.float32),
            }
        )

    metrics = [train(agent, sample) for _ in range(3)]
    assert all(np.isfinite(float(v)) for found in metrics for v in found.values())
    assert any(k.startswith('loss/') for k in metrics[-1])
