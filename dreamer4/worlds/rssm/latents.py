"""Stochastic latents of a recurrent state-space model, and the KL terms they are trained with.

Categoricals with straight-through gradients (DreamerV2, DreamerV3) and Gaussians with
reparameterised samples (DreamerV1) answer the same calls, so that the recurrence knows neither.
Letters: S latent variables, K classes of one, P parameters of all (S K or 2 S), Z numbers of a
sample (S K or S).
"""

import math

import torch
import torch.nn.functional as F

from ... import ranks

MIN_STD = 0.1  # of a Gaussian latent (DreamerV1): below, the KL terms explode


def uniform_mix(logits: torch.Tensor, share: float) -> torch.Tensor:
    """ln((1 - u) softmax(logits) + u / K), the log-probabilities (..., K) of a categorical that
    never rules a class out (DreamerV3, "unimix").

    Args:
        share: u in [0, 1). With 0 this is log_softmax, which does not underflow either.
    """
    if not share:
        return logits.float().log_softmax(-1)
    return ((1 - share) * logits.float().softmax(-1) + share / logits.shape[-1]).log()


def straight_through(log_p: torch.Tensor) -> torch.Tensor:
    """A one-hot sample (..., K) whose gradient is that of the probabilities (DreamerV2,
    Algorithm 1): onehot(k) + p - sg(p), k ~ p.

    Drawn by the Gumbel trick on the device, so that the host waits for nothing.
    """
    noise = -torch.empty_like(log_p).exponential_().log()
    return _with_gradient(log_p, (log_p.detach() + noise).argmax(-1))


def _with_gradient(log_p: torch.Tensor, choice: torch.Tensor) -> torch.Tensor:
    p = log_p.exp()
    return F.one_hot(choice, log_p.shape[-1]).to(p.dtype) + (p - p.detach())


class Categoricals:
    """S categoricals of K classes each.

    Args:
        count: S. classes: K, at least 2. unimix: see uniform_mix.
    """

    def __init__(self, count: int, classes: int, unimix: float):
        self.count, self.classes, self.unimix = count, classes, unimix
        self.parameters = self.size = count * classes

    def sample(self, params: torch.Tensor) -> torch.Tensor:
        """One-hots (..., Z) of parameters (..., P); see straight_through."""
        return straight_through(self._log_p(params)).flatten(-2)

    def mode(self, params: torch.Tensor) -> torch.Tensor:
        """The likeliest one-hots (..., Z), with the same gradient as a sample."""
        log_p = self._log_p(params)
        return _with_gradient(log_p, log_p.argmax(-1)).flatten(-2)

    def kl(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """KL(p || q) (...) in nats, sum_s sum_k p ln(p / q)."""
        log_p, log_q = self._log_p(p), self._log_p(q)
        return (log_p.exp() * (log_p - log_q)).sum((-1, -2))

    def entropy(self, params: torch.Tensor) -> torch.Tensor:
        """Entropy (...) in nats, summed over the variables."""
        log_p = self._log_p(params)
        return -(log_p.exp() * log_p).sum((-1, -2))

    def _log_p(self, params: torch.Tensor) -> torch.Tensor:
        return uniform_mix(params.unflatten(-1, (self.count, self.classes)), self.unimix)


class Gaussians:
    """S independent normals; parameters are [mean | raw std], std = softplus(raw) + MIN_STD.

    Args:
        count: S.
    """

    def __init__(self, count: int):
        self.size, self.parameters = count, 2 * count

    def sample(self, params: torch.Tensor) -> torch.Tensor:
        """mean + std eps (..., Z), eps ~ N(0, 1): the gradient reaches mean and std."""
        mean, std = self._split(params)
        return mean + std * torch.randn_like(std)

    def mode(self, params: torch.Tensor) -> torch.Tensor:
        """The means (..., Z)."""
        return self._split(params)[0]

    def kl(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """KL(p || q) (...) in nats: sum ln(s_q / s_p) + (s_p^2 + (m_p - m_q)^2) / (2 s_q^2) -
        1/2.
        """
        (mean_p, std_p), (mean_q, std_q) = self._split(p), self._split(q)
        spread = (std_p.square() + (mean_p - mean_q).square()) / (2 * std_q.square())
        return (std_q.log() - std_p.log() + spread - 0.5).sum(-1)

    def entropy(self, params: torch.Tensor) -> torch.Tensor:
        """Differential entropy (...) in nats, summed over the variables."""
        return (self._split(params)[1].log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def _split(self, params: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, raw = params.float().chunk(2, -1)
        return mean, F.softplus(raw) + MIN_STD


def kl_terms(
    latents: Categoricals | Gaussians,
    post: torch.Tensor,
    prior: torch.Tensor,
    free: float,
    free_of: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two halves of the KL balance, each with one side held still and with free nats.

        dyn = max(free, KL(sg(post) || prior))    trains the prior towards the posterior
        rep = max(free, KL(post || sg(prior)))    trains the posterior towards the prior

    The weights are the caller's: (1, 0.1) in DreamerV3, (0.8, 0.2) in DreamerV2, and (1, 1) has the
    gradient of the plain KL of DreamerV1. Below `free` nats nothing is gained by a posterior that
    says less, which is what keeps it from collapsing onto the prior.

    Args:
        post, prior: parameters (B, T, P). free: nats.
        free_of: 'frame' clips the KL of every frame (DreamerV3), 'batch' its mean over the batch
            (DreamerV1, DreamerV2).

    Returns:
        dyn, rep, each (B, T).
    """
    if free_of not in ('frame', 'batch'):
        raise ValueError(f"kl_terms: free_of must be 'frame' or 'batch', got {free_of!r}")
    terms = latents.kl(post.detach(), prior), latents.kl(post, prior.detach())
    if free_of == 'frame':
        return tuple(kl.clamp(min=free) for kl in terms)
    means = [kl.mean() for kl in terms]
    # clipped where that of all ranks is
    apart = [ranks.mean(kl.detach()) - kl.detach() for kl in means]
    whole = [(kl + more).clamp(min=free) for kl, more in zip(means, apart)]
    return tuple(kl.expand_as(term) for kl, term in zip(whole, terms))
