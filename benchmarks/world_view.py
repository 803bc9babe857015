"""What the lab asks of either kind of world model, in the same words.

Letters: N sequences or starts, T frames, H imagined frames, F features, M action code.
"""

from typing import Any

import torch

from dreamer4.agent import Agent
from dreamer4.batch import Batch
from dreamer4.openloop import OpenLoop
from dreamer4.worlds.dreamer4 import report as dreamer4_report
from dreamer4.worlds.dreamer4.rollout import imagine
from dreamer4.worlds.rssm import report as rssm_report


class View:
    """A world model as the lab sees it.

    Args:
        agent: whose world model is measured.
    """

    def __init__(self, agent: Agent):
        self.agent, self.world = agent, agent.world

    def see(self, batch: Batch) -> Any:
        """The states that a batch (N, T) leads to, without gradient."""
        raise NotImplementedError

    def open_loop(self, context: Any, batch: Batch, start: int) -> OpenLoop:
        """Predict frames and rewards after `start` along the recorded actions. The error is that of
        latents where they are fixed before they are predicted, else of decoded observations.
        """
        raise NotImplementedError

    def imagine(
        self, context: Any, rows: torch.Tensor, frames: torch.Tensor, codes: torch.Tensor
    ) -> torch.Tensor:
        """Features (N, H + 1, F) from frames on, long (N,), under action codes (N, H, M)."""
        raise NotImplementedError

    def reward(self, features: torch.Tensor) -> torch.Tensor:
        """Expected rewards (...) at features (..., F)."""
        raise NotImplementedError

    def parts(self, context: Any, where: tuple) -> dict[str, torch.Tensor]:
        """'latent' and 'feature', what the model holds of frames at (rows, frames), (N, ...)."""
        raise NotImplementedError


class Dreamer4View(View):
    """Latents of a frozen or slow tokenizer, and the feature of the agent token."""

    def see(self, batch):
        return self.world.commit(batch).detach()

    def open_loop(self, context, batch, start):
        world, steps = self.world, self.agent.config.shortcut.steps
        return dreamer4_report.open_loop(
            world.dynamics, world.heads, context, batch, start, steps, rewards=True
        )

    def imagine(self, context, rows, frames, codes):
        world, steps = self.world, self.agent.config.shortcut.steps
        act = lambda x, t: codes[:, t]
        found = imagine(
            world.dynamics, world.heads, context, rows, frames, codes.shape[1], steps, act
        )
        return found.inputs

    def reward(self, features):
        return self.world.heads.reward(features)

    def parts(self, context, where):
        return {'latent': context.latent[where].flatten(1), 'feature': context.feature[where]}


class RSSMView(View):
    """The stochastic state as latents, the deterministic one as feature."""

    def see(self, batch):
        return self.world.see(batch).state.detach()

    def open_loop(self, context, batch, start):
        return rssm_report.open_loop(self.world, context, batch, start, 0).loop

    def imagine(self, context, rows, frames, codes):
        told = self.agent.actions.embed(codes)
        act = lambda state, t: told[:, t]
        rssm = self.world.net.rssm
        return rssm.imagine(context.at(rows, frames), act, codes.shape[1]).feature

    def reward(self, features):
        return self.world.net.reward(features)

    def parts(self, context, where):
        state = context.at(*where)
        return {'latent': state.stoch, 'feature': state.deter}


def view(agent: Agent) -> View:
    """The view of an agent's world model."""
    return (RSSMView if agent.config.form else Dreamer4View)(agent)
