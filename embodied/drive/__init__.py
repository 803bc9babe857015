"""Stepping environments with a policy: the driver (driver.py), its pool of workers (pool.py), how
they are started (start.py), a worker as its caller sees it (worker.py) and what runs in its process
(child.py, group.py), what goes wrong (fault.py) and is counted (ledger.py), the memory that all
share (arena.py), and what hangs (watch.py) or outlives them (reaper.py).
"""

from .driver import Driver, DriverConfig

__all__ = ['Driver', 'DriverConfig']
