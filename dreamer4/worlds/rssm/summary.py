"""What a recurrent state-space model is made of and what an update costs."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from ...summary import parameters
from .. import Summary


def flops(work: Callable[[], object]) -> float:
    """FLOPs of the matrix products and convolutions that `work` carries out."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def summarize(world) -> Summary:
    """Parts of an RSSMWorld, and FLOPs of an update, counted on one frame; a gradient
    costs twice the pass that it comes back from.
    """
    c, net, r = world.config, world.net, world.config.rssm
    device = next(net.parameters()).device
    state = net.rssm.initial(1, device)
    blank = {k: torch.zeros(1, 1, *s.shape, device=device) for k, s in net.encoder.spaces.items()}
    action = torch.zeros(1, world.actions.features, device=device)
    embed = net.encode(blank).detach()
    first = torch.zeros(1, dtype=torch.bool, device=device)
    frames = c.batch.size * c.batch.length
    dreamt = c.imagination.starts * c.imagination.horizon / c.imagination.every
    heads = lambda: (net.reward(state.feature), net.cont(state.feature))
    prior = flops(lambda: net.rssm.prior(state.deter))
    work = {
        'encode': 3 * frames * flops(lambda: net.encode(blank)),
        'recurrence': 3
        * frames
        * (flops(lambda: net.rssm.see(state, embed[:, 0], action, first)) + prior),
        'decode': 3 * frames * flops(lambda: net.decoder(state.deter, state.stoch)),
        'heads': 3 * frames * flops(heads),
        'imagination': dreamt * (flops(lambda: net.rssm.dream(state, action)) + flops(heads)),
    }
    gaussian = world.form.gaussian
    latents = f'{r.stoch} Gaussians' if gaussian else f'{r.stoch} x {r.classes}'
    rows = [
        ('encoder', parameters(net.encoder), f'embedding {net.encoder.outputs}'),
        ('recurrence', parameters(net.rssm), f'state {r.deter}, latents {latents}'),
        ('decoder', parameters(net.decoder), f'{", ".join(net.encoder.spaces)}'),
        ('heads', parameters(net) - parameters(net.encoder, net.rssm, net.decoder), 'reward, cont'),
    ]
    return Summary(rows, work)
