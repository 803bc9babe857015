"""Dreamer 4's world model as the agent uses it: tokenizer, dynamics and the heads that read them,
their losses and their optimizers (Dreamer 4, Section 3).

Letters: N envs, B sequences, T time, S W packed latent, F features of a frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces
from torch import nn

from embodied.tasks import KEY

from ...actions import Actions
from ...agent_config import AgentConfig
from ...batch import Batch, Dream, Roles, draw_starts
from ...cameras import dimmed, turned
from ...heads import Heads, sizes
from ...machine import Machine
from ...nets.attention import Attention
from ...nets.transformer import Block, Transformer
from ...optim import Optimizer, RunningRMS, descend
from ...sharing import Blocks, share
from ...tasks import Tasks
from .. import Act, Carry, Losses, Metrics, Sampling, Summary, Turn
from . import find_tokenizer, lessons, perceptual, report, shortcut, window
from .dynamics import Context, Dynamics, Given
from .rollout import Trajectory, imagine
from .summary import summarize
from .tokenizer import Tokenizer

# smallest divisors of the losses but that of the dynamics, and the decay of their mean squares
FLOORS = {'reward': 0.1, 'behaviour': 0.1, 'image': 1e-5, 'vector': 1e-5, 'lpips': 1e-3}
DECAY = 0.99
# updates of the model after which it is sure enough to teach itself larger steps (paper: not given)
BOOTSTRAP_AFTER = 500


@dataclass(frozen=True)
class Plan:
    """What one update of the world model does.

    Attributes:
        tokenizer: the tokenizer learns. measure: and folds its images into their mean and spread.
            joint: and it does so in one step with the dynamics, whose gradient reaches it.
        warm: there are dynamics to dream with. model: and they learn. heads: and so do the heads.
        roles: what each of the sequences is for.
    """

    tokenizer: bool
    measure: bool
    joint: bool
    warm: bool
    model: bool
    heads: bool
    roles: Roles


class Dreamer4:
    """Implements World.

    Args:
        obs_space: name -> space of what is tokenized. tasks, actions, config, machine: see World.

    Raises:
        ValueError: a setting that cannot work with these spaces.
    """

    stages = 'tokenizer', 'dynamics'
    watched = {'tokenizer': ('tokenizer/unexplained',)} | dict.fromkeys(
        ('dynamics', 'agent', 'value', 'policy'), ('loss/flow', 'loss/reward')
    )

    def __init__(
        self,
        obs_space: Mapping[str, spaces.Space],
        tasks: Tasks,
        actions: Actions,
        config: AgentConfig,
        machine: Machine,
    ):
        self.config, self.machine, self.actions = config, machine, actions
        self.keys, self.tasks = sorted(obs_space), tasks
        # with 'agent' the heads wait for the dynamics (Dreamer 4, Section 3.3: agent finetuning)
        if config.schedule.agent_updates > 0:
            self.stages = (*self.stages, 'agent')
        kind = find_tokenizer(config.tokenizer.kind)
        self.tokenizer = kind(obs_space, config.tokenizer, tasks.count)
        latent, large = self.tokenizer.latent_shape, config.shortcut.bootstrap > 0
        shapes = latent, actions.features, tasks.count
        self.dynamics = Dynamics(*shapes, config.dynamics, large, tasks.text)
        self.heads = Heads(
            config.dynamics.width,
            self.dynamics.tokens * self.dynamics.coordinates.viewed,
            actions,
            config.heads,
        )
        self.parts, self.clone = self.heads.parts, self.heads.behaviour_head
        self.perceptual, why = perceptual.find_perceptual(config.tokenizer, self.tokenizer.images)
        self.notes = [why] if why else []
        self.rms = RunningRMS({'dynamics': config.scales.dynamics_floor} | FLOORS, DECAY)
        for module in (self.tokenizer, self.dynamics, self.heads, self.rms, self.perceptual):
            if module is not None:
                put(module, machine)
        share(self.tokenizer, machine)
        share(self.dynamics, machine)
        self.blocks = Blocks(self.dynamics)
        self.optimizers = {'model': Optimizer('model', [self.dynamics, self.heads], config.optim)}
        # none where all that is observed are a few numbers
        if any(True for _ in self.tokenizer.parameters()):
            self.optimizers['tokenizer'] = Optimizer('tokenizer', [self.tokenizer], config.optim)
        if machine.config.compile:
            compile_parts(self.tokenizer, self.dynamics)

    # -- acting

    def begin(self, num_envs: int) -> Carry:
        return window.begin(self, num_envs)

    def observe(
        self, carry: Carry, seen: Mapping[str, torch.Tensor], action: torch.Tensor
    ) -> Carry:
        return window.observe(self, carry, seen, action)

    def features(self, carry: Carry) -> torch.Tensor:
        return window.features(self, carry)

    # -- being played

    def dream(self, carry: Carry, action: torch.Tensor, how: Sampling) -> Carry:
        return window.dream(self, carry, action, how)

    def decode(self, carry: Carry) -> dict[str, torch.Tensor]:
        return window.decode(self, carry)

    def numbers(self, carry: Carry) -> torch.Tensor:
        return carry['latent'][:, -1]

    def judge(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.heads.reward(x), self.heads.cont(x)

    # -- learning

    def shape(self, update: int, reached: tuple[str, ...]) -> tuple[int, int]:
        """A tokenizer of single frames that learns alone gets them from all over the replay:
        neighbours look alike, and from a few sequences it learns half as fast.
        """
        if 'dynamics' not in reached and not self.config.tokenizer.time_every:
            return self.config.batch.frames, 1
        return self.config.batch.shape(update)

    def plan(self, turn: Turn) -> Plan:
        c, warm, policy = self.config, 'dynamics' in turn.reached, 'policy' in turn.reached
        tokenizer = not warm or (
            'tokenizer' in self.optimizers
            and c.tokenizer_training.rate > 0
            and turn.update % c.tokenizer_training.every == 0
        )
        sure = min(BOOTSTRAP_AFTER, c.schedule.dynamics_updates)
        started = self.optimizers['model'].updates >= sure
        roles = Roles.draw(turn.rows, c.shortcut.bootstrap * started, c.batch.single, turn.rng)
        if tokenizer and 'tokenizer' in self.optimizers:
            rate = c.tokenizer_training.rate * turn.pace if warm else 1.0
            self.optimizers['tokenizer'].begin(1, rate)
        model = warm and not (policy and not c.model_training.rate)
        if model:
            self.optimizers['model'].begin(1, c.model_training.rate * turn.pace if policy else 1.0)
        joint = model and tokenizer and c.tokenizer_training.model > 0
        heads = model and ('agent' in turn.reached or 'agent' not in self.stages)
        return Plan(tokenizer, not warm, joint, warm, model, heads, roles)

    def losses(self, plan: Plan, batch: Batch) -> Losses:
        batch, metrics = dimmed(batch.shuffled(), self.tokenizer), {}
        if plan.tokenizer and not plan.joint:
            loss, metrics = self.tokenizer_loss(plan, batch)
            if 'tokenizer' in self.optimizers:
                metrics |= self.optimizers['tokenizer'].step(loss)
        if not plan.warm:
            return Losses(None, metrics, batch, None, None)
        whole, batch = batch, batch.cut(*plan.roles.single)
        if not plan.model:
            with torch.no_grad(), self.machine.autocast():
                context = self.commit(batch)
                return Losses(None, metrics, batch, context, self._read(context))
        with self.machine.autocast():
            shared, latent = self.shared(batch) if plan.joint else (None, None)
            context = self.commit(batch, measure=True, latent=shared)
            total, parts = self.model_loss(batch, context, plan.roles.large, plan.heads)
        metrics |= {f'loss/{k}': v.detach() for k, v in parts.items()}
        where = batch.reward_valid & ~batch.is_first
        metrics |= sizes('reward', self.heads.scalar, batch.reward, where)
        if plan.joint:
            loss, found = self.tokenizer_loss(plan, whole, latent)
            total, metrics = total + loss, metrics | found
        context = context.detach()
        return Losses(total, metrics, batch, context, self._read(context))

    def _read(self, context: Context) -> torch.Tensor | None:
        """Features for a value that learns from replay, without gradient: it teaches no model."""
        replay = self.config.method.replay > 0
        return self.heads.inputs(context.feature, context.view) if replay else None

    def step(self, plan: Plan, losses: Losses) -> Metrics:
        if not plan.model:
            return {}
        if not plan.joint:
            return self.optimizers['model'].step(losses.total)
        return descend(losses.total, self.optimizers['model'], self.optimizers['tokenizer'])

    def enter(self, stage: str) -> None:
        pass

    def tokenizer_loss(
        self, plan: Plan, batch: Batch, latent: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Metrics]:
        """Loss on single frames drawn from the batch, or on its first sequences where the
        tokenizer looks back in time.
        """
        count, c = self.config.batch.frames, self.config.tokenizer
        if c.mask_max or c.time_every:
            latent = None  # frames with dropped patches have latents of their own
        if c.time_every:
            part = batch.first(max(1, count // batch.shape[1]))
            obs, is_first, task = {k: part.obs[k] for k in self.keys}, part.is_first, part.task
        else:
            obs, is_first, task, latent = single_frames(batch, self.keys, count, latent)
        if plan.measure:
            # later it stays: latents that have been learned from must not move
            self.tokenizer.measure(obs, task)
        with self.machine.autocast():
            known = latent, self.tasks, task
            parts, metrics = self.tokenizer.losses(obs, is_first, self.perceptual, *known)
        # of normalised losses: before, it would be divided out
        weights = {'lpips': perceptual.weight(c)}
        part = lambda k, v: weights.get(k, 1.0) * self.rms(k, v) if k in FLOORS else v
        loss = sum(part(k, v) for k, v in parts.items())
        return loss, {f'tokenizer/{k}': v.detach() for k, v in (parts | metrics).items()}

    def model_loss(
        self, batch: Batch, context: Context, large: int, heads: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted sum and its parts; `large` as in shortcut.loss, `heads`: whether they learn.
        Flow and bootstrap are normalised as one term: alone, the bootstrap of a zero output is
        zero.
        """
        c, given, is_first = self.config, self.given(batch), batch.is_first
        known = self.dynamics, context, given, is_first, c.shortcut, large, batch.predicted
        forced = shortcut.loss(*known)
        parts = {k: v.mean() for k, v in forced.losses.items()}
        video = self.rms('dynamics', sum(parts.values()))
        if not heads:
            return video, parts
        known = context, forced, self._usable(batch)
        lesson, found = lessons.heads_loss(self, batch, given, *known)
        return video + lesson, parts | found

    def shared(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, T, L, Z) of the tokenizer that learns, twice: with the share of the gradient
        that the model may send to the encoder, and with all of it for the tokenizer's own loss.
        """
        z = self.tokenizer.encode(self.frames(batch), batch.is_first)
        return z.detach().lerp(z, self.config.tokenizer_training.model), z

    def commit(
        self, batch: Batch, measure: bool = False, latent: torch.Tensor | None = None
    ) -> Context:
        """Latents and the committed pass over them, with gradient into the dynamics.

        Args:
            measure: whether the dynamics learn the usual moves from them.
            latent: (B, T, L, Z); None for those of the tokenizer, without gradient.
        """
        if latent is not None:
            z = self.dynamics.pack(latent)
        else:
            with torch.no_grad():
                z = self.encode(self.frames(batch), batch.is_first)
        if measure:
            cut = batch.is_first
            if self.config.tokenizer.camera_dropout:  # that a camera goes dark is no move
                cut = cut | turned(batch.obs, [*self.tokenizer.images])
            self.dynamics.coordinates.measure(z, cut, batch.task)
        return self.dynamics.commit(z, self.given(batch), batch.is_first)

    def frames(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What a batch shows: the keys that are tokenized, and the numbers of several tasks."""
        task = {} if batch.task is None else {KEY: batch.task}
        return {k: batch.obs[k] for k in self.keys} | task

    def given(self, batch: Batch) -> Given:
        """What is known of the frames of a batch besides what they show."""
        return Given(self.actions.embed(batch.prev_action), batch.prev_valid, batch.task)

    def encode(
        self, frames: Mapping[str, torch.Tensor], is_first: torch.Tensor, wanted=slice(None)
    ) -> torch.Tensor:
        """Packed latents (B, T of wanted, S, W)."""
        return self.dynamics.pack(self.tokenizer.encode(frames, is_first, frames=wanted))

    def _usable(self, batch: Batch) -> torch.Tensor:
        """bool (B, T): frames that heads learn from and dreams start at, with a past and not cut
        into single images.
        """
        return ~batch.single[:, None] & self.dynamics.coordinates.known(batch.is_first)

    # -- imagining

    @torch.no_grad()
    def imagine(self, context: Context, batch: Batch, act: Act) -> Dream:
        c = self.config
        rows, frames = draw_starts(self._usable(batch) & ~batch.is_terminal, c.imagination.starts)
        task, chosen = batch.task_at(rows, frames), lambda x, t: act(x, task)[0]
        found = self.follow(context, rows, frames, c.imagination.horizon, chosen, batch.task)
        reward, cont = self.heads.reward(found.inputs), self.heads.cont(found.inputs)
        cont[:, 0] = 1 - batch.is_terminal[rows, frames].float()
        return Dream(found.inputs, found.action, reward, cont, rows, frames, task)

    def follow(self, context: Context, rows, frames, horizon: int, act, task) -> Trajectory:
        """rollout.imagine with the parts and the denoising steps of this model."""
        known, steps = (context, rows, frames, horizon), self.config.shortcut.steps
        with self.blocks.kept():
            return imagine(self.dynamics, self.heads, *known, steps, act, task)

    def recall(self, batch: Batch) -> Context:
        return self.commit(batch)

    # -- measuring

    def measure(self, batch: Batch) -> Metrics:
        return report.measured(self, batch)[0]

    def score(self, stage: str, batch: Batch) -> torch.Tensor:
        return report.score(self, stage, batch)

    def report(self, batch: Batch) -> tuple[Metrics, dict[str, np.ndarray]]:
        return report.measured_and_shown(self, batch)

    def summary(self) -> Summary:
        return summarize(self)

    def state(self) -> dict:
        return {
            'tokenizer': self.tokenizer,
            'dynamics': self.dynamics,
            'heads': self.heads,
            'rms': self.rms,
        }


