"""Where time attention finds earlier keys and values: a finished sequence beside the queries' own,
or a cache that grows.

Keys and values of one layer are (B, N M, S, C): batch, key-value heads of all tokens, time,
channels; keys are rotated already. A pass with fewer tokens (no agent token) reads the first heads
of them: slots that may be absent stand last in the layout.
"""

import torch
import torch.nn.functional as F

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]  # one pair per time layer


class Beside:
    """Queries see a finished sequence and themselves: keys are [the sequence (S) | the queries' own
    (T)].

    Used to train denoising against the committed frames of the same sequence; the mask says which
    of both a query may see.
    """

    def __init__(self, sequence: KeyValues):
        self.sequence = sequence

    def extend(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.sequence[layer]
        heads = k.shape[1]
        return torch.cat([keys[:, :heads], k], 2), torch.cat([values[:, :heads], v], 2)

    def rows(self, rows: slice) -> 'Beside':
        """The same memory for a part of the batch."""
        return Beside([(k[rows], v[rows]) for k, v in self.sequence])


class Cache:
    """Static buffers of some known frames and `extra` more; a pass writes its keys from `frame` on,
    the mask hides what is later.

    Writing the same frame again replaces it: denoising passes leave provisional keys that the
    commit pass overwrites. Buffers never change their shape, so that every imagined step is the
    same computation.

    Args:
        known: keys and values of the frames known so far, (R, N M, S, C) per layer.
        extra: frames that will be added.
        rows: long (B,) row of `known` that each of the B sequences continues; None for all in
            order.
    """

    def __init__(self, known: KeyValues, extra: int, rows: torch.Tensor | None = None):
        # filled there: a copy would make the host wait
        self.frame = torch.full((1,), known[0][0].shape[2], device=known[0][0].device)
        self.layers = [tuple(self._buffer(x, extra, rows) for x in pair) for pair in known]

    def _buffer(self, x, extra, rows):
        # padded before it is multiplied: gathering whole rows is one plain copy
        x = F.pad(x.contiguous(), (0, 0, 0, extra))
        return x if rows is None else x.index_select(0, rows)

    def extend(
        self, layer: int, k: torch.Tensor, v: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.layers[layer]
        keys, values = keys[:, : k.shape[1]], values[:, : k.shape[1]]
        where = (
            self.frame
            if k.shape[2] == 1
            else self.frame + torch.arange(k.shape[2], device=k.device)
        )
        return keys.index_copy_(2, where, k), values.index_copy_(2, where, v)

    def advance(self, frames: int = 1) -> None:
        """So many more frames are final; the next pass writes the one after them."""
        self.frame += frames  # a tensor: a number would make every step a computation of its own
