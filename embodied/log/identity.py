"""By which name a tracking service knows a run: kept in the logdir, so that a resumed run goes on
under it.
"""

import json
import uuid
from pathlib import Path

from ..files import whole

FILENAME = 'tracking.json'


def identity(logdir: Path, service: str, make: bool = True) -> str | None:
    """The name of the run in `logdir`; where it has none, a new one, or None where make is
    false.
    """
    known = _read(logdir)
    if service not in known and make:
        keep(logdir, service, uuid.uuid4().hex[:16])
        known = _read(logdir)
    return known.get(service)


def keep(logdir: Path, service: str, name: str) -> None:
    """Write the name down."""
    known = _read(logdir) | {service: name}
    with whole(logdir / FILENAME) as file:
        file.write(json.dumps(known).encode() + b'\n')


def _read(logdir: Path) -> dict[str, str]:
    path = logdir / FILENAME
    try:
        known = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:  # damaged: the run gets a new name
        known = {}
    return known if isinstance(known, dict) else {}
