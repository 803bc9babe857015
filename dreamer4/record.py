"""Functions of tensors that are recorded once and then replayed: the same kernels on the same
memory, without Python between them.

Small networks are many small kernels, and launching them from Python takes a GPU's host longer than
they run. A CUDA graph launches all of them at once. What may be recorded is work for the device
alone: no number that the host reads, no shape that depends on data, nothing in Python that has to
happen again, and no tensor that is replaced by another between two calls.
"""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from . import ranks
from .machine import MachineConfig

Tensors = dict[str, torch.Tensor]
Work = Callable[[Tensors], Tensors]
# calls before a recording, as torch's manual has it: kernels are chosen, optimizers and libraries
# set their memory aside
WARM = 3


class Recorder:
    """Runs functions of tensors; those that come again are recorded, and from then on replayed."""

    def __init__(self):
        self.forget()

    def forget(self) -> None:
        """Drop all recordings: to be called when tensors that they read or write have been
        replaced, or will not be asked for any more.
        """
        self._calls, self._made = {}, {}

    def run(self, key: Hashable, work: Work, inputs: Tensors) -> Tensors:
        """work(inputs), recorded at the call after the first WARM of its key.

        Args:
            key: decides, with names and shapes of the inputs, which kernels work consists of.

        Returns:
            outputs, to be read or copied before the next call, which may write into the same
            memory.
        """
        key = key, tuple((name, tuple(x.shape)) for name, x in inputs.items())
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] <= WARM:
            with self.aside():
                return work(inputs)
        if key not in self._made:
            kept = {name: x.clone() for name, x in inputs.items()}
            self._made[key] = (kept, *self.record(work, kept))
        kept, replay, outputs = self._made[key]
        for name, x in inputs.items():
            kept[name].copy_(x)
        replay()
        return outputs

    def record(self, work: Work, inputs: Tensors) -> tuple[Callable[[], None], Tensors]:
        """Record work(inputs) without carrying it out.

        Returns:
            replay, which carries it out on whatever then stands in `inputs`, and the outputs, where
            it leaves its results.
        """
        raise NotImplementedError

    def aside(self) -> AbstractContextManager:
        """In which work is done that is not recorded yet."""
        return nullcontext()


class Plain(Recorder):
    """Records nothing."""

    def run(self, key, work, inputs):
        return work(inputs)


class CudaGraphs(Recorder):
    """Recordings as CUDA graphs, which share one pool of memory.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device):
        self._device, self._stream = device, torch.cuda.Stream(device)
        super().__init__()

    def forget(self) -> None:
        super().forget()
        self._pool = None  # one that all its graphs have left cannot be used again

    def record(self, work, inputs):
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            outputs = work(inputs)
        return graph.replay, outputs

    @contextmanager
    def aside(self):
        """On the stream of the recordings, as they must find everything that autograd keeps for
        a stream.
        """
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


def recorder(machine: MachineConfig, device: torch.device) -> Recorder:
    """What records an agent's work on a device. What several ranks do together is not recorded."""
    graphs = machine.graphs and device.type == 'cuda' and ranks.count() == 1
    return CudaGraphs(device) if graphs else Plain()
