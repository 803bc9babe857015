"""How policy and value learn beside a kind of world model: what its paper published together."""

from dataclasses import dataclass

from .optim import ADAMW, Rule


@dataclass(frozen=True)
class Method:
    """How policy and value learn beside one kind of world model: what was published together.

    Attributes:
        discounted: frame t of a dream weighs gamma^t (DreamerV1 to V3).
        backprop: share of the policy's objective that is differentiated through the dynamics.
        ranged: REINFORCE divides advantages by the range of returns (DreamerV3); beside a gradient
            through the dynamics, which is not divided, both would have another share (V2).
        online: returns are continued with the value that learns, else with its slow copy.
        regulariser: weight of the value's loss towards that copy (DreamerV3: 1).
        replay: weight of the value's loss on replayed sequences (DreamerV3: .3, and it also trains
            the world model; Dreamer 4: none, here `scales.replay`).
        warmup: updates in which the learning rates rise; None: as those of the world model.
        averaged: an average of the policy acts, else the policy itself.
        rule: of the optimizers of all parts.
    """

    discounted: bool
    backprop: float = 0.0
    ranged: bool = True
    online: bool = False
    regulariser: float = 0.0
    replay: float = 0.0
    warmup: int | None = None
    averaged: bool = False
    rule: Rule = ADAMW


DREAMER4 = Method(discounted=False, warmup=10, averaged=True)
