"""Reinforcement learning on imagined trajectories, as pure functions (Dreamer 4, Section 3.3, Eq.
10 and 11).

Letters: B trajectories, H horizon. Index 0 is the real frame imagination starts from; reward[t] and
cont[t] belong to arrival at frame t, so the action at frame t earns reward[t + 1].
"""

from collections.abc import Callable

import torch

ALPHA = 0.5  # weight of PMPO's positive set (Section 3.3)
Over = Callable[[torch.Tensor], torch.Tensor]  # a sum over a batch -> mean of such sums


def lambda_return(
    reward: torch.Tensor, cont: torch.Tensor, value: torch.Tensor, gamma: float, lam: float
) -> torch.Tensor:
    """R_t = r_{t+1} + gamma c_{t+1} ((1 - lam) v_{t+1} + lam R_{t+1}), R_H = v_H (Dreamer 4, Eq.
    10, with arrival indices).

    Args:
        reward, cont, value: (B, H + 1); cont is the probability that the episode goes on after the
            frame.

    Returns:
        (B, H): R_0 .. R_{H-1}.
    """
    assert reward.shape == cont.shape == value.shape, (reward.shape, cont.shape, value.shape)
    returns, last = [], value[:, -1]
    for t in reversed(range(reward.shape[1] - 1)):
        last = reward[:, t + 1] + gamma * cont[:, t + 1] * (
            (1 - lam) * value[:, t + 1] + lam * last
        )
        returns.append(last)
    return torch.stack(returns[::-1], 1)


def alive(cont: torch.Tensor, gamma: float = 1.0) -> torch.Tensor:
    """Probability (B, H) that the trajectory still goes on after frames 0 .. H-1: the weight of
    what is decided there, prod_{k <= t} c_k.

    Args:
        gamma: times gamma^t, what is decided late matters less (DreamerV1 to V3); 1 for all alike.
    """
    weight = cont[:, :-1].cumprod(1)
    if gamma == 1:
        return weight
    return weight * gamma ** torch.arange(weight.shape[1], device=weight.device)


def replay_return(
    reward: torch.Tensor,
    is_terminal: torch.Tensor,
    stops: torch.Tensor,
    value: torch.Tensor,
    gamma: float,
    lam: float,
) -> torch.Tensor:
    """Lambda-returns of real sequences, for a value that also learns from replay (DreamerV3):

        R_t = r_{t+1} + gamma (1 - d_{t+1}) ((1 - l_{t+1}) v_{t+1} + l_{t+1} R_{t+1}),  R_T = v_T

    with d where a frame is terminal, and l = lambda, or 0 where a frame stops what is known: what
    follows is another episode, or its reward was not recorded.

    Args:
        reward, is_terminal, stops, value: (B, T); v are estimates of the present policy, such as
            imagined returns.

    Returns:
        (B, T - 1): R_0 .. R_{T-2}. Those of frames that stop are without meaning.
    """
    goes_on, lam_t = gamma * (1 - is_terminal.float()), lam * (1 - stops.float())
    returns, last = [], value[:, -1]
    for t in reversed(range(1, reward.shape[1])):
        later = (1 - lam_t[:, t]) * value[:, t] + lam_t[:, t] * last
        last = reward[:, t] + goes_on[:, t] * later
        returns.append(last)
    return torch.stack(returns[::-1], 1)


def pmpo(
    log_prob: torch.Tensor,
    advantage: torch.Tensor,
    weight: torch.Tensor,
    alpha: float,
    floor: float,
    over: Over = lambda x: x,
) -> torch.Tensor:
    """Preference loss by the sign of the advantage (Dreamer 4, Eq. 11, without its KL term).

        (1 - alpha) mean_{A < 0} ln pi - alpha mean_{A >= 0} ln pi

    Means are over each set, weighted. A set smaller than `floor` of all is averaged as if it had
    that size: with few members its mean has a huge gradient, which the paper's form lets through.

    Args:
        log_prob, advantage, weight: (B, H). alpha: share of the positive set, 0.5 in the paper.
        floor: smallest set, as a share of the total weight; 0 is the paper's form.
        over: of the weights of all batches that make a gradient together, see ranks.mean.

    Returns:
        Scalar.
    """
    assert log_prob.shape == advantage.shape == weight.shape, (
        log_prob.shape,
        advantage.shape,
        weight.shape,
    )
    good, bad = weight * (advantage >= 0), weight * (advantage < 0)
    least = (floor * over(weight.sum())).clamp(min=1e-6)
    mean = lambda which: (which * log_prob).sum() / over(which.sum()).maximum(least)
    return (1 - alpha) * mean(bad) - alpha * mean(good)


def reinforce(
    log_prob: torch.Tensor,
    advantage: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    over: Over = lambda x: x,
) -> torch.Tensor:
    """-mean(A / max(1, scale) ln pi), weighted: DreamerV3's actor loss with returns normalised by
    their spread.

    Args:
        log_prob, advantage, weight: (B, H). scale: scalar, the running range of returns.
        over: as for pmpo.
    """
    assert log_prob.shape == advantage.shape == weight.shape, (
        log_prob.shape,
        advantage.shape,
        weight.shape,
    )
    total = over(weight.sum()).clamp(min=1e-6)
    return -(weight * log_prob * advantage / scale.clamp(min=1.0)).sum() / total


# `actor.loss` -> scalar loss of log_prob, advantage, weight (B, H), the running range of returns,
# the smallest sign set, and `over` as for pmpo.
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    'pmpo': lambda log_prob, advantage, weight, span, floor, over: pmpo(
        log_prob, advantage, weight, ALPHA, floor, over
    ),
    'reinforce': lambda log_prob, advantage, weight, span, floor, over: reinforce(
        log_prob, advantage, weight, span, over
    ),
}
RANGED = {'reinforce'}  # those that read that range, which is only tracked for them
