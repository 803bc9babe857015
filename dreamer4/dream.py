"""A world model that is played: from real frames on, one action at a time, with all that the agent
believes of every frame. It knows no window, no server and no file.

A moment is a value: whoever keeps one may go back to it, and go on from it in another way.

Letters: N dreams at once, T time, C context frames, F features, M action code, X samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from embodied.base import Spaces
from embodied.tasks import KEY

from .actions import Actions
from .agent import Agent
from .machine import Machine, own_stream
from .nets.outputs import Policy
from .vectors import devectorize
from .worlds import Carry, Sampling

# Denoising steps, at least, of the samples whose spread is told: one look in a small step gives
# the mean of what may come, which has none.
SPREAD_STEPS = 4


@dataclass(frozen=True)
class Choice:
    """What the policy says of one component of an action.

    Attributes:
        key, index: of the component. values: (K,) what may be chosen, in the numbers of the space;
            (0,) where a normal says it.
        probs: (N, K). mean, std: (N,) of a normal over [low, high]; None where there are values.
    """

    key: str
    index: int
    values: np.ndarray
    probs: np.ndarray
    mean: np.ndarray | None = None
    std: np.ndarray | None = None


@dataclass(frozen=True)
class Moment:
    """N dreams at a frame, or N real frames as the agent sees them.

    Attributes:
        carry: state of the world model. features: (N, F).
        obs: key -> (N, ...) the frame as the model has it, in the shape and dtype of the env.
        reward: (N,) expected on arrival. cont: (N,) probability of going on. value: (N,) of what
            comes after. entropy: (N,) of the policy in nats.
        spread: (N,) root mean square, over the numbers of the frame, of the standard deviation of
            samples of it, images in [0, 1]; nan where none were drawn, and of a model that has
            learned nothing but means.
        task: long (N,), numbers of the tasks; None where there is one.
    """

    carry: Carry
    features: torch.Tensor
    obs: dict[str, np.ndarray]
    reward: np.ndarray
    cont: np.ndarray
    value: np.ndarray
    entropy: np.ndarray
    spread: np.ndarray
    task: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def take(self, index: np.ndarray) -> 'Moment':
        """The dreams at positions `index`, int (M,), of which one may stand there several times."""
        where = torch.from_numpy(np.asarray(index, np.int64)).to(self.features.device)
        pick = lambda x: x[where] if isinstance(x, torch.Tensor) else x[index]
        names = ('features', 'reward', 'cont', 'value', 'entropy', 'spread')
        return Moment(
            carry={k: pick(v) for k, v in self.carry.items()},
            obs={k: pick(v) for k, v in self.obs.items()},
            task=None if self.task is None else pick(self.task),
            **{name: pick(getattr(self, name)) for name in names},
        )

    def put(self, rows: np.ndarray, other: 'Moment') -> 'Moment':
        """This moment with those of `other` in the rows, bool (N,), that are set."""
        there = torch.from_numpy(np.asarray(rows, bool)).to(self.features.device)

        def pick(new, old):
            where = there if isinstance(new, torch.Tensor) else rows
            where = where.reshape(-1, *[1] * (new.ndim - 1))
            choose = torch.where if isinstance(new, torch.Tensor) else np.where
            return choose(where, new, old)

        both = lambda new, old: {k: pick(new[k], old[k]) for k in old}
        names = ('features', 'reward', 'cont', 'value', 'entropy', 'spread')
        return Moment(
            carry=both(other.carry, self.carry),
            obs=both(other.obs, self.obs),
            task=None if self.task is None else pick(other.task, self.task),
            **{name: pick(getattr(other, name), getattr(self, name)) for name in names},
        )


class Dream:
    """Plays in the world model of an agent.

    Args:
        agent: whose world model, policy and value these are; it is not changed.
        obs_space, act_space: of its env, see embodied.Env.
        seed: of the stream of random numbers, the agent's and the caller's are left alone.
        sampling: how the next frame is drawn. samples: X, of which the spread is told; 0: none.

    Attributes:
        context: C, frames that a dream remembers where the model keeps frames: what is older is
            forgotten, and what begin() looks at. sampling, samples: may be set at any time.

    Raises:
        ValueError: a setting that the model cannot follow.
    """

    def __init__(
        self,
        agent: Agent,
        obs_space: Spaces,
        act_space: Spaces,
        seed: int = 0,
        sampling: Sampling | None = None,
        samples: int = 0,
    ):
        self.agent, self.world, self.actions = agent, agent.world, agent.actions
        self.act_space = {k: s for k, s in act_space.items() if k != 'reset'}
        self.obs_space = {k: obs_space[k] for k in agent.obs_keys if k != KEY}
        self.context, self._keys = agent.config.actor.context, [*agent.obs_keys]
        self._tasks = getattr(obs_space.get(KEY), 'names', ())
        shortcut, kind = agent.config.shortcut, agent.config.world
        self._one_look = kind == 'dreamer4' and shortcut.anchor >= 1 and not shortcut.bootstrap
        self.reseed(seed)
        self.samples, self.sampling = samples, sampling or Sampling()

    @property
    def sampling(self) -> Sampling:
        """How the next frame is drawn."""
        return self._sampling

    @sampling.setter
    def sampling(self, how: Sampling) -> None:
        levels, steps = self.agent.config.dynamics.levels, how.steps
        if steps < 0 or steps & (steps - 1) or steps > levels:
            raise ValueError(
                f'sampling: steps must be a power of two up to {levels}, or 0; got {steps}'
            )
        if steps > 1 and self._one_look:
            raise ValueError(
                'sampling: with agent.shortcut.anchor 1 the model has learned to say the mean of a'
                f' frame in one step and no more; got {steps} steps'
            )
        if how.noise is not None and not 0 <= how.noise < 1:
            raise ValueError(f'sampling: noise must lie in [0, 1), got {how.noise}')
        self._sampling = how

    def reseed(self, seed: int) -> None:
        """Begin the stream of random numbers anew."""
        self.machine = Machine(self.agent.machine.config, seed)

    @torch.no_grad()
    @own_stream
    def begin(self, rows: Mapping[str, np.ndarray]) -> Moment:
        """The moment at the last of some real frames.

        Args:
            rows: as a replay stores them, key -> (N, T, ...): observations, actions and is_first.
                An action that is not known counts as the one that stands there.
        """
        code = self._code({k: rows[k] for k in self.act_space})
        count, time = rows['is_first'].shape
        with self.machine.autocast():
            carry, last = self.world.begin(count), torch.zeros_like(code[:, 0])
            for t in range(time):
                seen = self._seen({k: rows[k][:, t] for k in (*self._keys, 'is_first')})
                carry, last = self.world.observe(carry, seen, last), code[:, t]
        shown = {k: np.asarray(rows[k][:, -1]) for k in self.obs_space}
        return self._moment(carry, seen.get(KEY), obs=shown)

    @torch.no_grad()
    @own_stream
    def see(self, moment: Moment, action: Mapping, obs: Mapping[str, np.ndarray]) -> Moment:
        """Take in a real frame: the moment after `action`, key -> (N, ...), showed obs, key -> (N,
        ...), with is_first.
        """
        with self.machine.autocast():
            seen = self._seen(obs)
            carry = self.world.observe(moment.carry, seen, self._code(action))
        return self._moment(
            carry, seen.get(KEY), obs={k: np.asarray(obs[k]) for k in self.obs_space}
        )

    @torch.no_grad()
    @own_stream
    def step(self, moment: Moment, action: Mapping[str, np.ndarray]) -> Moment:
        """The moment that an action leads to, key -> (N, ...) in the act_space."""
        code, spread, how = self._code(action), None, self.sampling
        with self.machine.autocast():
            carry = self.world.dream(moment.carry, code, how)
            if self.samples > 1 and not self._one_look:
                spread = self._spread(moment.carry, code)
        return self._moment(carry, moment.task, spread)

    @torch.no_grad()
    @own_stream
    def act(self, moment: Moment, likeliest: bool = False) -> dict[str, np.ndarray]:
        """What the policy does, key -> (N, ...)."""
        with self.machine.autocast():
            code = self.agent.actor_critic.act(moment.features, likeliest, moment.task)
        return {
            k: v.cpu().numpy().astype(self.act_space[k].dtype)
            for k, v in self.actions.decode(code).items()
        }

    @torch.no_grad()
    def policy(self, moment: Moment) -> list[Choice]:
        """What the policy says of every component of the action, in the order of the spaces."""
        with self.machine.autocast():
            policy = self._policy(moment.features, moment.task)
        return [choice for k in self.act_space for choice in choices(self.actions, policy, k)]

    @torch.no_grad()
    def error(self, dreamt: Moment, real: Moment) -> np.ndarray:
        """(N,) mean squared difference of two frames, in the numbers that the model keeps."""
        with self.machine.autocast():
            ours, theirs = (self.world.numbers(m.carry) for m in (dreamt, real))
        return (ours - theirs).float().square().mean((-1, -2)).cpu().numpy()

    @torch.no_grad()
    def shown(self, moment: Moment) -> dict[str, np.ndarray]:
        """The frame of a moment as the model's own decoder has it, key -> (N, ...): of a real one
        what is left of it in the model.
        """
        return self._decoded(moment.carry)

    def _spread(self, carry: Carry, code: torch.Tensor) -> torch.Tensor:
        """(N,), see Moment."""
        count, many = len(code), self.samples
        repeat = lambda x: x.repeat_interleave(many, 0)
        steps = min(self.agent.config.dynamics.levels, SPREAD_STEPS)
        how = replace(self.sampling, mean=False, steps=max(steps, self.sampling.steps))
        grown = self.world.dream({k: repeat(v) for k, v in carry.items()}, repeat(code), how)
        frames = [v.float().reshape(count, many, -1) for v in self.world.decode(grown).values()]
        return torch.cat(frames, -1).var(1).mean(-1).sqrt()

    def _moment(
        self,
        carry: Carry,
        task: torch.Tensor | None,
        spread: torch.Tensor | None = None,
        obs: dict[str, np.ndarray] | None = None,
    ) -> Moment:
        """What is believed of a frame, which is decoded where obs is not given."""
        task = None if task is None else task.long()
        with self.machine.autocast():
            x = self.world.features(carry)
            reward, cont = self.world.judge(x)
            value, entropy = self.agent.actor_critic.value(x), self._policy(x, task).entropy()
        if spread is None:
            spread = torch.full_like(reward.float(), torch.nan)
        told = torch.stack([t.float() for t in (reward, cont, value, entropy, spread)]).cpu()
        shown = self._decoded(carry) if obs is None else obs
        return Moment(carry, x, shown, *told.numpy(), task)

    def _decoded(self, carry: Carry) -> dict[str, np.ndarray]:
        with self.machine.autocast():
            found = self.world.decode(carry)
        return {k: devectorize(found[k], s).cpu().numpy() for k, s in self.obs_space.items()}

    def task(self, number: int | None) -> str | None:
        """Name of the task of a number; None where there is one task."""
        return self._tasks[number] if number is not None and self._tasks else None

    def _policy(self, x: torch.Tensor, task: torch.Tensor | None) -> Policy:
        """Of the policy that acts, at features (N, F) of tasks (N,)."""
        critic = self.agent.actor_critic
        return self.actions.policy(critic.acting_policy.module(x), task)

    def _code(self, action: Mapping[str, np.ndarray]) -> torch.Tensor:
        found = {}
        for key, space in self.act_space.items():
            value = np.asarray(action[key], space.dtype)
            found[key] = torch.from_numpy(np.ascontiguousarray(value)).to(self.machine.device)
        return self.actions.encode(found)

    def _seen(self, obs: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        return {
            k: torch.from_numpy(np.ascontiguousarray(obs[k])).to(self.machine.device)
            for k in (*self._keys, 'is_first')
        }


def choices(actions: Actions, policy: Policy, key: str) -> list[Choice]:
    """What a policy at features (N, F) says of the components of one action."""
    kind, where = actions.fields[key]
    if kind == 'real':
        mean, std = (x[:, where].float().cpu().numpy() for x in (policy.real.mean, policy.real.std))
        none = np.zeros((len(mean), 0), np.float32)
        return [Choice(key, i, none[0], none, mean[:, i], std[:, i]) for i in range(mean.shape[1])]
    parts = [part for group in policy.log_probs for part in group.exp().unbind(-2)]
    order = actions.place.tolist() if len(actions.groups) > 1 else range(len(parts))
    chosen = [parts[m].float().cpu().numpy() for m in order][where]
    grid = actions.grid.cpu().numpy() if kind == 'bins' else None
    return [
        Choice(key, i, np.arange(probs.shape[1]) if grid is None else grid, probs)
        for i, probs in enumerate(chosen)
    ]
