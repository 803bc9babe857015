"""The border to the machine: all that the checks ask of it, so that tests can answer instead."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from embodied.machine import memory_gb

PATIENCE = 120.0  # seconds after which a probe is given up
PROBE_MB = 64  # written to measure a disk


class Answer(NamedTuple):
    """Of a probe: what it found, or the last line of its complaint; whether it was not awaited."""

    found: dict | None
    error: str = ''
    late: bool = False


class System:
    """This machine."""

    version = tuple(sys.version_info[:3])
    python = sys.executable

    def probe(self, *words: str, patience: float = PATIENCE, **environ: str) -> Answer:
        """The answer of a probe (probes.py), run in a process of its own, which is given so many
        seconds.
        """
        command = [sys.executable, '-m', 'dreamer4.doctor.probes', *words]
        done = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
            errors='replace',
            start_new_session=True,
        )
        try:
            out, err = done.communicate(timeout=patience)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            # a compiler that it started would go on, and hold the pipes open
            with contextlib.suppress(ProcessLookupError):
                os.killpg(done.pid, signal.SIGKILL)
            done.communicate()
            if isinstance(error, KeyboardInterrupt):
                raise
            return Answer(None, f'no answer after {patience:.0f} s', True)
        if done.returncode == 0:
            return Answer(json.loads(out.splitlines()[-1]))
        if done.returncode < 0:
            return Answer(None, f'it crashes: signal {-done.returncode}')
        lines = [line for line in err.splitlines() if line.strip()]
        words = lines[-1].strip() if lines else f'exit status {done.returncode}'
        return Answer(None, words.removeprefix('embodied.errors.'))

    def package(self, name: str) -> str | None:
        """Version of an installed distribution, None where there is none."""
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    def has(self, module: str) -> bool:
        """Whether a module can be found."""
        return find_spec(module) is not None

    def program(self, *names: str) -> str | None:
        """The first of these programs that is installed."""
        return next((found for name in names if (found := shutil.which(name))), None)

    def driver(self) -> str | None:
        """Version of NVIDIA's driver; None where nvidia-smi finds none."""
        ask = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
        try:
            done = subprocess.run(ask, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.split('\n')[0].strip() or None if done.returncode == 0 else None

    def cores(self) -> int:
        """Cores that this process may use."""
        return len(os.sched_getaffinity(0))

    def memory(self) -> float:
        """10^9 bytes of memory."""
        return memory_gb()

    def free(self, folder: Path) -> float:
        """10^9 free bytes where a folder is, or would be."""
        return shutil.disk_usage(existing(folder)).free / 1e9

    def write(self, folder: Path) -> float:
        """10^6 bytes a second that get to the disk of a folder, or of where it would be.

        Raises:
            OSError: nothing can be written there.
        """
        block = os.urandom(1 << 20)
        with tempfile.TemporaryFile(dir=existing(folder)) as file:
            begun = time.perf_counter()
            for _ in range(PROBE_MB):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        return PROBE_MB * 1.048576 / max(time.perf_counter() - begun, 1e-6)

    def shared_memory(self) -> float | None:
        """10^9 free bytes of /dev/shm; None where there is none."""
        place = Path('/dev/shm')
        return shutil.disk_usage(place).free / 1e9 if place.is_dir() else None

    def open_files(self) -> int:
        """How many files a process may have open."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def existing(folder: Path) -> Path:
    """The folder, or the one above it that there is."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
