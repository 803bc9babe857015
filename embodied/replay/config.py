"""The block `replay` of the configuration."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ConfigError
from .mix import Relevance
from .selectors import Mixture


@dataclass(frozen=True)
class ReplayConfig:
    """Block `replay` of the config; see configs/defaults.yaml.

    Attributes:
      directory: folders of the chunks, several where they are only read; none is logdir/replay.
      shares: of the sequences, for each of several folders; none: every row counts the same.
      max_gb: memory for rows, 10^9 bytes.
      disk_gb: size of the chunk files, 10^9 bytes; the oldest are deleted.
      chunk_rows: rows of a full chunk.
      uniform, recent, newest, recent_rows: see selectors.Mixture.
      resume: 'manifest' restores the rows that the checkpoint names, 'all' every row in the folder.
      demos: folder of a further replay that is only read, '' for none.
      demo_share: share of each batch that comes from it, in [0, 1].
      video, video_share: likewise, a folder whose actions and rewards nobody learns from.
      held_out: share of the episodes of a folder that is only read which training does not draw.
      relevant: share of the sequences of relevant episodes, where such are asked for.
      relevance: which episodes those are, see mix.Relevance.
      prefetch: whether a feed may have the next draw prepared by a thread.
    """

    directory: tuple[str, ...]
    shares: tuple[float, ...]
    max_gb: float
    disk_gb: float
    chunk_rows: int
    uniform: float
    recent: float
    newest: float
    recent_rows: int
    resume: str
    demos: str
    demo_share: float
    video: str
    video_share: float
    held_out: float
    relevant: float
    relevance: str
    prefetch: bool

    @property
    def mixture(self) -> Mixture:
        """What sequences are drawn from."""
        return Mixture(self.uniform, self.recent, self.newest, self.recent_rows)

    def __post_init__(self):
        self.mixture  # refuses shares that cannot be
        if not (0 < self.max_gb < math.inf and 0 < self.disk_gb < math.inf):
            raise ConfigError(
                f'replay.max_gb and replay.disk_gb must be above 0 and finite; got {self.max_gb}'
                f' and {self.disk_gb}.'
            )
        if self.chunk_rows < 1:
            raise ConfigError(f'replay.chunk_rows must be at least 1, got {self.chunk_rows}.')
        if self.resume not in ('manifest', 'all'):
            raise ConfigError(f"replay.resume must be 'manifest' or 'all', got {self.resume!r}.")
        Relevance.read(self.relevance)
        for name in ('held_out', 'relevant'):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f'replay.{name} must lie in [0, 1), got {getattr(self, name)}: the rest is'
                    ' learned from.'
                )
        for name in ('demo_share', 'video_share'):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f'replay.{name} must lie in [0, 1], got {getattr(self, name)}.')
        if self.demo_share + self.video_share > 1:
            raise ConfigError(
                'replay.demo_share and replay.video_share must sum to 1 at most, got'
                f' {self.demo_share} and {self.video_share}.'
            )
        if self.shares and (
            len(self.shares) != len(self.directory)
            or min(self.shares) <= 0
            or abs(sum(self.shares) - 1) > 1e-6
        ):
            raise ConfigError(
                'replay.shares must name a share above 0 for each folder of replay.directory, and'
                f' sum to 1; got {list(self.shares)} for {len(self.directory)} folders.'
            )


def anchored(config: ReplayConfig) -> ReplayConfig:
    """Its folders as absolute ones: an env in this process may change the present one."""
    fixed = lambda name: name and str(Path(name).expanduser().absolute())
    return replace(
        config,
        directory=tuple(map(fixed, config.directory)),
        demos=fixed(config.demos),
        video=fixed(config.video),
    )


def share_of_budgets(config: ReplayConfig, count: int) -> ReplayConfig:
    """Budgets of one of so many replays, which together have those of the configuration."""
    if count == 1:
        return config
    return replace(
        config,
        max_gb=config.max_gb / count,
        disk_gb=config.disk_gb / count,
        recent_rows=max(1, config.recent_rows // count),
    )


def unlimited(max_gb: float, resume: str = 'all') -> ReplayConfig:
    """A replay that is only filled: `max_gb` of memory, as much disk as there is."""
    return ReplayConfig(
        directory=(),
        shares=(),
        max_gb=max_gb,
        disk_gb=1e6,
        chunk_rows=1024,
        uniform=1.0,
        recent=0.0,
        newest=0.0,
        recent_rows=1,
        resume=resume,
        demos='',
        demo_share=0.0,
        video='',
        video_share=0.0,
        held_out=0.0,
        relevant=0.0,
        relevance='demos',
        prefetch=False,
    )
