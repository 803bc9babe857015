"""The parts of a trained Dreamer 4 on sequences that it may not have learned from, one number or
curve each, for a report.

Everything here is summed over batches by the caller: what is returned are sums or single values,
not means. Letters: B sequences, T time, H open-loop steps, K denoising steps, S W packed latent.
"""

import time
from collections.abc import Iterator, Sequence

import torch

from ...batch import Batch
from ...heads import ahead, shifted
from ...nets.outputs import Policy
from ...openloop import OpenLoop, last_given
from . import shortcut
from .dynamics import Context, Frames
from .report import open_loop

Curve = tuple[torch.Tensor, torch.Tensor]  # sums and counts
ALONE = 0.999  # probability of a choice beside which there is no other, but for rounding


def reconstructions(world, batch: Batch) -> dict[str, torch.Tensor]:
    """Image key -> what the tokenizer makes of it, (B, T, H, W, C) in about [0, 1]; nothing is
    dropped.
    """
    tokenizer = world.tokenizer
    latent = tokenizer.encode(world.frames(batch), batch.is_first)
    guess = tokenizer.decode(latent, batch.is_first, batch.task)
    return {k: guess[k] for k in tokenizer.images}


def horizon(world, context: Context, batch: Batch, steps: int) -> dict[str, Curve]:
    """Squared error (H,) of every open-loop step, per number of a latent: of the model, of the
    model under the actions of another sequence, of repeating the last real frame, and of the mean
    frame of the batch.
    """
    start = last_given(batch, world.config.actor.context)
    known = world.dynamics, world.heads, context, batch, start, steps
    loop, mixed = open_loop(*known), open_loop(*known, shuffle=True)
    valid = loop.valid & mixed.valid
    spread = (loop.truth - mean_frame(loop)).square().mean((-1, -2))
    errors = {
        'model': loop.error,
        'shuffled actions': mixed.error,
        'repeat the last frame': loop.copy_error,
        'mean frame': spread,
    }
    return {k: ((v * valid).sum(0), valid.sum(0)) for k, v in errors.items()}


def mean_frame(loop: OpenLoop) -> torch.Tensor:
    """(1, 1, S, W) of all real frames that are predicted."""
    weight = loop.valid[..., None, None].float()
    return (loop.truth * weight).sum((0, 1), keepdim=True) / weight.sum().clamp(min=1)


def sweep(world, context: Context, batch: Batch, most: int) -> Iterator[tuple[int, Curve, float]]:
    """K, its squared error summed over all steps and their number, and seconds a frame, for all
    powers of two up to `most`.
    """
    start = last_given(batch, world.config.actor.context)
    known, steps = (world.dynamics, world.heads, context, batch, start), 1
    while steps <= most:
        torch.manual_seed(steps)
        before = time.perf_counter()
        loop = open_loop(*known, steps)
        total = (loop.error * loop.valid).sum().item()
        seconds = (time.perf_counter() - before) / loop.valid.shape[1]
        yield steps, (torch.tensor(total), loop.valid.sum().cpu()), seconds
        steps *= 2


def levels(world, context: Context, batch: Batch, chosen: Sequence[int]) -> dict[str, Curve]:
    """Squared error (N,) of the clean frame that is guessed at N signal levels, each a number below
    K_max, with the smallest step and a real past: of the model, of taking the noisy frame as it is,
    and of zero.
    """
    dynamics, is_first = world.dynamics, batch.is_first
    coordinates, given = dynamics.coordinates, world.given(batch)
    origin = coordinates.origin(context.seen, is_first, given.task)
    target = coordinates.encode(context.latent, origin)
    known = coordinates.known(is_first) & ~is_first
    view, sums = shortcut.beside(context), {'model': [], 'noisy frame': [], 'zero': []}
    for level in chosen:
        at = torch.full_like(is_first, level, dtype=torch.long)
        noisy = dynamics.noised(target, at)
        told = coordinates.tell(noisy, origin)
        guess, _ = dynamics(Frames(told, at, torch.zeros_like(at), given), view)
        for name, x in (('model', guess), ('noisy frame', noisy), ('zero', 0 * noisy)):
            error = (x - target).square().mean((-1, -2))
            sums[name].append((error * known).sum())
    count = known.sum().expand(len(chosen))
    return {name: (torch.stack(values), count) for name, values in sums.items()}


def heads(world, context: Context, batch: Batch) -> dict:
    """What the heads say of real frames, over the offsets n = 0 .. L of multi-token prediction.

    Returns:
        'behaviour': of every offset (negative log-likelihood (N,) of the actions taken, confidence
        (M,), whether the likeliest choice was taken (M,)); M choices, all that there were to make.
        'reward': of every offset (predicted (N,), received (N,)). 'cont': (probability that the
        episode goes on (N,), whether it does (N,)).
    """
    net, x = world.heads, world.heads.inputs(context.feature, context.view)
    count = net.config.offsets + 1
    there = (
        ahead(batch.is_first, count) & world.dynamics.coordinates.known(batch.is_first)[..., None]
    )
    taken, received = shifted(batch.action, count), shifted(batch.reward, count)
    acted = there & shifted(batch.action_valid, count)
    paid = there & shifted(batch.reward_valid & ~batch.is_first, count)
    outputs = net.behaviour_head(x).unflatten(-1, (count, net.actions.outputs))
    task = None if batch.task is None else batch.task[..., None]
    policy = net.actions.policy(outputs, task)
    nats, (sure, right) = -policy.log_prob(taken), confidence(policy, taken)
    chance, _ = confidence(net.actions.policy(torch.zeros_like(outputs), task), taken)
    offered = acted[..., None] & (chance < ALONE)
    said = net.reward_head(x).float().unflatten(-1, (count, net.scalar.outputs))
    said, learned = net.scalar.mean(said), net.scalar.clip(received)
    at = lambda x, where, n: x[..., n][where[..., n]]
    known = batch.reward_valid & ~batch.is_first
    return {
        'behaviour': [
            (at(nats, acted, n), *(z[:, :, n][offered[:, :, n]] for z in (sure, right)))
            for n in range(count)
        ],
        'reward': [tuple(at(z, paid, n) for z in (said, learned)) for n in range(count)],
        'cont': (net.cont(x)[known], ~batch.is_terminal[known]),
    }


def confidence(policy: Policy, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probability (..., M) of the likeliest choice of every categorical part, and bool (..., M)
    whether it is that of the code.
    """
    tops = [x.max(-1) for x in policy.log_probs]
    if not tops:
        return code[..., :0], code[..., :0].bool()
    chosen = torch.cat([top.indices for top in tops], -1)
    likely = torch.cat([top.values.exp() for top in tops], -1)
    return likely, chosen == code[..., : chosen.shape[-1]].long()


def dreams(world, context: Context, batch: Batch) -> dict[str, torch.Tensor]:
    """Discounted returns of open-loop dreams and of what happened on the same actions, each (N,),
    of the sequences whose episode goes on for the whole of the dream.
    """
    c, start = world.config, last_given(batch, world.config.actor.context)
    known = world.dynamics, world.heads, context, batch, start, c.shortcut.steps
    loop = open_loop(*known, rewards=True)
    valid = loop.valid & batch.reward_valid[:, start + 1 :]
    discount = c.value.gamma ** torch.arange(valid.shape[1], device=valid.device)
    whole = valid.any(1)  # rewards count up to where the episode ends
    summed = lambda x: (x * discount * valid).sum(1)[whole]
    return {'imagined': summed(loop.reward), 'real': summed(batch.reward[:, start + 1 :])}
