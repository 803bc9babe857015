"""The agent: which part acts, which learns when, and what is kept. What a world model is stands in
worlds/, what policy and value are in actor_critic.py.

Letters: N envs, B sequences, T time, M action code, F features of a frame.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from embodied.base import Shards, Spaces, Status, Stored
from embodied.tasks import KEY

from . import ranks, worlds
from .actions import Actions
from .actor_critic import WATCHED, ActorCritic
from .agent_config import AgentConfig, check, share
from .batch import Batch, make_batch, observed
from .cache import frames_gb
from .feed import Feed, Meal
from .gate import Gate
from .machine import Machine, MachineConfig, own_stream
from .machine import check as check_machine
from .notices import Notices
from .player import Player
from .record import recorder
from .schedule import Schedule
from .sharing import Blocks
from .state import fetch, fitting, held, modules, pack, unpack
from .summary import describe
from .tasks import Tasks
from .updater import Updater, accepted

Place = str | Path


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
        obs_space: Spaces,
        act_space: Spaces,
        config: AgentConfig,
        machine: MachineConfig,
        seed: int,
    ):
        check(config)
        check_machine(machine, config)
        self.obs_space, self.act_space = dict(obs_space), dict(act_space)
        self.config, self.machine = share(config, ranks.count()), Machine(machine, ranks.own(seed))
        self.device, self._seed = self.machine.device, seed
        with self.machine.random():
            self._build()

    @classmethod
    def from_config(cls, config, obs_space: Spaces, act_space: Spaces, seed: int = 0) -> 'Agent':
        """A fresh agent by the blocks `agent` and `machine` of an embodied.config.Config."""
        blocks = config.agent.build(AgentConfig), config.machine.build(MachineConfig)
        return cls(obs_space, act_space, *blocks, seed)

    def _build(self) -> None:
        config, heads, machine = self.config, self.config.heads, self.machine
        (seen, self.obs_keys), tasks = observed(self.obs_space), Tasks(self.obs_space)
        acts = {k: s for k, s in self.act_space.items() if k != 'reset'}
        task_id = self.obs_space.get(KEY)
        actions = Actions(acts, *heads.box, heads.unimix, task_id)
        self.actions, tasks = actions.to(self.device), tasks.to(self.device)
        self.world = worlds.build(config, seen, tasks, self.actions, machine)
        learns = config.actor_critic()
        self.actor_critic = ActorCritic(
            self.world.parts, self.actions, learns, machine, tasks.count
        )
        who = self.world, self.actor_critic, self.actions
        self.player = Player(*who, self.obs_keys, machine)
        self.updater = Updater(*who, config, machine, self._seed)
        self.optimizers = self.world.optimizers | self.actor_critic.optimizers
        self.recorder = recorder(machine.config, self.device)
        self.schedule = Schedule(config.schedule, self.world.stages, config.batch.long_length > 0)
        self.gate = Gate(self.updater, self.schedule, machine)
        self.updates, self.notices = 0, Notices(self.world.notes)
        ranks.align(held(self.world, self.actor_critic))
        self.blocks = Blocks(*modules(self.world, self.actor_critic))
        self.blocks.gather()

    # -- what it is and how it goes

    @property
    def frames_per_update(self) -> int:
        """B T: replayed frames of one update, of all ranks, whether the batch is short or long."""
        return self.config.batch.frames_per_update * ranks.count()

    @property
    def sequence_rows(self) -> int:
        """Rows of the longest sequence of the batches, with the one that only the shift needs."""
        return self.config.batch.longest + 1

    def status(self) -> Status:
        """Stage, what it waits for, and the metrics that tell how it goes."""
        return self.schedule.status(self.world.watched, WATCHED)

    def events(self) -> list[str]:
        """Sentences that a person should read, each once: those since the last call."""
        return self.notices.take()

    def take(self, phases: tuple[str, ...], anew: bool) -> None:
        """Learn some phases, keys of schedule.PHASES; see embodied.Agent."""
        before = self.schedule.stage
        self.schedule.take(phases, anew)
        if self.schedule.stage != before or (anew and phases):
            self._enter()

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
        """Act on one frame of every env: the next carry, and actions as arrays (N, ...).

        Args:
            carry: of init_policy or the last call. obs: key -> (N, ...).
            mode: 'train' samples, and acts at random until the policy has begun to learn; 'sample'
                always samples the policy; 'mode' takes its most likely action.
        """
        kind = self.player.kind(mode, self.schedule.reached('policy'))
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
        needs = lambda: self.updater.needs(self.updates, self.schedule)
        return Feed(replay, needs, self.batch, self.device, gigabytes)

    def batch(self, rows: Mapping[str, np.ndarray | torch.Tensor]) -> Batch:
        """Rows of a replay, key -> (B, T+1, ...), as frames on the device."""
        return make_batch(rows, self.obs_keys, self.actions, self.device)

    @own_stream
    def train(self, meal: Meal) -> dict[str, float]:
        """One update of every part whose stage has begun, on what the feed made for it; metrics.

        Raises:
            NonFiniteLoss: before any parameter of the failing part moved.
        """
        batch = meal.batch
        work = lambda flat: self.updater.carry_out(plan, Batch.of(flat))
        with self.blocks.learning():
            plan = self.updater.plan(self.updates, batch.shape, self.schedule)
            made = self.recorder.run(plan, work, batch.flat())
            metrics = accepted(self.optimizers, fetch(made), batch)  # here alone the host waits
            self.updates += 1
            self.schedule.note(metrics)
            if meal.gate is not None:
                metrics |= self.gate.measure(meal.gate)
            self.notices.beyond(metrics, self.config.heads.limit, self.config.value.gamma)
            self._advance()
        return metrics

    def _advance(self) -> None:
        """Go to the next stage if it is time."""
        before = self.schedule.stage
        self.notices.add(self.schedule.advance())
        if self.schedule.stage != before:
            self._enter()

    def _enter(self) -> None:
        """The current stage begins; some begin with a copy."""
        self.recorder.forget()  # the plans of a stage do not come again
        self.world.enter(self.schedule.stage)
        if self.schedule.stage == 'value' and self.config.actor.prior == 'clone':
            self.actor_critic.start_from(self.world.clone)

    # -- reporting

    @torch.no_grad()
    @own_stream
    def report(self, batch: Batch) -> dict[str, float | np.ndarray]:
        """Diagnostics on fresh sequences, of all ranks, and open-loop videos."""
        metrics, videos = self.world.report(batch.joined())
        return fetch(metrics) | {f'openloop/{k}': v for k, v in videos.items()}

    # -- state

    def save(self) -> dict | Shards:
        """Everything that decides how training goes on, as nested dicts of numpy arrays and JSON
        values; on rank 0, where all ranks come to this call. Shards, where the machine asks for
        them and there are several ranks.
        """
        cut = self.machine.config.sharded_checkpoint and ranks.count() > 1
        if ranks.number() and not self.blocks and not cut:
            return {}
        told, random = list(self.notices.told), self.machine.save()
        rest = {'updates': self.updates, 'told': told, 'random': random}
        tree = pack(self._parts(), rest, cut)
        self.blocks.gather()
        return tree

    def save_pretrained(self, folder: Place, run: Place | None = None, push: str = '') -> Path:
        """Write it as a folder that from_pretrained() loads anywhere; see pretrained.py."""
        from .pretrained import save_pretrained

        return save_pretrained(self, folder, run, push)

    def load(self, tree: Mapping | Stored) -> None:
        """Restore what save returned, or that without the optimizers.

        Raises:
          CheckpointError: it was made for another agent; names what does not fit.
        """
        self.recorder.forget()
        self.blocks.part()
        with fitting():
            tree = unpack(self._parts(), tree)
            self.updates, self.notices.told = int(tree['updates']), list(tree.get('told', []))
            if ranks.number():  # there may have been no such rank
                self.machine.seed(ranks.own(self._seed, self.updates))
            else:
                self.machine.load(tree['random'])
        ranks.align(held(self.world, self.actor_critic))
        self.blocks.gather()

    def _parts(self) -> dict:
        """Everything with a state_dict, by its name in a checkpoint."""
        parts = self.world.state() | self.actor_critic.state() | {'schedule': self.schedule}
        return parts | {f'optim_{name}': optimizer for name, optimizer in self.optimizers.items()}
