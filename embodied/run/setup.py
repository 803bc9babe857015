"""What a run is told: its settings and how its parts are made; and how far it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..base import Agent, Env, Spaces, Values
from ..drive import DriverConfig
from ..errors import ConfigError
from ..log import Logger
from ..ranks import Ranks
from ..replay import Replay
from ..tasks import KEY
from ..tree_spec import COUNT, demand
from .evaluate import EvalConfig

# (obs_space, act_space), as the driver has them
MakeAgent = Callable[[Spaces, Spaces], Agent]
# ('env' or 'eval', number[, one of several tasks]) -> constructor of that env
MakeEnv = Callable[..., Callable[[], Env]]
# ([obs_space, act_space, meta,] on_event); offline: on_event
MakeReplay = Callable[..., Replay]
MakeLogger = Callable[['Counters', Callable[[str], None]], Logger]  # (counters, on_event)


@dataclass(frozen=True)
class RunConfig:
    """Block `run` of the config; units and meanings stand in configs/defaults.yaml."""

    steps: int
    updates: int
    envs: int
    train_ratio: float
    max_catchup: float
    prefill: int
    pretrain: int
    log_every: int
    report_every: int
    save_every: float
    keep: int
    films: float
    actions: tuple[str, ...]

    def __post_init__(self):
        for name in ('steps', 'updates', 'envs', 'max_catchup', 'keep'):
            if getattr(self, name) < 1:
                raise ConfigError(f'run.{name} must be at least 1, got {getattr(self, name)}.')
        for name in (
            'train_ratio',
            'prefill',
            'pretrain',
            'log_every',
            'report_every',
            'save_every',
            'films',
        ):
            if getattr(self, name) < 0:
                raise ConfigError(f'run.{name} must not be negative, got {getattr(self, name)}.')


@dataclass(frozen=True)
class Setup:
    """What a script is told besides how its parts are made.

    Attributes:
      task, seed: of the run.
      logdir: its folder.
      from_checkpoint: logdir, ckpt folder or single save that the agent starts from; None for none.
      run, eval, driver: blocks of the config.
      phases: of offline learning, by the names that the agent knows; none for all.
      warnings: what a person should know before it runs.
      tasks: names of several tasks, which are evaluated one by one; none for one.
      ranks: the processes that make the run together.
    """

    task: str
    seed: int
    logdir: Path
    from_checkpoint: Path | None
    run: RunConfig
    eval: EvalConfig
    driver: DriverConfig
    phases: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    ranks: Ranks = Ranks()
    tasks: tuple[str, ...] = ()


@dataclass
class Counters:
    """How far a run is. A reset is neither a decision nor a frame.

    Attributes:
      step: decisions.
      updates: calls of agent.train() in this run.
      episodes: those that came to their end.
      repeat: frames per decision. repeats: those of several tasks, by number.
    """

    step: int = 0
    updates: int = 0
    episodes: int = 0
    repeat: int = 1
    repeats: tuple[int, ...] = ()
    missing: int = 0  # frames that decisions of fewer than `repeat` lack

    @property
    def frames(self) -> int:
        return self.step * self.repeat - self.missing

    def row(self, row: Values, worker: int) -> None:
        """Count one row; a listener of the driver."""
        self.step += not row['is_first']
        if self.repeats and not row['is_first']:
            self.missing += self.repeat - self.repeats[int(row[KEY])]
        self.episodes += bool(row['is_last'])

    def __call__(self) -> dict[str, int]:
        return {
            'step': self.step,
            'frames': self.frames,
            'updates': self.updates,
            'episodes': self.episodes,
        }

    def save(self) -> dict[str, int]:
        counts = {'step': self.step, 'updates': self.updates, 'episodes': self.episodes}
        return counts | ({'missing': self.missing} if self.missing else {})

    def load(self, tree: dict[str, int]) -> None:
        demand(tree, dict.fromkeys(('step', 'updates', 'episodes'), COUNT), 'The counters')
        self.step, self.updates, self.episodes = tree['step'], tree['updates'], tree['episodes']
        self.missing = int(tree.get('missing', 0))
