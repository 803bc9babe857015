"""The agent: policy, train, report, save, load; which losses there are, how they are weighted, and
in which order things happen.

Letters: N envs, B sequences, T time, C acting context, H horizon, M action code, F head inputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gymnasium import spaces

from embodied.base import UNLABELED, Status
from embodied.errors import CheckpointError

from . import losses, perceptual, report, shortcut
from .actions import Actions
from .agent_config import AgentConfig, check
from .batch import Batch, Roles, make_batch
from .conv_tokenizer import ConvTokenizer
from .dynamics import Context, Dynamics
from .heads import Heads, beyond_bins
from .imagination import draw_starts, imagine
from .machine import Machine, MachineConfig, own_stream
from .machine import check as check_machine
from .nets.attention import Attention
from .optim import NonFiniteLoss, Optimizer, RunningRMS, SlowCopy, descend
from .record import CudaGraphs, plainly
from .schedule import STAGES, Schedule
from .state import pack_tree, unpack_tree
from .summary import describe
from .tokenizer import Tokenizer

NEWEST = slice(-1, None)
TOKENIZERS = {'patches': Tokenizer, 'conv': ConvTokenizer}
# Stage -> the metrics that tell a watcher how it goes.
WATCHED = {
    'tokenizer': ('tokenizer/unexplained',),
    'dynamics': ('loss/flow', 'loss/reward'),
    'value': ('loss/flow', 'loss/reward', 'value/loss'),
    'policy': ('loss/flow', 'loss/reward', 'value/loss', 'policy/entropy'),
}
FLAGS = ('reward', 'is_first', 'is_last', 'is_terminal', *UNLABELED, 'task_id')


@dataclass(frozen=True)
class Dream:
    """Imagined trajectories, scored, as value and policy learn from them; all float32 and without
    gradient.

    Attributes:
        inputs: (W, H, F) what the heads read at frames 0 .. H-1. action: (W, H, M) code chosen
            there.
        reward, cont: (W, H) on arrival at frames 1 .. H. targets, returns: (W, H) lambda-returns of
            frames 0 .. H-1, for the value and for the advantages of the policy.
        weight: (W, H) probability that frames 0 .. H-1 are still alive.
    """

    inputs: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    cont: torch.Tensor
    targets: torch.Tensor
    returns: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class Plan:
    """What one update does: everything the host decides about it. The rest is work for the device,
    the same at every update of the same plan.

    Attributes:
        shape: (B, T) of the batch.
        tokenizer: the tokenizer learns. measure: and folds its images into their mean and spread.
            joint: and it does so in one step with the world model, whose gradient reaches it.
        model: dynamics and heads learn. roles: what each of the sequences is for.
        value, policy: they learn from a dream.
    """

    shape: tuple[int, int]
    tokenizer: bool
    measure: bool
    joint: bool
    model: bool
    roles: Roles
    value: bool
    policy: bool


class Agent:
    """Dreamer 4 learning from rows: implements embodied.Agent.

    Args:
        obs_space, act_space: name -> gymnasium space as the driver reports them ('log/' keys and
            'reset' are ignored).
        config: AgentConfig.
        machine: where it computes; decides nothing that is learned.
        seed: of its stream of torch's random numbers; the caller's stream is left alone.

    Raises:
        ValueError: a setting that cannot work, naming it.
    """

    def __init__(
        self,
        obs_space: Mapping[str, spaces.Space],
        act_space: Mapping[str, spaces.Space],
        config: AgentConfig,
        machine: MachineConfig,
        seed: int,
    ):
        check(config)
        check_machine(machine, config)
        self.config, self.machine = config, Machine(machine, seed)
        self.device = self.machine.device
        self._build(obs_space, act_space)

    @own_stream
    def _build(
        self, obs_space: Mapping[str, spaces.Space], act_space: Mapping[str, spaces.Space]
    ) -> None:
        config = self.config
        obs_space = {k: s for k, s in obs_space.items() if not k.startswith('log/')}
        tasks = int(obs_space['task_id'].n) if 'task_id' in obs_space else 1
        seen = {k: s for k, s in obs_space.items() if k not in FLAGS}
        self.frame_keys = sorted(seen)
        self.obs_keys = self.frame_keys + ['task_id'] * ('task_id' in obs_space)
        self.actions = Actions(
            {k: s for k, s in act_space.items() if k != 'reset'},
            config.heads.continuous,
            config.heads.action_bins,
            config.heads.unimix,
        )
        self.tokenizer = TOKENIZERS[config.tokenizer.kind](seen, config.tokenizer)
        self.dynamics = Dynamics(
            self.tokenizer.latent_shape,
            self.actions.features,
            tasks,
            config.dynamics,
            shortcut=config.shortcut.bootstrap > 0,
        )
        self.heads = Heads(
            config.dynamics.width,
            self.dynamics.tokens * self.dynamics.coordinates.viewed,
            self.actions,
            config.heads,
        )
        self._place()
        self._prepare()

    def _place(self) -> None:
        """Losses that need modules of their own; all modules on the device."""
        config = self.config
        self.perceptual, why = perceptual.find_perceptual(config.tokenizer, self.tokenizer.images)
        # sentences that are waiting; what has been told once and for all
        self._events, self._told = [why] if why else [], []
        s = config.scales
        self.rms = RunningRMS(
            {
                'dynamics': s.dynamics_floor,
                'reward': s.reward_floor,
                'behaviour': s.behaviour_floor,
                'image': 1e-5,
                'vector': 1e-5,
                'lpips': 1e-3,
            },
            s.decay,
        )
        for module in (
            self.actions,
            self.tokenizer,
            self.dynamics,
            self.heads,
            self.rms,
            self.perceptual,
        ):
            if module is not None:
                module.to(self.device)
        for layer in [*self.tokenizer.modules(), *self.dynamics.modules()]:
            if isinstance(layer, Attention):
                layer.kernel = self.machine.config.attention

    def _prepare(self) -> None:
        """Copies, optimisers and state of the training."""
        config, machine = self.config, self.machine.config
        heads = self.heads
        self.slow_tokenizer = SlowCopy(self.tokenizer, config.tokenizer_training.slow)
        self.slow_value = SlowCopy(heads.value_head, config.value.slow)
        self.slow_policy = SlowCopy(heads.policy_head, config.actor.slow)
        self.acting_policy = SlowCopy(heads.policy_head, config.actor.acting)
        self.optimizers = {
            'model': Optimizer(
                'model',
                [self.dynamics, heads.reward_head, heads.cont_head, heads.behaviour_head],
                config.optim.model,
            ),
            'policy': Optimizer('policy', [heads.policy_head], config.optim.policy),
            'value': Optimizer('value', [heads.value_head], config.optim.value),
        }
        # none where all that is observed are a few numbers
        if any(True for _ in self.tokenizer.parameters()):
            self.optimizers['tokenizer'] = Optimizer(
                'tokenizer', [self.tokenizer], config.optim.tokenizer
            )
        if machine.compile:
            compile_parts(self.tokenizer, self.dynamics, self.slow_tokenizer.module)
        self.recorder = (
            CudaGraphs(self.device) if machine.graphs and self.device.type == 'cuda' else None
        )
        self.schedule = Schedule(config.schedule)
        self.return_range = torch.ones((), device=self.device)
        self.updates = 0

    # -- properties of the contract

    @property
    def frames_per_update(self) -> int:
        """B T: replayed frames of one update, whether the batch is short or long."""
        return self.config.batch.size * self.config.batch.length

    @property
    def sequence_rows(self) -> int:
        """Rows of the longest sequence of the batches, the one that serves only for the shift
        included.
        """
        c = self.config.batch
        return max(c.length, c.long_length if c.long_every else 0) + 1

    def status(self) -> Status:
        """Stage, what it waits for, and the metrics that tell how it goes."""
        stage, words = self.schedule.stage, self.schedule.waits_for()
        waits = words.removeprefix(stage).strip()
        return Status(stage, waits, stage == STAGES[-1], WATCHED[stage])

    def events(self) -> list[str]:
        """Sentences that a person should read, each once: those since the last call."""
        told, self._events = self._events, []
        return told

    def summary(self) -> str:
        """Parts, parameters, tokens per frame and estimated FLOPs per update, as a table."""
        return describe(self)

    # -- acting

    def init_policy(self, num_envs: int) -> dict[str, torch.Tensor]:
        """Carry: the last C frames of every env, oldest first; empty slots are episodes of their
        own, which nothing looks at.
        """
        frames, make = (
            self.config.actor.context,
            lambda *shape, **kw: torch.zeros(num_envs, *shape, device=self.device, **kw),
        )
        carry = {
            'latent': make(frames, self.dynamics.tokens, self.dynamics.channels),
            'code': make(frames, self.actions.code_size),
            'is_first': make(frames, dtype=torch.bool) | True,
            'task': make(frames, dtype=torch.long),
            'action': make(self.actions.code_size),
        }
        if self.config.tokenizer.time_every:
            for key, space in (self.tokenizer.images | self.tokenizer.vectors).items():
                carry[f'obs/{key}'] = make(
                    frames, *space.shape, dtype=torch.from_numpy(np.zeros((), space.dtype)).dtype
                )
        return carry

    @torch.no_grad()
    @own_stream
    def policy(
        self, carry: dict[str, torch.Tensor], obs: Mapping[str, np.ndarray], mode: str = 'train'
    ):
        """Act on one frame of every env.

        Args:
            carry: of init_policy or the last call. obs: key -> (N, ...).
            mode: 'train' samples, and acts at random until the policy has begun to learn; 'sample'
                always samples the policy; 'mode' takes its most likely action.

        Returns:
            carry, action dict of numpy arrays (N, ...).
        """
        if mode not in ('train', 'sample', 'mode'):
            raise ValueError(f"policy: mode must be 'train', 'sample' or 'mode', got {mode!r}")
        kind = (
            'mode'
            if mode == 'mode'
            else 'explore'
            if mode == 'train' and not self.schedule.reached('policy')
            else 'sample'
        )
        seen = {
            f'seen/{k}': torch.from_numpy(np.ascontiguousarray(obs[k])).to(self.device)
            for k in [*self.obs_keys, 'is_first']
        }
        out = self._run(('policy', kind), lambda flat: self._act(kind, flat), carry | seen)
        actions = {
            k.removeprefix('act/'): v.cpu().numpy() for k, v in out.items() if k.startswith('act/')
        }
        # cloned: a recording will write into the same tensors for whoever acts next
        return {k: out[k].clone() for k in carry}, actions

    def _act(self, kind: str, flat: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The next carry, and under 'act/' the actions: work for the device alone."""
        seen = {k.removeprefix('seen/'): v for k, v in flat.items() if k.startswith('seen/')}
        carry = {k: v for k, v in flat.items() if not k.startswith('seen/')}
        push = lambda old, new: torch.cat([old[:, 1:], new[:, None]], 1)
        with self.machine.autocast():
            carry['is_first'] = push(carry['is_first'], seen['is_first'])
            carry['code'] = push(carry['code'], carry['action'])
            carry['latent'] = push(carry['latent'], self._encode_last(carry, seen))
            if 'task_id' in self.obs_keys:
                carry['task'] = push(carry['task'], seen['task_id'].long())
            if kind == 'explore':
                code = self._explore(carry['action'], seen['is_first'])
            else:
                policy = self.actions.policy(self.acting_policy.module(self._act_inputs(carry)))
                code = policy.mode() if kind == 'mode' else policy.sample()
        carry['action'] = code
        return carry | {f'act/{k}': v for k, v in self.actions.decode(code).items()}

    def _encode_last(self, carry, seen) -> torch.Tensor:
        """Packed latent (N, S, W) of the newest frame; a tokenizer with time layers re-reads the
        window.
        """
        frames = {k: seen[k][:, None] for k in self.frame_keys}
        is_first = carry['is_first'][:, -1:]
        if self.config.tokenizer.time_every:
            for key, new in frames.items():
                carry[f'obs/{key}'] = torch.cat([carry[f'obs/{key}'][:, 1:], new], 1)
            frames, is_first = {k: carry[f'obs/{k}'] for k in frames}, carry['is_first']
        return self.dynamics.pack(
            self.slow_tokenizer.module.encode(frames, is_first, frames=NEWEST)
        )[:, -1]

    def _act_inputs(self, carry) -> torch.Tensor:
        """Head inputs (N, F) of the newest frame. The window is read anew every step: weights
        change between steps, caches would not.
        """
        first = carry['is_first']
        context = self.dynamics.commit(
            carry['latent'],
            self.actions.embed(carry['code']),
            ~first,
            first,
            carry['task'],
            noise=False,
            frames=NEWEST,
        )
        return self.heads.inputs(context.feature[:, -1], context.view[:, -1])

    def _explore(self, last: torch.Tensor, is_first: torch.Tensor) -> torch.Tensor:
        """Random codes (N, M), each held for `actor.hold` decisions in the mean: coherent motion
        shows more than jitter.
        """
        fresh = self.actions.uniform(len(last))
        keep = (
            torch.rand(len(last), device=self.device) < 1 - 1 / self.config.actor.hold
        ) & ~is_first
        return torch.where(keep[:, None], last, fresh)

    def save_carry(self, carry: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The carry as numpy arrays."""
        return {k: v.cpu().numpy() for k, v in carry.items()}

    def load_carry(self, tree: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Inverse of save_carry."""
        return {k: torch.from_numpy(np.asarray(v).copy()).to(self.device) for k, v in tree.items()}

    # -- learning

    @own_stream
    def train(self, sample: Callable[[int, int], Mapping[str, np.ndarray]]) -> dict[str, float]:
        """One update of every part whose stage has begun.

        Args:
            sample: (sequences, rows) -> stored rows, key -> (sequences, rows, ...).

        Returns:
            metrics.

        Raises:
            NonFiniteLoss: before any parameter of the failing part moved.
        """
        size, length = self._batch_shape()
        rows = sample(size, length + 1)
        plan = self._plan()
        batch = self._batch(rows)
        # here alone the host waits for the device
        metrics = fetch(
            self._run(plan, lambda flat: self._update(plan, Batch.of(flat)), batch.flat())
        )
        try:
            for optimizer in self.optimizers.values():
                optimizer.check(metrics)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f'{error}. {batch.blame()}') from error
        metrics = {k: v for k, v in metrics.items() if not k.endswith('/nonfinite')}
        self.updates += 1
        if 'tokenizer/unexplained' in metrics:
            unexplained = (
                metrics['tokenizer/unexplained'] if metrics['tokenizer/frames_vary'] else None
            )
            self.schedule.measure('unexplained', unexplained, 0.98)
        if self.schedule.gate_due():
            metrics |= self._gate(sample)
        self._tell_beyond(metrics)
        self._advance()
        return metrics

    def _tell_beyond(self, metrics: Mapping[str, float]) -> None:
        """Say once of rewards, and once of returns, that there are some beyond the outermost
        bin.
        """
        for name in ('reward', 'value'):
            if metrics.get(f'{name}/beyond') and name not in self._told:
                self._told.append(name)
                self._events.append(
                    beyond_bins(name, metrics, self.config.heads.limit, self.config.value.gamma)
                )

    def _plan(self) -> Plan:
        """Decide what the next update does, and tell the optimizers that take part."""
        c, reached, pace = self.config, self.schedule.reached, self.schedule.pace()
        warm, every, epochs = reached('dynamics'), c.imagination.every, c.imagination.epochs
        tokenizer = not warm or (
            'tokenizer' in self.optimizers
            and c.tokenizer_training.rate > 0
            and self.updates % c.tokenizer_training.every == 0
        )
        value = reached('value') and self.updates % every == every - 1
        policy = value and reached('policy')
        # learners of this update -> gradient steps, factor on the learning rate
        steps = {
            'tokenizer': (tokenizer, 1, c.tokenizer_training.rate * pace if warm else 1.0),
            'model': (warm, 1, c.model_training.rate * pace if reached('policy') else 1.0),
            'value': (value, epochs, pace),
            'policy': (policy, epochs, pace),
        }
        shape, started = (
            self._batch_shape(),
            self.optimizers['model'].updates >= c.shortcut.bootstrap_start,
        )
        roles = Roles.draw(
            shape[0],
            c.shortcut.bootstrap * started,
            c.batch.single,
            np.random.default_rng(self.updates),
        )
        for name, (learns, count, scale) in steps.items():
            if learns and name in self.optimizers:
                self.optimizers[name].begin(count, scale)
        joint = warm and tokenizer and c.tokenizer_training.model > 0
        return Plan(shape, tokenizer, not warm, joint, warm, roles, value, policy)

    def _update(self, plan: Plan, batch: Batch) -> dict[str, torch.Tensor]:
        """Carry out a plan: work for the device alone."""
        metrics, batch = {}, batch.shuffled()
        if plan.tokenizer and not plan.joint:
            loss, metrics = self._tokenizer_loss(plan, batch)
            if 'tokenizer' in self.optimizers:
                metrics |= self.optimizers['tokenizer'].step(loss)
                self.slow_tokenizer.follow()
        if plan.model:
            metrics |= self._train_model(plan, batch)
        return metrics

    def _batch_shape(self) -> tuple[int, int]:
        """(B, T): every long_every-th batch is long and has as many frames (Dreamer 4, Section
        3.4). A tokenizer of single frames that learns alone gets `frames` frames from all over the
        replay: neighbours look alike, and from a few sequences it learns half as fast.
        """
        c = self.config.batch
        if not self.schedule.reached('dynamics') and not self.config.tokenizer.time_every:
            return c.frames, 1
        if c.long_every and self.updates % c.long_every == c.long_every - 1:
            return max(1, c.size * c.length // c.long_length), c.long_length
        return c.size, c.length

    def _batch(self, rows) -> Batch:
        return make_batch(rows, self.obs_keys, self.actions, self.device)

    def _tokenizer_loss(
        self, plan: Plan, batch: Batch, latent: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss on single frames drawn from the batch, or on its first sequences where the
        tokenizer looks back in time.
        """
        count, (rows, time) = self.config.batch.frames, batch.shape
        if self.config.tokenizer.mask_max or self.config.tokenizer.time_every:
            latent = None  # frames with dropped patches have latents of their own
        if self.config.tokenizer.time_every:
            part = batch.first(max(1, count // time))
            obs, is_first = {k: part.obs[k] for k in self.frame_keys}, part.is_first
        else:
            index = torch.rand(rows * time, device=self.device).argsort()[:count]
            obs = {k: batch.obs[k].flatten(0, 1)[index][:, None] for k in self.frame_keys}
            is_first = torch.ones(len(index), 1, dtype=torch.bool, device=self.device)
            if latent is not None:
                latent = latent.flatten(0, 1)[index][:, None]
        if plan.measure:
            # later it stays: latents that have been learned from must not move
            self.tokenizer.measure(obs)
        with self.machine.autocast():
            parts, metrics = self.tokenizer.losses(obs, is_first, self.perceptual, latent)
        # of normalised losses: before, it would be divided out
        weights = {'lpips': perceptual.weight(self.config.tokenizer)}
        loss = sum(weights.get(k, 1.0) * self.rms(k, v) for k, v in parts.items())
        return loss, {f'tokenizer/{k}': v.detach() for k, v in (parts | metrics).items()}

    def _train_model(self, plan: Plan, batch: Batch) -> dict[str, torch.Tensor]:
        """One step of dynamics and heads, and from the value stage on of value and policy on
        imagined trajectories.
        """
        batch = batch.cut(*plan.roles.single)
        with self.machine.autocast():
            shared, latent = self._encoded(batch) if plan.joint else (None, None)
            context = self._commit(batch, measure=True, latent=shared)
            total, parts = self._model_loss(batch, context, plan.roles.large)
        metrics = {f'loss/{k}': v.detach() for k, v in parts.items()} | self._size(
            'reward', batch.reward, batch.reward_valid & ~batch.is_first
        )
        if plan.value:
            metrics |= self._train_actor_critic(plan, batch, context.detach())
        if not plan.joint:
            return metrics | self.optimizers['model'].step(total)
        loss, found = self._tokenizer_loss(plan, batch, latent)
        metrics |= found | descend(
            total + loss, self.optimizers['model'], self.optimizers['tokenizer']
        )
        self.slow_tokenizer.follow()
        return metrics

    def _train_actor_critic(
        self, plan: Plan, batch: Batch, context: Context
    ) -> dict[str, torch.Tensor]:
        """Some steps of value and policy on one dream; metrics are those of the first, a refused
        step is told whichever it was.
        """
        with self.machine.autocast():
            dream = self._dream(batch, context)
        metrics = {}
        for _ in range(self.config.imagination.epochs):
            with self.machine.autocast():
                parts, found = self._actor_critic_losses(dream)
            if plan.policy:
                found |= self.optimizers['policy'].step(parts['policy'])
                self.acting_policy.follow()
                if self.config.actor.prior == 'slow':
                    self.slow_policy.follow()
            found |= self.optimizers['value'].step(parts['value'])
            self.slow_value.follow()
            metrics = (
                found
                | metrics
                | {
                    k: v.maximum(metrics.get(k, v))
                    for k, v in found.items()
                    if k.endswith('/nonfinite')
                }
            )
        return metrics

    def _encoded(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, T, L, Z) of the tokenizer that learns, twice: with the share of the gradient
        that the model may send to the encoder, and with all of it for the tokenizer's own loss.
        """
        z = self.tokenizer.encode({k: batch.obs[k] for k in self.frame_keys}, batch.is_first)
        return z.detach().lerp(z, self.config.tokenizer_training.model), z

    def _commit(
        self, batch: Batch, measure: bool = False, latent: torch.Tensor | None = None
    ) -> Context:
        """Latents and the committed pass over them, with gradient into the dynamics.

        Args:
            measure: whether the dynamics learn the usual moves from them.
            latent: (B, T, L, Z); those of the slow tokenizer if None.
        """
        z = latent
        if z is None:
            with torch.no_grad():
                z = self.slow_tokenizer.module.encode(
                    {k: batch.obs[k] for k in self.frame_keys}, batch.is_first
                )
        z = self.dynamics.pack(z)
        if measure:
            self.dynamics.coordinates.measure(z, batch.is_first)
        return self.dynamics.commit(
            z,
            self.actions.embed(batch.prev_action),
            batch.prev_valid,
            batch.is_first,
            self._task(batch),
        )

    def _task(self, batch: Batch) -> torch.Tensor | None:
        return batch.obs['task_id'].long() if 'task_id' in self.obs_keys else None

    def _model_loss(
        self, batch: Batch, context: Context, large: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Weighted sum and its parts; `large` as in shortcut.loss. Flow and bootstrap are
        normalised as one term: alone, the bootstrap of a zero output is zero.
        """
        s, action = self.config.scales, self.actions.embed(batch.prev_action)
        forcing = shortcut.loss(
            self.dynamics,
            context,
            action,
            batch.prev_valid,
            batch.is_first,
            self.config.shortcut,
            large,
        )
        parts = {k: v.mean() for k, v in forcing.items()}
        feature, view = context.feature, context.view
        if self.config.heads.learn_on == 'noised':
            feature, view = shortcut.noised_features(
                self.dynamics, context, action, batch.prev_valid, batch.is_first, self._task(batch)
            )
        parts |= self.heads.losses(self.heads.inputs(feature, view), batch, self._usable(batch))
        return (
            s.dynamics * self.rms('dynamics', sum(parts[k] for k in forcing))
            + s.reward * self.rms('reward', parts['reward'])
            + s.behaviour * self.rms('behaviour', parts['behaviour'])
            + s.cont * parts['cont']
        ), parts

    def _usable(self, batch: Batch) -> torch.Tensor:
        """bool (B, T): frames that heads learn from and dreams start at, with a past and not cut
        into single images.
        """
        return ~batch.single[:, None] & self.dynamics.coordinates.known(batch.is_first)

    @torch.no_grad()
    def _dream(self, batch: Batch, context: Context) -> Dream:
        """Imagine from frames of the batch and score what was imagined (Dreamer 4, Section 3.3)."""
        c = self.config
        rows, frames = draw_starts(self._usable(batch) & ~batch.is_terminal, c.imagination.starts)
        act = lambda x, t: self.heads.policy(x).sample()
        trajectory = imagine(
            self.dynamics,
            self.heads,
            context,
            rows,
            frames,
            c.imagination.horizon,
            c.shortcut.steps,
            act,
            self._task(batch),
        )
        reward, cont = self.heads.reward(trajectory.inputs), self.heads.cont(trajectory.inputs)
        cont[:, 0] = 1 - batch.is_terminal[rows, frames].float()
        return self._score(trajectory.inputs, trajectory.action, reward, cont)

    def _score(
        self, x: torch.Tensor, action: torch.Tensor, reward: torch.Tensor, cont: torch.Tensor
    ) -> Dream:
        """What value and policy learn from: inputs (W, H + 1, F), action (W, H, M), and reward and
        cont (W, H + 1) on arrival at frames 0 .. H."""
        c = self.config
        target_value = self.heads.twohot.mean(self.slow_value.module(x))
        returns = {
            lam: losses.lambda_return(reward, cont, target_value, c.value.gamma, lam)
            for lam in {c.value.lam, c.actor.lam}
        }
        if c.actor.loss == 'reinforce':
            self._track_returns(returns[c.actor.lam])
        return Dream(
            x[:, :-1],
            action,
            reward[:, 1:],
            cont[:, 1:],
            returns[c.value.lam],
            returns[c.actor.lam],
            losses.alive(cont),
        )

    def _actor_critic_losses(
        self, dream: Dream
    ) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Score value and policy on a dream; only their heads receive gradient (Dreamer 4,
        Section 3.3).
        """
        c, weight = self.config, dream.weight
        logits = self.heads.value_head(dream.inputs)
        baseline = self.heads.twohot.mean(logits.detach())
        advantage = dream.returns - baseline
        policy, prior = self.heads.policy(dream.inputs), self._prior(dream.inputs)
        log_prob, entropy = policy.log_prob(dream.action), policy.entropy()
        if c.actor.loss == 'pmpo':
            objective = losses.pmpo(log_prob, advantage, weight, c.actor.alpha, c.actor.floor)
        else:
            objective = losses.reinforce(log_prob, advantage, weight, self.return_range)
        kl = policy.kl(prior) if prior is not None else torch.zeros_like(log_prob)
        out = {
            'policy': (
                objective
                + c.actor.beta * losses.mean(kl, weight)
                - c.actor.entropy * losses.mean(entropy, weight)
            ),
            'value': losses.mean(self.heads.twohot.loss(logits, dream.targets), weight),
        }
        metrics = {
            'policy/loss': objective,
            'policy/entropy': losses.mean(entropy, weight),
            'policy/kl': losses.mean(kl, weight),
            'policy/positive': losses.mean((advantage >= 0).float(), weight),
            'policy/advantage_std': advantage.std(),
            'value/loss': out['value'],
            'value/mean': losses.mean(baseline, weight),
            'value/return': losses.mean(dream.targets, weight),
            'value/explained': report.correlation(baseline, dream.targets),
            'imagination/reward': losses.mean(dream.reward, weight),
            'imagination/cont': losses.mean(dream.cont, weight),
        }
        metrics |= self._size('value', dream.targets, weight > 0)
        return out, {k: v.detach() for k, v in metrics.items()}

    def _size(
        self, name: str, target: torch.Tensor, where: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Of targets of the two-hot heads: the largest size, and the share that lies beyond the
        outermost bin.
        """
        beyond = losses.mean(self.heads.twohot.beyond(target).float(), where.float())
        return {
            f'{name}/beyond': beyond,
            f'{name}/largest': torch.where(where, target.abs(), 0.0).max(),
        }

    def _prior(self, x: torch.Tensor):
        """The distribution the policy is held to, without gradient; None if there is none."""
        kind = self.config.actor.prior
        with torch.no_grad():
            if kind == 'behaviour':
                return self.heads.behaviour(x)
            if kind in ('slow', 'frozen'):
                return self.actions.policy(self.slow_policy.module(x))
        return None

    @torch.no_grad()
    def _track_returns(self, returns: torch.Tensor) -> None:
        """Running 5 % to 95 % range of returns, the scale of the REINFORCE objective."""
        low, high = (torch.quantile(returns.flatten(), share) for share in (0.05, 0.95))
        moved = self.return_range.lerp(high - low, 0.01)
        # a refused batch leaves it as it was
        self.return_range.copy_(torch.where(moved.isfinite(), moved, self.return_range))

    @torch.no_grad()
    def _gate(self, sample) -> dict[str, float]:
        """Measure the world model open loop; the policy may start once it predicts the reward."""
        batch = self._batch(
            sample(self.config.schedule.gate_sequences, self.config.batch.length + 1)
        )
        metrics = fetch(self._model_metrics(batch)[0])
        for name, key, needs in (
            ('reward_skill', 'reward_skill', 'rewards_vary'),
            ('latent_error', 'error', 'frames_move'),
        ):
            self.schedule.measure(name, metrics[key] if metrics[needs] else None, 0.5)
        return {f'gate/{k}': v for k, v in metrics.items() if '/' not in k}

    def _model_metrics(self, batch: Batch):
        """Diagnostics of the world model on fresh sequences, and the context they were measured
        in.
        """
        with self.machine.autocast():
            context = self._commit(batch)
            start = min(self.config.actor.context, batch.shape[1] // 2) - 1
            return (
                report.model_metrics(
                    self.dynamics,
                    self.heads,
                    context,
                    batch,
                    start,
                    self.config.shortcut.steps,
                    self.config.value.gamma,
                    self._task(batch),
                ),
                context,
                start,
            )

    def _advance(self) -> None:
        """Go to the next stage if it is time; some stages begin with a copy."""
        before = self.schedule.stage
        self._events += self.schedule.advance()
        if self.schedule.stage == before:
            return
        if self.recorder:
            self.recorder.forget()  # the plans of a stage do not come again
        if self.schedule.stage == 'dynamics':
            self.slow_tokenizer.follow(1.0)
        if self.schedule.stage == 'value' and self.config.actor.start == 'behaviour':
            self.heads.start_policy_from_behaviour()
            for copy in (self.slow_policy, self.acting_policy):
                copy.follow(1.0)

    # -- reporting

    @torch.no_grad()
    @own_stream
    def report(
        self, sample: Callable[[int, int], Mapping[str, np.ndarray]]
    ) -> dict[str, float | np.ndarray]:
        """Diagnostics on fresh sequences and open-loop videos; see dreamer4/report.py."""
        batch = self._batch(
            sample(self.config.schedule.gate_sequences, self.config.batch.length + 1)
        )
        metrics, context, start = self._model_metrics(batch)
        with self.machine.autocast():
            latent = self.dynamics.unpack(context.latent)
            metrics |= report.image_metrics(self.slow_tokenizer.module, batch, latent)
            loop = report.open_loop(
                self.dynamics, self.heads, context, batch, start, self.config.shortcut.steps
            )
            videos = report.video(self.slow_tokenizer.module, self.dynamics, loop, batch, start)
        return fetch(metrics) | {f'openloop/{k}': v for k, v in videos.items()}

    # -- state

    def save(self) -> dict:
        """Everything that decides how training goes on, as nested dicts of numpy arrays and JSON
        values.
        """
        return pack_tree(
            {name: part.state_dict() for name, part in self._parts().items()}
            | {
                'updates': self.updates,
                'return_range': self.return_range,
                'told': list(self._told),
                'random': self.machine.save(),
            }
        )

    def load(self, tree: Mapping) -> None:
        """Restore what save returned.

        Raises:
          CheckpointError: parts or parameters are missing, unexpected or of another shape; names
              them.
        """
        tree = unpack_tree(tree)
        if self.recorder:
            self.recorder.forget()
        try:
            for name, part in self._parts().items():
                part.load_state_dict(tree[name])
            self.updates, self._told = int(tree['updates']), list(tree.get('told', []))
            self.return_range.copy_(tree['return_range'])
            self.machine.load(tree['random'])
        except (
            RuntimeError,
            LookupError,
            ArithmeticError,
            ValueError,
            TypeError,
            AttributeError,
        ) as error:
            known = [line.strip() for line in str(error).splitlines()]
            text = ' '.join(known[:4]) + (f' and {len(known) - 4} more' if len(known) > 4 else '')
            raise CheckpointError(
                f'the checkpoint was made for another agent ({type(error).__name__}): {text}'
            ) from error

    def _parts(self) -> dict:
        """Everything with a state_dict, by its name in a checkpoint."""
        return {
            'tokenizer': self.tokenizer,
            'dynamics': self.dynamics,
            'heads': self.heads,
            'rms': self.rms,
            'slow_tokenizer': self.slow_tokenizer,
            'slow_value': self.slow_value,
            'slow_policy': self.slow_policy,
            'acting_policy': self.acting_policy,
            'schedule': self.schedule,
        } | {f'optim_{name}': optimizer for name, optimizer in self.optimizers.items()}

    @property
    def _run(self):
        """(key, work, tensors) -> tensors: how work for the device is carried out."""
        return self.recorder.run if self.recorder else plainly


def compile_parts(*parts: Tokenizer | Dynamics) -> None:
    """Have torch compile the passes of tokenizers and dynamics at their first calls, once for
    every shape.
    """
    # train, act, imagine, measure: other shapes
    torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)
    for part in parts:
        for method in (
            ('encode', 'decode') if isinstance(part, Tokenizer) else ('denoise', 'observe')
        ):
            setattr(part, method, torch.compile(getattr(part, method), dynamic=False))


def fetch(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Scalars on the device -> floats, in one transfer."""
    if not metrics:
        return {}
    return dict(zip(metrics, torch.stack([v.float() for v in metrics.values()]).tolist()))
