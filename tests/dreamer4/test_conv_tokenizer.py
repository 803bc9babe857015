"""The convolutional tokenizer: every observation, every image size, frames alone, and that it
can learn.
"""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny import memorise

from dreamer4 import stacks
from dreamer4.nets.outputs import symlog
from dreamer4.worlds.dreamer4.conv_tokenizer import SPREAD, SPREAD_WEIGHT, ConvTokenizer
from dreamer4.worlds.dreamer4.tokenizer import TokenizerConfig

SETTINGS = dict(
    kind='conv',
    patch=8,
    conv=4,
    width=32,
    depth=1,
    latents=4,
    channels=8,
    time_every=0,
    mask_max=0.0,
    lpips=0.0,
    share_cameras=False,
    camera_dropout=0.0,
)


def tokenizer(space, **changes):
    torch.manual_seed(0)
    return ConvTokenizer(space, TokenizerConfig(**SETTINGS | changes))


def image(height, width, channels=3):
    return spaces.Box(0, 255, (height, width, channels), np.uint8)


@pytest.mark.parametrize(
    'shape',
    [(64, 64, 3), (32, 32, 3), (16, 24, 1), (13, 7, 4), (5, 84, 3), (3, 3, 2), (210, 160, 3)],
)
def test_images_of_every_size_have_latents_and_come_back_in_their_shape(shape):
    net = tokenizer({'camera.left': image(*shape)})
    obs = {'camera.left': torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)}
    first = torch.zeros(2, 3, dtype=torch.bool)
    latent = net.encode(obs, first)
    assert latent.shape == (2, 3, 4, 8) and latent.abs().max() < 1
    assert net.decode(latent, first)['camera.left'].shape == (2, 3, *shape)


def test_several_cameras_and_vectors_share_the_latents():
    space = {
        'a': image(16, 16),
        'b': image(8, 8, 1),
        'vector': spaces.Box(-1, 1, (3,), np.float32),
        'class': spaces.Discrete(4),
    }
    net = tokenizer(space)
    obs = {
        k: torch.from_numpy(np.stack([[s.sample() for _ in range(3)] for _ in range(2)]))
        for k, s in space.items()
    }
    first = torch.zeros(2, 3, dtype=torch.bool)
    before = net.encode(obs, first)
    out = net.decode(before, first)
    assert {k: tuple(v.shape) for k, v in out.items()} == {
        'a': (2, 3, 16, 16, 3),
        'b': (2, 3, 8, 8, 1),
        'vector': (2, 3, 3),
        'class': (2, 3, 4),
    }
    losses, _ = net.losses(obs, first)
    assert set(losses) == {'image', 'vector', 'spread'}
    for key, change in (
        ('a', lambda x: 255 - x),
        ('b', lambda x: 255 - x),
        ('vector', lambda x: x + 1),
        ('class', lambda x: (x + 1) % 4),
    ):
        assert not torch.equal(before, net.encode(obs | {key: change(obs[key])}, first)), (
            f'{key} does not reach the latents'
        )


def test_numbers_are_latents_as_they_are_and_come_back_exactly():
    space = {
        'a': spaces.Box(-np.inf, np.inf, (3,), np.float32),
        'b': spaces.Box(-1, 1, (2,), np.float32),
    }
    net = tokenizer(space)
    torch.manual_seed(1)
    obs = {'a': 5 * torch.randn(8, 4, 3) + 2, 'b': torch.rand(8, 4, 2)}
    first = torch.zeros(8, 4, dtype=torch.bool)
    for part in (slice(0, 3), slice(3, 8)):
        net.measure({k: v[part] for k, v in obs.items()})
    latent = net.encode(obs, first)
    assert not list(net.parameters()) and latent.shape == (8, 4, 2, 8) and latent.abs().max() < 1
    flat = latent.flatten(2)
    assert torch.equal(flat[..., :5], flat[..., 5:10]), 'numbers repeat, so that no channel is idle'
    guess = net.decode(latent, first)
    for key in obs:
        assert torch.allclose(guess[key], symlog(obs[key]), atol=1e-4)
        scale = net.numbers[key]
        x = obs[key].flatten(0, 1)
        assert torch.allclose(scale.mean, x.mean(0), atol=1e-5) and torch.allclose(
            scale.variance, x.var(0, correction=0), atol=1e-5
        )
    far = net.encode(
        {'a': torch.tensor([[[1e4, 1e5, 1e6]]]), 'b': torch.zeros(1, 1, 2)}, first[:1, :1]
    )
    assert far.abs().max() < 1


def test_scalars_and_tables_are_numbers_too():
    space = {'height': spaces.Box(-1, 1, (), np.float32), 'table': spaces.Box(-1, 1, (2, 2))}
    net, first = tokenizer(space), torch.zeros(3, 4, dtype=torch.bool)
    obs = {'height': torch.rand(3, 4), 'table': torch.rand(3, 4, 2, 2)}
    net.measure(obs)
    guess = net.decode(net.encode(obs, first), first)
    for key, x in obs.items():
        torch.testing.assert_close(guess[key], symlog(x.reshape(3, 4, -1)), atol=1e-4, rtol=0)


def test_long_vectors_and_classes_share_learned_latents():
    space = {'long': spaces.Box(-1, 1, (300,), np.float32), 'class': spaces.Discrete(3)}
    assert tokenizer(space).latent_shape == (4, 8)
    assert tokenizer(
        {'class': spaces.Discrete(3), 'short': spaces.Box(-1, 1, (17,), np.float32)}
    ).latent_shape == (8, 8)


