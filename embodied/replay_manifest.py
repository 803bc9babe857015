"""The manifest of a replay: what a checkpoint says of its rows. It names chunks and counts; the rows stay in the chunk files."""

from collections.abc import Mapping
from typing import Any

from . import schema as schemas
from .errors import ReplayError
from .streams import Streams

COUNTS = {'begin': int, 'fresh': int, 'touched': int, 'next': str, 'chunks': list}


def describe(streams: Streams) -> list[dict[str, Any]]:
    """What the manifest holds of the streams, as JSON-able values."""
    return [
        {'worker': stream.worker, 'begin': int(streams.begins[stream.slot]),
         'chunks': [str(chunk.name) for chunk in stream.chunks],
         'next': stream.next_uuid, 'fresh': stream.fresh, 'touched': stream.touched}
        for stream in streams if stream.chunks or stream.worker is not None]


def counters(manifest: Mapping[str, Any]) -> tuple[int, int]:
    """Draws made and rows seen; checks the whole manifest.

    Raises:
      ReplayError: it is damaged or of another version.
    """
    try:
        if manifest['version'] != schemas.VERSION:
            raise ReplayError(
                f'Expected a replay manifest of version {schemas.VERSION}, '
                f'got {manifest["version"]!r}.')
        entries(manifest)
        return int(manifest['draws']), int(manifest['seen'])
    except (KeyError, TypeError, ValueError) as error:
        raise ReplayError(
            f'The replay manifest is damaged: {type(error).__name__}: {error}.') from error


def entries(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The streams of a manifest, checked.

    Raises:
      ReplayError: an entry has a value of the wrong type, or two entries have one worker.
    """
    found = list(manifest['streams'])
    for entry in found:
        for key, kind in COUNTS.items():
            if not isinstance(entry[key], kind):
                raise ReplayError(
                    f'The replay manifest is damaged: {key} must be {kind.__name__}, '
                    f'is {entry[key]!r:.80}.')
    workers = [entry['worker'] for entry in found if entry['worker'] is not None]
    if len(set(workers)) != len(workers) or not all(isinstance(worker, int) for worker in workers):
        raise ReplayError(
            'The replay manifest is damaged: workers must be different integers, '
            f'are {workers!r:.200}.')
    return found
