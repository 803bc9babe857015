"""What the processes of one run have to agree on between two decisions. One process agrees with
itself.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..base import Shards
from ..checkpoint import Checkpoint
from ..errors import CheckpointError, ReplayWriteError
from ..ranks import Ranks, named
from ..save import read, write_shards
from .interrupt import Interrupt
from .setup import Counters

# what a tree of another form runs into
MISFIT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

OnEpisode = Callable[..., None]  # (score, length, logs[, task])
# trees of a part that every rank has of its own, one of each rank that saved -> one for each rank
# of this run; without it the part begins anew where there are more or fewer ranks
Deal = Callable[[list[Any]], list[Any]]


class Agreement:
    """Counters, finished episodes, a signal and the time to save: those of all ranks.

    Args:
      ranks: the processes. counters: of the run; their steps and episodes are those of this rank
        until agree() makes them those of all.
      interrupt: of this rank. save_due: asked on rank 0 alone. on_episode: receives the episodes.
    """

    def __init__(
        self,
        ranks: Ranks,
        counters: Counters,
        interrupt: Interrupt,
        save_due: Callable[[], bool],
        on_episode: OnEpisode,
    ):
        self._ranks, self._counters, self._interrupt = ranks, counters, interrupt
        self._due, self._on_episode = save_due, on_episode
        self._known, self._untold = Counters(), []
        self._ends = self._saves = False

    @property
    def ends(self) -> bool:
        """Whether a signal to any rank asked for the end."""
        return self._interrupt.asked if self._ranks.count == 1 else self._ends

    def save_due(self) -> bool:
        """Whether it is time to save; True once."""
        if self._ranks.count == 1:
            return self._due()
        self._saves, saves = False, self._saves
        return saves

    def begin(self) -> None:
        """The counters are those of a checkpoint, which all ranks know."""
        self._known.load(self._counters.save())

    def episode(self, score: float, length: int, logs: dict[str, float], *task: str) -> None:
        """An episode of this rank has come to its end; of which task, where there are several."""
        if self._ranks.count == 1:
            self._on_episode(score, length, logs, *task)
        else:
            self._untold.append((score, length, logs, *task))

    def agree(self) -> None:
        """To be called by all ranks at the same places: before what is due is asked, and once for
        each decision.
        """
        if self._ranks.count == 1:
            return
        own, known = self._counters, self._known
        saves = not self._ranks.number and (self._saves or self._due())
        counts = ('step', 'episodes', 'missing')
        made = [getattr(own, name) - getattr(known, name) for name in counts]
        ends = self._ends or self._interrupt.asked
        *made, untold, ends, saves = self._ranks.sum([*made, len(self._untold), ends, saves])
        for name, count in zip(counts, made):
            total = getattr(known, name) + int(count)
            setattr(own, name, total)
            setattr(known, name, total)
        self._ends, self._saves = ends > 0, saves > 0
        if untold:
            for episode in sum(self._ranks.gather(self._untold), []):
                self._on_episode(*episode)
            self._untold = []


class Trees:
    """The parts of a run's checkpoints: most are rank 0's, some every rank has of its own."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self._parts, self._optional, self._own = {}, set(), {}

    def add(
        self,
        name: str,
        save: Callable[[], Any],
        load: Callable[[Any], Any],
        optional: bool = False,
        own: bool = False,
        deal: Deal | None = None,
    ) -> None:
        """Make a part of the checkpoints: save() returns a tree, load(tree) takes it up. One
        without an optional part is of a script that has no such part. With `own` every rank has its
        tree (see Deal), without it that of rank 0 is everybody's.
        """
        self._parts[name] = save, load
        if optional:
            self._optional.add(name)
        if own:
            self._own[name] = deal

    def load(self, trees: Mapping[str, Any], meta: Mapping[str, Any], logdir: Path) -> None:
        """Let every part take up its tree, in the order of add().

        Raises:
          CheckpointError: they do not fit what was added.
        """
        if missing := sorted(self._parts.keys() - self._optional - trees.keys()):
            raise CheckpointError(
                f'{logdir}: its checkpoint holds no {", ".join(missing)}, only'
                f' {", ".join(sorted(trees))}; it is of another script or another version.'
                ' Start in another --logdir; --from_checkpoint takes the agent along'
            )
        for name, (_, load) in self._parts.items():
            try:
                if name in trees and (found := self._share(name, trees, meta)) is not None:
                    load(found)
            except MISFIT as error:
                raise CheckpointError(
                    f'{logdir}: the checkpoint does not fit this run, its part {name}:'
                    f' {error!r:.500}'
                ) from error

    def save(self) -> dict[str, Any]:
        """The trees of all ranks, on rank 0; elsewhere those of its own, which rank 0 has, too.

        Raises:
          CheckpointError: a rank could not save its own; says which.
        """
        if self._ranks.count == 1:
            return {name: save() for name, (save, _) in self._parts.items()}
        number, trees, failed = self._ranks.number, {}, ''
        try:
            for name, (save, _) in self._parts.items():
                tree = save()  # by all ranks: they may share what rank 0 writes
                if not number or name in self._own or isinstance(tree, Shards):
                    trees[self._named(name, number)] = tree
        # the others wait for this rank
        except (CheckpointError, ReplayWriteError, OSError) as error:
            failed = str(error)
        self._ranks.check(failed)
        # what is rank 0's is large, and travels nowhere
        sent = {k: v for k, v in trees.items() if number and not isinstance(v, Shards)}
        for found in self._ranks.collect(sent):
            trees |= found
        return trees

    def _share(self, name: str, trees: Mapping[str, Any], meta: Mapping[str, Any]) -> Any:
        """What this rank takes up; None for a part that every rank has of its own, and which begins
        anew where their number is another.
        """
        saved, deal = ranks_of(meta), self._own.get(name)
        if name not in self._own:
            return trees[name]
        if deal is None and saved != self._ranks.count:
            return None
        found = [trees[self._named(name, number)] for number in range(saved)]
        return (found if deal is None else deal(found))[self._ranks.number]

    def _named(self, name: str, number: int) -> str:
        """Of the tree of a rank in a checkpoint: rank 0's have plain names."""
        return f'{name}-{named(number)}' if number and name in self._own else name


