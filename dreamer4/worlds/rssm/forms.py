"""What tells DreamerV1, DreamerV2 and DreamerV3 apart, as their papers and authors' code have it.
Each is a package: its parts were published and measured together, so none of them is a setting.

DreamerV1: Hafner et al. 2020 (arXiv 1912.01603). DreamerV2: 2021 (2010.02193). DreamerV3: 2023
(2301.04104), the agent of 2024. Where one of ours differs, it says so.
"""

from dataclasses import dataclass

from ...method import Method
from ...optim import Rule


@dataclass(frozen=True)
class Form:
    """One published algorithm; `agent.world` names it.

    Attributes:
        cell: key of nets.CELLS. blocks: block-diagonal parts of its state, a divisor of
            `rssm.deter`; 1 is dense.
        gaussian: normals as latents (V1, Section 3), else categoricals with straight-through
            gradients (V2, Algorithm 1; V3, Section 3).
        unimix: share of a uniform distribution in each categorical (V3, "unimix").
        act, norm: keys of nets.ACTS and nets.NORMS, between layers.
        prior_layers: between the deterministic state and the prior. head_layers: of reward and
            continue.
        twohot: reward and value as a distribution over bins (V3, Eq. 10 and 11), else as the mean
            of a normal of unit variance.
        free_of: the KL is clipped at `rssm.free_nats` in each 'frame' (V3, Eq. 5), or in the mean
            of the 'batch'.
        dyn, rep: weights of the KL that trains the prior and of the one that trains the posterior:
            the gradient of the plain KL (V1, Eq. 10), KL balancing at .8 (V2, Eq. 4), V3, Eq. 4.
        square: weight of squared errors of observations, images and vectors: a half is the
            log-density of a unit normal.
        ends: a head predicts whether the episode goes on; without one no dream ends (V1).
        method: how policy and value learn.
    """

    cell: str
    blocks: int
    gaussian: bool
    unimix: float
    act: str
    norm: str
    prior_layers: int
    head_layers: int
    twohot: bool
    free_of: str
    dyn: float
    rep: float
    square: float
    ends: bool
    method: Method


FORMS = {
    'dreamerv1': Form(
        cell='plain',
        blocks=1,
        gaussian=True,
        unimix=0.0,
        act='elu',
        norm='none',
        prior_layers=1,
        head_layers=2,
        twohot=False,
        free_of='batch',
        dyn=1.0,
        rep=1.0,
        square=0.5,
        ends=False,
        # analytic gradients of the returns, Eq. 7
        method=Method(
            True,
            backprop=1.0,
            ranged=False,
            online=True,
            rule=Rule(False, 0.999, 0.0, clip=100.0),
        ),
    ),
    'dreamerv2': Form(
        cell='norm',
        blocks=1,
        gaussian=False,
        unimix=0.0,
        act='elu',
        norm='none',
        prior_layers=1,
        head_layers=4,
        twohot=False,
        free_of='batch',
        dyn=0.8,
        rep=0.2,
        square=0.5,
        ends=True,
        # Eq. 6 with rho = .9; published: 1 for classes, 0 for torques
        method=Method(
            True,
            backprop=0.1,
            ranged=False,
            online=False,
            rule=Rule(False, 0.999, 1e-6, clip=100.0),
        ),
    ),
    'dreamerv3': Form(
        cell='block',
        blocks=8,
        gaussian=False,
        unimix=0.01,
        act='silu',
        norm='rms',
        prior_layers=2,
        head_layers=1,
        twohot=True,
        free_of='frame',
        dyn=1.0,
        rep=0.1,
        square=1.0,
        ends=True,
        method=Method(
            True, online=True, regulariser=1.0, replay=0.3, rule=Rule(True, 0.999, 0.0, clip=0.3)
        ),
    ),
}
