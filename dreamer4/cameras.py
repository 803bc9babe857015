"""Several cameras: embeddings that they share, and one of them dark for a while.

Letters: B sequences, T time, N tokens of a frame, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from .batch import Batch
from .nets.layout import Layout
from .vectors import safe


class Places(nn.Module):
    """Embeddings (N, D) of the tokens of a frame: an own one for each, but for a patch of a camera
    that of its place in the grid plus that of its camera.

    Cameras of one grid share its places, so that what is learned of one place of one camera holds
    for the others.

    Args:
        layout: of the tokens; slots 'image/<key>' are the cameras.
        grids: camera -> (rows, columns) of its patches.
        std: of the embeddings at the start.
    """

    def __init__(
        self, layout: Layout, grids: Mapping[str, tuple[int, int]], width: int, std: float
    ):
        super().__init__()
        draw = lambda *shape: nn.Parameter(std * torch.randn(*shape, width))
        self._layout, self._grids = layout, {k: f'{r}x{c}' for k, (r, c) in grids.items()}
        self.grid = nn.ParameterDict({f'{r}x{c}': draw(r * c) for r, c in set(grids.values())})
        self.camera = nn.ParameterDict({safe(k): draw(1) for k in grids})
        others = {k: s for k, s in layout.slots.items() if k.removeprefix('image/') not in grids}
        self.own = draw(sum(s.stop - s.start for s in others.values()))

    def forward(self) -> torch.Tensor:
        parts, at = [], 0
        for name, slot in self._layout.slots.items():
            key, count = name.removeprefix('image/'), slot.stop - slot.start
            if name.startswith('image/') and key in self._grids:
                parts.append(self.grid[self._grids[key]] + self.camera[safe(key)])
            else:
                parts.append(self.own[at : at + count])
                at += count
        return torch.cat(parts)


def dimmed(batch: Batch, tokenizer: nn.Module) -> Batch:
    """A batch with one camera black for a while in the share of its sequences that the settings of
    the tokenizer name.
    """
    share, cameras = tokenizer.config.camera_dropout, list(tokenizer.images)
    if not share or len(cameras) < 2:
        return batch
    return replace(batch, obs=darkened(batch.obs, cameras, share))


def darkened(
    obs: Mapping[str, torch.Tensor], cameras: Sequence[str], share: float
) -> dict[str, torch.Tensor]:
    """Observations in which, in a share of the sequences, one camera is black for a while.

    Args:
        obs: key -> (B, T, ...) as stored. cameras: keys of images, at least two.
        share: of the sequences, in [0, 1].
    """
    batch, time, device = *obs[cameras[0]].shape[:2], obs[cameras[0]].device
    hit = torch.rand(batch, 1, device=device) < share
    which = (torch.rand(batch, 1, device=device) * len(cameras)).long()
    begin, end = (torch.rand(batch, 2, device=device) * time).long().sort(-1).values.split(1, -1)
    now = torch.arange(time, device=device)
    dark = hit & (begin <= now) & (now <= end)
    found = dict(obs)
    for number, key in enumerate(cameras):
        hidden = (dark & (which == number))[..., None, None, None]
        found[key] = obs[key].masked_fill(hidden, 0)
    return found


def turned(obs: Mapping[str, torch.Tensor], cameras: Sequence[str]) -> torch.Tensor:
    """bool (B, T): frames at which a camera goes dark, or shows something again.

    Args:
        obs: key -> (B, T, ...) as stored. cameras: keys of images, at least one.
    """
    dark = torch.stack([obs[key].flatten(2).amax(2) == 0 for key in cameras])
    return F.pad((dark[..., 1:] != dark[..., :-1]).any(0), (1, 0))