def write(
    checkpoint: Checkpoint, trees: Mapping[str, Any], meta: Mapping[str, Any], ranks: Ranks
) -> None:
    """Write one save: rank 0 does, but for Shards, of which every rank writes its own files.

    Args:
      trees: of Trees.save(). meta: as for Checkpoint.save().

    Raises:
      CheckpointError: it could not be written; earlier saves are untouched. Where it is of files
        that one rank alone writes, that rank alone knows.
    """
    shards = {name: tree for name, tree in trees.items() if isinstance(tree, Shards)}
    if not shards:  # of the others, either
        if not ranks.number:
            checkpoint.save(trees, meta)
        return
    partial, sums, failed = ranks.decide(lambda: checkpoint.begin(meta)), {}, ''
    try:
        for name, part in shards.items():
            sums |= write_shards(partial, name, part)
    except (CheckpointError, OSError) as error:
        failed = str(error)
    try:
        ranks.check(failed)
    except CheckpointError:
        if not ranks.number:
            checkpoint.drop(partial)
        raise
    for found in ranks.collect(sums):
        sums |= found
    if not ranks.number:
        rest = {name: part.tree for name, part in shards.items()}
        checkpoint.finish(partial, {**trees, **rest}, meta, sums)


def newest(checkpoint: Checkpoint, ranks: Ranks) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(trees, meta) of the newest undamaged save, or None; see Checkpoint.load(). Rank 0 says which
    it is: another may see another one on a disk that they share.
    """
    held = []

    def found() -> Path | None:
        held[:] = [checkpoint.load()]
        return checkpoint.loaded if held[0] else None

    path = ranks.decide(found)
    if path is None or held:
        return held[0] if held else None
    return read(path, sums=False)


def regrouped(meta: Mapping[str, Any], ranks: Ranks) -> str:
    """What follows where a checkpoint is of more or fewer ranks, as a sentence after another."""
    if (saved := ranks_of(meta)) == ranks.count:
        return ''
    return (
        f' The checkpoint is of {saved} process(es), this run has {ranks.count}: rows are dealt'
        ' anew, all envs begin new episodes.'
    )


def ranks_of(meta: Mapping[str, Any]) -> int:
    """How many ranks made a checkpoint."""
    return int(meta.get('ranks', 1))
