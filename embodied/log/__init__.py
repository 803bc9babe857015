"""What a run tells: numbers and pictures in files (logger.py), means over windows (metrics.py), the
status line (progress.py) and the log of events (event_log.py);
silent.py tells nothing.
"""

from .logger import Logger, LoggerConfig
from .silent import Silent

__all__ = ['Logger', 'LoggerConfig', 'Silent']
