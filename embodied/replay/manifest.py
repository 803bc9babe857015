"""The manifest of a replay: what a checkpoint says of its rows. It names chunks and counts; the
rows stay in the chunk files.
"""

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError, ReplayError
from ..tree_spec import ANYTHING, COUNT, TEXT, Each, Maybe, demand
from . import meta as metas
from .streams import Streams

ROWS = 2**31  # of one stream, far more than any has; row ids have room for them

STREAM = {
    'worker': Maybe(COUNT),
    'begin': COUNT,
    'fresh': COUNT,
    'touched': COUNT,
    'next': TEXT,
    'chunks': Each(TEXT, list),
}
MANIFEST = {'draws': COUNT, 'seen': COUNT, 'streams': Each(STREAM, list)}


def describe(streams: Streams) -> list[dict[str, Any]]:
    """What the manifest holds of the streams, as JSON-able values."""
    return [
        {
            'worker': stream.worker,
            'begin': int(streams.begins[stream.slot]),
            'chunks': [str(chunk.name) for chunk in stream.chunks],
            'next': stream.next_uuid,
            'fresh': stream.fresh,
            'touched': stream.touched,
        }
        for stream in streams
        if stream.chunks or stream.worker is not None
    ]


def counters(manifest: Mapping[str, Any]) -> tuple[int, int]:
    """Draws made and rows seen; checks the whole manifest.

    Raises:
      ReplayError: it is damaged or of another version.
    """
    try:
        demand(manifest, {'version': ANYTHING, **MANIFEST}, 'it')
    except CheckpointError as error:
        raise ReplayError(f'The replay manifest is damaged: {error}.') from error
    if manifest['version'] != metas.VERSION:
        raise ReplayError(
            f'Expected a replay manifest of version {metas.VERSION}, '
            f'got {manifest["version"]!r:.80}.'
        )
    workers = [entry['worker'] for entry in manifest['streams'] if entry['worker'] is not None]
    if len(set(workers)) != len(workers):
        raise ReplayError(
            f'The replay manifest is damaged: two streams have one worker, {workers!r:.200}.'
        )
    if any(entry['begin'] >= ROWS for entry in manifest['streams']):
        raise ReplayError(f'The replay manifest is damaged: a stream begins beyond row {ROWS:,}.')
    return manifest['draws'], manifest['seen']
