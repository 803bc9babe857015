"""A process among those that torchrun has started: it joins them, and tells them things."""

import datetime
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from embodied.config import Config
from embodied.errors import ConfigError, EmbodiedError
from embodied.ranks import Ranks

SCRIPTS = ('train', 'train_eval', 'offline')  # that several processes can run together
PATIENCE = datetime.timedelta(minutes=30)  # that ranks wait for one that evaluates or saves


class Group(Ranks):
    """The processes of torch.distributed; what they tell each other crosses the CPU."""

    def __init__(self):
        import torch.distributed as dist

        self._dist, self.number, self.count = dist, dist.get_rank(), dist.get_world_size()

    def sum(self, numbers: Sequence[float]) -> list[float]:
        import torch

        total = torch.tensor(numbers, dtype=torch.float64)
        self._dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        found = [None] * self.count
        self._dist.all_gather_object(found, value)
        return found

    def collect(self, value: Any) -> list[Any]:
        found = None if self.number else [None] * self.count
        self._dist.gather_object(value, found, 0)
        return found or []

    def first(self, value: Any) -> Any:
        box = [None if self.number else value]
        self._dist.broadcast_object_list(box, 0)
        return box[0]

    def decide(self, make: Callable[[], Any]) -> Any:
        made, error = None, None
        if not self.number:
            try:
                made = make()
            except EmbodiedError as found:  # which can be sent
                error = found
        made, error = self.first((made, error))
        if error is not None:
            raise error
        return made


def attempt() -> str:
    """Name of this start of the processes, the same in all of them. torchrun keeps the store in
    which they tell each other their addresses, and those of processes that are gone stand there
    when it starts them again.

    Raises:
      ConfigError: they are on several machines, which count such starts each for itself, and
        torchrun was not asked for another store each time.
    """
    known = os.environ.get
    if int(known('GROUP_WORLD_SIZE', '1')) == 1:
        return f'start{known("TORCHELASTIC_RESTART_COUNT", "0")}'
    if (
        int(known('TORCHELASTIC_MAX_RESTARTS', '0'))
        and known('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    ):
        raise ConfigError(
            '--max-restarts on several machines needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the'
            ' environment of each torchrun'
        )
    return 'start'


@contextmanager
def joined(config: Config) -> Iterator[Ranks]:
    """The processes of this run, while it runs: one, or as many as torchrun has started.

    Raises:
      ConfigError: there are several, and what is asked for is work for one; or they could not be
        started again.
    """
    count = int(os.environ.get('WORLD_SIZE', '1'))
    if count == 1:
        yield Ranks()
        return
    if config.machine.shard == 'none':
        raise ConfigError(f'machine.shard is none, but {count} processes were started; take ddp')
    if config.script not in SCRIPTS:
        raise ConfigError(
            f'--script {config.script} is work for one process, but {count} were started; several'
            f' run {", ".join(SCRIPTS)}'
        )
    if ':' in config.machine.device:
        raise ConfigError(
            f'machine.device names one device, {config.machine.device}, but {count} processes were'
            ' started; take cuda, of which each has its own'
        )
    start = attempt()
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if config.machine.device != 'cpu' and torch.cuda.is_available():
        number, held = int(os.environ.get('LOCAL_RANK', '0')), torch.cuda.device_count()
        if number >= held:
            raise ConfigError(
                f'{number + 1} processes or more were started on a machine of {held} GPU(s); take'
                f' --nproc-per-node {held}'
            )
        torch.cuda.set_device(number)
        backend = 'cpu:gloo,cuda:nccl'
    else:
        backend = 'gloo'
    store, number, count = next(rendezvous('env://', timeout=PATIENCE))
    store = dist.PrefixStore(start, store)
    dist.init_process_group(backend, timeout=PATIENCE, store=store, rank=number, world_size=count)
    try:
        yield Group()
    finally:
        dist.destroy_process_group()
