"""Rows whose action or reward nobody recorded, as the frames of a video: which keys say so, and
what stands in for what is missing.

    unlabeled_action   the action of the row is not known
    unlabeled_reward   its reward is not known, nor whether it is terminal
    unlabeled          neither

Each is a bool of its row. A row that is unlabeled holds anything in the place of what is not known;
nobody learns from that. A folder of demonstrations may leave the columns out: all of its rows are
then unlabeled.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..base import UNLABELED
from ..errors import ReplaySchemaError
from .schema import Schema

EARNED = ('reward', 'is_terminal')


@dataclass(frozen=True)
class Labels:
    """How rows of one schema become rows of another.

    Attributes:
      fill: key that the one lacks -> the value of all its rows.
      added: flags that the other lacks, and that its own rows do not set.
    """

    fill: dict[str, bool]
    added: tuple[str, ...]

    def words(self) -> str:
        """What the rows are not labeled with, for a person; '' where they lack nothing."""
        what = [flag.removeprefix('unlabeled_') for flag, value in self.fill.items() if value]
        return ' and no '.join(what)


def unlabeled(schema: Schema, actions: Iterable[str], where: str) -> Schema:
    """The schema without actions, what is earned by them, and flags that tell of either."""
    labels = {*actions, *EARNED, *UNLABELED}
    kept = {key: (dtype, shape) for key, dtype, shape in schema.specs if key not in labels}
    return Schema(kept, where)


def align(own: Schema, theirs: Schema, actions: Iterable[str], where: str) -> Labels:
    """Compare the rows of a folder with ours, of which they may lack actions, rewards and flags.

    Args:
      own, theirs: the schemas. actions: our keys that are actions. where: the folder, for messages.

    Raises:
      ReplaySchemaError: a key that is not a label is missing, or a key has another dtype or shape;
          names it.
    """
    lacks = {key for key, _, _ in own.specs if key not in theirs}
    unknown = {'unlabeled_action': lacks & set(actions), 'unlabeled_reward': lacks & set(EARNED)}
    optional = set().union(UNLABELED, *unknown.values())
    shared = {
        key: (dtype, shape)
        for key, dtype, shape in own.specs
        if key not in lacks or key not in optional
    }
    Schema(shared, where).compare(theirs, where, extra=True)
    for key, dtype, shape in theirs.specs:
        if key in UNLABELED and (dtype != np.bool_ or shape):
            raise ReplaySchemaError(
                f'{where}: key {key!r}: expected bool (), found {dtype} {shape}.'
            )
    flags = {flag for flag in UNLABELED if flag in own or flag in theirs or unknown.get(flag)}
    fill = dict.fromkeys(sorted(lacks), False) | {
        flag: bool(unknown.get(flag)) for flag in sorted(flags) if flag not in theirs
    }
    fill |= {flag: True for flag, keys in unknown.items() if keys}
    return Labels(fill, tuple(sorted(flag for flag in flags if flag not in own)))
