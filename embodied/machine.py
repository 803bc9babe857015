"""What the machine offers, memory and disk, and words about budgets that ask for more."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

# Files that hold the limit of memory of a container, by the two versions of control groups.
LIMITS = ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes')
SHARE = 0.8  # of the memory that budgets may take: networks, envs and the system need some too


def memory_gb() -> float:
    """Memory of the machine or, if less, of the container that it is: 10^9 bytes."""
    sizes = [os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')]
    for path in map(Path, LIMITS):
        text = path.read_text().strip() if path.is_file() else ''
        sizes += [int(text)] if text.isdigit() else []  # 'max' where there is no limit
    return min(sizes) / 1e9


def disk_gb(folder: Path) -> float:
    """10^9 bytes of disk for a folder that may not exist yet: what is free and what it takes."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    files = os.scandir(folder) if folder.is_dir() else ()
    own = sum(entry.stat(follow_symlinks=False).st_size for entry in files)
    return (shutil.disk_usage(place).free + own) / 1e9


def over_memory(budgets: Mapping[str, float], offered: float, where: str) -> list[str]:
    """A sentence if budgets, key -> 10^9 bytes, exceed SHARE of what is offered `where`."""
    total = sum(budgets.values())
    if total <= SHARE * offered:
        return []
    keys = ' + '.join(f'{key} {value:g}' for key, value in budgets.items() if value > 0)
    most = max(budgets, key=budgets.get)
    fits = max(0.0, SHARE * offered - (total - budgets[most]))
    remedy = f'take --{most} {rounded(fits)} or less' if fits >= 0.1 else 'lower them'
    return [
        f'warning: {keys} may take {total:g} GB, but {where} has {offered:.3g} GB: the run may be '
        f'killed once they are full; {remedy}.'
    ]


def over_disk(key: str, budget: float, folder: Path) -> list[str]:
    """A sentence if a budget, 10^9 bytes, is more than its folder can hold."""
    offered = disk_gb(folder)
    if budget <= offered:
        return []
    return [
        f'warning: {key} is {budget:g} GB, but the disk has {offered:.3g} GB for {folder}: saving '
        f'will fail once it is full; take --{key} {rounded(SHARE * offered)} or less.'
    ]


def rounded(size: float) -> str:
    """A size with two digits, never more than it is."""
    digits = 1 if size < 10 else 0
    return f'{int(size * 10**digits) / 10**digits:g}'
