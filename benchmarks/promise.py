"""What dreams of a trained policy promise, and what the true physics pays for the same actions.

    python -m benchmarks.promise LOGDIR [--starts 40] [--horizon 8] [--tries 8]

From frames of the policy's own episodes in dm_control, several dreams each: of the policy, as it
learns, and of a random action that is held. The simulator then does what was dreamt. A policy finds
what its model is wrong about: rewards that rise in its own dreams alone, while those of random
actions are right, are such a find. 'within' correlates sums of rewards of dreams that begin at the
same frame, which is all that a policy can learn from; 'between' their means.

Letters: N starts, K dreams of a start, H horizon, A action dimensions.
"""

import argparse
from collections.abc import Iterator

import numpy as np

from dreamer4.dream import Dream, Moment
from dreamer4.load import load
from embodied.base import Env, sample
from embodied.errors import ConfigError

from .command import start
from .simulator import Simulator

APART = 9  # decisions from one start to the next
STEPS = (1, 3, 5, 8)  # after which sums of rewards are told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('logdir', help='of a run on a task dmc_<domain>_<name>')
    parser.add_argument('--starts', type=int, default=40, help='N')
    parser.add_argument('--tries', type=int, default=8, help='K, dreams of a start, at least two')
    parser.add_argument('--horizon', type=int, default=8, help='H, decisions of a dream')
    args = parser.parse_args()
    agent, env = load(args.logdir)
    dream = Dream(agent, env.obs_space, env.act_space)
    print(report(compare(dream, env, args.starts, args.tries, args.horizon)))


def compare(
    dream: Dream, env: Env, starts: int, tries: int, horizon: int, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Who acts, 'policy' or 'random' -> rewards promised and paid, each (N, K, H).

    Raises:
        ConfigError: the env has no physics of dm_control.
    """
    simulator, rng = simulator_of(env), np.random.default_rng(seed)
    found = {'policy': [], 'random': []}
    for moment in visited(dream, env, starts):
        state = simulator.state()
        for who, pairs in found.items():
            promised, actions = dreamt(dream, moment.take([0] * tries), who, horizon, rng)
            paid = simulator.rollout(np.repeat(state[None], tries, 0), actions)
            pairs.append((promised, paid))
        simulator.go_to(state)
    return {who: tuple(map(np.stack, zip(*pairs))) for who, pairs in found.items()}


def simulator_of(env: Env) -> Simulator:
    """The physics inside an env; what it is moved to, the env goes on from."""
    repeat = env.repeat
    while hasattr(env, 'env'):
        env = env.env
    inner = getattr(env, '_env', None)
    if not hasattr(inner, 'physics'):
        raise ConfigError(f'expected a run on dm_control, got one on {type(env).__name__}')
    return Simulator(inner, repeat)


def visited(dream: Dream, env: Env, count: int) -> Iterator[Moment]:
    """So many moments of whole episodes that the policy plays; the env stands at each of them."""
    moment = obs = None
    for step in range(count * APART):
        over = obs is None or bool(obs['is_last'])
        action = (
            {k: np.zeros((1, *s.shape), s.dtype) for k, s in dream.act_space.items()}
            if over
            else dream.act(moment)
        )
        obs = env.step({**{k: v[0] for k, v in action.items()}, 'reset': np.bool_(over)})
        one = {k: np.asarray(v)[None] for k, v in obs.items()}
        if over:
            moment = dream.begin({k: v[:, None] for k, v in (one | action).items()})
        else:
            moment = dream.see(moment, action, one)
        if step % APART == APART - 1:
            yield moment


def dreamt(
    dream: Dream, moment: Moment, who: str, horizon: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards (K, H) promised to K dreams, and their actions (K, H, A)."""
    (key, space), rewards, actions = next(iter(dream.act_space.items())), [], []
    held = {key: sample(space, rng, len(moment))}
    for _ in range(horizon):
        action = held if who == 'random' else dream.act(moment)
        moment = dream.step(moment, action)
        rewards.append(moment.reward)
        actions.append(action[key])
    return np.stack(rewards, 1), np.stack(actions, 1)


def report(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Markdown: mean rewards by step, then how sums of them agree."""
    lines = []
    for who, (promised, paid) in found.items():
        told = lambda x: ' '.join(f'{value:.2f}' for value in x.mean((0, 1)))
        lines += [f'{who}: promised {told(promised)}', f'{who}: paid     {told(paid)}']
    lines += ['', '| who acts | steps | within | between |', '|---|---|---|---|']
    for who, (promised, paid) in found.items():
        for steps in (s for s in STEPS if s <= promised.shape[2]):
            within, between = agreement(promised[..., :steps].sum(2), paid[..., :steps].sum(2))
            lines.append(f'| {who} | {steps} | {within:.2f} | {between:.2f} |')
    return '\n'.join(lines)


def agreement(promised: np.ndarray, paid: np.ndarray) -> tuple[float, float]:
    """Correlations of sums (N, K) within starts and of their means (N,) between them."""
    away = [x - x.mean(1, keepdims=True) for x in (promised, paid)]
    return correlation(*away), correlation(promised.mean(1), paid.mean(1))


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Nan where one of them does not vary."""
    if not (np.ptp(x) and np.ptp(y)):
        return float('nan')
    return float(np.corrcoef(x.ravel(), y.ravel())[0, 1])


if __name__ == '__main__':
    start(main)
