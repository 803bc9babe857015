"""A recurrent state-space model as the agent uses it: encoder, recurrence, decoder and heads, their
losses and their optimizer (DreamerV1, DreamerV2, DreamerV3, which forms.py tells apart).

Letters: N envs, B sequences, T time, W trajectories, H horizon, F features of a frame, Z, D of a
state.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import nn

from embodied.tasks import KEY

from ...actions import Actions
from ...agent_config import AgentConfig
from ...batch import Batch, Dream, draw_starts
from ...heads import scalar, sizes
from ...machine import Machine
from ...nets.layers import MLP
from ...optim import Optimizer, frozen
from ...scores import shared_mean
from ...tasks import Tasks
from ...vectors import vectorize
from .. import Act, Carry, Losses, Metrics, Sampling, Summary, Turn
from . import report
from .forms import FORMS
from .latents import kl_terms
from .model import RSSM, Observed, State
from .nets import Decoder, Encoder, Style
from .summary import summarize


class Net(nn.Module):
    """All networks of the world model.

    Args:
        obs_space: key -> space of what is encoded and decoded. actions: the codec. config: the
            whole block `agent`.
    """

    def __init__(
        self, obs_space: Mapping[str, spaces.Space], actions: Actions, config: AgentConfig
    ):
        super().__init__()
        c, heads, form = config.rssm, config.scalar_heads, FORMS[config.world]
        style, layers = Style(form.act, form.norm), heads.layers
        self.encoder = Encoder(obs_space, c.depth, c.units, layers, c.conv, style)
        self.rssm = RSSM(self.encoder.outputs, actions.features, c, form)
        self.decoder = Decoder(
            obs_space,
            c.deter,
            self.rssm.latents.size,
            c.depth,
            c.units,
            layers,
            c.conv,
            form.blocks,
            style,
        )
        self.scalar = scalar(heads)
        head = lambda outputs: MLP(self.rssm.feature_size, c.units, form.head_layers, outputs)
        self.reward_head = head(self.scalar.outputs)
        self.cont_head = head(1) if form.ends else None  # none: no episode of a dream ever ends

    def encode(self, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Observations (B, T, *shape) by key -> embeddings (B, T, E)."""
        shape = next(iter(obs.values())).shape[:2]
        return self.encoder({k: v.flatten(0, 1) for k, v in obs.items()}).unflatten(0, shape)

    def decode(self, state: State) -> dict[str, torch.Tensor]:
        """State (B, T) -> key -> images in (0, 1) or vectors, (B, T, ...); see Decoder."""
        shape = state.deter.shape[:2]
        flat = self.decoder(state.deter.flatten(0, 1), state.stoch.flatten(0, 1))
        return {k: v.unflatten(0, shape) for k, v in flat.items()}

    def targets(self, obs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What decode should return for observations (B, T, *shape) by key."""
        images = {k: obs[k].float() / 255 for k in self.decoder.images}
        return images | {k: vectorize(obs[k], s) for k, s in self.decoder.vectors.items()}

    def reward(self, x: torch.Tensor) -> torch.Tensor:
        """Expected reward (...) on arrival at a frame with features (..., F)."""
        return self.scalar.mean(self.reward_head(x))

    def cont(self, x: torch.Tensor) -> torch.Tensor:
        """Probability (...) that the frame with features (..., F) is not terminal."""
        if self.cont_head is None:
            return torch.ones_like(x[..., 0], dtype=torch.float32)
        return torch.sigmoid(self.cont_head(x).float()[..., 0])


class RSSMWorld:
    """Implements World.

    Args:
        obs_space: name -> space of what is observed. tasks, actions, config, machine: see World. A
            task of several is observed like any other class.

    Raises:
        ValueError: a setting that cannot work with these spaces.
    """

    stages = ('dynamics',)
    watched = dict.fromkeys(('dynamics', 'value', 'policy'), ('latent/kl', 'loss/reward'))
    clone = None

    def __init__(
        self,
        obs_space: Mapping[str, spaces.Space],
        tasks: Tasks,
        actions: Actions,
        config: AgentConfig,
        machine: Machine,
    ):
        self.config, self.machine, self.actions = config, machine, actions
        self.form = FORMS[config.world]
        several = {KEY: spaces.Discrete(tasks.count)} if tasks.count > 1 else {}
        seen, self.tasks = dict(obs_space) | several, tasks
        self.keys = sorted(seen)
        self.net = Net(seen, actions, config).to(machine.device)
        self.parts, self.notes = [self.net.rssm.feature_size], []
        if tasks.text is not None:
            self.notes = ['env.tasks.text is not read: an RSSM observes the number of the task.']
        self.optimizers = {
            'model': Optimizer('model', [self.net], config.optim, self.form.method.rule)
        }

    # -- acting

    def begin(self, num_envs: int) -> Carry:
        state = self.net.rssm.initial(num_envs, self.machine.device)
        return {'deter': state.deter, 'stoch': state.stoch}

    def observe(
        self, carry: Carry, seen: Mapping[str, torch.Tensor], action: torch.Tensor
    ) -> Carry:
        state, _ = self.net.rssm.see(
            State(carry['deter'], carry['stoch']),
            self.net.encoder({k: seen[k] for k in self.keys}),
            self.actions.embed(action),
            seen['is_first'],
        )
        return {'deter': state.deter.float(), 'stoch': state.stoch.float()}

    def features(self, carry: Carry) -> torch.Tensor:
        return State(carry['deter'], carry['stoch']).feature

    # -- being played

    def dream(self, carry: Carry, action: torch.Tensor, how: Sampling) -> Carry:
        before = State(carry['deter'], carry['stoch'])
        state = self.net.rssm.dream(before, self.actions.embed(action), how.mean)
        return {'deter': state.deter.float(), 'stoch': state.stoch.float()}

    def decode(self, carry: Carry) -> dict[str, torch.Tensor]:
        return self.net.decoder(carry['deter'], carry['stoch'])

    def numbers(self, carry: Carry) -> torch.Tensor:
        """Of the observation as it is decoded: latents of an RSSM mean nothing to each other."""
        return report.flatten({k: v[:, None] for k, v in self.decode(carry).items()})[:, 0]

    def judge(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.net.reward(x), self.net.cont(x)

    # -- learning

    def shape(self, update: int, reached: tuple[str, ...]) -> tuple[int, int]:
        return self.config.batch.shape(update)

    def plan(self, turn: Turn) -> tuple:
        rate = self.config.model_training.rate if 'policy' in turn.reached else 1.0
        self.optimizers['model'].begin(1, rate * turn.pace)
        return ()

    def losses(self, plan: tuple, batch: Batch) -> Losses:
        form, free = self.form, self.config.rssm.free_nats
        with self.machine.autocast():
            seen = self.see(batch)
            dyn, rep = kl_terms(self.net.rssm.latents, seen.post, seen.prior, free, form.free_of)
            parts = {'dyn': dyn.mean(), 'rep': rep.mean()}
            parts |= self.decoder_losses(seen.state, batch) | self.head_losses(seen.state, batch)
        weights = {'dyn': form.dyn, 'rep': form.rep, 'image': form.square, 'vector': form.square}
        total = sum(weights.get(k, 1.0) * v for k, v in parts.items())
        metrics = {f'loss/{k}': v.detach() for k, v in parts.items()}
        metrics |= {f'latent/{k}': v for k, v in self.state_metrics(seen).items()}
        where = batch.reward_valid & ~batch.is_first
        metrics |= sizes('reward', self.net.scalar, batch.reward, where)
        return Losses(total, metrics, batch, seen.state.detach(), seen.state.feature)

    def see(self, batch: Batch) -> Observed:
        """Go through the sequences of a batch, with gradient."""
        embed = self.net.encode({k: batch.obs[k] for k in self.keys})
        # an action that is not known is none
        action = self.actions.embed(batch.prev_action) * batch.prev_valid[..., None]
        return self.net.rssm.observe(embed, action, batch.is_first)

    def decoder_losses(self, state: State, batch: Batch) -> dict[str, torch.Tensor]:
        """Squared errors of images and of symlog vectors, summed over the numbers of a frame and
        over keys (DreamerV3, Eq. 4), scalars.
        """
        guess, truth = self.net.decode(state), self.net.targets(batch.obs)
        present = self.tasks.present(batch.task)

        def error(key: str) -> torch.Tensor:
            square = (guess[key] - truth[key]).square() * present.get(key, 1.0)
            return square.flatten(2).sum(-1).mean()

        kinds = {'image': self.net.decoder.images, 'vector': self.net.decoder.vectors}
        return {kind: sum(error(k) for k in keys) for kind, keys in kinds.items() if keys}

    def head_losses(self, state: State, batch: Batch) -> dict[str, torch.Tensor]:
        """Losses of reward and of going on, means over the frames where they are known."""
        x, net = state.feature, self.net
        known = batch.reward_valid & ~batch.is_first
        out = {'reward': shared_mean(net.scalar.loss(net.reward_head(x), batch.reward), known)}
        if net.cont_head is not None:
            error = F.binary_cross_entropy_with_logits(
                net.cont_head(x).float()[..., 0], 1 - batch.is_terminal.float(), reduction='none'
            )
            out['cont'] = shared_mean(error, known)
        return out

    @torch.no_grad()
    def state_metrics(self, seen: Observed) -> Metrics:
        """What the latents hold, in nats: the KL of posterior and prior before it is clipped, and
        the entropy of both.
        """
        latents = self.net.rssm.latents
        return {
            'kl': latents.kl(seen.post, seen.prior).mean(),
            'posterior_entropy': latents.entropy(seen.post).mean(),
            'prior_entropy': latents.entropy(seen.prior).mean(),
        }

    def step(self, plan: tuple, losses: Losses) -> Metrics:
        return self.optimizers['model'].step(losses.total)

    def enter(self, stage: str) -> None:
        pass

    # -- imagining

    def imagine(self, context: State, batch: Batch, act: Act) -> Dream:
        """See World. With Method.backprop the dream has a gradient into the actions, and never one
        into the world model.
        """
        c = self.config
        rows, frames = draw_starts(~batch.is_terminal, c.imagination.starts)
        task = batch.task_at(rows, frames)
        codes = []

        def choose(state: State, step: int) -> torch.Tensor:
            code, told = act(state.feature.detach(), task)
            codes.append(code)
            return told

        with torch.set_grad_enabled(self.form.method.backprop > 0), frozen(self.net):
            start = context.at(rows, frames)
            x = self.net.rssm.imagine(start, choose, c.imagination.horizon).feature
            reward, cont = self.net.reward(x), self.net.cont(x)
        real = 1 - batch.is_terminal[rows, frames].float()
        cont = torch.cat([real[:, None], cont[:, 1:]], 1)
        return Dream(x, torch.stack(codes, 1), reward, cont, rows, frames, task)

    def recall(self, batch: Batch) -> State:
        return self.see(batch).state

    # -- measuring

    def score(self, stage: str, batch: Batch) -> torch.Tensor:
        return self.measure(batch)['error']

    def measure(self, batch: Batch) -> Metrics:
        return report.measure(self, batch)[0]

    def report(self, batch: Batch) -> tuple[Metrics, dict[str, np.ndarray]]:
        metrics, forecast = report.measure(self, batch)
        return metrics, report.videos(self, forecast, batch)

    def summary(self) -> Summary:
        return summarize(self)

    def state(self) -> dict:
        return {'world': self.net}