def single_frames(
    batch: Batch, keys: list[str], count: int, latent: torch.Tensor | None
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """So many frames N of a batch, drawn at random, as sequences of one: observations key -> (N, 1,
    ...), is_first (N, 1), tasks (N, 1) or None, and latents (N, 1, L, Z) of (B, T, L, Z) or None.
    """
    (rows, time), device = batch.shape, batch.is_first.device
    index = torch.rand(rows * time, device=device).argsort()[:count]
    take = lambda x: None if x is None else x.flatten(0, 1)[index][:, None]
    is_first = torch.ones(len(index), 1, dtype=torch.bool, device=device)
    return {k: take(batch.obs[k]) for k in keys}, is_first, take(batch.task), take(latent)


def put(module: nn.Module, machine: Machine) -> None:
    """Move a module to the device of a machine, and have its layers computed as asked."""
    module.to(machine.device)
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.kernel = machine.config.attention
        elif isinstance(layer, Block):
            layer.recompute = machine.config.checkpointing
        elif isinstance(layer, Transformer):
            layer.slices = machine.config.accumulate


def compile_parts(*parts: Tokenizer | Dynamics) -> None:
    """Have torch compile the passes of tokenizers and dynamics at their first calls, once for
    every shape.
    """
    # train, act, imagine, measure: other shapes
    torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)
    for part in parts:
        for method in ('encode', 'decode') if isinstance(part, Tokenizer) else ('forward',):
            setattr(part, method, torch.compile(getattr(part, method), dynamic=False))
