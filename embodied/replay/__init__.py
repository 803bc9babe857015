"""The replay: a store of rows, written once, that hands out sequences of any length.

Rows come in per worker and are kept in chunks (chunk.py, npz.py) that form streams (streams.py)
within the budgets of memory and disk (shelf.py, writer.py, folder.py). A seed and the number of a
draw become sequences of them (replay.py, selectors.py). What a row is stands in schema.py, the row
table in embodied/base.py, the command line in tool.py.
"""

from .config import ReplayConfig
from .replay import Replay
from .sampler import ROW_ID

__all__ = ['ROW_ID', 'Replay', 'ReplayConfig']
