"""What the tests of conversions share: the command, and the rows that it made."""

from pathlib import Path

import numpy as np
import pytest

from embodied.convert.command import main
from embodied.replay.archive import Archive


class Converted:
    """A conversion into a folder of this test."""

    def __init__(self, folder: Path):
        self.dest = folder / 'converted'

    def __call__(self, form, source, *flags, status=0):
        assert main([form, str(source), str(self.dest), *flags]) == status
        return self if status == 0 else None

    @property
    def archive(self):
        return Archive(self.dest)

    @property
    def episodes(self):
        """key -> column, for each episode in the order in which it was stored."""
        return self.of(self.dest)

    def of(self, folder):
        """The episodes of another folder."""
        archive = Archive(folder)
        return [
            {
                key: archive.column(archive.streams[span.slot], key, span.first, span.length)
                for key, _, _ in archive.schema.specs
            }
            for span in archive.episodes()
        ]


@pytest.fixture
def converted(tmp_path):
    return Converted(tmp_path)


@pytest.fixture
def frames():
    """uint8 (5, 16, 16, 3)."""
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8)
