"""Policy and value: how they act, and how they learn from dreams, whichever world model dreamt them
(Dreamer 4, Section 3.3).

Letters: N envs, W trajectories, H horizon, M action code, F features of a frame.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from . import ranks, returns
from .actions import Actions
from .batch import Batch, Dream
from .heads import Head, HeadsConfig, scalar, sizes
from .method import Method
from .nets.outputs import Policy
from .openness import Openness
from .optim import OptimConfig, Optimizer, RunningRange, SlowCopy, frozen
from .scores import correlation, shared_mean

Metrics = dict[str, torch.Tensor]
BETA = 0.3  # weight of KL(policy || prior) (Section 3.3)
FLOOR = 0.1  # least size of PMPO's sets, as a share of all samples (Eq. 11: none)
ACTING = 0.01  # step per policy update of the average of the policy that acts
LAM = 0.95  # lambda of the returns that the value learns (DreamerV1 to V3; Dreamer 4: not given)
# stage -> names of the metrics that tell how it goes, beside those of the world model
WATCHED = {'value': ('value/loss',), 'policy': ('value/loss', 'policy/entropy')}


@dataclass(frozen=True)
class ActorConfig:
    """Block `agent.actor`: how the policy acts, and its objective."""

    loss: str
    lam: float
    prior: float | str
    entropy: float
    openness: tuple[float, ...]
    hold: float
    context: int


@dataclass(frozen=True)
class ValueConfig:
    """Block `agent.value`: returns and the critic."""

    gamma: float
    slow: float


@dataclass(frozen=True)
class ActorCriticConfig:
    """Blocks of `agent` that policy and value read, and `epochs`, gradient steps on a dream."""

    heads: HeadsConfig
    actor: ActorConfig
    value: ValueConfig
    optim: OptimConfig
    epochs: int
    method: Method


@dataclass(frozen=True)
class Targets:
    """What policy and value learn of a dream, each (W, H), for frames 0 .. H-1.

    Attributes:
        value: lambda-returns that the value learns. returns: those that advantages are made of,
            whose lambda may be another; with a gradient into the actions where the dream has one.
        weight: probability that the trajectory is still alive, discounted with Method.discounted.
    """

    value: torch.Tensor
    returns: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class Real:
    """Sequences as the world model saw them.

    Attributes:
        batch: (B, T). features: (B, T, F), with gradient into the world model.
    """

    batch: Batch
    features: torch.Tensor

    def detach(self) -> 'Real':
        return Real(self.batch, self.features.detach())


class ActorCritic:
    """The policy, the value, and slow copies of both.

    Args:
        parts: sizes of the parts of the features, each of which gets a network of its own.
        actions: the codec. config: see there. machine: where it computes. tasks: their number.
    """

    def __init__(
        self, parts: list[int], actions: Actions, config: ActorCriticConfig, machine, tasks: int = 1
    ):
        self.config, self.machine, self.actions = config, machine, actions
        h = config.heads
        self.scalar = scalar(h).to(machine.device)
        self.policy_head = Head(parts, h.width, h.layers, actions.outputs).to(machine.device)
        self.value_head = Head(parts, h.width, h.layers, self.scalar.outputs).to(machine.device)
        self.slow_value = SlowCopy(self.value_head, config.value.slow)
        # a policy that begins as the behaviour clone is held to that, and acts, as in the paper
        prior, self._cloned = config.actor.prior, config.actor.prior == 'clone'
        self.slow_policy = SlowCopy(self.policy_head, prior if isinstance(prior, float) else 0.0)
        averaged = config.method.averaged and not self._cloned
        self.acting_policy = SlowCopy(self.policy_head, ACTING if averaged else 1.0)
        self.return_range = RunningRange().to(machine.device)
        steered = config.actor.entropy, config.actor.openness, tasks
        self.openness = Openness(*steered).to(machine.device)
        self.optimizers = {
            name: Optimizer(name, [head], config.optim, config.method.rule, config.method.warmup)
            for name, head in (('policy', self.policy_head), ('value', self.value_head))
        }

    # -- acting

    def policy(self, x: torch.Tensor, task: torch.Tensor | None = None) -> Policy:
        """The policy that learns, at features (..., F) of tasks (...)."""
        return self.actions.policy(self.policy_head(x), task)

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """Expected return after the frame, (...)."""
        return self.scalar.mean(self.value_head(x))

    def act(
        self, x: torch.Tensor, likeliest: bool, task: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Codes (N, M) of the policy that acts, at features (N, F) of tasks (N,)."""
        policy = self.actions.policy(self.acting_policy.module(x), task)
        return policy.mode() if likeliest else policy.sample()

    def explore(
        self, last: torch.Tensor, is_first: torch.Tensor, task: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Random codes (N, M), each held for `actor.hold` decisions in the mean: coherent motion
        shows more than jitter.

        Args:
            last: (N, M) codes before. is_first: bool (N,). task: long (N,) or None.
        """
        fresh = self.actions.uniform(len(last), task=task)
        held = torch.rand(len(last), device=last.device) < 1 - 1 / self.config.actor.hold
        return torch.where((held & ~is_first)[:, None], last, fresh)

    def start_from(self, clone: nn.Module) -> None:
        """Begin as a head that says what the data does (offline: better than chance at once).

        Args:
            clone: of the same width; its first outputs are those of the policy.
        """
        with torch.no_grad():
            for ours, theirs in zip(self.policy_head.parameters(), clone.parameters()):
                ours.copy_(theirs[: len(ours)])
        for copy in (self.slow_policy, self.acting_policy):
            copy.follow(1.0)

    # -- learning

    def begin(self, policy: bool, pace: float) -> None:
        """Tell the optimizers of the next dream; the policy may not learn yet."""
        self.openness.aim(pace)
        for name in ['value'] + ['policy'] * policy:
            self.optimizers[name].begin(self.config.epochs, pace)

    def learn(
        self, dream: Dream, targets: Targets, policy: bool, real: Real | None = None
    ) -> Metrics:
        """Some gradient steps on one dream, and with Method.replay on the sequences that it began
        at.

        Args:
            targets: of score.

        Returns:
            metrics of the first step; a refused step is reported whichever epoch it was in.
        """
        metrics = {}
        for _ in range(self.config.epochs):
            with self.machine.autocast():
                parts, found, shares = self.losses(dream, targets)
                if real is not None:
                    loss = self.replay_loss(real.detach(), dream, targets)
                    found['value/replay'] = loss.detach()
                    parts['value'] = parts['value'] + self.config.method.replay * loss
            if policy:
                found |= self.optimizers['policy'].step(parts['policy'])
                self.openness.follow(shares, targets.weight, _of_frames(dream))
                self.acting_policy.follow()
                if self.slow_policy.rate:
                    self.slow_policy.follow()
            found |= self.optimizers['value'].step(parts['value'])
            self.slow_value.follow()
            refused = {
                k: v.maximum(metrics.get(k, v))
                for k, v in found.items()
                if k.endswith('/nonfinite')
            }
            metrics = found | metrics | refused
        return metrics

    def teach(self, dream: Dream, targets: Targets, real: Real) -> torch.Tensor:
        """The replay loss as the world model learns from it: what the value cannot read in its
        features, it is to put there (DreamerV3). No gradient reaches the value.
        """
        with frozen(self.value_head), self.machine.autocast():
            return self.config.method.replay * self.replay_loss(real, dream, targets)

    def score(self, dream: Dream) -> Targets:
        """Returns of a dream, which are folded into their running range, and how much its frames
        count.
        """
        c = self.config
        with torch.set_grad_enabled(c.method.backprop > 0), self.machine.autocast():
            with frozen(self.value_head):
                value = self._bootstrap(dream.features)
            found = {
                lam: returns.lambda_return(dream.reward, dream.cont, value, c.value.gamma, lam)
                for lam in {LAM, c.actor.lam}
            }
        if c.actor.loss in returns.RANGED and c.method.ranged:
            self.return_range.fold(found[c.actor.lam].detach())
        weight = returns.alive(dream.cont.detach(), c.value.gamma if c.method.discounted else 1.0)
        return Targets(found[LAM].detach(), found[c.actor.lam], weight)

    def _bootstrap(self, x: torch.Tensor) -> torch.Tensor:
        """Values (...) of features (..., F) that returns are continued with."""
        online = self.config.method.online
        return self.scalar.mean((self.value_head if online else self.slow_value.module)(x))

    def value_loss(self, logits: torch.Tensor, x: torch.Tensor, target: torch.Tensor):
        """Loss (...) of value logits (..., bins) at features (..., F): towards returns (...), and
        by Method.regulariser towards the slow value, which steadies a value that its own targets
        are made of (DreamerV3).
        """
        loss, weight = self.scalar.loss(logits, target), self.config.method.regulariser
        if not weight:
            return loss
        with torch.no_grad():
            slow = self.scalar.mean(self.slow_value.module(x))
        return loss + weight * self.scalar.loss(logits, slow)

    def replay_loss(self, real: Real, dream: Dream, targets: Targets) -> torch.Tensor:
        """Value loss (scalar) on real sequences, whose returns are continued with what was imagined
        at their frames, and with the value where nothing was (DreamerV3, Eq. 10).
        """
        c, batch, x = self.config.value, real.batch, real.features
        # what follows a last frame is another episode
        known = ~batch.is_last[:, :-1] & ~batch.is_first[:, 1:] & batch.reward_valid[:, 1:]
        with torch.no_grad():
            value = self._bootstrap(x)
            value[dream.rows, dream.frames] = targets.value[:, 0].to(value.dtype)
            stops = F.pad(~known, (0, 1), value=True)
            target = returns.replay_return(
                batch.reward, batch.is_terminal, stops, value, c.gamma, LAM
            )
        logits = self.value_head(x[:, :-1])
        return shared_mean(self.value_loss(logits, x[:, :-1], target), known)

    def losses(self, dream: Dream, targets: Targets) -> tuple[Metrics, Metrics, torch.Tensor]:
        """Losses of policy and value, metrics, and entropies as shares of the largest, (W, H); only
        their own heads receive gradient (Dreamer 4, Section 3.3).
        """
        c, x, weight = self.config.actor, dream.features[:, :-1].detach(), targets.weight
        backprop = self.config.method.backprop
        logits = self.value_head(x)
        baseline = self.scalar.mean(logits.detach())
        advantage = targets.returns.detach() - baseline
        task = _of_frames(dream)
        policy, prior = self.policy(x, task), self._prior(x, task)
        most = self._largest(task)
        log_prob, entropy = policy.log_prob(dream.action), policy.entropy()
        span, floor = self.return_range.span, 0.0 if self._cloned else FLOOR
        objective = returns.LOSSES[c.loss](log_prob, advantage, weight, span, floor, ranks.mean)
        if backprop:
            objective = objective.lerp(-shared_mean(targets.returns, weight), backprop)
        kl = policy.kl(prior) if prior is not None else torch.zeros_like(log_prob)
        out = {
            'policy': objective
            + BETA * shared_mean(kl, weight)
            - shared_mean(self.openness.worth(entropy, task), weight),
            'value': shared_mean(self.value_loss(logits, x, targets.value), weight),
        }
        mean, shares = lambda x: shared_mean(x, weight), (entropy / most).detach()
        metrics = {
            'policy/loss': objective,
            'policy/entropy': mean(entropy),
            'policy/openness': mean(shares),
            'policy/bonus': self.openness.bonus.mean(),
            'policy/kl': mean(kl),
            'policy/positive': mean((advantage >= 0).float()),
            'policy/advantage_std': ranks.deviation(advantage.flatten()),
            'value/loss': out['value'],
            'value/mean': mean(baseline),
            'value/return': mean(targets.value),
            'value/explained': correlation(*map(ranks.joined, (baseline, targets.value))),
            'imagination/reward': mean(dream.reward[:, 1:]),
            'imagination/cont': mean(dream.cont[:, 1:]),
        }
        metrics |= sizes('value', self.scalar, targets.value, weight > 0)
        return out, {k: v.detach() for k, v in metrics.items()}, shares

    @torch.no_grad()
    def _largest(self, task: torch.Tensor | None) -> torch.Tensor:
        """Entropy of a policy that knows nothing, scalar or of tasks (W, 1)."""
        shape = () if task is None else task.shape
        flat = self.return_range.span.new_zeros(*shape, self.actions.outputs)
        return self.actions.policy(flat, task).entropy().clamp(min=1e-6)

    @torch.no_grad()
    def _prior(self, x: torch.Tensor, task: torch.Tensor | None) -> Policy | None:
        """The distribution that the policy is held to, None for none."""
        if self.config.actor.prior == 'none':
            return None
        return self.actions.policy(self.slow_policy.module(x), task)

    def state(self) -> dict[str, nn.Module | SlowCopy]:
        """Everything with a state_dict but the optimizers, by its name in a checkpoint."""
        return {
            'policy': self.policy_head,
            'value': self.value_head,
            'slow_value': self.slow_value,
            'slow_policy': self.slow_policy,
            'acting_policy': self.acting_policy,
            'return_range': self.return_range,
        } | ({'openness': self.openness} if self.openness.ends else {})


def _of_frames(dream: Dream) -> torch.Tensor | None:
    """Tasks (W, 1) of its frames, None for one task."""
    return None if dream.task is None else dream.task[:, None]
