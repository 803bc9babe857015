"""Everything that moves parameters: optimizers with warm-up and clipping, slow copies,
running scales of losses and returns.
"""

import copy
import functools
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from embodied.errors import EmbodiedError

from . import ranks
from .laprop import LaProp
from .sharing import MOMENTS, clip, is_shared, norms, own, parted, widened

BETA1 = 0.9  # decay of the momentum


@dataclass(frozen=True)
class Rule:
    """How gradients become steps, which belongs to an algorithm.

    Attributes:
        laprop: LaProp, with gradients clipped tensor by tensor (DreamerV3), else Adam.
        beta2: decay of the mean square of gradients.
        weight_decay: of matrices, per step and unit of learning rate.
        clip: largest norm of all gradients of a part; of LaProp that of a tensor's, as a share of
            the tensor's; 0 for none.
    """

    laprop: bool
    beta2: float
    weight_decay: float
    clip: float


ADAMW = Rule(laprop=False, beta2=0.99, weight_decay=1e-3, clip=1.0)


class NonFiniteLoss(EmbodiedError):
    """A loss or gradient was NaN or infinite; the part that it belongs to was not moved by it."""


@dataclass(frozen=True)
class RateConfig:
    """A block of `agent.optim`: the learning rate of one part."""

    lr: float


@dataclass(frozen=True)
class OptimConfig:
    """Block `agent.optim`; meanings and sources stand there."""

    warmup: int
    tokenizer: RateConfig
    model: RateConfig
    policy: RateConfig
    value: RateConfig


