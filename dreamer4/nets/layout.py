"""Token layouts as data: named slots of one frame, and masks made from rules about names, never
from offsets.
"""

from collections.abc import Callable

import torch


class Layout:
    """The tokens of one frame, in order.

    Args:
        **slots: name -> number of tokens; empty slots are allowed.
    """

    def __init__(self, **slots: int):
        self.slots, start = {}, 0
        for name, count in slots.items():
            self.slots[name] = slice(start, start + count)
            start += count
        self.size = start

    def __getitem__(self, name: str) -> slice:
        return self.slots[name]

    def without(self, name: str) -> 'Layout':
        """The layout of the other tokens, which keep their places: only the last slot can be left
        out, so that keys that were kept of all tokens begin with theirs (memory.py).
        """
        *others, last = self.slots
        if name != last:
            raise ValueError(f'layout: only the last slot, {last}, can be left out; got {name}')
        return Layout(**{k: self.slots[k].stop - self.slots[k].start for k in others})

    def mask(self, sees: Callable[[str, str], bool]) -> torch.Tensor:
        """Boolean (N, N): entry [query, key] is True where the query token may look at the key
        token.

        Args:
            sees: rule over slot names, sees(query, key).
        """
        mask = torch.zeros(self.size, self.size, dtype=torch.bool)
        for query, rows in self.slots.items():
            for key, columns in self.slots.items():
                mask[rows, columns] = sees(query, key)
        return mask
