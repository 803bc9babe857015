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

from ...nets.attention import head_count
from ...nets.layers import zero_init
from ...nets.layout import Layout
from ...nets.memory import KeyValues
from ...nets.transformer import ALL, Transformer, View, causal_mask
from .moves import Moves, Whole

EMBED_STD = 0.5
PACK = 2  # latents concatenated into one spatial token (Section 3.2)


@dataclass(frozen=True)
class DynamicsConfig:
    """Block `agent.dynamics` of the configuration; meanings and sources stand there."""

    width: int
    depth: int
    group: int
    time_every: int
    registers: int
    softcap: float
    levels: int
    moves: bool
    context_signal: float

    @property
    def heads(self) -> int:
        """Query heads."""
        return head_count(self.width)

    @property
    def kv_heads(self) -> int:
        """Key-value heads, each of which a group of query heads shares."""
        return self.heads // self.group


@dataclass(frozen=True)
class Given:
    """What is known of frames besides what they show.

    Attributes:
        action: (B, T, A) features of the action that led to the frame. valid: bool (B, T), False
            where there is none.
        task: long (B, T), None for task 0.
    """

    action: torch.Tensor
    valid: torch.Tensor
    task: torch.Tensor | None = None

    def rows(self, rows: slice) -> 'Given':
        """The same for a part of the batch."""
        return self._cut(lambda x: x[rows])

    def at(self, frames: slice) -> 'Given':
        """The same for some of the frames."""
        return self._cut(lambda x: x[:, frames])

    def then(self, other: 'Given') -> 'Given':
        """These frames and, in time, the others."""
        task = None if self.task is None else torch.cat([self.task, other.task], 1)
        action, valid = (
            torch.cat([self.action, other.action], 1),
            torch.cat([self.valid, other.valid], 1),
        )
        return Given(action, valid, task)

    def _cut(self, cut) -> 'Given':
        task = None if self.task is None else cut(self.task)
        return Given(cut(self.action), cut(self.valid), task)


@dataclass(frozen=True)
class Frames:
    """Frames as the dynamics are told them.

    Attributes:
        told: (B, T, S, told) coordinates at signal level `level` / K_max, as tokens read them.
        level: long (B, T) in 0 .. K_max.
        size: long (B, T), exponent e of the step size d = 2^e / K_max.
        given: what else is known of them.
    """

    told: torch.Tensor
    level: torch.Tensor
    size: torch.Tensor
    given: Given


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


class TextEmbedding(nn.Module):
    """What tasks ask for, embedded by somebody else, as a part of the agent token; zero at first.

    Args:
        text: (tasks, features). width: D.
    """

    def __init__(self, text: torch.Tensor, width: int):
        super().__init__()
        self.register_buffer('text', text.clone())
        self.project = zero_init(nn.Linear(text.shape[1], width, bias=False))

    def forward(self, task: torch.Tensor) -> torch.Tensor:
        """Numbers of tasks, long (...), -> (..., D)."""
        return self.project(self.text[task])


