"""The parts of a trained agent, measured on sequences of a replay: one dict of numbers, and
pictures of what they mean.

Letters: B sequences, T time, N frames.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..agent import Agent
from ..batch import Batch
from ..scores import balanced_skill, correlation
from ..worlds.dreamer4 import examine, perceptual
from .measures import auc, brier, psnr, reliability, ssim

WORST = 8  # frames of each image that are shown
POINTS = 400  # of a scatter plot, at most
LEVELS, STEPS = 8, 8  # signal levels of a curve, denoising steps at most, of a quick report

Numbers = dict[str, object]


@dataclass
class Findings:
    """What was found.

    Attributes:
        numbers: section -> what JSON can hold. worst: image key -> (frames, their reconstructions),
            uint8 (WORST, H, W, C) each, the worst first. videos: name -> uint8 (T, H, W, 3).
    """

    numbers: dict[str, Numbers] = field(default_factory=dict)
    worst: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    videos: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def measure(
    agent: Agent,
    batches: Iterable[Batch],
    say: Callable[[str], None],
    thorough: bool = False,
    tasks: Sequence[str] = (),
) -> Findings:
    """Everything that an agent's world model can be asked.

    Args:
        batches: at least one, (B, T). say: told what is being measured. thorough: all signal
            levels and all numbers of denoising steps, on all batches. tasks: names of several.
    """
    batches, found = list(batches), Findings()
    say('open-loop predictions')
    numbers = {}
    for batch in batches:
        for key, value in agent.report(batch).items():
            if isinstance(value, np.ndarray):
                found.videos.setdefault(key, value)
            else:
                numbers.setdefault(key, []).append(value)
    found.numbers['open_loop'] = {k: float(np.mean(v)) for k, v in sorted(numbers.items())}
    if agent.config.world != 'dreamer4':
        return found
    world = agent.world
    with agent.machine.fixed(), agent.machine.autocast():
        contexts = [world.commit(batch) for batch in batches]
        say('tokenizer')
        found.numbers['tokenizer'] = tokenizer(world, batches, found)
        if agent.schedule.reached('dynamics'):
            say('dynamics')
            found.numbers['dynamics'] = dynamics(world, contexts, batches, thorough)
        # what has not begun to learn has nothing to say
        if agent.schedule.reached('agent' if 'agent' in world.stages else 'dynamics'):
            say('heads and imagination')
            found.numbers['heads'] = heads(world, contexts, batches)
            found.numbers['imagination'] = imagination(world, contexts, batches)
            if tasks:
                found.numbers['tasks'] = by_task(world, batches, tasks)
        if agent.schedule.reached('policy'):
            found.numbers['policy'] = policy(agent, contexts, batches)
    return found


def tokenizer(world, batches: list[Batch], found: Findings) -> Numbers:
    """PSNR, SSIM and, where it is installed, LPIPS of every image, and the worst frames."""
    images = world.tokenizer.images
    lpips, why = perceptual.measure(world.config.tokenizer, images, world.machine.device)
    out, kept = {}, {key: [] for key in images}
    for batch in batches:
        guess = examine.reconstructions(world, batch)
        for key in images:
            truth, mine = (x.flatten(0, 1).float() for x in (batch.obs[key] / 255, guess[key]))
            scores = {'psnr': psnr(mine, truth), 'ssim': ssim(mine, truth)}
            if lpips is not None:
                scores['lpips'] = lpips(mine, truth)
            still = truth.mean(0, keepdim=True).expand_as(truth)
            scores['psnr_mean_frame'] = psnr(still, truth)
            order = scores['psnr'].argsort()[:WORST]
            kept[key].append(({k: v.cpu() for k, v in scores.items()}, truth[order], mine[order]))
    for key, parts in kept.items():
        scores = {name: torch.cat([part[0][name] for part in parts]) for name in parts[0][0]}
        out[key] = {name: float(x.mean()) for name, x in scores.items()}
        out[key]['psnr_worst_5_percent'] = float(scores['psnr'].quantile(0.05))
        told = found.numbers['open_loop']
        out[key]['psnr_foreground'] = told.get(f'psnr/{key}')
        out[key]['psnr_foreground_mean_frame'] = told.get(f'psnr_mean_frame/{key}')
        out[key]['psnr_of_frames'] = sample(scores['psnr'])
        found.worst[key] = worst(parts)
    return out | ({'lpips_missing': why} if why else {})


def worst(parts: list[tuple]) -> tuple[np.ndarray, np.ndarray]:
    """Of (scores, frames, reconstructions), both in the order of their PSNR, the WORST of all."""
    truth, guess = (torch.cat([part[i] for part in parts]) for i in (1, 2))
    order = psnr(guess, truth).argsort()[:WORST]
    to_bytes = lambda x: (x[order].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return to_bytes(truth), to_bytes(guess)


def dynamics(world, contexts: list, batches: list[Batch], thorough: bool) -> Numbers:
    """Errors in shares of that of the mean frame: over the horizon, over tau, over K."""
    steps, pairs = world.config.shortcut.steps, list(zip(contexts, batches))
    known = world.config.dynamics.levels
    tau = np.linspace(0, known - 1, known if thorough else min(LEVELS, known)).astype(int)
    most = known if thorough else min(known, max(STEPS, steps))
    parts = [examine.horizon(world, *pair, steps) for pair in pairs]
    some = pairs if thorough else pairs[:1]
    curves = mean(parts)
    unit = np.clip(curves['mean frame'], 1e-12, None)
    total = float(np.nanmean(np.clip(mean(parts[: len(some)])['mean frame'], 1e-12, None)))
    sweeps: dict[int, list] = {}
    for pair in some:
        for count, (error, number), seconds in examine.sweep(world, *pair, most):
            sweeps.setdefault(count, []).append((float(error), float(number), seconds))
    levels = mean([examine.levels(world, *pair, tau.tolist()) for pair in some])
    zero = np.clip(levels['zero'], 1e-12, None)
    there = ~np.isnan(unit)  # steps that an episode of some sequence goes on for
    share = lambda name: (curves[name] / unit)[there].tolist()
    mixed = np.nansum(curves['shuffled actions']) / max(np.nansum(curves['model']), 1e-12)
    return {
        'steps': steps,
        'unit': 'squared error of latents, in shares of that of the mean frame',
        'horizon': {name: share(name) for name in curves},
        'shuffle_ratio': float(min(mixed, 1e3)),
        'tau': (tau / known).tolist(),
        'levels': {name: (levels[name] / zero).tolist() for name in ('model', 'noisy frame')},
        'denoising_steps': {
            count: {
                'error': sum(e for e, _, _ in runs) / max(sum(n for _, n, _ in runs), 1) / total,
                'milliseconds_a_frame': 1e3 * min(s for *_, s in runs),
            }
            for count, runs in sweeps.items()
        },
    }


def mean(parts: list[Mapping[str, tuple]]) -> dict[str, np.ndarray]:
    """Sums and counts of several batches -> means, nan where there is none."""
    out = {}
    for name in parts[0]:
        sums = sum(part[name][0].double().cpu() for part in parts)
        counts = sum(part[name][1].double().cpu() for part in parts)
        out[name] = torch.where(counts > 0, sums / counts, torch.nan).numpy()
    return out


def heads(world, contexts: list, batches: list[Batch]) -> Numbers:
    """Behaviour, reward and continue on real frames, over the offsets of multi-token prediction."""
    parts = [examine.heads(world, *pair) for pair in zip(contexts, batches)]
    offsets = range(len(parts[0]['behaviour']))
    joined = lambda name, n, i: torch.cat([part[name][n][i] for part in parts]).float().cpu()
    behaviour = [tuple(joined('behaviour', n, i) for i in range(3)) for n in offsets]
    reward = [tuple(joined('reward', n, i) for i in range(2)) for n in offsets]
    chance, alive = (torch.cat([part['cont'][i] for part in parts]).cpu() for i in range(2))
    average = lambda x: float(x.mean()) if x.numel() else None
    sure, right = behaviour[0][1], behaviour[0][2] > 0.5
    return {
        'behaviour': {
            'nll': [average(nats) for nats, _, _ in behaviour],
            'nll_uniform': uniform_nats(world.heads.actions, batches),
            'accuracy': [average(right) for _, _, right in behaviour],
            'calibration': reliability(sure, right) if sure.numel() else None,
        },
        'reward': {
            'correlation': [float(correlation(x, y)) if len(x) else None for x, y in reward],
            'skill': [
                float(balanced_skill(x, y, torch.ones_like(y, dtype=torch.bool))) for x, y in reward
            ],
            'points': [sample(x) for x in reward[0]],
        },
        'cont': {
            'auc': auc(1 - chance.float(), ~alive),
            'brier': brier(chance.float(), alive),
            'brier_constant': brier(alive.float().mean().expand(len(alive)), alive),
            'ends': int((~alive).sum()),
            'frames': len(alive),
        },
    }


def uniform_nats(actions, batches: list[Batch]) -> float | None:
    """Negative log-likelihood of uniform choices, each task's own; None where actions are real
    values.
    """
    if actions.normals:
        return None
    flat = [torch.zeros(*b.shape, actions.outputs, device=b.is_first.device) for b in batches]
    nats = [actions.policy(x, batch.task).entropy() for x, batch in zip(flat, batches)]
    known = torch.cat([x[batch.action_valid] for x, batch in zip(nats, batches)])
    return float(known.mean()) if len(known) else None


def policy(agent: Agent, contexts: list, batches: list[Batch]) -> Numbers:
    """The policy beside the behaviour of the data, at real frames."""
    entropy, kl, clone = [], [], agent.world.clone is not None
    for context, batch in zip(contexts, batches):
        x = agent.world.heads.inputs(context.feature, context.view)
        where = batch.action_valid & agent.world.dynamics.coordinates.known(batch.is_first)
        x, task = x[where], None if batch.task is None else batch.task[where]
        ours = agent.actor_critic.policy(x, task)
        entropy.append(ours.entropy())
        theirs = agent.world.heads.behaviour(x, task) if clone else ours
        kl.append(ours.kl(theirs))
    return {
        'entropy': float(torch.cat(entropy).mean()),
        'kl_to_behaviour': float(torch.cat(kl).mean()),
    }


def imagination(world, contexts: list, batches: list[Batch]) -> Numbers:
    """Returns of dreams against those of the rows, on the same actions."""
    parts = [examine.dreams(world, *pair) for pair in zip(contexts, batches)]
    imagined, real = (torch.cat([p[k] for p in parts]).float().cpu() for k in ('imagined', 'real'))
    if not len(real):
        return {'sequences': 0}
    return {
        'sequences': len(real),
        'correlation': float(correlation(imagined, real)),
        'mean_imagined': float(imagined.mean()),
        'mean_real': float(real.mean()),
        'rms_error': float((imagined - real).square().mean().sqrt()),
        'std_real': float(real.std(correction=0)),
        'imagined': sample(imagined),
        'real': sample(real),
    }


def by_task(world, batches: list[Batch], tasks: Sequence[str]) -> Numbers:
    """The measures in which several tasks may differ, of each; of those that sequences show."""
    out = {}
    for number, name in enumerate(tasks):
        rows = [(batch.task[:, 0] == number).nonzero().flatten() for batch in batches]
        parts = [batch.at(own) for batch, own in zip(batches, rows) if len(own)]
        if not parts:
            continue
        contexts = [world.commit(part) for part in parts]
        known, dreamt = heads(world, contexts, parts), imagination(world, contexts, parts)
        reconstructed = [examine.reconstructions(world, part) for part in parts]
        quality = {
            f'psnr/{key}': torch.cat(
                [
                    psnr(guess[key].flatten(0, 1).float(), part.obs[key].flatten(0, 1) / 255)
                    for guess, part in zip(reconstructed, parts)
                ]
            )
            for key in world.tokenizer.images
        }
        out[name] = {
            'sequences': sum(map(len, rows)),
            **{key: float(x.mean()) for key, x in quality.items()},
            'behaviour_nll': known['behaviour']['nll'][0],
            'reward_correlation': known['reward']['correlation'][0],
            'return_correlation': dreamt.get('correlation'),
            'mean_imagined': dreamt.get('mean_imagined'),
            'mean_real': dreamt.get('mean_real'),
        }
    return out


def sample(x: torch.Tensor) -> list[float]:
    """Up to POINTS numbers of x (N,), evenly spaced."""
    step = max(1, -(-len(x) // POINTS))
    return [float(value) for value in x[::step]]