def test_latents_of_a_frame_depend_on_that_frame_alone():
    net = tokenizer({'image': image(16, 16)})
    obs = {'image': torch.randint(0, 256, (1, 4, 16, 16, 3), dtype=torch.uint8)}
    first = torch.zeros(1, 4, dtype=torch.bool)
    before = net.encode(obs, first)
    assert torch.allclose(net.encode(obs, first, frames=slice(-1, None)), before[:, -1:], atol=1e-6)
    obs['image'][:, 2] = 255 - obs['image'][:, 2]
    changed = (net.encode(obs, first) != before).flatten(2).any(-1)[0]
    assert changed.tolist() == [False, False, True, False]


def test_places_of_a_small_body_can_be_memorised():
    net = tokenizer({'image': image(32, 32)}, conv=8)
    obs = {'image': torch.zeros(16, 1, 32, 32, 3, dtype=torch.uint8)}
    for i in range(16):
        obs['image'][i, 0, 2 * i : 2 * i + 3, 30 - 2 * i : 33 - 2 * i] = 255
    net.measure(obs)
    metrics = memorise(net, obs, 200)
    assert metrics['unexplained'] < 0.05, metrics


def test_a_stack_is_told_as_its_differences_and_its_newest_frame():
    old, middle, new = torch.rand(3, 2, 4, 4, 3)
    told = stacks.told(torch.cat([old, middle, new], -1)).split(3, -1)
    expected = stacks.GAIN * (middle - old), stacks.GAIN * (new - middle), new
    assert all(torch.allclose(a, b) for a, b in zip(told, expected))
    for channels in (1, 3, 4, 5):
        frame = torch.rand(2, 4, 4, channels)
        assert stacks.told(frame) is frame


def test_one_picture_for_all_frames_of_a_stack_explains_nothing_of_what_moves():
    net, obs = tokenizer({'image': image(8, 8, 6)}), torch.randint(0, 256, (4, 1, 8, 8, 6))
    net.measure({'image': obs})
    losses, metrics = net.losses({'image': obs}, torch.ones(4, 1, dtype=torch.bool))
    true = obs / 255
    error = (true - true.mean((0, 1))).square().mean()  # a fresh decoder shows the mean image
    change = true[..., 3:] - true[..., :3]
    missed = (change - change.mean((0, 1))).square().mean()
    assert losses['image'].item() == pytest.approx(
        (error + stacks.WEIGHT * missed).item(), rel=1e-4
    )
    share = (missed / change.square().mean()).item()
    assert metrics['steps_unexplained'].item() == pytest.approx(share, rel=1e-4)
    assert metrics['unexplained'].item() == pytest.approx(1, rel=1e-4), 'which is of frames alone'


def test_which_way_a_small_body_moves_is_learned_before_anything_else():
    net = tokenizer({'image': image(32, 32, 6)}, conv=8)
    obs = torch.zeros(16, 1, 32, 32, 6, dtype=torch.uint8)
    for i in range(16):  # eight places, each come to from the left and from the right
        row, column, way = 3 * (i // 2) + 3, 16, 1 - 2 * (i % 2)
        obs[i, 0, row : row + 3, column : column + 3, 3:] = 255
        obs[i, 0, row : row + 3, column - way : column - way + 3, :3] = 255
    net.measure({'image': obs})
    metrics = memorise(net, {'image': obs}, 50)
    assert metrics['steps_unexplained'] < 0.2, metrics  # .36 where frames alone are asked for


def test_latents_that_hardly_differ_are_spread_and_others_left_alone():
    net = tokenizer({'image': image(16, 16), 'number': spaces.Box(-1, 1, (3,), np.float32)})
    obs = {'image': torch.randint(0, 256, (16, 1, 16, 16, 3), dtype=torch.uint8)}
    obs['number'] = torch.zeros(16, 1, 3)  # its latent never moves, and is no code of ours
    first, loss = torch.ones(16, 1, dtype=torch.bool), lambda z: net.kept(z)['spread']
    wide = torch.linspace(-1, 1, 16).expand(1, *net.latent_shape, 16).permute(3, 0, 1, 2)
    assert loss(wide) == 0
    still = wide.clone()
    still[..., 0] = 0.5
    assert loss(still).item() == pytest.approx(SPREAD_WEIGHT / SETTINGS['channels'], rel=1e-3)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        loss(net.encode(obs, first)).backward()
        optimizer.step()
    spread = net.encode(obs, first)[:, 0, : net.learned].std(0)
    assert spread.min() > 0.9 * SPREAD, spread
    assert 'spread' in net.losses(obs, first)[0]
    assert not tokenizer({'number': spaces.Box(-1, 1, (3,), np.float32)}).kept(
        torch.zeros(1, 1, 2, 8)
    )


def test_a_tokenizer_that_looks_back_in_time_is_refused():
    with pytest.raises(ValueError, match='time_every must be 0, got 2'):
        tokenizer({'image': image(16, 16)}, time_every=2)


def test_keys_of_any_spelling_have_a_module_of_their_own():
    names = ('type', 'keys', 'training', 'a.b', 'a_b', 'a/b', 'forward')
    space = {name: spaces.Box(-1, 1, (2,), np.float32) for name in names} | {
        f'image/{name}': image(8, 8) for name in names
    }
    net = tokenizer(space)
    obs = {
        k: torch.from_numpy(np.stack([[s.sample() for _ in range(3)] for _ in range(2)]))
        for k, s in space.items()
    }
    first = torch.zeros(2, 3, dtype=torch.bool)
    assert net.decode(net.encode(obs, first), first).keys() == space.keys()
    assert len(net.numbers) == len(net.encoders) == len(net.decoders) == len(names)
