"""The tokenizer: masks, causality, shapes of every kind of observation, and that it can learn."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import memorise

from dreamer4.vectors import devectorize
from dreamer4.worlds.dreamer4.scales import LEAST_STD, PixelScale
from dreamer4.worlds.dreamer4.tokenizer import (
    Tokenizer,
    TokenizerConfig,
    patchify,
    unpatchify,
    vectorize,
)

IMAGE = spaces.Box(0, 255, (16, 24, 3), np.uint8)
SETTINGS = dict(
    kind='patches',
    patch=8,
    conv=4,
    width=16,
    depth=2,
    latents=3,
    channels=4,
    time_every=0,
    mask_max=0.9,
    lpips=0.0,
    share_cameras=False,
    camera_dropout=0.0,
)


def tokenizer(space, **changes):
    torch.manual_seed(0)
    return Tokenizer(space, TokenizerConfig(**SETTINGS | changes))


def frames(space, batch=2, time=3):
    rng = np.random.default_rng(0)
    obs = {
        k: torch.from_numpy(np.stack([[s.sample() for _ in range(time)] for _ in range(batch)]))
        for k, s in space.items()
    }
    for k, s in space.items():
        if s.dtype == np.uint8:
            obs[k] = torch.from_numpy(rng.integers(0, 256, (batch, time, *s.shape), dtype=np.uint8))
    return obs, torch.zeros(batch, time, dtype=torch.bool)


def test_patches_come_back_to_the_image_they_were_cut_from():
    image = torch.randint(0, 256, (2, 3, 16, 24, 3), dtype=torch.uint8)
    assert torch.allclose(unpatchify(patchify(image, 8), 8, (16, 24, 3)), image)


def test_a_patch_holds_neighbouring_pixels():
    image = torch.zeros(1, 1, 16, 24, 3, dtype=torch.uint8)
    image[0, 0, 8:, 8:16] = 255  # exactly the fifth of six patches
    assert patchify(image.float(), 8)[0, 0].mean(-1).tolist() == [0, 0, 0, 0, 255, 0]


def test_pixel_scale_measures_mean_image_and_spread_of_all_it_was_given():
    images = torch.randint(0, 256, (12, 1, 4, 4, 3), dtype=torch.uint8)
    scale = PixelScale((4, 4, 3))
    for _ in range(40):  # the spread around a mean that is still moving weighs little in the end
        for part in images.split([2, 7, 3]):
            scale.measure(part)
    unit = images[:, 0] / 255
    assert torch.allclose(scale.mean, unit.mean(0), atol=1e-5)
    assert torch.allclose(scale.std, (unit - unit.mean(0)).square().mean().sqrt(), rtol=0.02)
    assert torch.allclose(scale(images).square().mean(), torch.ones(()), rtol=0.05)
    assert torch.allclose(scale.invert(scale(images)), images / 255, atol=1e-5)


def test_pixel_scale_does_not_blow_up_noise():
    scale = PixelScale((4, 4, 3))
    scale.measure(torch.full((5, 2, 4, 4, 3), 100, dtype=torch.uint8))
    assert scale.std == LEAST_STD and scale.variance < 1e-9


def test_several_cameras_and_every_vector_kind_have_latents_and_reconstructions():
    space = {
        'front': IMAGE,
        'wrist': spaces.Box(0, 255, (8, 8, 1), np.uint8),
        'joints': spaces.Box(-np.inf, np.inf, (2, 3), np.float32),
        'token': spaces.Discrete(4),
        'tools': spaces.MultiDiscrete([2, 3]),
        'lamps': spaces.MultiBinary(5),
    }
    net = tokenizer(space)
    obs, first = frames(space)
    latent = net.encode(obs, first)
    assert latent.shape == (2, 3, 3, 4) and latent.abs().max() < 1
    out = net.decode(latent, first)
    assert out['front'].shape == (2, 3, 16, 24, 3) and out['wrist'].shape == (2, 3, 8, 8, 1)
    assert {k: out[k].shape[-1] for k in ('joints', 'token', 'tools', 'lamps')} == {
        'joints': 6,
        'token': 4,
        'tools': 5,
        'lamps': 5,
    }
    losses, metrics = net.losses(obs, first)
    assert set(losses) == {'image', 'vector'} and all(
        torch.isfinite(v) for v in (losses | metrics).values()
    )


def test_classes_become_one_hots_and_numbers_symlogs():
    assert vectorize(torch.tensor([[2]]), spaces.Discrete(4)).tolist() == [[[0, 0, 1, 0]]]
    assert vectorize(torch.tensor([[[1, 0]]]), spaces.MultiDiscrete([2, 3])).tolist() == [
        [[0, 1, 1, 0, 0]]
    ]
    later, signed = spaces.Discrete(4, start=3), spaces.MultiDiscrete([2, 3], start=[0, -1])
    for space, value in ((later, [5]), (signed, [[1, -1]])):
        told = vectorize(torch.tensor([value]), space)
        assert told.sum() == len(space.shape) + 1, 'one of every number'
        assert devectorize(told[0], space).tolist() == value, 'classes may begin anywhere'
    assert vectorize(torch.zeros(1, 1), later).tolist() == [[[1, 0, 0, 0]]], 'a blank frame'
    x = vectorize(torch.tensor([[[-np.e + 1]]]), spaces.Box(-9, 9, (1,), np.float32))
    assert torch.allclose(x, torch.tensor([[[-1.0]]]), atol=1e-6)


def test_a_modality_looks_only_at_itself_before_the_latents():
    """What the latents write can depend on both cameras, but no token of one camera on the
    other.
    """
    net = tokenizer({'a': IMAGE, 'b': IMAGE})
    mask = net.encoder_mask
    a, b, latent = net.layout['image/a'], net.layout['image/b'], net.layout['latent']
    assert not mask[a, b].any() and not mask[b, a].any() and not mask[a, latent].any()
    assert mask[latent].all()
    decoder = net.decoder_mask
    assert not decoder[latent, a].any() and decoder[a, latent].all() and not decoder[a, b].any()


@pytest.mark.parametrize('time_every', [0, 1])
def test_latents_never_depend_on_the_future(time_every):
    net = tokenizer({'image': IMAGE}, time_every=time_every)
    obs, first = frames({'image': IMAGE}, 1, 4)
    before = net.encode(obs, first)
    obs['image'][:, 2] = 255 - obs['image'][:, 2]
    after = net.encode(obs, first)
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])
    assert torch.equal(before[:, 3], after[:, 3]) == (time_every == 0), (
        'with time layers the past must matter'
    )


def test_dropped_patches_have_exactly_no_influence():
    net = tokenizer({'image': IMAGE})
    obs, first = frames({'image': IMAGE}, 1, 1)
    drop = torch.tensor([[[True, False, False, False, False, False]]])
    before = net.encode(obs, first, drop)
    obs['image'][:, :, :8, :8] = 0
    assert torch.equal(before, net.encode(obs, first, drop))
    assert not torch.equal(before, net.encode(obs, first))


def test_eight_frames_can_be_memorised():
    net = tokenizer({'image': IMAGE}, width=32, latents=4, channels=8, mask_max=0.0)
    obs = {'image': torch.zeros(8, 1, 16, 24, 3, dtype=torch.uint8)}
    for i in range(8):
        obs['image'][i, 0, 4 * (i // 4) : 4 * (i // 4) + 6, 3 * i : 3 * i + 3] = 255
    metrics = memorise(net, obs, 300)
    assert metrics['unexplained'] < 0.06, metrics


@pytest.mark.parametrize(
    'image, vector, vary, images_vary', [(1, 1, 1, 1), (0, 1, 1, 0), (1, 0, 1, 1), (0, 0, 0, 0)]
)
def test_what_is_unexplained_is_measured_on_what_differs(image, vector, vary, images_vary):
    space = {'image': IMAGE, 'joints': spaces.Box(-9, 9, (2,), np.float32)}
    net = tokenizer(space)
    obs, first = frames(space)
    if not image:
        obs['image'] = obs['image'][:1, :1].expand_as(obs['image'])
    if not vector:
        obs['joints'] = obs['joints'][:1, :1].expand_as(obs['joints'])
    losses, metrics = net.losses(obs, first)
    assert (metrics['frames_vary'], metrics['images_vary']) == (vary, images_vary)
    truth = obs['image'].float() / 255 if image else vectorize(obs['joints'], space['joints'])
    spread = (truth - truth.mean((0, 1))).square().mean()
    expected = losses['image' if image else 'vector'] / spread if vary else torch.zeros(())
    assert torch.allclose(metrics['unexplained'], expected.detach())


@pytest.mark.parametrize(
    'shape, patch', [((16, 24, 3), 5), ((7, 7, 2), 8), ((9, 17, 4), 8), ((1, 3, 119), 2)]
)
def test_images_that_patches_do_not_cover_are_filled_up(shape, patch):
    """Of any size and number of channels; what is filled up neither enters the loss nor the
    result.
    """
    space = {'image': spaces.Box(0, 255, shape, np.uint8)}
    model = tokenizer(space, patch=patch)
    obs, first = frames(space)
    assert torch.allclose(
        unpatchify(patchify(obs['image'].float(), patch), patch, shape), obs['image'].float()
    )
    model.measure(obs)
    losses, _ = model.losses(obs, first)
    assert model.decode(model.encode(obs, first), first)['image'].shape == (2, 3, *shape)
    blank = model.scale['image'].mean.expand(2, 3, *shape)
    assert torch.allclose(
        losses['image'], (obs['image'] / 255 - blank).square().mean(), rtol=1e-4
    ), 'a new decoder draws the mean'


NAMES = (
    'type',
    'keys',
    'values',
    'training',
    'half',
    'forward',
    'a.b',
    'a_b',
    'a',
    'a/b',
    'pop',
    '..x',
    'T_destination',
)


def test_keys_of_any_spelling_have_a_module_of_their_own():
    space = {name: spaces.Box(-1, 1, (2,), np.float32) for name in NAMES} | {
        f'image/{name}': IMAGE for name in NAMES
    }
    model = tokenizer(space)
    obs, first = frames(space)
    assert model.decode(model.encode(obs, first), first).keys() == space.keys()
    assert len(model.inward) == len(model.outward) == len(space) and len(model.scale) == len(NAMES)
    model.load_state_dict(model.state_dict())