class Optimizer:
    """AdamW or LaProp with linear warm-up, gradient clipping and a refusal of non-finite steps, all
    without waiting for the device.

    The host says with begin() what the next steps are to be; step() is work for the device alone
    and may be recorded (record.py). Weight decay touches matrices of linear layers only: decayed
    norms, biases and learned tokens collapse encoders.

    Args:
        name: of the part in OptimConfig, for messages and metrics. modules: whose parameters to
            train. config: see OptimConfig. rule: how they step. warmup: in place of that of the
            configuration.
    """

    def __init__(
        self,
        name: str,
        modules: Iterable[nn.Module],
        config: OptimConfig,
        rule: Rule = ADAMW,
        warmup: int | None = None,
    ):
        self.name, self.lr, self.scale, self.updates = name, getattr(config, name).lr, 1.0, 0
        self.warmup = config.warmup if warmup is None else warmup
        modules = list(modules)
        matrices = {
            id(m.weight): m.weight
            for root in modules
            for m in root.modules()
            if isinstance(m, nn.Linear)
        }
        self.parameters = [p for root in modules for p in root.parameters() if p.requires_grad]
        # of all gradients together, where not each tensor has its own
        self._clip = math.inf if rule.laprop else rule.clip or math.inf
        # what moves: of a parameter that ranks share, the part that is stored here
        self._moved = {
            id(p): nn.Parameter(own(p.detach())) for p in filter(is_shared, self.parameters)
        }
        moved = lambda some: [self._moved.get(id(p), p) for p in some]
        groups = [
            {
                'params': moved(p for p in self.parameters if id(p) in matrices),
                'weight_decay': rule.weight_decay,
            },
            {
                'params': moved(p for p in self.parameters if id(p) not in matrices),
                'weight_decay': 0.0,
            },
        ]
        device = self.parameters[0].device
        # a tensor: a recorded step reads what stands there when it is replayed
        self.rate = torch.zeros((), device=device)
        groups, betas = [g for g in groups if g['params']], (BETA1, rule.beta2)
        if rule.laprop:
            parts = {id(part) for part in self._moved.values()}
            of_all = functools.partial(norms, shared=parts)
            self.adam = LaProp(groups, betas, rule.clip or math.inf, norms=of_all)
        else:
            self.adam = torch.optim.AdamW(
                groups, betas=betas, fused=device.type != 'meta', capturable=device.type == 'cuda'
            )
        self._read_rate()

    def begin(self, steps: int = 1, scale: float = 1.0) -> None:
        """Count the next `steps` steps and set their learning rate: that of the configuration
        times `scale`, and less in the warm-up.
        """
        self.scale = scale
        self.rate.fill_(self.lr * scale * min(1.0, (self.updates + 1) / max(1, self.warmup)))
        self.updates += steps

    def step(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Differentiate the scalar `loss` and move; see descend."""
        return descend(loss, self)

    def move(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """Clip the gradients that are there and step; nothing moves if one of them or `loss` is
        not finite.
        """
        whole = [p for p in self.parameters if id(p) not in self._moved]
        ranks.average(whole)
        for p in self.parameters:
            if (part := self._moved.get(id(p))) is not None:
                part.grad = None if p.grad is None else own(p.grad)  # averaged on its way back
        loss = ranks.mean(loss.detach())
        norm = clip(whole, self._moved.values(), self._clip)
        # the fused kernel leaves everything as it is where this is 1
        self.adam.found_inf = (~torch.isfinite(loss + norm)).float()
        self.adam.grad_scale = None
        self.adam.step()
        return {
            f'{self.name}/total': loss,
            f'{self.name}/grad_norm': norm.detach(),
            f'{self.name}/nonfinite': self.adam.found_inf,
        }

    def check(self, metrics: dict[str, float]) -> None:
        """Raise if a step was refused.

        Args:
            metrics: of the update, on the host.

        Raises:
            NonFiniteLoss: the refused step moved no parameter; the message holds all metrics that
                are not finite.
        """
        if metrics.get(f'{self.name}/nonfinite'):
            bad = {k: v for k, v in metrics.items() if not math.isfinite(v)}
            raise NonFiniteLoss(
                f'{self.name}: a step was refused after {self.updates} of them, its loss or'
                f' gradient is not finite; not finite are {bad}'
            )

    def state_dict(self) -> dict:
        """Moments by parameter number, and the number of updates."""
        state, of = self.adam.state_dict()['state'], self.numbered()
        wide = lambda i, entry: {k: widened(x, of[i]) for k, x in entry.items()}
        return {
            'updates': self.updates,
            'scale': self.scale,
            'moments': {str(i): wide(i, entry) for i, entry in state.items()},
        }

    def numbered(self) -> dict[int, nn.Parameter]:
        """Number of a parameter in the state -> the parameter."""
        shared = {id(self._moved[id(p)]): p for p in self.parameters if id(p) in self._moved}
        params = (p for group in self.adam.param_groups for p in group['params'])
        return {i: shared.get(id(p), p) for i, p in enumerate(params)}

    def load_state_dict(self, state: dict) -> None:
        self.updates, self.scale = int(state['updates']), float(state['scale'])
        full, of = self.adam.state_dict(), self.numbered()
        full['state'] = {int(i): dict(entry) for i, entry in state['moments'].items()}
        # torch would take moments of any shape, and fail at the first step
        for i, entry in full['state'].items():
            if (
                i not in of
                or any(entry[name].shape != of[i].shape for name in MOMENTS)
                or not entry['step'] >= 0
            ):
                raise ValueError(f'{self.name}: the moments of parameter {i} do not have its shape')
            entry |= {k: own(parted(entry[k], of[i])).clone() for k in MOMENTS}
        self.adam.load_state_dict(full)
        self._read_rate()  # it would read a copy
        self.clear()
        self.adam.found_inf = None  # both may lie in the memory of a recording that is dropped now

    def clear(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad(set_to_none=True)
        for p in self.parameters:
            p.grad = None

    def _read_rate(self) -> None:
        for group in self.adam.param_groups:
            group['lr'] = self.rate


def descend(loss: torch.Tensor, *optimizers: Optimizer) -> dict[str, torch.Tensor]:
    """One gradient step of several parts on one scalar loss. The host need not wait to find out
    whether it was finite.

    Returns:
        metrics on the device: '<name>/total', the loss, '<name>/grad_norm', and '<name>/nonfinite',
        1 if the part did not move.
    """
    for optimizer in optimizers:
        optimizer.clear()
    loss.backward()
    return {k: v for optimizer in optimizers for k, v in optimizer.move(loss).items()}


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Inside, the parameters of the modules get no gradient, but what passes through them does:
    for losses that look at what a part makes of its inputs and must not move it.
    """
    learned = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in learned:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


class SlowCopy:
    """A copy of a module that follows it: an exponential moving average, or at rate 1 its twin.

    Args:
        source: the module to follow. rate: share of the difference taken after each of its updates.
    """

    def __init__(self, source: nn.Module, rate: float):
        self.source, self.rate = source, rate
        self.module = copy.deepcopy(source).requires_grad_(False)

    @torch.no_grad()
    def follow(self, rate: float | None = None) -> None:
        """Take the share `rate` of the difference, 1 copies; None for the copy's own rate."""
        rate = self.rate if rate is None else rate
        ours, theirs = list(self.module.parameters()), list(self.source.parameters())
        if rate >= 1:
            torch._foreach_copy_(ours, theirs)
        else:
            torch._foreach_lerp_(ours, theirs, rate)
        # what was measured is not averaged
        for ours, theirs in zip(self.module.buffers(), self.source.buffers()):
            ours.copy_(theirs)

    def state_dict(self) -> dict:
        return {'module': self.module.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.module.load_state_dict(state['module'])


class RunningRMS(nn.Module):
    """Divides every loss by a running root mean square of itself (Dreamer 4, Section 3.2), never
    below a floor.

    The floor keeps a term that starts near zero (bootstrap of a zero-initialised output, continue
    on endless tasks) from being blown up. A loss that is not finite, or whose square is not, leaves
    the mean as it was: its step is refused, and the next one is sound.

    Args:
        floors: loss name -> smallest divisor. decay: of the running mean of squares.
    """

    def __init__(self, floors: dict[str, float], decay: float):
        super().__init__()
        self.names, self.decay = list(floors), decay
        self.register_buffer('floors', torch.tensor(list(floors.values())))
        self.register_buffer('squares', torch.zeros(len(floors)))
        self.register_buffer('counts', torch.zeros(len(floors)))

    def forward(self, name: str, loss: torch.Tensor) -> torch.Tensor:
        """Normalised scalar; the divisor carries no gradient."""
        i = self.names.index(name)
        with torch.no_grad():
            square = ranks.mean(loss.detach().float()).square()
            sound = torch.isfinite(square)
            for mean, new in ((self.squares, square), (self.counts, torch.ones_like(square))):
                mean[i] = torch.where(sound, self.decay * mean[i] + (1 - self.decay) * new, mean[i])
            scale = (
                (self.squares[i] / self.counts[i].clamp(min=1e-12)).sqrt().maximum(self.floors[i])
            )
        return loss / scale


class RunningRange(nn.Module):
    """Running range from the 5 % to the 95 % quantile, which few large values do not move
    (DreamerV3: the scale of returns).

    Attributes:
        span: scalar, 1 at the start.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer('span', torch.ones(()))

    @torch.no_grad()
    def fold(self, x: torch.Tensor) -> None:
        """Move a hundredth of the way to the range of x; one that is not finite leaves it as it
        was, its step is refused.
        """
        x = ranks.joined(x.flatten())
        low, high = (torch.quantile(x, share) for share in (0.05, 0.95))
        moved = self.span.lerp(high - low, 0.01)
        self.span.copy_(torch.where(moved.isfinite(), moved, self.span))
