"""The optimizer of DreamerV3: LaProp with adaptive gradient clipping."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch

LEAST_NORM = 1e-3  # of a parameter tensor: fresh zeros must be able to move
EPS = 1e-20  # gradients of any size are divided by their own


Tensors = Sequence[torch.Tensor]


def norms(parameters: Tensors, of: Tensors) -> Tensors:
    """Norm of each of some tensors that go with parameters, such as their gradients."""
    return [x.norm() for x in of]


class LaProp(torch.optim.Optimizer):
    """Momentum of normalised gradients, where Adam normalises the momentum (Ziyin et al. 2020).

        g <- g min(1, clip max(|p|, LEAST_NORM) / |g|)                     for each tensor
        v <- b2 v + (1 - b2) g^2;  m <- b1 m + (1 - b1) g / (sqrt(v / (1 - b2^t)) + EPS)
        p <- p - lr m / (1 - b1^t) - lr decay p

    The first line is adaptive gradient clipping (Brock et al. 2021) with norms of whole tensors. It
    has the calls and the state of torch's fused AdamW as Optimizer uses them: where `found_inf` is
    1, a step leaves everything as it is, without the host knowing.

    Args:
        groups: parameters, or groups of them with a 'weight_decay' each. betas: b1, b2. clip:
            largest share of a tensor's norm that its gradient may have; inf clips nothing. norms:
            as above, of whole tensors where the parameters are parts.
    """

    def __init__(
        self,
        groups: Iterable,
        betas: tuple[float, float],
        clip: float = math.inf,
        lr: float | torch.Tensor = 1e-3,
        norms: Callable[[Tensors, Tensors], Tensors] = norms,
    ):
        super().__init__(groups, {'lr': lr, 'betas': betas, 'clip': clip, 'weight_decay': 0.0})
        self.found_inf = self.grad_scale = None
        self._norms = norms

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            moving = [p for p in group['params'] if p.grad is not None]
            for p, factor in zip(moving, self._factors(moving, group['clip'])):
                self._move(p, factor, group)

    def _factors(self, parameters: Tensors, clip: float) -> Tensors:
        """By which each gradient is clipped."""
        if not math.isfinite(clip):
            return [p.new_ones(()) for p in parameters]
        sizes = self._norms(parameters, parameters)
        steps = self._norms(parameters, [p.grad for p in parameters])
        most = [clip * size.clamp(min=LEAST_NORM) for size in sizes]
        return [(m / step.clamp(min=1e-30)).clamp(max=1) for m, step in zip(most, steps)]

    def _move(self, p: torch.Tensor, factor: torch.Tensor, group: dict) -> None:
        state, (beta1, beta2) = self.state[p], group['betas']
        if not state:
            state['step'] = torch.zeros((), device=p.device)
            state['exp_avg'], state['exp_avg_sq'] = torch.zeros_like(p), torch.zeros_like(p)
        m, v = state['exp_avg'], state['exp_avg_sq']
        sound = torch.ones((), device=p.device)
        if self.found_inf is not None:
            sound = 1 - self.found_inf.to(p.device)
        grad = torch.where(sound > 0, p.grad * factor, 0.0)
        step = state['step'].add_(sound)
        v.lerp_(grad.square(), (1 - beta2) * sound)
        correct = 1 - beta2 ** step.clamp(min=1)
        m.lerp_(grad / ((v / correct).sqrt() + EPS), (1 - beta1) * sound)
        rate = group['lr'] * sound
        p.mul_(1 - rate * group['weight_decay'])
        p.sub_(m * (rate / (1 - beta1 ** step.clamp(min=1))))
