"""How good the parts of a trained agent are, as numbers (report.json), plots, videos and one page,
report.html, that is opened from disk.

    dreamer4 report LOGDIR
    python -m dreamer4.main --script report --from_checkpoint LOGDIR [--replay.directory ROWS]

command.py runs it; examine.py measures; figures.py and page.py draw.
"""

from .command import main, report

__all__ = ['main', 'report']
