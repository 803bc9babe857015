"""Policy and value: how they act, and how they learn from dreams, whichever world model dreamt them
(Dreamer 4, Section 3.3).

Letters: N envs, W trajectories, H horizon, M action code, F features of a frame.
"""

from dataclasses import dataclass

import torch
from torch import nn

from . import returns
from .actions import Actions
from .batch import Dream
from .heads import Head, HeadsConfig, sizes
from .nets.outputs import Policy, TwoHot
from .optim import OptimConfig, Optimizer, RunningRange, SlowCopy
from .scores import correlation, mean

Metrics = dict[str, torch.Tensor]
# stage -> names of the metrics that tell how it goes, beside those of the world model
WATCHED = {'value': ('value/loss',), 'policy': ('value/loss', 'policy/entropy')}


@dataclass(frozen=True)
class ActorConfig:
    """Block `agent.actor`: how the policy acts, and its objective."""

    loss: str
    lam: float
    alpha: float
    floor: float
    beta: float
    prior: str
    slow: float
    entropy: float
    start: str
    hold: float
    context: int
    acting: float


@dataclass(frozen=True)
class ValueConfig:
    """Block `agent.value`: returns and the critic."""

    gamma: float
    lam: float
    slow: float


@dataclass(frozen=True)
class ActorCriticConfig:
    """Blocks of `agent` that policy and value read, and `epochs`, gradient steps on a dream."""

    heads: HeadsConfig
    actor: ActorConfig
    value: ValueConfig
    policy_optim: OptimConfig
    value_optim: OptimConfig
    epochs: int


@dataclass(frozen=True)
class Targets:
    """What policy and value learn of a dream, each (W, H), for frames 0 .. H-1, without gradient.

    Attributes:
        value: lambda-returns that the value learns. returns: those that advantages are made of,
            whose lambda may be another.
        weight: probability that the trajectory is still alive.
    """

    value: torch.Tensor
    returns: torch.Tensor
    weight: torch.Tensor


class ActorCritic:
    """The policy, the value, and slow copies of both.

    Args:
        parts: sizes of the parts of the features, each of which gets a network of its own.
        actions: the codec. config: see there. machine: where it computes.
    """

    def __init__(self, parts: list[int], actions: Actions, config: ActorCriticConfig, machine):
        self.config, self.machine, self.actions = config, machine, actions
        h = config.heads
        self.twohot = TwoHot(h.bins, h.limit).to(machine.device)
        self.policy_head = Head(parts, h.width, h.layers, actions.outputs).to(machine.device)
        self.value_head = Head(parts, h.width, h.layers, h.bins).to(machine.device)
        self.slow_value = SlowCopy(self.value_head, config.value.slow)
        self.slow_policy = SlowCopy(self.policy_head, config.actor.slow)
        self.acting_policy = SlowCopy(self.policy_head, config.actor.acting)
        self.return_range = RunningRange().to(machine.device)
        self.optimizers = {
            'policy': Optimizer('policy', [self.policy_head], config.policy_optim),
            'value': Optimizer('value', [self.value_head], config.value_optim),
        }

    # -- acting

    def policy(self, x: torch.Tensor) -> Policy:
        """The policy that learns, at features (..., F)."""
        return self.actions.policy(self.policy_head(x))

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """Expected return after the frame, (...)."""
        return self.twohot.mean(self.value_head(x))

    def act(self, x: torch.Tensor, likeliest: bool) -> torch.Tensor:
        """Codes (N, M) of the policy that acts, at features (N, F)."""
        policy = self.actions.policy(self.acting_policy.module(x))
        return policy.mode() if likeliest else policy.sample()

    def explore(self, last: torch.Tensor, is_first: torch.Tensor) -> torch.Tensor:
        """Random codes (N, M), each held for `actor.hold` decisions in the mean: coherent motion
        shows more than jitter.

        Args:
            last: (N, M) codes before. is_first: bool (N,).
        """
        fresh = self.actions.uniform(len(last))
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
        for name in ['value'] + ['policy'] * policy:
            self.optimizers[name].begin(self.config.epochs, pace)

    def learn(self, dream: Dream, policy: bool) -> Metrics:
        """Some gradient steps on one dream.

        Returns:
            metrics of the first step; a refused step is reported whichever epoch it was in.
        """
        with torch.no_grad(), self.machine.autocast():
            targets = self.score(dream)
        metrics = {}
        for _ in range(self.config.epochs):
            with self.machine.autocast():
                parts, found = self.losses(dream, targets)
            if policy:
                found |= self.optimizers['policy'].step(parts['policy'])
                self.acting_policy.follow()
                if self.config.actor.prior == 'slow':
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

    def score(self, dream: Dream) -> Targets:
        """Returns of a dream by the slow value, and how likely its frames are reached."""
        c, value = self.config, self.twohot.mean(self.slow_value.module(dream.features))
        found = {
            lam: returns.lambda_return(dream.reward, dream.cont, value, c.value.gamma, lam)
            for lam in {c.value.lam, c.actor.lam}
        }
        if c.actor.loss == 'reinforce':
            self.return_range.fold(found[c.actor.lam])
        return Targets(found[c.value.lam], found[c.actor.lam], returns.alive(dream.cont))

    def losses(self, dream: Dream, targets: Targets) -> tuple[Metrics, Metrics]:
        """Losses of policy and value, and metrics; only their own heads receive gradient (Dreamer
        4, Section 3.3).
        """
        c, x, weight = self.config.actor, dream.features[:, :-1], targets.weight
        logits = self.value_head(x)
        baseline = self.twohot.mean(logits.detach())
        advantage = targets.returns - baseline
        policy, prior = self.policy(x), self._prior(x)
        log_prob, entropy = policy.log_prob(dream.action), policy.entropy()
        if c.loss == 'pmpo':
            objective = returns.pmpo(log_prob, advantage, weight, c.alpha, c.floor)
        else:
            objective = returns.reinforce(log_prob, advantage, weight, self.return_range.span)
        kl = policy.kl(prior) if prior is not None else torch.zeros_like(log_prob)
        out = {
            'policy': objective + c.beta * mean(kl, weight) - c.entropy * mean(entropy, weight),
            'value': mean(self.twohot.loss(logits, targets.value), weight),
        }
        metrics = {
            'policy/loss': objective,
            'policy/entropy': mean(entropy, weight),
            'policy/kl': mean(kl, weight),
            'policy/positive': mean((advantage >= 0).float(), weight),
            'policy/advantage_std': advantage.std(),
            'value/loss': out['value'],
            'value/mean': mean(baseline, weight),
            'value/return': mean(targets.value, weight),
            'value/explained': correlation(baseline, targets.value),
            'imagination/reward': mean(dream.reward[:, 1:], weight),
            'imagination/cont': mean(dream.cont[:, 1:], weight),
        }
        metrics |= sizes('value', self.twohot, targets.value, weight > 0)
        return out, {k: v.detach() for k, v in metrics.items()}

    @torch.no_grad()
    def _prior(self, x: torch.Tensor) -> Policy | None:
        """The distribution that the policy is held to, None for none."""
        if self.config.actor.prior == 'none':
            return None
        return self.actions.policy(self.slow_policy.module(x))

    def state(self) -> dict[str, nn.Module | SlowCopy]:
        """Everything with a state_dict but the optimizers, by its name in a checkpoint."""
        return {
            'policy': self.policy_head,
            'value': self.value_head,
            'slow_value': self.slow_value,
            'slow_policy': self.slow_policy,
            'acting_policy': self.acting_policy,
            'return_range': self.return_range,
        }
