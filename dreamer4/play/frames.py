"""Frames as they go to a page: a JSON header, then the bytes of the images.

4 bytes      length of the header, little endian
header       JSON; 'images' says key, pane, height, width of each
images       uint8 (H, W, 3) each, in this order
"""

import json
import struct
from typing import Any

import numpy as np

from embodied.base import Values
from embodied.tasks import KEY

from .game import Game, GameError
from .messages import finite
from .record import shown
from .tree import pictures

MOST_NUMBERS = 64  # of a vector that are shown
STRIP = 48  # pixels of a thumbnail, at most


def pack(header: dict[str, Any], images: list[tuple[str, str, np.ndarray]]) -> bytes:
    """One message: images are (pane, key, uint8 (H, W, C))."""
    images = [(pane, key, np.ascontiguousarray(shown(image))) for pane, key, image in images]
    told = [
        {'pane': pane, 'key': key, 'height': image.shape[0], 'width': image.shape[1]}
        for pane, key, image in images
    ]
    text = json.dumps(header | {'images': told}, allow_nan=False).encode()
    return b''.join([struct.pack('<I', len(text)), text, *(i.tobytes() for _, _, i in images)])


def frame(game: Game, extra: dict[str, Any]) -> bytes:
    """The current frame of a game."""
    node = game.tree.current
    obs = {k: v[0] for k, v in node.dream.obs.items()}
    images = [('dream', k, v) for k, v in pictures(obs).items()]
    vectors = {'dream': numbers(obs)}
    if node.real is not None:
        real = {k: node.real[k] for k in obs}
        images += [('real', k, v) for k, v in pictures(real).items()]
        vectors['real'] = numbers(real)
    header = {
        'type': 'frame',
        'node': node.number,
        'parent': node.parent,
        'depth': node.depth,
        'task': game.dream.task(None if node.dream.task is None else int(node.dream.task[0])),
        'who': node.who,
        'action': chosen(node.action),
        'over': node.real_over,
        'terminal': node.real is not None and bool(node.real['is_terminal']),
        'stats': node.stats,
        'policy': game.policy(),
        'vectors': vectors,
        'forgotten': max(0, node.depth + 1 - game.dream.context),
        'oldest': game.tree.oldest,
    }
    return pack(header | extra, images)


def tree(game: Game) -> dict[str, Any]:
    """The whole tree, for a page that has just come, or where another one begins."""
    path = {node.number: node.stats for node in game.tree.path()[-1000:]}
    where = {'episode': game.place[0], 'frame': game.place[1]} if game.place else None
    return {
        'type': 'tree',
        'nodes': game.tree.describe(),
        'stats': path,
        'place': where,
        'beside': game.place is None,
    }


def strip(game: Game, first: int, count: int = 12) -> bytes:
    """Thumbnails of the first frames of some episodes, to begin at."""
    episodes = game.starts.episodes if game.starts else []
    first = min(first, max(0, len(episodes) - 1))
    told, images = [], []
    for number in range(first, min(first + count, len(episodes))):
        each = episodes[number]
        told.append({'episode': number, 'length': each.length, 'score': finite(each.score)})
        row = game.starts.before(number, 0, 1)
        told[-1]['task'] = game.dream.task(int(row[KEY][-1]) if KEY in row else None)
        for at in (0, (each.length - 1) // 2):
            images += thumbnail(game, number, at)
    header = {'type': 'starts', 'first': first, 'total': len(episodes), 'episodes': told}
    return pack(header, images)


def episode(game: Game, number: int, count: int = 24) -> bytes:
    """Thumbnails of an episode of the replay, evenly spaced from its first frame to its last.

    Raises:
        GameError: there is no such episode.
    """
    try:
        length = game.starts.episode(number).length if game.starts else 0
    except IndexError as error:
        raise GameError(str(error)) from error
    places = np.unique(np.linspace(0, max(0, length - 1), count).astype(int)).tolist()
    images = [found for at in places if length for found in thumbnail(game, number, at)]
    return pack({'type': 'episode', 'episode': number, 'frames': places, 'length': length}, images)


def thumbnail(game: Game, number: int, at: int) -> list[tuple[str, str, np.ndarray]]:
    """The first image of a frame of the replay, small, as pack() wants it; none without images."""
    found = pictures({k: v[-1] for k, v in game.starts.before(number, at, 1).items()})
    step = lambda image: -(-max(image.shape[:2]) // STRIP)
    small = [(f'{number}:{at}', k, v[:: step(v), :: step(v)]) for k, v in found.items()]
    return small[:1]


def numbers(values: Values) -> dict[str, list[float | None]]:
    """What is no image, key -> its first numbers."""
    return {
        k: [finite(float(x)) for x in np.asarray(v).reshape(-1)[:MOST_NUMBERS]]
        for k, v in values.items()
        if k not in pictures(values)
    }


def chosen(action: Values | None) -> dict[str, list] | None:
    """An action as JSON."""
    if action is None:
        return None
    return {k: np.round(np.asarray(v, float), 4).reshape(-1).tolist() for k, v in action.items()}
