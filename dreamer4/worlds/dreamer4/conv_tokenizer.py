"""Convolutional autoencoder of single frames: a tokenizer for small networks, which see where a
thin body stands.

Patches of a small transformer know the place of a body to a fraction of a patch; convolutions share
what they learn over all places.
Letters: B batch, T time, L latent tokens, Z channels of a latent, D width, C channels of a
convolution.
"""

from collections.abc import Mapping

import torch
from gymnasium import spaces
from torch import nn

from embodied.tasks import KEY

from ... import ranks
from ...nets.conv import ConvDecoder, ConvEncoder
from ...nets.layers import mlp
from ...nets.outputs import symlog
from ...stacks import told
from ...summary import matmul_parameters
from ...vectors import safe, vector_size, vectorize
from .scales import NumberScale
from .tokenizer import Tokenizer, TokenizerConfig

# observed numbers, in all, that are latents as they are; more would make the dynamics slow
DIRECT = 256
SPREAD = 0.3  # least standard deviation of a latent; uniform in (-1, 1): .58
SPREAD_WEIGHT = 10.0  # of the square of what lacks of it


class ConvTokenizer(Tokenizer):
    """Images through strided convolutions and an MLP to latents and back; real vectors are latents
    as they are.

    A number that is observed needs no code: each is a channel of its own, standardised and bounded,
    so that it is exact and its moves have a unit of their own. Vectors beyond DIRECT numbers in
    all, and classes, share the latents of the images.

        latents    [learned | numbers, repeated until the last pair of latents is full]

    Args:
        obs_space, config, tasks: as for Tokenizer. `latents` counts the learned ones. `patch`,
            `heads`, `mask_max` is without meaning here.

    Raises:
        ValueError: `time_every` is not 0, or nothing to encode.
    """

    def build(self, config: TokenizerConfig) -> None:
        if config.time_every:
            raise ValueError(
                'tokenizer: kind conv sees single frames, so time_every must be 0, got'
                f' {config.time_every}'
            )
        real = {k: vector_size(s) for k, s in self.vectors.items() if isinstance(s, spaces.Box)}
        self.direct = real if sum(real.values()) <= DIRECT else {}
        self.coded = {k: s for k, s in self.vectors.items() if k not in self.direct}
        self.numbers = nn.ModuleDict(
            {safe(k): NumberScale(n, self.tasks) for k, n in self.direct.items()}
        )
        count = sum(self.direct.values())
        pairs = -(-count // (2 * config.channels))
        self.register_buffer(
            'order', torch.arange(2 * pairs * config.channels) % max(1, count), persistent=False
        )
        self.encoders = nn.ModuleDict(
            {safe(k): ConvEncoder(s.shape, config.conv) for k, s in self.images.items()}
        )
        self.decoders = nn.ModuleDict(
            {safe(k): ConvDecoder(s.shape, config.conv) for k, s in self.images.items()}
        )
        self.sizes = [e.outputs for e in self.encoders.values()] + [
            vector_size(s) for s in self.coded.values()
        ]
        self.learned = config.latents if self.sizes else 0
        self.latent_shape = self.learned + 2 * pairs, config.channels
        if self.learned:
            total, latent = sum(self.sizes), config.latents * config.channels
            self.inward = mlp(total, config.width, config.depth)
            self.bottleneck = nn.Linear(config.width, latent)
            self.outward = mlp(latent, config.width, config.depth)
            self.unbottleneck = nn.Linear(config.width, total)

    def measure(self, obs: Mapping[str, torch.Tensor], task: torch.Tensor | None = None) -> None:
        super().measure(obs, task)
        for key in self.direct:
            self.numbers[safe(key)].measure(rows(obs[key]), task)

    def products(self) -> tuple[int, int]:
        if not self.learned:
            return 0, 0
        ways = (
            (self.encoders, self.inward, self.bottleneck),
            (self.decoders, self.outward, self.unbottleneck),
        )
        return tuple(
            matmul_parameters(*way) + sum(net.products for net in way[0].values()) for way in ways
        )

    def encode(
        self,
        obs: Mapping[str, torch.Tensor],
        is_first: torch.Tensor,
        drop: torch.Tensor | None = None,
        frames: slice = slice(None),
    ) -> torch.Tensor:
        task = obs[KEY][:, frames] if KEY in obs else None
        obs = {k: obs[k][:, frames] for k in [*self.images, *self.vectors]}
        parts = []
        if self.learned:
            images = [
                self.encoders[safe(k)](told(self.scale[safe(k)](obs[k], task)).flatten(0, 1))
                for k in self.images
            ]
            vectors = [vectorize(obs[k], space).flatten(0, 1) for k, space in self.coded.items()]
            code = torch.tanh(self.bottleneck(self.inward(torch.cat(images + vectors, -1))).float())
            parts.append(code.unflatten(0, (is_first.shape[0], -1)))
        if self.direct:
            numbers = [self.numbers[safe(k)](rows(obs[k]), task) for k in self.direct]
            parts.append(torch.cat(numbers, -1)[..., self.order])
        return torch.cat(parts, -1).unflatten(-1, self.latent_shape)

    def kept(self, latent: torch.Tensor) -> dict[str, torch.Tensor]:
        """'spread': zero where every learned latent differs enough from frame to frame (Bardes et
        al. 2022, VICReg, Eq. 1, squared). A decoder reads latents however small they are; dynamics
        and heads, which read them beside moves of unit size, do not.
        """
        if not self.learned:
            return {}
        z = latent[:, :, : self.learned].float().flatten(0, 1)
        own = (z - ranks.mean(z.detach().mean(0))).square().mean(0)
        # of all ranks' frames; the gradient is that of this rank's share
        square = ranks.mean(own.detach()) + own - own.detach()
        lacking = (1 - (square + 1e-8).sqrt() / SPREAD).clamp(min=0)
        return {'spread': SPREAD_WEIGHT * lacking.square().mean()}

    def decode(
        self, latent: torch.Tensor, is_first: torch.Tensor, task: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        shape, out = latent.shape[:2], {}
        if self.learned:
            code = latent[:, :, : self.learned].flatten(0, 1).flatten(1)
            x = self.unbottleneck(self.outward(code.to(self.unbottleneck.weight.dtype)))
            parts = iter(x.split(self.sizes, -1))
            for key in self.images:
                image = self.decoders[safe(key)](next(parts)).float().unflatten(0, shape)
                out[key] = self.scale[safe(key)].invert(image, task)
            out |= {key: next(parts).float().unflatten(0, shape) for key in self.coded}
        if self.direct:
            count = sum(self.direct.values())  # what follows repeats them
            numbers = (
                latent[:, :, self.learned :]
                .flatten(2)[..., :count]
                .split([*self.direct.values()], -1)
            )
            out |= {
                key: symlog(self.numbers[safe(key)].invert(x.float(), task))
                for key, x in zip(self.direct, numbers)
            }
        return out


def rows(x: torch.Tensor) -> torch.Tensor:
    """Stored numbers (B, T, *shape), scalars among them, -> float (B, T, size)."""
    return x.reshape(*x.shape[:2], -1).float()
