"""A fixed replay of a dm_control task: pixels, vectors and the true physics state in the same rows.

    python -m benchmarks.world_data --task dmc_cartpole_balance --out FOLDER [--image]

Even episodes are scripted with noise (benchmarks/controllers.py says how), odd ones random. The env
is the product's, with its `fast` rendering and the action repeat of the presets. FOLDER holds
rows.npz, each key (episodes, rows, ...), and about.json.
Letters: E episodes, R rows of an episode, S size of a physics state.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gymnasium import spaces

from embodied import envs
from embodied.base import Env
from embodied.config import parse
from embodied.errors import ConfigError
from embodied.replay import npz
from embodied.seeds import derive
from embodied.wrappers import TimeLimit

from .command import start, write
from .controllers import Held, Script, law
from .learning import ROOT
from .simulator import Simulator, suite_env

PAIRS = 5  # of so many pairs of episodes (one scripted, one random) one is held out
FLAGS = ('is_first', 'is_last', 'is_terminal')
OWN = ('action', 'reward', 'state', *FLAGS)  # keys that are not observations


@dataclass(frozen=True)
class Recorded:
    """A fixed replay.

    Attributes:
        rows: key -> (E, R, ...); 'state' is the physics at the row, (E, R, S) float64, the others
            are as in the replay.
        about: task, repeat, size, quality, seed, and what was scripted.
    """

    rows: dict[str, np.ndarray]
    about: dict

    @classmethod
    def load(cls, folder: Path) -> 'Recorded':
        """Read what main() wrote.

        Raises:
            ConfigError: the files are missing. ChunkError: they are damaged.
        """
        path = folder / 'rows.npz'
        if not path.exists():
            raise ConfigError(
                f'{folder} holds no rows.npz; make it: '
                f'python -m benchmarks.world_data --task TASK --out {folder}'
            )
        return cls(
            npz.read(path, npz.describe(path)), json.loads((folder / 'about.json').read_text())
        )

    @property
    def episodes(self) -> int:
        """E."""
        return len(self.rows['is_first'])

    @property
    def held_out(self) -> np.ndarray:
        """Held-out episodes: the last pair of every PAIRS, or of all if fewer."""
        pair, period = np.arange(self.episodes) // 2, min(PAIRS, self.episodes // 2)
        return np.flatnonzero(pair % period == period - 1)

    @property
    def learned(self) -> np.ndarray:
        """Indices of the other episodes."""
        return np.setdiff1d(np.arange(self.episodes), self.held_out)

    def keys(self, kind: str) -> list[str]:
        """Observations of a kind: 'image' or 'proprio'.

        Raises:
            ConfigError: the replay has none.
        """
        found = [
            key
            for key, column in self.rows.items()
            if key not in OWN and (column.dtype == np.uint8) == (kind == 'image')
        ]
        if not found:
            raise ConfigError(
                f'this replay of {self.about["task"]} holds no {kind}; make it anew with --image'
            )
        return found

    def needed(self, kind: str) -> list[str]:
        """Keys needed by an agent that sees one kind of observation."""
        return [*self.keys(kind), 'action', 'reward', *FLAGS]

    def spaces(self, kind: str) -> tuple[dict[str, spaces.Space], dict[str, spaces.Space]]:
        """Observation and action spaces of an agent that sees one kind of observation."""
        seen = {}
        for key in self.keys(kind):
            column = self.rows[key]
            image = column.dtype == np.uint8
            seen[key] = spaces.Box(
                0 if image else -np.inf,
                255 if image else np.inf,
                column.shape[2:],
                column.dtype.type,
            )
        return seen, {'action': spaces.Box(-1, 1, self.rows['action'].shape[2:], np.float32)}

    def sample(
        self,
        episodes: np.ndarray,
        rng: np.random.Generator,
        batch: int,
        length: int,
        without: tuple[str, ...] = (),
    ) -> dict[str, np.ndarray]:
        """Random sequences, key -> (batch, length, ...), with their 'episode' and 'row'."""
        last = self.rows['is_first'].shape[1] - length
        if last < 0:
            raise ConfigError(
                f'sequences of {length} rows do not fit in episodes of {last + length}'
            )
        episode, row = (
            rng.choice(episodes, batch)[:, None],
            rng.integers(0, last + 1, batch)[:, None] + np.arange(length),
        )
        return {
            key: column[episode, row] for key, column in self.rows.items() if key not in without
        } | {'episode': np.broadcast_to(episode, row.shape), 'row': row}


def record(task: str, frames: int, image: bool, seed: int, length: int, **dmc) -> Recorded:
    """Play, and record every row.

    Args:
        task: dmc_<domain>_<name>. frames: physics frames in all; whole pairs of episodes are made,
            at least two. image: render.
        length: most decisions an episode. dmc: further values of the block env.dmc.
    """
    config = parse(['--configs', 'dmc_vision'], ROOT / 'configs').env.to_dict()
    config['dmc'] |= {'image': image, 'proprio': True, 'quality': 'fast'} | dmc
    inner = envs.make(task, config, derive(seed, 'env'))
    env, suite = TimeLimit(inner, length), suite_env(inner)
    simulator, rng = Simulator(suite, env.repeat), np.random.default_rng(seed)
    followed = law(task, suite.physics, env.repeat)
    episodes, pairs = [], max(2, round(frames / env.repeat / length / 2))
    for _ in range(pairs):
        for player in (Script(followed, simulator.actions, rng), Held(simulator.actions, rng)):
            episodes.append(play(env, simulator, player))
    env.close()
    shortest = min(len(rows) for rows in episodes)
    if shortest != max(len(rows) for rows in episodes):
        raise ConfigError(
            f'{task} ends its episodes early; a replay of equal episodes needs '
            f'--length {shortest - 1} or less'
        )
    columns = {
        key: np.stack([np.stack([row[key] for row in rows]) for rows in episodes])
        for key in episodes[0][0]
    }
    scripted = (
        'the law of benchmarks/controllers.py'
        if followed
        else 'a slow random walk of actions, for the task has no law'
    )
    return Recorded(
        columns,
        {
            'task': task,
            'seed': seed,
            'repeat': env.repeat,
            'scripted': scripted,
            'env': json.loads(json.dumps(config['dmc'])),  # as it will be read
            'returns': {
                'scripted': float(columns['reward'][::2].sum(1).mean()),
                'random': float(columns['reward'][1::2].sum(1).mean()),
            },
        },
    )


def play(env: Env, simulator: Simulator, player: Script | Held) -> list[dict[str, np.ndarray]]:
    """The rows of one episode, as the replay has them, and the physics state of each."""
    action, rows = np.zeros(env.act_space['action'].shape, np.float32), []
    while not rows or not rows[-1]['is_last']:
        obs = env.step({'action': action, 'reset': np.bool_(not rows)})
        state = simulator.state()
        action = np.zeros_like(action) if obs['is_last'] else player.act().astype(np.float32)
        rows.append({**obs, 'action': action, 'state': state})
    return rows


def save(recorded: Recorded, folder: Path) -> None:
    """Write rows.npz and about.json."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'rows.npz', 'wb') as file:
        npz.write(
            file, {key: np.ascontiguousarray(column) for key, column in recorded.rows.items()}
        )
    write(folder / 'about.json', recorded.about)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--task', required=True, help='dmc_<domain>_<name>')
    parser.add_argument('--out', required=True, type=Path, help='folder to write')
    parser.add_argument('--image', action='store_true', help='render the image, too')
    parser.add_argument(
        '--frames', type=int, default=32000, help='physics frames (decisions x action repeat)'
    )
    parser.add_argument('--repeat', type=int, help='as in the presets if not given')
    parser.add_argument('--stack', type=int, default=1, help='frames of an image in one row')
    parser.add_argument('--length', type=int, default=500, help='most decisions of an episode')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    further = {'stack': args.stack} | ({} if args.repeat is None else {'repeat': args.repeat})
    recorded = record(args.task, args.frames, args.image, args.seed, args.length, **further)
    save(recorded, args.out)
    for key, column in recorded.rows.items():
        print(f'{key:12} {column.dtype} {list(column.shape)}')
    about = recorded.about
    print(
        f'{about["task"]}, {about["repeat"]} frames a decision; scripted: {about["scripted"]}; '
        f'mean returns {about["returns"]}'
    )
    print(f'held out: episodes {recorded.held_out.tolist()}; {time.perf_counter() - start:.0f} s')


if __name__ == '__main__':
    start(main)
