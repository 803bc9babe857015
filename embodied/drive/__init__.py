"""Stepping environments with a policy: the driver (driver.py), its pool of workers (pool.py) in
processes or threads (worker.py), the memory they share (arena.py), and what hangs (watch.py) or
outlives them (reaper.py).
"""

from .driver import Driver, DriverConfig

__all__ = ['Driver', 'DriverConfig']