class Dynamics(nn.Module):
    """Predicts the clean latent of a frame from its noisy one, the action that led to it and the
    past.

    The agent token sees every token and is seen by none, so that what the heads ask of it can never
    leak into the latents.

    Args:
        latent_shape: (L, Z) of the tokenizer; L must be a multiple of `pack`.
        action_features: A. tasks: number of tasks; each adds its own embedding to the agent token,
            or what is made of its embedding in `text` (tasks, features).
        config: see DynamicsConfig. `levels` is K_max = 1 / d_min, a power of two; `context_signal`
            the signal level in [0, 1] of committed frames, rounded to a multiple of d_min. (The
            paper's tau_ctx = 0.1 is the noise; read as signal it destroys the context.)
        shortcut: whether larger steps than d_min are learned; without them every step of the
            sampler is labelled d_min.
        pack: latents of a token.
    """

    def __init__(
        self,
        latent_shape: tuple[int, int],
        action_features: int,
        tasks: int,
        config: DynamicsConfig,
        shortcut: bool = True,
        text: torch.Tensor | None = None,
        pack: int = PACK,
    ):
        super().__init__()
        self.config = config
        if latent_shape[0] % pack:
            raise ValueError(
                f'dynamics: {latent_shape[0]} latents cannot be packed {pack} to a token'
            )
        if config.levels < 1 or config.levels & (config.levels - 1):
            raise ValueError(f'dynamics: levels must be a power of two, got {config.levels}')
        self.latent_shape = latent_shape
        self.tokens, self.channels = latent_shape[0] // pack, latent_shape[1] * pack
        # d = 2^e / K_max for e = 0 .. log2 K_max
        self.step_sizes = config.levels.bit_length() if shortcut else 1
        self.context_level = round(config.context_signal * config.levels)
        width = config.width
        self.layout = Layout(
            action=1, signal=1, latent=self.tokens, register=config.registers, agent=1
        )
        self.bare = self.layout.without('agent')
        sees = lambda q, k: k != 'agent' or q == 'agent'
        self.register_buffer('space_mask', self.layout.mask(sees), persistent=False)
        self.register_buffer('bare_mask', self.bare.mask(sees), persistent=False)
        self.coordinates = (Moves if config.moves else Whole)(self.tokens, self.channels, tasks)
        self.latent_in = nn.Linear(self.coordinates.told, width)
        self.action_in = nn.Linear(action_features, width, bias=False)
        self.place = nn.Parameter(EMBED_STD * torch.randn(self.layout.size, width))
        self.no_action = nn.Parameter(EMBED_STD * torch.randn(width))
        self.level = nn.Embedding(config.levels + 1, width // 2)
        self.step_size = nn.Embedding(self.step_sizes, width - width // 2)
        if text is None:
            self.task = nn.Embedding(tasks, width)
            nn.init.zeros_(self.task.weight)
        else:
            self.task = TextEmbedding(text, width)
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

    def forward(
        self, frames: Frames, view: View, agent: bool = False, wanted: slice = ALL
    ) -> tuple[torch.Tensor, KeyValues]:
        """One pass over frames.

        Args:
            agent: whether the agent token is there, which makes a feature of everything that is
                known; no latent may see it.
            wanted: frames whose output is wanted; slice(0) for none, which leaves the agent token
                out, too.

        Returns:
            without the agent token what the coordinates of the frames are without noise, (B, T of
            wanted, S, W); with it the feature, (B, T of wanted, D); both float32. And what the time
            layers keep of all frames.
        """
        x = self._tokens(frames)
        if not agent or wanted == slice(0):
            x, present = self.transformer(x, self.bare_mask, view, self.bare['latent'], wanted)
            return (x[:, :, 0] if agent else self.latent_out(x)).float(), present
        place, task = self.place[self.layout['agent']], frames.given.task
        if task is None:
            task = torch.zeros_like(frames.level)
        token = place + self.task(task)[:, :, None]
        x = torch.cat([x, token.expand(*frames.level.shape, -1, -1)], 2)
        x, present = self.transformer(x, self.space_mask, view, self.layout['agent'], wanted)
        return x[:, :, 0].float(), present

    def _tokens(self, frames: Frames) -> torch.Tensor:
        """The tokens of every frame but the agent's, (B, T, N - 1, D)."""
        given = frames.given
        act = torch.where(
            given.valid[..., None], self.action_in(given.action).float(), self.no_action
        )
        signal = torch.cat([self.level(frames.level), self.step_size(frames.size)], -1)
        latent = self.latent_in(frames.told).float()
        known = torch.cat([act[:, :, None], signal[:, :, None], latent], 2)
        registers = self.place[self.layout['register']].expand(*frames.level.shape, -1, -1)
        return torch.cat([known + self.place[: known.shape[2]], registers], 2)

    def noised(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """x_tau = (1 - tau) noise + tau x for x (B, T, S, W), level long (B, T), tau = level /
        K_max (Dreamer 4, Eq. 1).
        """
        tau = (level / self.config.levels)[..., None, None]
        return (1 - tau) * torch.randn_like(x) + tau * x

    def blurred(self, z: torch.Tensor, task: torch.Tensor | None) -> torch.Tensor:
        """Clean latents (B, T, S, W) of tasks (B, T) as history shows them: at the context level,
        unchanged where that has no noise.
        """
        return self.coordinates.blur(z, self.context_level / self.config.levels, task)

    def commit(
        self,
        z: torch.Tensor,
        given: Given,
        is_first: torch.Tensor,
        noise: bool = True,
        wanted: slice = ALL,
        level: int | None = None,
    ) -> Context:
        """Take real frames as history: the same pass, at the same level and label, that imagination
        makes of its own frames.

        Args:
            z: (B, T, S, W) clean latents. given: of them. is_first: bool (B, T).
            noise: corrupt to the context level; False keeps the latents clean under the same label
                (acting).
            wanted: frames whose feature is wanted.
            level: in 0 .. K_max, at which the frames are shown; None for the context level.
        """
        shown = self.context_level if level is None else level
        level = torch.full(is_first.shape, shown, device=z.device)
        positions = torch.arange(z.shape[1], device=z.device)[None]
        view = View(causal_mask(is_first), positions)
        task = given.task
        seen = self.coordinates.blur(z, shown / self.config.levels, task) if noise else z
        origin = self.coordinates.origin(seen, is_first, task)
        target = self.coordinates.encode(seen, origin)
        told = self.coordinates.tell(target, origin)
        frames = Frames(told, level, torch.zeros_like(level), given)
        feature, present = self(frames, view, True, wanted)
        return Context(z, seen, self.coordinates.view(z, target), feature, present, view.mask)
