"""Other people's recordings into replay folders, and replay folders out again.

A format is a function that opens a source as a Recording: its episodes, each with what it saw, its
actions and its rewards in the convention of the format (episode.py). From there all formats go the
same way: rows of the row table (embodied/base.py) into a folder, within bounded memory, to be
continued where it was interrupted (job.py). Which formats there are stands in formats.py, what they
look like in docs/data.md.
"""

from .episode import Episode, Options, Recording, Unit
from .job import convert

__all__ = ['Episode', 'Options', 'Recording', 'Unit', 'convert']
