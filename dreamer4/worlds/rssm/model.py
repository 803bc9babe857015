"""The recurrent state-space model: how a state follows from what is seen and done, and what it
predicts of itself.

    h_t = cell(h_{t-1}, z_{t-1}, a_{t-1})                deterministic path
    z_t ~ q(z | h_t, embed(x_t))                         posterior, where x_t is seen
    z_t ~ p(z | h_t)                                     prior, where it is not
Letters: N rows, B sequences, T time, W trajectories, H horizon, D deterministic state, Z stochastic
state, P parameters of its distribution, E embedding, A action features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .forms import Form
from .latents import Categoricals, Gaussians
from .nets import CELLS, Style


@dataclass(frozen=True)
class RSSMConfig:
    """Block `agent.rssm` of the configuration; meanings and sources stand there."""

    deter: int
    units: int
    stoch: int
    classes: int
    depth: int
    conv: str
    free_nats: float


@dataclass(frozen=True)
class State:
    """What the model knows at a frame: deter (..., D) and stoch (..., Z)."""

    deter: torch.Tensor
    stoch: torch.Tensor

    @property
    def feature(self) -> torch.Tensor:
        """What heads and actor-critic read, (..., D + Z)."""
        return torch.cat([self.deter, self.stoch], -1)

    def at(self, *index) -> 'State':
        """The states at an index, as of a tensor (..., D)."""
        return State(self.deter[index], self.stoch[index])

    def detach(self) -> 'State':
        return State(self.deter.detach(), self.stoch.detach())

    def masked(self, keep: torch.Tensor) -> 'State':
        """Zero, which is the state before an episode, where bool (N,) is False."""
        return State(self.deter * keep[:, None], self.stoch * keep[:, None])


@dataclass(frozen=True)
class Observed:
    """Sequences that were seen: state (B, T), and the parameters (B, T, P) of posterior and
    prior.
    """

    state: State
    post: torch.Tensor
    prior: torch.Tensor


class RSSM(nn.Module):
    """Recurrence, posterior and prior (DreamerV1, Section 3; DreamerV3, Eq. 1).

    Args:
        embed: E. action: A. config: sizes. form: which of the published models it is.
    """

    def __init__(self, embed: int, action: int, config: RSSMConfig, form: Form):
        super().__init__()
        style = Style(form.act, form.norm)
        self.latents = (
            Gaussians(config.stoch)
            if form.gaussian
            else Categoricals(config.stoch, config.classes, form.unimix)
        )
        deter, units, params = config.deter, config.units, self.latents.parameters
        self.cell = CELLS[form.cell](deter, self.latents.size, action, units, form.blocks, style)
        self.deter = deter
        self.posterior = nn.Sequential(style.layer(deter + embed, units), nn.Linear(units, params))
        self.prior = nn.Sequential(
            style.mlp(deter, units, form.prior_layers), nn.Linear(units, params)
        )

    @property
    def feature_size(self) -> int:
        """D + Z."""
        return self.deter + self.latents.size

    def initial(self, count: int, device: torch.device) -> State:
        """The state (N, ...) before the first frame of an episode: zeros."""
        zeros = lambda size: torch.zeros(count, size, device=device)
        return State(zeros(self.deter), zeros(self.latents.size))

    def see(
        self, state: State, embed: torch.Tensor, action: torch.Tensor, is_first: torch.Tensor
    ) -> tuple[State, torch.Tensor]:
        """One step with a frame: the state before it (N), the embedding (N, E) of the frame and the
        action (N, A) that led to it -> the state at the frame, and posterior parameters (N, P).

        Where is_first, bool (N,), neither the state before nor the action is looked at.
        """
        state = state.masked(~is_first)
        deter = self.cell(state.deter, state.stoch, action * ~is_first[:, None])
        post = self.posterior(torch.cat([deter, embed], -1))
        return State(deter, self.latents.sample(post)), post

    def observe(
        self, embed: torch.Tensor, action: torch.Tensor, is_first: torch.Tensor
    ) -> Observed:
        """Go through sequences: embed (B, T, E), action (B, T, A) that led to each frame, is_first
        bool (B, T), at which the past ends wherever in the sequence it is.

        The state before the first frame of a sequence is zero, also in the middle of an episode.
        """
        state, states, posts = self.initial(len(embed), embed.device), [], []
        for t in range(embed.shape[1]):
            state, post = self.see(state, embed[:, t], action[:, t], is_first[:, t])
            states.append(state)
            posts.append(post)
        deter, stoch = (
            torch.stack([getattr(s, name) for s in states], 1) for name in ('deter', 'stoch')
        )
        return Observed(State(deter, stoch), torch.stack(posts, 1), self.prior(deter))

    def dream(self, state: State, action: torch.Tensor, likeliest: bool = False) -> State:
        """One step without a frame: state (N), action (N, A) -> a state it may lead to, or the
        likeliest one.
        """
        deter = self.cell(state.deter, state.stoch, action)
        draw = self.latents.mode if likeliest else self.latents.sample
        return State(deter, draw(self.prior(deter)))

    def imagine(
        self, state: State, act: Callable[[State, int], torch.Tensor], horizon: int
    ) -> State:
        """H steps without frames from states (W). act: (state (W), step) -> action features (W, A).

        Returns:
            states (W, H + 1); the first is the given one. The gradient goes through all steps, into
            the actions too, if the caller does not forbid it.
        """
        states = [state]
        for t in range(horizon):
            states.append(self.dream(states[-1], act(states[-1], t)))
        return State(
            torch.stack([s.deter for s in states], 1), torch.stack([s.stoch for s in states], 1)
        )
