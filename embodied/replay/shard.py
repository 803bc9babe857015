"""Where the ranks of a run keep their rows."""

from pathlib import Path

from ..errors import ConfigError
from ..ranks import named


def shard(folder: Path, number: int, count: int) -> Path:
    """Where rank `number` of `count` keeps its rows; one alone keeps them in the folder itself.

    Raises:
      ConfigError: the folder holds rows of more or fewer ranks.
    """
    places = [folder] if count == 1 else [folder / named(index) for index in range(count)]
    for place in (folder, *sorted(folder.glob('rank[0-9][0-9][0-9]'))):
        if place not in places and next(place.glob('*.npz'), None):
            raise ConfigError(
                f'{place} holds rows of a run of another number of processes, expected {count};'
                ' start as many as before, or take another --logdir: --from_checkpoint takes the'
                ' agent along'
            )
    return places[number]
