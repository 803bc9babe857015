"""Which chunks of a folder come back onto the shelf, and into which streams."""

from collections.abc import Callable, Mapping
from typing import Any

from .chunk import Chunk, ChunkName
from .folder import Folder, listing
from .shelf import Shelf
from .streams import Stream, chains


class Restorer:
    """Puts the chunks of a folder onto an empty shelf.

    Attributes:
      rows_missing: rows that the checkpoint named and that were not there.
    """

    def __init__(
        self, shelf: Shelf, folder: Folder, on_event: Callable[[str], None], place: int = 0
    ):
        """Args: place: number of the folder among several whose chunks come onto one shelf."""
        self._shelf, self._folder, self._on_event = shelf, folder, on_event
        self._place = place
        self.rows_missing = 0

    def load(self, manifest: Mapping[str, Any] | None, listed: bool) -> None:
        """Index the chunks in the folder: those that a manifest lists, or all.

        Args:
          manifest: of Replay.save(), or None.
          listed: whether chunks that the manifest does not name are moved aside.
        """
        self.rows_missing = 0
        found = self._folder.scan()
        for uuid in [chunk.uuid for chunk in self._shelf.chunks() if chunk.uuid in found]:
            self._on_event(
                f'{found.pop(uuid).path}: the same rows are in another folder; left out.'
            )
        if manifest is not None and listed:
            self._load_listed(found, manifest)
            return
        self._load_all(found)
        if manifest is not None:
            self._assign_tails(manifest, {chunk.uuid for chunk in found.values()})

    def _load_all(self, found: dict[str, Chunk]) -> None:
        for chain in chains(chunk.name for chunk in found.values()):
            stream = self._shelf.streams.new(place=self._place)
            for name in chain:
                self._shelf.streams.link(stream, found[name.uuid])
        self._shelf.take(found.values())

    def _load_listed(self, found: dict[str, Chunk], manifest: Mapping[str, Any]) -> None:
        listed, missing = [], []
        for entry in manifest['streams']:
            stream = self._shelf.streams.new(begin=entry['begin'])
            row = entry['begin']
            for name in map(ChunkName.parse, entry['chunks']):
                row += name.length
                if name.uuid in found and found[name.uuid].name == name:
                    listed.append(found.pop(name.uuid))
                    self._shelf.streams.link(stream, listed[-1])
                else:
                    missing.append(name)
                    stream = self._shelf.streams.new(begin=row)
            self._continue(stream, entry)
        self._shelf.take(listed)
        if missing:
            self._replace(missing, found)
        elif found:
            self._folder.set_aside(
                found.values(), 'unlisted', 'the checkpoint does not name them (written after it).'
            )
            self._shelf.keep_disk_budget()

    def _replace(self, missing: list[ChunkName], found: dict[str, Chunk]) -> None:
        """Chunks of the checkpoint are gone, most often because later ones took their room before
        the run was killed. These are as good, so they take their place; if nothing else is left,
        so do those that were set aside earlier."""
        gone = listing([str(name) for name in missing])
        self.rows_missing = sum(name.length for name in missing)
        self._on_event(
            f'{self._folder.path}: {len(missing)} chunks of the checkpoint with '
            f'{self.rows_missing} rows are not there any more, because the disk '
            f'budget had no room for them or somebody deleted them: {gone}.'
        )
        if not found and not self._shelf.streams.rows:
            found = self._folder.take_back('unlisted')
        if found:
            rows = sum(chunk.length for chunk in found.values())
            self._on_event(
                f'{self._folder.path}: {len(found)} chunks with {rows} rows that the checkpoint'
                ' does not name take their place.'
            )
            for stream in self._shelf.streams.workers:  # the names of these chunks are taken
                stream.next_uuid = '' if stream.next_uuid in found else stream.next_uuid
            self._load_all(found)
            self._shelf.keep_disk_budget()

    def _continue(self, stream: Stream, entry: Mapping[str, Any]) -> None:
        """Give a restored stream back to its worker."""
        stream.next_uuid, stream.fresh = entry['next'], entry['fresh']
        stream.touched = entry['touched']
        if entry['worker'] is not None:
            self._shelf.streams.assign(stream, entry['worker'])

    def _assign_tails(self, manifest: Mapping[str, Any], uuids: set[str]) -> None:
        """Where everything was loaded: give streams that end where the manifest says back to their
        workers."""
        tails = {stream.next_uuid: stream for stream in self._shelf.streams if stream.next_uuid}
        for entry in manifest['streams']:
            stream = tails.get(entry['next'])
            if stream is None or entry['worker'] is None or entry['next'] in uuids:
                continue
            length = sum(ChunkName.parse(name).length for name in entry['chunks'])
            fresh = entry['fresh'] - entry['begin'] - length
            fresh += int(self._shelf.streams.ends[stream.slot])
            self._continue(stream, {**entry, 'fresh': fresh})
