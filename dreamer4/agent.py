"""The agent: which part acts, which learns when, and what is kept. What a world model is stands in
worlds/, what policy and value are in actor_critic.py.

Letters: N envs, B sequences, T time, M action code, F features of a frame.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from gymnasium import spaces

from embodied.base import UNLABELED, Spaces, Status

from . import ranks, worlds
from .actions import Actions
from .actor_critic import WATCHED, ActorCritic, Real
from .agent_config import AgentConfig, check, share
from .batch import Batch, make_batch
from .cache import frames_gb
from .feed import Feed, Meal, Needs
from .heads import beyond_bins
from .machine import Machine, MachineConfig, own_stream
from .machine import check as check_machine
from .optim import NonFiniteLoss
from .player import Player
from .record import CudaGraphs, plainly
from .schedule import Schedule
from .state import fitting, pack_tree, unpack_tree
from .summary import describe

FLAGS = ('reward', 'is_first', 'is_last', 'is_terminal', *UNLABELED, 'task_id')
# measure that a stage waits for -> its metric, and the metric that says whether there is any
GATES = {
    'reward_skill': ('reward_skill', 'rewards_vary'),
    'latent_error': ('error', 'frames_move'),
}


@dataclass(frozen=True)
class Plan:
    """What one update does: every decision made on the host. Given the plan, an update is pure
    device work and can be recorded.

    Attributes:
        shape: (B, T) of the batch. world: plan of the world model. value, policy: they learn from a
            dream.
    """

    shape: tuple[int, int]
    world: Hashable
    value: bool
    policy: bool


class Agent:
    """A world model, and an actor and a critic that learn in it: implements embodied.Agent.

    Args:
        obs_space, act_space: name -> gymnasium space as the driver reports them ('log/' keys and
            'reset' are ignored).
        config: AgentConfig.
        machine: where it computes; decides nothing that is learned.
        seed: of its stream of torch's random numbers, the caller's is left alone; and with the
            number of an update, of what the host draws for it.

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
        self.obs_space, self.act_space = dict(obs_space), dict(act_space)
        self.config, self.machine = share(config, ranks.count()), Machine(machine, ranks.own(seed))
        self.device, self._seed = self.machine.device, seed
        self._build(obs_space, act_space)

    @classmethod
    def from_config(cls, config, obs_space: Spaces, act_space: Spaces, seed: int = 0) -> 'Agent':
        """A fresh agent by the blocks `agent` and `machine` of an embodied.config.Config."""
        blocks = config.agent.build(AgentConfig), config.machine.build(MachineConfig)
        return cls(obs_space, act_space, *blocks, seed)

    @own_stream
    def _build(
        self, obs_space: Mapping[str, spaces.Space], act_space: Mapping[str, spaces.Space]
    ) -> None:
        config, machine = self.config, self.machine
        obs_space = {k: s for k, s in obs_space.items() if not k.startswith('log/')}
        seen = {k: s for k, s in obs_space.items() if k not in FLAGS}
        tasks = int(obs_space['task_id'].n) if 'task_id' in obs_space else 1
        self.obs_keys = sorted(seen) + ['task_id'] * (tasks > 1)
        self.actions = Actions(
            {k: s for k, s in act_space.items() if k != 'reset'},
            config.heads.continuous,
            config.heads.action_bins,
            config.heads.unimix,
        ).to(self.device)
        self.world: worlds.World = worlds.find(config.world)(
            seen, tasks, self.actions, config, machine
        )
        self.actor_critic = ActorCritic(
            self.world.parts, self.actions, config.actor_critic(), machine
        )
        if config.actor.start == 'behaviour' and self.world.clone is None:
            raise ValueError(
                f'agent.actor.start behaviour needs a world model that imitates; {config.world}'
                ' does not, take uniform'
            )
        self.player = Player(self.world, self.actor_critic, self.actions, self.obs_keys, machine)
        self.optimizers = self.world.optimizers | self.actor_critic.optimizers
        graphs = machine.config.graphs and self.device.type == 'cuda' and ranks.count() == 1
        self.recorder = CudaGraphs(self.device) if graphs else None
        self.schedule = Schedule(config.schedule, self.world.stages)
        self.updates = 0
        ranks.align(self._tensors())
        # sentences that are waiting; what has been told once and for all
        self._events, self._told = list(self.world.notes), []

    # -- properties of the contract

    @property
    def frames_per_update(self) -> int:
        """B T: replayed frames of one update, of all ranks, whether the batch is short or long."""
        return self.config.batch.frames_per_update * ranks.count()

    @property
    def sequence_rows(self) -> int:
        """Rows of the longest sequence of the batches, with the one that serves only for the
        shift.
        """
        return self.config.batch.longest + 1

    def status(self) -> Status:
        """Stage, what it waits for, and the metrics that tell how it goes."""
        stage, words = self.schedule.stage, self.schedule.waits_for()
        waits = words.removeprefix(stage).strip()
        watched = self.world.watched.get(stage, ()) + WATCHED.get(stage, ())
        return Status(stage, waits, stage == self.schedule.stages[-1], watched)

    def events(self) -> list[str]:
        """Sentences that a person should read, each once: those since the last call."""
        told, self._events = self._events, []
        return told

    def summary(self) -> str:
        """Parts, parameters and estimated FLOPs per update, as a table."""
        return describe(self)

    # -- acting

    def init_policy(self, num_envs: int) -> dict[str, torch.Tensor]:
        """Carry of envs before their first frame."""
        return self.player.begin(num_envs)

    @torch.no_grad()
    @own_stream
    def policy(
        self, carry: dict[str, torch.Tensor], obs: Mapping[str, np.ndarray], mode: str = 'train'
    ) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
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
        random = mode == 'train' and not self.schedule.reached('policy')
        kind = 'explore' if random else 'mode' if mode == 'mode' else 'sample'
        return self.player.step(kind, carry, obs, self.recorder)

    def save_carry(self, carry: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
        """The carry as numpy arrays."""
        return self.player.save(carry)

    def load_carry(self, tree: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Inverse of save_carry."""
        return self.player.load(tree)

    # -- learning

    def feed(self, replay) -> Feed:
        """The stream of what train and report are given."""
        gigabytes = frames_gb(self.machine.config.cache, self.device)
        return Feed(replay, self.needs, self.batch, self.device, gigabytes)

    def batch(self, rows: Mapping[str, np.ndarray | torch.Tensor]) -> Batch:
        """Rows of a replay, key -> (B, T+1, ...), as frames on the device."""
        return make_batch(rows, self.obs_keys, self.actions, self.device)

    def needs(self) -> Needs:
        """What the next update is to be made of."""
        size, length = self.world.shape(self.updates, self.schedule.begun)
        measured = self.config.schedule.gate_sequences, self.config.batch.length + 1
        return Needs((size, length + 1), measured, self.schedule.gate_due())

    @own_stream
    def train(self, meal: Meal) -> dict[str, float]:
        """One update of every part whose stage has begun.

        Args:
            meal: of the feed, made for this update.

        Returns:
            metrics.

        Raises:
            NonFiniteLoss: before any parameter of the failing part moved.
        """
        batch = meal.batch
        plan = self._plan(batch.shape)
        run = self.recorder.run if self.recorder else plainly
        # here alone the host waits for the device
        metrics = fetch(run(plan, lambda flat: self._update(plan, Batch.of(flat)), batch.flat()))
        try:
            for optimizer in self.optimizers.values():
                optimizer.check(metrics)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(f'{error}. {batch.blame()}') from error
        metrics = {k: v for k, v in metrics.items() if not k.endswith('/nonfinite')}
        self.updates += 1
        if 'tokenizer/unexplained' in metrics:
            varies = metrics['tokenizer/frames_vary']
            unexplained = metrics['tokenizer/unexplained'] if varies else None
            self.schedule.measure('unexplained', unexplained, 0.98)
        if meal.gate is not None:
            metrics |= self._gate(meal.gate)
        self._tell_beyond(metrics)
        self._advance()
        return metrics

    def _plan(self, shape: tuple[int, int]) -> Plan:
        """Decide what the next update does, on a batch (B, T), and tell the optimizers that take
        part.
        """
        every, pace = self.config.imagination.every, self.schedule.pace()
        rng = np.random.default_rng([self._seed, self.updates])
        turn = worlds.Turn(self.updates, shape[0], self.schedule.begun, pace, rng)
        world = self.world.plan(turn)
        value = self.schedule.reached('value') and self.updates % every == every - 1
        policy = value and self.schedule.reached('policy')
        if value:
            self.actor_critic.begin(policy, pace)
        return Plan(shape, world, value, policy)

    def _update(self, plan: Plan, batch: Batch) -> dict[str, torch.Tensor]:
        """Carry out a plan: the world model's losses, a dream and what is learned from it, then the
        world model's step.
        """
        losses = self.world.losses(plan.world, batch)
        metrics = losses.metrics
        if plan.value:
            with self.machine.autocast():
                dream = self.world.imagine(losses.context, losses.batch, self._choose)
            targets, replay = self.actor_critic.score(dream), self.config.value.replay > 0
            real = Real(losses.batch, losses.features) if replay else None
            metrics = metrics | self.actor_critic.learn(dream, targets, plan.policy, real)
            if real is not None:
                lesson = self.actor_critic.teach(dream, targets, real)
                losses = replace(losses, total=losses.total + lesson)
        return metrics | self.world.step(plan.world, losses)

    def _choose(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes (W, M) of the policy that learns and their features (W, A), at features (W, F) of
        a dream.
        """
        policy = self.actor_critic.policy(x)
        code = policy.sample()
        if self.config.actor.backprop:
            return code.detach(), self.actions.embed_sampled(code, policy)
        return code, self.actions.embed(code)

    @torch.no_grad()
    def _gate(self, batch: Batch) -> dict[str, float]:
        """Measure the world model open loop; the policy may start once it predicts the reward."""
        metrics = fetch(self.world.measure(batch))
        for name, (key, needs) in GATES.items():
            self.schedule.measure(name, metrics[key] if metrics[needs] else None, 0.5)
        return {f'gate/{k}': v for k, v in metrics.items() if '/' not in k}

    def _advance(self) -> None:
        """Go to the next stage if it is time; some stages begin with a copy."""
        before = self.schedule.stage
        self._events += self.schedule.advance()
        if self.schedule.stage == before:
            return
        if self.recorder:
            self.recorder.forget()  # the plans of a stage do not come again
        self.world.enter(self.schedule.stage)
        if self.schedule.stage == 'value' and self.config.actor.start == 'behaviour':
            self.actor_critic.start_from(self.world.clone)

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

    # -- reporting

    @torch.no_grad()
    @own_stream
    def report(self, batch: Batch) -> dict[str, float | np.ndarray]:
        """Diagnostics on fresh sequences, and open-loop videos."""
        metrics, videos = self.world.report(batch)
        return fetch(metrics) | {f'openloop/{k}': v for k, v in videos.items()}

    # -- state

    def save(self) -> dict:
        """Everything that decides how training goes on, as nested dicts of numpy arrays and JSON
        values.
        """
        return pack_tree(
            {name: part.state_dict() for name, part in self._parts().items()}
            | {'updates': self.updates, 'told': list(self._told), 'random': self.machine.save()}
        )

    def save_pretrained(
        self, folder: str | Path, run: str | Path | None = None, push: str = ''
    ) -> Path:
        """Write it as a folder that from_pretrained() loads anywhere; see pretrained.py."""
        from .pretrained import save_pretrained

        return save_pretrained(self, folder, run, push)

    def load(self, tree: Mapping) -> None:
        """Restore what save returned, or that without the optimizers.

        Raises:
          CheckpointError: it was made for another agent; names what does not fit.
        """
        tree = unpack_tree(tree)
        if self.recorder:
            self.recorder.forget()
        with fitting():
            for name, part in self._parts().items():
                if name in tree or not name.startswith(
                    'optim_'
                ):  # pretrained: none, they begin anew
                    part.load_state_dict(tree[name])
            self.updates, self._told = int(tree['updates']), list(tree.get('told', []))
            if not ranks.number():
                self.machine.load(tree['random'])
        ranks.align(self._tensors())

    def _tensors(self) -> Iterator[torch.Tensor]:
        """What the networks hold: all ranks have the same."""
        for part in (self.world.state() | self.actor_critic.state()).values():
            module = getattr(part, 'module', part)
            yield from (*module.parameters(), *module.buffers())

    def _parts(self) -> dict:
        """Everything with a state_dict, by its name in a checkpoint."""
        return (
            self.world.state()
            | self.actor_critic.state()
            | {'schedule': self.schedule}
            | {f'optim_{name}': optimizer for name, optimizer in self.optimizers.items()}
        )


def fetch(metrics: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Scalars on the device -> floats, means over the ranks, in one transfer."""
    if not metrics:
        return {}
    return dict(
        zip(metrics, ranks.mean(torch.stack([v.float() for v in metrics.values()])).tolist())
    )
