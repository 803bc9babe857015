"""Where time attention finds earlier keys and values: a finished sequence beside the queries' own, or a cache that grows.

Keys and values of one layer are (B, N, M, S, C): batch, tokens, key-value heads, time, channels; keys are rotated already.
A pass with fewer tokens (no agent token) reads the first N of them: slots that may be absent stand last in the layout.
"""

import torch

KeyValues = list[tuple[torch.Tensor, torch.Tensor]]  # one pair per time layer


class Beside:
    """Queries see a finished sequence and themselves: keys are [the sequence (S) | the queries' own (T)].

    Used to train denoising against the committed frames of the same sequence; the mask says which of both a query may see.
    """

    def __init__(self, sequence: KeyValues):
        self.sequence = sequence

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.sequence[layer]
        tokens = k.shape[1]
        return torch.cat([keys[:, :tokens], k], -2), torch.cat([values[:, :tokens], v], -2)

    def rows(self, rows: slice) -> 'Beside':
        """The same memory for a part of the batch, without gradient."""
        return Beside([(k[rows].detach(), v[rows].detach()) for k, v in self.sequence])


class Cache:
    """Static buffers of `length` frames; a pass of one frame writes its keys at `frame` and sees all up to there.

    Writing the same frame again replaces it: denoising passes leave provisional keys that the commit pass overwrites.
    """

    def __init__(self, context: KeyValues, extra: int):
        """Args: context: keys and values of the frames known so far. extra: how many frames will be added."""
        self.frame = context[0][0].shape[-2] if context else 0
        self.layers = [tuple(torch.cat([x, x.new_zeros(*x.shape[:-2], extra, x.shape[-1])], -2) for x in pair) for pair in context]

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        keys, values = self.layers[layer]
        tokens, stop = k.shape[1], self.frame + 1
        keys[:, :tokens, :, self.frame:stop] = k
        values[:, :tokens, :, self.frame:stop] = v
        return keys[:, :tokens, :, :stop], values[:, :tokens, :, :stop]

    def advance(self) -> None:
        """The frame written last is final; the next pass writes the one after it."""
        self.frame += 1
