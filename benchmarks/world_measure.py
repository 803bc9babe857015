"""What a world model knows, measured on held-out sequences and against the simulator itself.

Letters: N starts, T frames, H imagined frames, A action dimensions, M first moves, R repeats.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dreamer4.agent import Agent
from dreamer4.batch import Batch

from .simulator import Simulator
from .world_data import Recorded
from .world_probe import Probe, errors
from .world_view import view

HORIZON = 15
STEPS = (1, 4, 8, 15)  # imagined frames at which measures are told
GOAL = 0.8  # mean reward a frame (at most 1) from which a row counts as near the goal


@dataclass(frozen=True)
class Sequences:
    """Committed sequences and what the recording knows of them.

    Attributes:
        batch: (N, T). context: of the agent, without gradient. state: (N, T, S) physics. start:
            frame from which HORIZON more follow.
    """

    batch: Batch
    context: Any
    state: np.ndarray
    start: int

    @property
    def starts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and frames, as imagine() takes them, of one start a sequence."""
        rows = torch.arange(self.batch.shape[0])
        return rows, torch.full_like(rows, self.start)


class Lab:
    """Measures one agent on one recording; every measure is a dict of numbers and has a fixed seed.

    Args:
        agent: on the CPU, trained by episodes `recorded.learned`. simulator: of the task. starts:
            N.
    """

    def __init__(
        self,
        agent: Agent,
        recorded: Recorded,
        simulator: Simulator,
        starts: int = 256,
        seed: int = 0,
    ):
        self.agent, self.recorded, self.simulator, self.count, self.seed = (
            agent,
            recorded,
            simulator,
            starts,
            seed,
        )
        self.view = view(agent)
        torch.manual_seed(seed)
        self.unseen = self.sequences(recorded.held_out, starts, np.random.default_rng(seed))

    @torch.no_grad()
    def sequences(self, episodes: np.ndarray, count: int, rng: np.random.Generator) -> Sequences:
        """`count` random sequences with as many frames before the start as acting looks back."""
        known = self.agent.config.actor.context
        rows = self.recorded.sample(episodes, rng, count, 1 + known + HORIZON)
        batch = self.agent.batch(rows)
        return Sequences(batch, self.view.see(batch), rows['state'][:, 1:], known - 1)

    def imagine(
        self, from_: Sequences, rows: torch.Tensor, frames: torch.Tensor, codes: torch.Tensor
    ) -> torch.Tensor:
        """Features (N, H + 1, F) imagined with known action codes (N, H, M)."""
        return self.view.imagine(from_.context, rows, frames, codes)

    def rewards(self, from_: Sequences, actions: np.ndarray) -> np.ndarray:
        """Imagined rewards (N, H) of actions (N, H, A); N is a multiple of the number of starts."""
        rows, frames = (x.repeat_interleave(len(actions) // self.count) for x in from_.starts)
        dream = self.imagine(from_, rows, frames, self.codes(actions))
        return self.view.reward(dream[:, 1:]).numpy()

    def codes(self, actions: np.ndarray) -> torch.Tensor:
        return self.agent.actions.encode({'action': torch.from_numpy(actions.astype(np.float32))})

    def executed(self, actions: np.ndarray) -> np.ndarray:
        """Actions as the agent's code expresses them; the simulator takes the same ones."""
        return self.agent.actions.decode(self.codes(actions))['action'].numpy()

    # -- measures

    @torch.no_grad()
    def prediction(self) -> dict:
        """Errors over copy-last (see View.open_loop) and of rewards along the recorded actions."""
        unseen = self.unseen
        loop = self.view.open_loop(unseen.context, unseen.batch, unseen.start)
        truth = unseen.batch.reward[:, unseen.start + 1 :]
        ratio, wrong = (
            (loop.error.mean(0) / loop.copy_error.mean(0)),
            (loop.reward - truth).square().mean(0).sqrt(),
        )
        return {
            'error over copy-last': by_step(ratio),
            'reward rms': by_step(wrong),
            'reward std': float(truth.std()),
            'latent std': float(loop.truth.std()),
            'latent step': float(loop.copy_error[:, 0].mean().sqrt()),
        }

    @torch.no_grad()
    def frames(self, sequences: Sequences, chunk: int = 256) -> dict[str, torch.Tensor]:
        """Latents, features and head inputs of real frames, and of those imagined after them.

        The real frames are those from the start of every sequence to the last but one; 'imagined'
        are head inputs of the frame after each, by the recorded action. All are (N HORIZON, F).
        """
        count, time = sequences.batch.shape
        where = (
            torch.arange(count).repeat_interleave(HORIZON),
            torch.arange(sequences.start, time - 1).repeat(count),
        )
        seen, dreamed = [], []
        for rows, frames in zip(where[0].split(chunk), where[1].split(chunk)):
            dream = self.imagine(
                sequences, rows, frames, sequences.batch.action[rows, frames][:, None]
            )
            seen.append(dream[:, 0])
            dreamed.append(dream[:, 1])
        found = {'inputs': torch.cat(seen), 'imagined': torch.cat(dreamed)}
        return self.view.parts(sequences.context, where) | found

    def probes(self, sequences: int = 480) -> dict:
        """Errors of reading positions and velocities: rms, median, std; overall and at the goal.

        'latent', 'feature' and 'inputs' (what heads read) are of real frames; 'imagined k' are head
        inputs after k imagined frames, read by the probe of real ones; 'copied k' says how far the
        truth of the start is off by then. Probes learn from `sequences` sequences of the episodes
        that the agent learned from.
        """
        rng = np.random.default_rng(self.seed + 1)
        known = self.sequences(self.recorded.learned, sequences, rng)
        at = slice(known.start, -1)
        quantities = lambda state: self.simulator.quantities(state.reshape(-1, state.shape[-1]))
        learned, target = self.frames(known), quantities(known.state[:, at])
        there, truth = self.frames(self.unseen), quantities(self.unseen.state[:, at])
        near = self.near(self.unseen.batch.reward[:, at])
        out = {}
        for name in ('latent', 'feature', 'inputs'):
            probe = Probe(learned[name], target, seed=self.seed)
            out[name] = two(probe.read(there[name]), truth, near)
        begin, end, later = self.unseen.start, self.unseen.start + 8, slice(known.start + 1, None)
        dream = self.imagine(
            self.unseen, *self.unseen.starts, self.unseen.batch.action[:, begin:end]
        )
        ahead = {
            1: (
                there['imagined'],
                truth,
                self.unseen.state[:, later],
                self.unseen.batch.reward[:, later],
            ),
            8: (
                dream[:, 8],
                quantities(self.unseen.state[:, begin]),
                self.unseen.state[:, end],
                self.unseen.batch.reward[:, end],
            ),
        }
        for step, (inputs, before, state, reward) in ahead.items():
            after, near = quantities(state), self.near(reward)
            out |= {
                f'imagined {step}': two(probe.read(inputs), after, near),
                f'copied {step}': two(before, after, near),
            }
        return out

    def near(self, reward: torch.Tensor) -> np.ndarray:
        """bool (N,): frames near the goal, by their rewards (...)."""
        return (reward >= GOAL * self.simulator.repeat).numpy().reshape(-1)

    @torch.no_grad()
    def effects(self) -> dict:
        """What holding an action, not its opposite, does to imagined and real sums of rewards.

        With one action dimension the pair is +1 and -1, with more a random vector of signs and its
        opposite.
        """
        rng, size = np.random.default_rng(self.seed + 2), self.simulator.actions
        sign = (
            np.ones((self.count, size))
            if size == 1
            else rng.choice([-1.0, 1.0], (self.count, size))
        )
        held = np.repeat(np.stack([sign, -sign], 1)[:, :, None], HORIZON, 2).reshape(
            -1, HORIZON, size
        )
        near = self.near(self.unseen.batch.reward[:, self.unseen.start])
        imagined, real = (sums.reshape(self.count, 2, HORIZON) for sums in self.sums(held))
        return {
            str(step): effect(imagined[:, :, step - 1], real[:, :, step - 1], near)
            for step in STEPS
        }

    def sums(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Imagined and real sums of rewards (N, H) after 1 .. H decisions; N as for rewards."""
        actions = self.executed(actions)
        states = self.unseen.state[:, self.unseen.start].repeat(len(actions) // self.count, 0)
        return self.rewards(self.unseen, actions).cumsum(1), self.simulator.rollout(
            states, actions
        ).cumsum(1)

    @torch.no_grad()
    def spread(self, moves: int = 4, repeats: int = 4, horizon: int = 8) -> dict:
        """Standard deviation of returns of `horizon` decisions between first moves and within one.

        Every start has M first moves; each is followed by R sequences of random actions, the same
        for all its moves. Within contains what later actions do and, in imagination, the noise of
        the model; a policy learns from what is between.
        """
        rng, size = np.random.default_rng(self.seed + 3), self.simulator.actions
        first = rng.uniform(-1, 1, (self.count, moves, 1, 1, size))
        later = rng.uniform(-1, 1, (self.count, 1, repeats, horizon - 1, size))
        shape = (self.count, moves, repeats)
        actions = np.concatenate(
            [
                np.broadcast_to(first, (*shape, 1, size)),
                np.broadcast_to(later, (*shape, horizon - 1, size)),
            ],
            3,
        )
        imagined, real = (
            sums[:, -1].reshape(shape) for sums in self.sums(actions.reshape(-1, horizon, size))
        )
        centered = lambda x: (x.mean(2) - x.mean((1, 2))[:, None]).ravel()
        return {
            'imagined': parts(imagined),
            'real': parts(real),
            'correlation between': correlation(centered(imagined), centered(real)),
        }


def effect(imagined: np.ndarray, real: np.ndarray, near: np.ndarray) -> dict:
    """Imagined and real sums of rewards (N, 2) of a pair of actions compared.

    sign is the share of starts at which the same action is the better one, large the same among the
    half of the starts where it matters most. correlation is that of the differences, near the same
    of starts near the goal, slope that of the imagined difference over the real one; returns is the
    correlation of the sums themselves.
    """
    a, b = imagined[:, 0] - imagined[:, 1], real[:, 0] - real[:, 1]
    large = np.abs(b) >= np.median(np.abs(b))
    right = np.sign(a) == np.sign(b)
    return {
        'correlation': correlation(a, b),
        'near': correlation(a[near], b[near]),
        'slope': float(a @ b / max(b @ b, 1e-12)),
        'sign': float(right.mean()),
        'large': float(right[large].mean()),
        'returns': correlation(imagined.ravel(), real.ravel()),
        'std': float(b.std()),
    }


def parts(returns: np.ndarray) -> dict[str, float]:
    """Standard deviations of returns (N, M, R): within a move, over R repeats, and between M moves.

    Repeat r has the same later actions for every move, so what is between moves is freed of what
    moves and repeats share (the analysis of variance in two ways): var(mean over repeats) -
    var(residual) / R.
    """
    repeats = returns.shape[2]
    residual = (
        returns
        - returns.mean(2, keepdims=True)
        - returns.mean(1, keepdims=True)
        + returns.mean((1, 2), keepdims=True)
    )
    chance = (
        residual.var((1, 2)).mean() * residual[0].size / ((returns.shape[1] - 1) * (repeats - 1))
    )
    between = returns.mean(2).var(1, ddof=1).mean() - chance / repeats
    return {
        'within': float(returns.var(2, ddof=1).mean() ** 0.5),
        'between': float(max(between, 0.0) ** 0.5),
    }


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation; nan for fewer than 16 entries or a constant y, zero for a constant x."""
    if len(x) < 16 or np.ptp(y) < 1e-9:
        return float('nan')
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) > 1e-12 else 0.0


def two(read: dict, truth: dict, near: np.ndarray) -> dict:
    """Errors of a probe over all frames and over those near the goal."""
    return {'all': errors(read, truth, np.ones_like(near)), 'near': errors(read, truth, near)}


def by_step(values: torch.Tensor) -> dict[str, float]:
    """Values (H,) of imagined frames 1 .. H at STEPS."""
    return {str(step): float(values[step - 1]) for step in STEPS}
