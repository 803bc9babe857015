"""Further folders of rows, only read, that give a share of every batch: demonstrations, and video
that nobody acted in.
"""

import os
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..base import UNLABELED
from ..errors import ReplayEmptyError, ReplayError
from .config import ReplayConfig
from .folder import listing
from .infer import folder_of
from .labels import Labels, align, unlabeled
from .sampler import Sampler
from .schema import Schema
from .store import Store


class Demos:
    """A further folder, and how its rows become rows of the replay.

    Attributes:
      key: of the block `replay` that names the folder. what: its rows, in a word.
      sampler: of its rows; its index tells their ids from others.
      labels: what stands in for keys that its rows lack.
    """

    def __init__(self, config: ReplayConfig, on_event: Callable[[str], None], key: str = 'demos'):
        """Open the folder.

        Args:
          config: of the replay that they go into; the folder may be the logdir above the rows.
          on_event: as for Replay.
          key: 'demos', or 'video': rows whose actions and rewards are left out where there are any.

        Raises:
          ReplayError: there is no such folder.
          ReplaySchemaError: its rows are not of one kind.
        """
        self.key, self._on_event = key, on_event
        self.what, self._share = {
            'demos': ('demonstrations', config.demo_share),
            'video': ('videos', config.video_share),
        }[key]
        self._where = str(folder_of(getattr(config, key)))
        if not os.path.isdir(self._where):
            raise ReplayError(
                f'{Path(self._where)}: the folder of {self.what} (replay.{key}) does not exist.'
            )
        config = replace(config, uniform=1.0, recent=0.0, newest=0.0)
        self._lock = threading.Condition()  # nobody writes; who reads holds the replay's
        self._store = Store(config, [Path(self._where)], True, self._lock, on_event)
        self._store.settle()
        self._store.load(None)
        self.sampler = Sampler(self._store.shelf, config.mixture, seed=0)
        self.labels = Labels({}, ())

    def align(self, schema: Schema, actions: Collection[str]) -> None:
        """Compare the rows with those of the replay; say what they lack and what is ignored.

        Args: the schema of the replay; which of its keys are actions.

        Raises:
          ReplayError: the folder holds no readable chunk.
          ReplaySchemaError: a key that is not a label is missing, or another.
        """
        theirs = self._store.schema
        if theirs is None:
            raise ReplayError(
                f'{self._where}: the folder of {self.what} (replay.{self.key}) holds no readable'
                ' chunk.'
            )
        if self.key == 'video':
            theirs = unlabeled(theirs, actions, self._where)
        self.labels = align(schema, theirs, actions, self._where)
        if (lacking := self.labels.words()) and self.key == 'demos':
            self._on_event(
                f'{self._where}: the demonstrations are unlabeled, their rows hold no {lacking}.'
            )
        if unread := sorted(
            key for key, _, _ in theirs.specs if key not in schema and key not in UNLABELED
        ):
            self._on_event(
                f'{self._where}: keys that rows here do not have are ignored: {listing(unread)}.'
            )

    def require(self, length: int) -> None:
        """Raises ReplayEmptyError where there is no sequence so long: nobody adds to them."""
        streams = self._store.shelf.streams
        if not streams.sequences(length):
            raise ReplayEmptyError(
                f'{self._where}: the {self.what} hold no sequence of {length} rows, the longest'
                f' stream has {streams.longest}. Learn from shorter sequences (agent.batch) or'
                f' leave them out (no replay.{self.key}).'
            )

    def count(self, batch: int, rng: np.random.Generator) -> int:
        """How many sequences of a batch come from here: the share, rounded up or down so that it
        holds in expectation.
        """
        return int(batch * self._share + rng.random())

    def fill(self, out: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        """Fill arrays of the replay's keys with uniformly drawn sequences.

        Raises:
          ReplayEmptyError: there is none so long.
        """
        fill = dict.fromkeys(set(UNLABELED) - self._columns(), False) | self.labels.fill
        out = dict(out)
        for key in fill.keys() & out.keys():
            out.pop(key)[:] = fill[key]
        if not self.sampler.fill(out, rng):
            length = next(iter(out.values())).shape[1]
            raise ReplayEmptyError(
                f'{Path(self._where)}: the {self.what} hold no sequence of {length} rows.'
            )

    def _columns(self) -> set[str]:
        return {key for key, _, _ in self._store.schema.specs}

    def close(self) -> None:
        """Say what was lost, and give the folder back."""
        with self._lock:
            self._store.close()


def further(config: ReplayConfig, on_event: Callable[[str], None]) -> list[Demos]:
    """Those further folders that a configuration names and gives a share."""
    return [Demos(config, on_event, key) for key in named(config)]


def named(config: ReplayConfig) -> list[str]:
    """The keys of these folders."""
    shares = {'demos': config.demo_share, 'video': config.video_share}
    return [key for key, share in shares.items() if share and getattr(config, key)]
