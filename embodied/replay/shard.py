"""Where the ranks of a run keep their rows, and how as many or more or fewer others take them up.

One process keeps them in the folder itself, each of several in a subfolder. A stream is dealt as a
whole, or in pieces where it is long: they end at the borders of chunks, whose files are moved.
"""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ChunkError, ReplayError
from ..lock import FILENAME as LOCK
from ..ranks import Ranks, named
from . import manifest as manifests
from .chunk import ChunkName
from .folder import ASIDE
from .meta import FILENAME as META
from .meta import VERSION
from .replay import Replay
from .streams import chains

PIECES = 4  # of a rank's share, if it came from one stream: shares differ by one at most

Manifest = Mapping[str, Any]


def shard(folder: Path, number: int, count: int) -> Path:
    """Where rank `number` of `count` keeps its rows; one alone keeps them in the folder itself."""
    return _places(folder, count)[number]


def take_up(replay: Replay, ranks: Ranks, saved: Sequence[Manifest]) -> list[Manifest]:
    """What each of these ranks is to load() of the rows that the ranks of a checkpoint had, more
    or fewer or as many. Their files are brought to where they are looked for.

    Args:
      replay: of this rank. saved: what the replays of the others had saved.

    Raises:
      ReplayError: a manifest is damaged, or files cannot be moved.
    """
    for manifest in saved:
        manifests.counters(manifest)
    dealt = list(saved) if len(saved) == ranks.count else deal(saved, ranks.count)
    _bring(replay, ranks, dealt)
    return dealt


def take_all(replay: Replay, ranks: Ranks) -> None:
    """Load every row there is, where no checkpoint tells of them; more or fewer ranks may have left
    them.

    Raises:
      ReplayError: files cannot be moved.
    """
    _bring(replay, ranks, None)
    replay.load(None)


def deal(saved: Sequence[Manifest], count: int) -> list[Manifest]:
    """What each of `count` replays is to load of the rows that others had: of about as many rows,
    and of streams that nobody adds to any more.
    """
    streams = [entry for manifest in saved for entry in manifest['streams']]
    rows = sum(ChunkName.parse(name).length for entry in streams for name in entry['chunks'])
    pieces = [piece for entry in streams for piece in _cut(entry, rows // (PIECES * count))]
    shares, held = [[] for _ in range(count)], [0] * count
    # the longest first, each to who has the fewest rows
    for length, piece in sorted(pieces, key=lambda pair: -pair[0]):
        poorest = held.index(min(held))
        shares[poorest].append(piece)
        held[poorest] += length
    common = {
        'version': VERSION,
        # no draw is made twice
        'draws': max(manifest['draws'] for manifest in saved),
        'seen': sum(manifest['seen'] for manifest in saved) // count,
    }
    return [{**common, 'streams': share} for share in shares]


def _cut(entry: Manifest, most: int) -> list[tuple[int, Manifest]]:
    """Rows and entry of the pieces of a stream, which end where they have `most` rows or more."""
    pieces, begin, held, chunks = [], entry['begin'], 0, []
    for name in entry['chunks']:
        chunks, held = [*chunks, name], held + ChunkName.parse(name).length
        if held >= most or name == entry['chunks'][-1]:
            piece = {'worker': None, 'begin': begin, 'chunks': chunks, 'next': ''}
            pieces.append((held, {**piece, 'fresh': begin, 'touched': 0}))
            begin, held, chunks = begin + held, 0, []
    return pieces


def _places(folder: Path, count: int) -> list[Path]:
    return [folder] if count == 1 else [folder / named(number) for number in range(count)]


def _bring(replay: Replay, ranks: Ranks, dealt: Sequence[Manifest] | None) -> None:
    """Rank 0 moves every chunk to the rank whose manifest names it; without manifests it deals all,
    unless as many ranks had left them. The others wait.
    """
    failed, directory = '', replay.directory
    if directory is not None and not ranks.number:
        folder = directory if ranks.count == 1 else directory.parent
        try:
            _move(folder, _places(folder, ranks.count), dealt)
        except OSError as error:
            failed = f'{folder}: rows cannot be moved to the ranks of this run: {error}'
    if failed := ranks.first(failed):
        raise ReplayError(failed)


def _move(folder: Path, homes: list[Path], dealt: Sequence[Manifest] | None) -> None:
    known = [folder, *sorted(folder.glob('rank[0-9][0-9][0-9]'))]
    gone = [place for place in known if place not in homes]
    if known == homes:
        return
    if dealt is None:
        held = {place: [path.name for path in place.glob('*.npz')] for place in known}
        if all(bool(held.get(place)) == (place in homes) for place in {*known, *homes}):
            return  # as many ranks as had left them
        dealt = deal([_everything(sum(held.values(), []))], len(homes))
    wanted = {
        name: home
        for home, manifest in zip(homes, dealt)
        for entry in manifest['streams']
        for name in entry['chunks']
    }
    for place in known:
        # what the checkpoint does not name is set aside there, or loaded where all is
        other = homes[0] if place in gone else place
        for path in sorted(place.glob('*.npz')):
            home = wanted.get(path.name, other)
            if home != place:
                home.mkdir(exist_ok=True)
                os.replace(path, home / path.name)
    for place in gone:
        _leave(place, homes[0])


def _leave(place: Path, heir: Path) -> None:
    """What was set aside counts in somebody's budget, and nothing is left where nobody is."""
    for aside in ASIDE:
        for path in sorted((place / aside).glob('*.npz*')):
            (heir / aside).mkdir(exist_ok=True)
            os.replace(path, heir / aside / path.name)
        with contextlib.suppress(OSError):
            (place / aside).rmdir()
    for name in (META, LOCK):
        (place / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it holds other things, such as the ranks' folders
        place.rmdir()


def _everything(names: Sequence[str]) -> Manifest:
    """A manifest of all chunks among the names of files."""
    found = []
    for name in names:
        with contextlib.suppress(ChunkError):
            found.append(ChunkName.parse(name))
    streams = [{'begin': 0, 'chunks': [str(name) for name in chain]} for chain in chains(found)]
    return {'draws': 0, 'seen': 0, 'streams': streams}
