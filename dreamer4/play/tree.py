"""What was played from one start on: a tree of frames, any of which may be gone back to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.base import Values

from ..dream import Moment

MOST = 4000  # frames that are kept whole


@dataclass
class Node:
    """A frame.

    Attributes:
        number, parent: its own and that of the frame before; None at the root. depth: steps from
            the root.
        who: 'start', or who acted. action: that led here, in the act_space; None at the root.
        dream: what the model dreams here; None where it was let go.
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
    dream: Moment | None
    real: Values | None = None
    seen: Moment | None = None
    state: Any = None
    on_record: bool = False
    stats: dict[str, float | None] = field(default_factory=dict)

    @property
    def real_over(self) -> bool:
        """Whether the real episode ended here."""
        return self.real is not None and bool(self.real['is_last'])


class Tree:
    """All frames since a start.

    Attributes:
        current: the node that is shown, and grown at. forgotten: nodes that cannot be gone back to.
    """

    def __init__(self, root: Node):
        self.nodes, self.current, self.forgotten = {root.number: root}, root, 0

    def grow(self, node: Node) -> None:
        """Add a child of the current node and go there; the oldest frames are let go."""
        self.nodes[node.number] = node
        self.current = node
        if len(self.nodes) - self.forgotten > MOST:
            keep = {0, node.number}
            for old in list(self.nodes.values())[1:]:
                if old.dream is not None and old.number not in keep:
                    old.dream = old.seen = old.state = None
                    self.forgotten += 1
                    break

    def go(self, number: int) -> Node:
        """Make a node the current one.

        Raises:
            KeyError: there is none of this number, or it was let go.
        """
        node = self.nodes.get(number)
        if node is None or node.dream is None:
            raise KeyError(number)
        self.current = node
        return node

    def path(self, node: Node | None = None) -> list[Node]:
        """From the root to a node, the current one if none is given."""
        node, found = node or self.current, []
        while node is not None:
            found.append(node)
            node = None if node.parent is None else self.nodes[node.parent]
        return found[::-1]

    def describe(self) -> list[list]:
        """[number, parent, who] of every node, in the order they came to be."""
        return [[n.number, n.parent, n.who] for n in self.nodes.values()]


def pictures(values: Values) -> dict[str, np.ndarray]:
    """The images of a frame, key -> uint8 (H, W, C), sorted by key."""
    return {
        k: v
        for k, v in sorted(values.items())
        if isinstance(v, np.ndarray) and v.ndim == 3 and v.dtype == np.uint8
    }
