"""What was played from one start on: a tree of frames, any of which may be gone back to."""

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.base import Values

from ..dream import Moment

MOST = 4000  # frames that are kept, at most
LEAST = 64  # and at least
MEMORY = 512 << 20  # bytes that they take, about


@dataclass
class Node:
    """A frame.

    Attributes:
        number, parent: its own and that of the frame before; None at the root. depth: steps from
            the root.
        who: 'start', or who acted. action: that led here, in the act_space; None at the root.
        dream: what the model dreams here.
        real: the row that the env gave, or that was recorded; None where the dream is alone.
        seen: real as the agent sees it. state: of the env, None where it cannot be kept.
        on_record: only recorded actions led here.
        stats: numbers for the curves, by name.
    """

    number: int
    parent: int | None
    depth: int
    who: str
    action: Values | None
    dream: Moment
    real: Values | None = None
    seen: Moment | None = None
    state: Any = None
    on_record: bool = False
    stats: dict[str, float | None] = field(default_factory=dict)

    @property
    def real_over(self) -> bool:
        """Whether the real episode ended here."""
        return self.real is not None and bool(self.real['is_last'])

    @property
    def nbytes(self) -> int:
        """Memory that its frames take; that of the env's state is not known."""
        moments = [m for m in (self.dream, self.seen) if m is not None]
        arrays = [x for m in moments for x in (m.features, *m.carry.values(), *m.obs.values())]
        return sum(int(x.nbytes) for x in [*arrays, *(self.real or {}).values()])


class Tree:
    """The frames since a start: the start itself and the newest ones, as many as memory allows.

    Attributes:
        nodes: by number, in the order they came to be. current: the node that is shown, and grown
            at. most: nodes that are kept.
    """

    def __init__(self, root: Node):
        self.nodes, self.current = {root.number: root}, root
        self.most = max(LEAST, min(MOST, MEMORY // max(1, root.nbytes)))

    @property
    def oldest(self) -> int:
        """Number of the oldest node that is kept, but for the start."""
        return next(itertools.islice(self.nodes, 1, None), 0)

    def grow(self, node: Node) -> None:
        """Add a child of the current node and go there; the oldest frame is let go where there are
        too many, and what followed it then hangs at the start.
        """
        self.nodes[node.number] = self.current = node
        if len(self.nodes) > self.most:
            gone = self.nodes.pop(self.oldest)
            for each in self.nodes.values():
                each.parent = 0 if each.parent == gone.number else each.parent

    def go(self, number: int) -> Node:
        """Make a node the current one.

        Raises:
            KeyError: there is none of this number, or it was let go.
        """
        self.current = self.nodes[number]
        return self.current

    def path(self, node: Node | None = None) -> list[Node]:
        """From the root to a node, the current one if none is given."""
        node, found = node or self.current, []
        while node is not None:
            found.append(node)
            node = None if node.parent is None else self.nodes[node.parent]
        return found[::-1]

    def describe(self) -> list[list]:
        """[number, parent, who, depth] of every node, in the order they came to be."""
        return [[n.number, n.parent, n.who, n.depth] for n in self.nodes.values()]


def unbroken(path: list[Node]) -> list[Node]:
    """The end of a path, from behind the frames that were let go on."""
    gaps = [i for i in range(1, len(path)) if path[i].depth != path[i - 1].depth + 1]
    return path[gaps[-1] if gaps else 0 :]


def pictures(values: Values) -> dict[str, np.ndarray]:
    """The images of a frame, key -> uint8 (H, W, C), sorted by key."""
    return {
        k: v
        for k, v in sorted(values.items())
        if isinstance(v, np.ndarray) and v.ndim == 3 and v.dtype == np.uint8
    }
