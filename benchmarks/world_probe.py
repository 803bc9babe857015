"""Probes: how precisely physical quantities can be read from a network's code of a frame.

A probe is ridge regression plus a small network on what that leaves over, so that what is linear is
read exactly. Angles are read as sine and cosine and compared on the circle. Letters: N frames, F
inputs, Q outputs.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

ANGLE = ' rad'  # end of the names of angles
STEPS = 1500  # gradient steps of the network of a probe


class Probe:
    """Reader of named quantities, fitted on construction.

    Args:
        x: (N, F) float32. quantities: name -> (N,); a name that ends in ' rad' is an angle.
        steps: gradient steps of the network, STEPS if None. seed: of its start and its batches.
    """

    def __init__(
        self,
        x: torch.Tensor,
        quantities: Mapping[str, np.ndarray],
        steps: int | None = None,
        seed: int = 0,
    ):
        self.names = list(quantities)
        y = outputs(quantities)
        self._x = x.mean(0), x.std(0).clamp(min=1e-3 * float(x.std().clamp(min=1e-6)))
        self._y = y.mean(0), y.std(0).clamp(min=1e-6)
        x, y = (x - self._x[0]) / self._x[1], (y - self._y[0]) / self._y[1]
        wide = nn.functional.pad(x, (0, 1), value=1.0).double()
        gram = wide.T @ wide + 1e-4 * len(x) * torch.eye(wide.shape[1], dtype=torch.float64)
        self._linear = torch.linalg.solve(gram, wide.T @ y.double()).float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._net = fit(x, y - wide.float() @ self._linear, steps or STEPS)

    @torch.no_grad()
    def read(self, x: torch.Tensor) -> dict[str, np.ndarray]:
        """Name -> (N,) as read from x (N, F)."""
        x = (x - self._x[0]) / self._x[1]
        y = nn.functional.pad(x, (0, 1), value=1.0) @ self._linear + self._net(x)
        columns, out = iter((y * self._y[1] + self._y[0]).T.numpy()), {}
        for name in self.names:
            out[name] = (
                np.arctan2(next(columns), next(columns)) if name.endswith(ANGLE) else next(columns)
            )
        return out


def fit(x: torch.Tensor, y: torch.Tensor, steps: int) -> nn.Module:
    """Network that reads y (N, Q) from x (N, F), both of unit scale; its output starts at zero."""
    net = nn.Sequential(
        nn.Linear(x.shape[1], 128),
        nn.SiLU(),
        nn.Linear(128, 128),
        nn.SiLU(),
        nn.Linear(128, y.shape[1]),
    )
    nn.init.zeros_(net[-1].weight)
    optimizer = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]['lr'] = 3e-3 * (1 - step / steps)
        index = torch.randint(len(x), (256,))
        loss = (net(x[index]) - y[index]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.requires_grad_(False)


def outputs(quantities: Mapping[str, np.ndarray]) -> torch.Tensor:
    """What a probe learns, (N, Q): sine and cosine of angles, other quantities as they are."""
    columns = []
    for name, value in quantities.items():
        columns += [np.sin(value), np.cos(value)] if name.endswith(ANGLE) else [value]
    return torch.from_numpy(np.stack(columns, -1).astype(np.float32))


def errors(
    read: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], where: np.ndarray
) -> dict[str, dict[str, float]]:
    """Name -> rms and median of the error, std of the truth, over frames `where`; {} for none."""
    if not where.any():
        return {}
    out = {}
    for name, value in truth.items():
        difference, spread = read[name][where] - value[where], value[where] - value[where].mean()
        if name.endswith(ANGLE):
            turn = np.angle(np.exp(1j * value[where]).mean())  # the mean direction
            difference, spread = (
                np.angle(np.exp(1j * angle)) for angle in (difference, value[where] - turn)
            )
        rms = lambda error: float(np.sqrt(np.mean(np.square(error))))
        out[name] = {
            'rms': rms(difference),
            'median': float(np.median(np.abs(difference))),
            'std': rms(spread),
        }
    return out
