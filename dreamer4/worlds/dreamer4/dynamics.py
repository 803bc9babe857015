"""World model of latents: tokens of a frame -> transformer -> clean latent and agent feature
(Dreamer 4, Section 3.2).

        block t = [prev_action | tau, d | z tokens | registers | agent]        the action token
        holds the action that led to frame t
Letters: B batch, T time, L latents, Z their channels, S = L / pack spatial tokens, W = pack Z their
channels, D width, A action features.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ...nets.layers import zero_init
from ...nets.layout import Layout
from ...nets.memory import KeyValues
from ...nets.transformer import Transformer, causal_mask
from .moves import Moves, Whole

EMBED_STD = 0.5


@dataclass(frozen=True)
class DynamicsConfig:
    """Block `agent.dynamics` of the configuration; meanings and sources stand there."""

    width: int
    depth: int
    heads: int
    kv_heads: int
    time_every: int
    registers: int
    pack: int
    softcap: float
    levels: int
    moves: bool
    context_signal: float


@dataclass(frozen=True)
class Context:
    """What the dynamics know of a committed sequence; imagination continues from it.

    Attributes:
        latent: (B, T, S, W) clean latents.
        seen: (B, T, S, W) the same as history shows them.
        view: (B, T, S, V) what the heads read of them.
        feature: (B, T, D) output of the agent token; only of the frames that were asked for.
        present: keys and values of every time layer.
        mask: bool (B, T, T) causal within episodes.
    """

    latent: torch.Tensor
    seen: torch.Tensor
    view: torch.Tensor
    feature: torch.Tensor
    present: KeyValues
    mask: torch.Tensor

    def detach(self) -> 'Context':
        present = [(k.detach(), v.detach()) for k, v in self.present]
        return Context(
            self.latent.detach(),
            self.seen.detach(),
            self.view.detach(),
            self.feature.detach(),
            present,
            self.mask,
        )


class Dynamics(nn.Module):
    """Predicts the clean latent of a frame from its noisy one, the action that led to it and the
    past.

    The agent token sees every token and is seen by none, so that what the heads ask of it can never
    leak into the latents.

    Args:
        latent_shape: (L, Z) of the tokenizer; L must be a multiple of pack.
        action_features: A. tasks: number of tasks; each adds its own embedding to the agent token.
        config: see DynamicsConfig. `levels` is K_max = 1 / d_min, a power of two; `context_signal`
            the signal level in [0, 1] of committed frames, rounded to a multiple of d_min. (The
            paper's tau_ctx = 0.1 is the noise; read as signal it destroys the context.)
        shortcut: whether larger steps than d_min are learned; without them every step of the
            sampler is labelled d_min.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int],
        action_features: int,
        tasks: int,
        config: DynamicsConfig,
        shortcut: bool = True,
    ):
        super().__init__()
        self.config = config
        if latent_shape[0] % config.pack:
            raise ValueError(
                f'dynamics: {latent_shape[0]} latents cannot be packed {config.pack} to a token'
            )
        if config.levels < 1 or config.levels & (config.levels - 1):
            raise ValueError(f'dynamics: levels must be a power of two, got {config.levels}')
        self.latent_shape = latent_shape
        self.tokens, self.channels = latent_shape[0] // config.pack, latent_shape[1] * config.pack
        # d = 2^e / K_max for e = 0 .. log2 K_max
        self.step_sizes = config.levels.bit_length() if shortcut else 1
        self.context_level = round(config.context_signal * config.levels)
        width = config.width
        self.layout = Layout(
            action=1, signal=1, latent=self.tokens, register=config.registers, agent=1
        )
        self.register_buffer(
            'space_mask',
            self.layout.mask(lambda q, k: k != 'agent' or q == 'agent'),
            persistent=False,
        )
        self.coordinates = (Moves if config.moves else Whole)(self.tokens, self.channels)
        self.latent_in = nn.Linear(self.coordinates.told, width)
        self.action_in = nn.Linear(action_features, width, bias=False)
        self.place = nn.Parameter(EMBED_STD * torch.randn(self.layout.size, width))
        self.no_action = nn.Parameter(EMBED_STD * torch.randn(width))
        self.level = nn.Embedding(config.levels + 1, width // 2)
        self.step_size = nn.Embedding(self.step_sizes, width - width // 2)
        self.task = nn.Embedding(tasks, width)
        nn.init.zeros_(self.task.weight)
        self.transformer = Transformer(
            width, config.depth, config.heads, config.kv_heads, config.time_every, config.softcap
        )
        self.latent_out = zero_init(nn.Linear(width, self.channels))

    def pack(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, T, L, Z) -> (B, T, S, W)."""
        return latent.reshape(*latent.shape[:2], self.tokens, self.channels)

    def unpack(self, latent: torch.Tensor) -> torch.Tensor:
        """(B, T, S, W) -> (B, T, L, Z)."""
        return latent.reshape(*latent.shape[:2], *self.latent_shape)

    def denoise(
        self,
        told: torch.Tensor,
        level: torch.Tensor,
        size: torch.Tensor,
        action: torch.Tensor,
        valid: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        memory=None,
        frames: slice = slice(None),
    ) -> torch.Tensor:
        """Predict what the coordinates of the frames are without noise; the agent token, which no
        latent may see, is left out.

        Args:
            told: (B, T, S, told) coordinates at signal level `level` / K_max, as tokens read them.
            level: long (B, T) in 0 .. K_max. size: long (B, T), exponent e of the step size d = 2^e
                / K_max.
            action: (B, T, A) features of the action that led to the frame. valid: bool (B, T),
                False for none.
            mask: bool (B or 1, T, keys) of the time layers. positions: (B or 1, T). memory: see
                nets/memory.py.
            frames: those whose prediction is wanted.

        Returns:
            (B, T of frames, S, W) float32.
        """
        x = self._tokens(told, level, size, action, valid)
        space_mask = self.space_mask[:-1, :-1]
        x, _ = self.transformer(
            x, space_mask, mask, positions, memory, self.layout['latent'], frames
        )
        return self.latent_out(x).float()

    def observe(
        self,
        told: torch.Tensor,
        level: torch.Tensor,
        action: torch.Tensor,
        valid: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        memory=None,
        task: torch.Tensor | None = None,
        frames: slice = slice(None),
    ) -> tuple[torch.Tensor, KeyValues]:
        """Take frames as they are: what the agent token makes of them and what the time layers keep
        of them.

        Args:
            as in denoise, with the smallest step size. task: long (B, T) or None for task 0.
            frames: those whose feature is wanted; slice(0) for none, which leaves the agent token
                out.

        Returns:
            agent feature (B, T of frames, D) float32, keys and values of all frames.
        """
        x = self._tokens(told, level, torch.zeros_like(level), action, valid)
        if frames == slice(0):
            x, present = self.transformer(
                x, self.space_mask[:-1, :-1], mask, positions, memory, slice(0, 1), frames
            )
            return x[:, :, 0].float(), present
        agent = self.place[-1] + (self.task.weight[0] if task is None else self.task(task))
        x = torch.cat([x, agent.expand(*level.shape, -1)[:, :, None]], 2)
        x, present = self.transformer(
            x, self.space_mask, mask, positions, memory, self.layout['agent'], frames
        )
        return x[:, :, 0].float(), present

    def _tokens(self, told, level, size, action, valid) -> torch.Tensor:
        """The tokens of every frame without the agent token, (B, T, N - 1, D)."""
        act = torch.where(valid[..., None], self.action_in(action).float(), self.no_action)
        signal = torch.cat([self.level(level), self.step_size(size)], -1)
        known = torch.cat([act[:, :, None], signal[:, :, None], self.latent_in(told).float()], 2)
        split = known.shape[2]
        registers = self.place[split:-1].expand(*level.shape, -1, -1)
        return torch.cat([known + self.place[:split], registers], 2)

    def noised(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """x_tau = (1 - tau) noise + tau x for x (B, T, S, W), level long (B, T), tau = level /
        K_max (Dreamer 4, Eq. 1).
        """
        tau = (level / self.config.levels)[..., None, None]
        return (1 - tau) * torch.randn_like(x) + tau * x

    def blurred(self, z: torch.Tensor) -> torch.Tensor:
        """Clean latents (B, T, S, W) as history shows them: at the context level, unchanged
        where that has no noise.
        """
        return self.coordinates.blur(z, self.context_level / self.config.levels)

    def commit(
        self,
        z: torch.Tensor,
        action: torch.Tensor,
        valid: torch.Tensor,
        is_first: torch.Tensor,
        task: torch.Tensor | None = None,
        noise: bool = True,
        frames: slice = slice(None),
    ) -> Context:
        """Take real frames as history: the same pass, at the same level and label, that imagination
        makes of its own frames.

        Args:
            z: (B, T, S, W) clean latents. action, valid, task: as in observe. is_first: bool (B,
                T).
            noise: corrupt to the context level; False keeps the latents clean under the same label
                (acting).
            frames: those whose feature is wanted.
        """
        level = torch.full(is_first.shape, self.context_level, device=z.device)
        mask = causal_mask(is_first)
        positions = torch.arange(z.shape[1], device=z.device)[None]
        seen = self.blurred(z) if noise else z
        origin = self.coordinates.origin(seen, is_first)
        target = self.coordinates.encode(seen, origin)
        feature, present = self.observe(
            self.coordinates.tell(target, origin),
            level,
            action,
            valid,
            mask,
            positions,
            task=task,
            frames=frames,
        )
        return Context(z, seen, self.coordinates.view(z, target), feature, present, mask)
