"""Ways to start the workers of a driver, in order of preference."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..base import Env
from .printed import Printed
from .watch import Watch
from .worker import LocalWorker, ProcessWorker, graphics_environment, pickled

SOFTWARE_RENDERERS = ('llvmpipe', 'softpipe', 'swrast', 'osmesa')


@dataclass(frozen=True)
class Plan:
    """One way to start the workers.

    Attributes:
      text: how, in words.
      envs_per_worker: of each process.
      environ: variables that differ from the caller's.
      against_crowding: it helps only where processes hinder each other.
      together: the envs are of one worker, in the calling process as well.
    """

    text: str
    envs_per_worker: int
    environ: dict
    against_crowding: bool = False
    together: bool = False

    def workers(
        self,
        make_envs: Sequence[Callable[[], Env]],
        parallel: bool,
        arena_fd: int,
        watch: Watch,
        printed: Printed,
    ) -> list[LocalWorker | ProcessWorker]:
        """Workers for these envs, which are not started yet."""
        envs = dict(enumerate(pickled(make_envs)))
        if not parallel:
            shares = [envs] if self.together else [{index: envs[index]} for index in envs]
            return [LocalWorker(share, arena_fd, watch, printed) for share in shares]
        groups = np.array_split(np.arange(len(envs)), -(-len(envs) // self.envs_per_worker))
        return [
            ProcessWorker(
                {int(index): envs[index] for index in group}, arena_fd, self.environ, printed
            )
            for group in groups
        ]


def plans(
    num_envs: int, envs_per_worker: int, parallel: bool, together: bool = False
) -> Iterator[Plan]:
    """Ways to start; rendering in many processes at once hangs on some drivers.

    Args:
      envs_per_worker: as configured, 0 to spread them over the cores.
      together: all are to be in one worker: lanes of a vectorised env.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    group = num_envs if together else envs_per_worker or -(-num_envs // cores)
    yield Plan('as configured', group, {}, together=together)
    if not parallel:
        return
    if group < num_envs:
        yield Plan(
            'all envs in one worker, which steps them one after another',
            num_envs,
            {},
            against_crowding=True,
        )
    if graphics_environment(os.environ).get('MUJOCO_GL') != 'osmesa':
        software = {'MUJOCO_GL': 'osmesa', 'PYOPENGL_PLATFORM': 'osmesa'}
        yield Plan('rendering in software (MUJOCO_GL=osmesa)', group, software)


def remarks(plan: Plan, failed: bool, renderers: Sequence[str]) -> list[str]:
    """What a person should know of a start: that it was not the first attempt, and that envs
    render in software.
    """
    found = []
    if failed:
        names = ', '.join(renderers) or 'not named by the envs'
        found.append(f'env workers started after a failure: {plan.text}; renderer: {names}')
    software = [
        name for name in renderers if any(word in name.lower() for word in SOFTWARE_RENDERERS)
    ]
    if software:
        found.append(
            f'warning: envs render in software ({", ".join(software)}), often a hundred times'
            ' slower than on the GPU; on a machine with one, check that its EGL library is'
            ' installed and MUJOCO_GL is not osmesa'
        )
    return found
