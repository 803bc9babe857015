"""Masked autoencoder: observations of a frame to a few latent tokens in (-1, 1) and back
(Dreamer 4, Section 3.1).

A frame tokenizer where `time_every` is 0; otherwise causal in time, as in the paper.
Letters: B batch, T time, P patches of all images, V vector tokens, L latent tokens, Z channels of a
latent, D width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from gymnasium import spaces
from torch import nn

from embodied.pictures import stacked
from embodied.tasks import KEY

from ... import ranks
from ...cameras import Places
from ...nets.attention import head_count
from ...nets.layers import zero_init
from ...nets.layout import Layout
from ...nets.transformer import Transformer, View, causal_mask
from ...stacks import missed_steps
from ...tasks import Tasks, centred, vary, weighted_mean
from ...vectors import safe, split_space, vector_size, vectorize
from .scales import PixelScale
from .summary import products

EMBED_STD = 0.5
UNMASKED = 0.25  # share of frames with no dropped patches (paper: p = 0 occurs, no share given)
ONE = Tasks({})


@dataclass(frozen=True)
class TokenizerConfig:
    """Block `agent.tokenizer` of the configuration; meanings and sources stand there."""

    kind: str
    patch: int
    conv: int
    width: int
    depth: int
    latents: int
    channels: int
    time_every: int
    mask_max: float
    lpips: float | str
    share_cameras: bool
    camera_dropout: float

    @property
    def heads(self) -> int:
        """Attention heads."""
        return head_count(self.width)


class Tokenizer(nn.Module):
    """Encoder, tanh bottleneck and decoder over every image and vector key of the observation.

    Masks, in words: in the encoder each modality looks only at itself, so that no patch can lean on
    another camera, and the latents look at everything; in the decoder latents look only at latents,
    so that they must carry the frame by themselves, and each modality looks at itself and at the
    latents.

    Args:
        obs_space: name -> gymnasium space of the keys to encode: uint8 boxes (H, W, C) are images,
            all other kinds vectors.
        config: see TokenizerConfig. With time_every = 0 a frame's latents depend on that frame
            alone.
        tasks: number of tasks, each of which has a mean image and a spread of its own.

    Raises:
        ValueError: there is nothing to encode.
    """

    def __init__(
        self, obs_space: Mapping[str, spaces.Space], config: TokenizerConfig, tasks: int = 1
    ):
        super().__init__()
        self.config, self.tasks = config, tasks
        self.images, self.vectors = split_space(obs_space, 'tokenizer')
        self.scale = nn.ModuleDict(
            {safe(k): PixelScale(s.shape, tasks) for k, s in self.images.items()}
        )
        self.patches = 0  # that an image can drop
        self.latent_shape = config.latents, config.channels  # (L, Z)
        self.build(config)

    def build(self, config: TokenizerConfig) -> None:
        """Make the networks."""
        width = config.width
        patches = {
            k: math.prod(-(-side // config.patch) for side in s.shape[:2])
            for k, s in self.images.items()
        }
        slots = {f'image/{k}': n for k, n in patches.items()} | {
            f'vector/{k}': 1 for k in self.vectors
        }
        self.layout = Layout(**slots, latent=config.latents)
        self.register_buffer(
            'encoder_mask', self.layout.mask(lambda q, k: q == k or q == 'latent'), persistent=False
        )
        self.register_buffer(
            'decoder_mask', self.layout.mask(lambda q, k: q == k or k == 'latent'), persistent=False
        )
        self.patches = sum(patches.values())
        sizes = {self.part(k): config.patch**2 * s.shape[2] for k, s in self.images.items()} | {
            safe(k): vector_size(s) for k, s in self.vectors.items()
        }
        self.inward = nn.ModuleDict({k: nn.Linear(n, width) for k, n in sizes.items()})
        # noise would be to unlearn
        self.outward = nn.ModuleDict({k: zero_init(nn.Linear(width, n)) for k, n in sizes.items()})
        grids = {
            k: (-(-s.shape[0] // config.patch), -(-s.shape[1] // config.patch))
            for k, s in self.images.items()
        }
        if config.share_cameras:
            places = lambda: Places(self.layout, grids, width, EMBED_STD)
        else:
            places = lambda: nn.Parameter(EMBED_STD * torch.randn(self.layout.size, width))
        # position and, for latents, the token itself; the decoder's likewise
        self.place, self.query = places(), places()
        self.masked = nn.Parameter(EMBED_STD * torch.randn(width))  # stands in for a dropped patch
        stack = lambda: Transformer(
            width, config.depth, config.heads, config.heads, config.time_every, 0.0
        )
        self.encoder, self.decoder = stack(), stack()
        self.bottleneck = nn.Linear(width, config.channels)
        self.unbottleneck = nn.Linear(config.channels, width)

    def products(self) -> tuple[int, int]:
        """Multiplications with weights of encoding a frame, and of decoding it."""
        tokens, latents = self.layout.size, self.config.latents
        return products(self.encoder, tokens, latents), products(
            self.decoder, tokens, tokens - latents
        )

    def part(self, key: str) -> str:
        """The module that reads the patches of an image: its own, or that of all cameras with as
        many channels.
        """
        if self.config.share_cameras:
            return f'cameras:{self.images[key].shape[2]}'
        return safe(key)

    def forward(
        self,
        obs: Mapping[str, torch.Tensor],
        is_first: torch.Tensor,
        drop: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Latents of frames, and what is decoded from them: see encode and decode."""
        latent = self.encode(obs, is_first, drop)
        return latent, self.decode(latent, is_first, obs.get(KEY))

    def encode(
        self,
        obs: Mapping[str, torch.Tensor],
        is_first: torch.Tensor,
        drop: torch.Tensor | None = None,
        frames: slice = slice(None),
    ) -> torch.Tensor:
        """Latents (B, T of frames, L, Z) in (-1, 1).

        Args:
            obs: key -> (B, T, ...) as stored, with the number of the task of several. is_first:
                bool (B, T); time layers do not look across it.
            drop: bool (B, T, P) image patches to replace by the mask embedding; None for none.
            frames: those whose latents are wanted; time layers look at all.
        """
        tokens = []
        for key in self.images:
            tokens.append(
                self.inward[self.part(key)](
                    patchify(self.scale[safe(key)](obs[key], obs.get(KEY)), self.config.patch)
                )
            )
        if drop is not None and tokens:
            tokens = [torch.where(drop[..., None], self.masked, torch.cat(tokens, 2))]
        for key, space in self.vectors.items():
            tokens.append(self.inward[safe(key)](vectorize(obs[key], space))[:, :, None])
        batch, time = is_first.shape
        tokens.append(self.masked.new_zeros(batch, time, self.config.latents, self.config.width))
        x = torch.cat(tokens, 2) + embedding(self.place)
        x, _ = self.encoder(
            x, self.encoder_mask, self._view(is_first), self.layout['latent'], frames
        )
        return torch.tanh(self.bottleneck(x).float())

    def decode(
        self, latent: torch.Tensor, is_first: torch.Tensor, task: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Latents (B, T, L, Z) of tasks (B, T) -> key -> images (B, T, H, W, C) in about [0, 1] and
        symlog vectors (B, T, size), float32.
        """
        known = self.unbottleneck(latent.to(self.unbottleneck.weight.dtype))
        blank = known.new_zeros(
            *latent.shape[:2], self.layout.size - self.config.latents, self.config.width
        )
        x = torch.cat([blank, known], 2) + embedding(self.query)
        seen = slice(0, self.layout.size - self.config.latents)
        x, _ = self.decoder(x, self.decoder_mask, self._view(is_first), seen)
        out = {}
        for key, space in self.images.items():
            patches = self.outward[self.part(key)](x[:, :, self.layout[f'image/{key}']]).float()
            image = unpatchify(patches, self.config.patch, space.shape)
            out[key] = self.scale[safe(key)].invert(image, task)
        for key in self.vectors:
            out[key] = self.outward[safe(key)](x[:, :, self.layout[f'vector/{key}']])[
                :, :, 0
            ].float()
        return out

    def measure(self, obs: Mapping[str, torch.Tensor], task: torch.Tensor | None = None) -> None:
        """Fold the images of obs, key -> (B, T, ...) as stored, of tasks (B, T), into what the
        tokenizer knows of their mean and spread.
        """
        for key in self.images:
            self.scale[safe(key)].measure(obs[key], task, self.config.camera_dropout > 0)

    def losses(
        self,
        obs: Mapping[str, torch.Tensor],
        is_first: torch.Tensor,
        perceptual: nn.Module | None = None,
        latent: torch.Tensor | None = None,
        tasks: Tasks = ONE,
        task: torch.Tensor | None = None,
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Reconstruction losses of frames with dropped patches (Dreamer 4, Eq. 5).

        Every image drops its patches with a probability of its own, p ~ U(0, mask_max); a share
        UNMASKED of the frames drops none, which is the case that acting and imagination live in.
        All patches are scored, dropped or not.

        Args:
            obs: key -> (B, T, ...) as stored. is_first: bool (B, T).
            perceptual: distance of two images (B, T, H, W, C) in [0, 1] -> scalar, or None.
            latent: (B, T, L, Z) of these frames where they are known and drop no patches.
            tasks, task: of several tasks, and long (B, T) of the frames; padding is not scored.

        Returns:
            losses 'image', 'vector' and 'lpips' (those that apply), scalars without weights; that
            of stacked images with the differences of their frames, see stacks.py; those of kept;
            metrics (detached scalars), see _explained.
        """
        drop = self._dropped(is_first)
        if latent is None:
            latent = self.encode(obs if task is None else {**obs, KEY: task}, is_first, drop)
        guess = self.decode(latent, is_first, task)
        truth = {
            'image': {k: obs[k].float() / 255 for k in self.images},
            'vector': {k: vectorize(obs[k], s) for k, s in self.vectors.items()},
        }
        present = tasks.present(task)
        missed = lambda k, x: self._alike(k, (guess[k] - x).square(), task)
        losses = {
            kind: sum(weighted_mean(missed(k, x), present.get(k)) for k, x in keys.items())
            for kind, keys in truth.items()
            if keys
        }
        metrics = {
            'latent_std': ranks.deviation(latent.flatten()),
            'latent_spread': ranks.deviation(latent.flatten(0, 1)).mean(),
        }
        reached = {kind: ranks.mean(loss.detach()) for kind, loss in losses.items()}
        metrics |= self._explained(truth, reached, present, task, tasks.count)
        for k in filter(lambda k: stacked(self.images[k].shape), self.images):
            missed, share = missed_steps(truth['image'][k], guess[k], present.get(k))
            losses['image'] = losses['image'] + missed
            metrics['steps_unexplained'] = share
        if perceptual is not None and self.images:
            shown = {
                k: torch.where(present[k] > 0, guess[k], x) if k in present else guess[k]
                for k, x in truth['image'].items()
            }
            losses['lpips'] = sum(perceptual(shown[k], x) for k, x in truth['image'].items())
        return losses | self.kept(latent), metrics

    def kept(self, latent: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses, weighted, of latents (B, T, L, Z) that are no good to a world model."""
        return {}

    def _dropped(self, is_first: torch.Tensor) -> torch.Tensor | None:
        """bool (B, T, P): patches that an encoder does not see; None where it sees all."""
        batch, time = is_first.shape
        chance = torch.rand(batch, time, 1, device=is_first.device) * self.config.mask_max
        chance = chance * (torch.rand_like(chance) >= UNMASKED)
        if not (self.config.mask_max and self.patches):
            return None
        return torch.rand(batch, time, self.patches, device=is_first.device) < chance

    def _alike(self, key: str, square: torch.Tensor, task: torch.Tensor | None) -> torch.Tensor:
        """Squares (B, T, ...) of a key, under which every task weighs alike; see PixelScale."""
        return self.scale[safe(key)].alike(square, task) if key in self.images else square

    def _explained(self, truth, losses, present, task, count) -> dict[str, torch.Tensor]:
        """How much of what differs among the frames of a task is reconstructed, and whether
        anything differs.

        Args:
            truth: kind -> key -> targets. losses: kind -> mean squared error, summed over keys, of
                all ranks: a mean of their shares is another number.
            present, task, count: see Tasks.

        Returns:
            unexplained: share of the variance that is left, of images or, where those are all the
                same, of vectors; 0 where nothing varies. frames_vary, images_vary: 1, or 0 where
                all are the same. pixel_std.
        """
        away = lambda k, x: self._alike(k, centred(x, task, count, ranks.mean).square(), task)
        spread = lambda k, x: ranks.mean(weighted_mean(away(k, x), present.get(k)))
        spread = {k: sum(spread(*pair) for pair in truth[k].items()) for k in losses}
        varies = {
            kind: sum(vary(x, task, count) for x in truth[kind].values()) > 0 for kind in losses
        }
        unexplained = torch.zeros_like(next(iter(losses.values())))
        for kind in reversed(losses):
            share = losses[kind] / spread[kind].clamp(min=1e-8)  # a std of 1e-4 is seen by nobody
            unexplained = torch.where(varies[kind], share, unexplained)
        found = {'unexplained': unexplained, 'frames_vary': (sum(varies.values()) > 0).float()}
        if self.images:
            found |= {'pixel_std': spread['image'].sqrt(), 'images_vary': varies['image'].float()}
        return found

    def _view(self, is_first: torch.Tensor) -> View | None:
        if not self.config.time_every:
            return None
        positions = torch.arange(is_first.shape[1], device=is_first.device)[None]
        return View(causal_mask(is_first), positions)


def embedding(place: nn.Parameter | Places) -> torch.Tensor:
    """Embeddings (N, D) of the tokens of a frame."""
    return place() if isinstance(place, Places) else place


def patchify(image: torch.Tensor, patch: int) -> torch.Tensor:
    """(B, T, H, W, C) -> patches (B, T, P, patch^2 C); zeros fill up the last row and column of
    patches.

    Zero is the mean image there (see PixelScale), so that what is added carries no signal.
    """
    b, t, h, w, c = image.shape
    down, right = -h % patch, -w % patch
    if down or right:
        image = nn.functional.pad(image, (0, 0, 0, right, 0, down))
    x = image.reshape(b, t, (h + down) // patch, patch, (w + right) // patch, patch, c).transpose(
        3, 4
    )
    return x.reshape(b, t, -1, patch * patch * c)


def unpatchify(patches: torch.Tensor, patch: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Inverse of patchify: (B, T, P, patch^2 C) -> (B, T, *shape); what was added is cut off."""
    h, w, c = shape
    rows, columns = -(-h // patch), -(-w // patch)
    x = patches.reshape(*patches.shape[:2], rows, columns, patch, patch, c).transpose(3, 4)
    return x.reshape(*patches.shape[:2], rows * patch, columns * patch, c)[:, :, :h, :w]
