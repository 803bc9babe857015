"""Functions of tensors that are recorded once and then replayed: the same kernels on the same memory, without Python between them.

Small networks are many small kernels, and launching them from Python takes a GPU's host longer than they run. A CUDA graph launches all of
them at once. What may be recorded is work for the device alone: no number that the host reads, no shape that depends on data, nothing in
Python that has to happen again, and no tensor that is replaced by another between two calls.
"""

from collections.abc import Callable, Hashable
from contextlib import contextmanager, nullcontext

import torch

Tensors = dict[str, torch.Tensor]
Work = Callable[[Tensors], Tensors]
WARM = 3  # calls before a recording, as torch's manual has it: kernels are chosen, optimizers and libraries set their memory aside


def plainly(key: Hashable, work: Work, inputs: Tensors) -> Tensors:
    """What Recorder.run does where nothing is recorded."""
    return work(inputs)


class Recorder:
    """Runs functions of tensors; those that come again are recorded, and from then on replayed.

    Args:
        record: (work, inputs) -> (replay, outputs). Records work(inputs) without carrying it out; replay() carries it out on whatever then
            stands in `inputs` and leaves its results in `outputs`.
        aside: context in which work is done that is not recorded yet.
    """

    def __init__(self, record: Callable[[Work, Tensors], tuple[Callable[[], None], Tensors]], aside: Callable = nullcontext):
        self._record, self._aside = record, aside
        self.forget()

    def forget(self) -> None:
        """Drop all recordings: to be called when tensors that they read or write have been replaced."""
        self._calls, self._made = {}, {}

    def run(self, key: Hashable, work: Work, inputs: Tensors) -> Tensors:
        """work(inputs), recorded at the call after the first WARM of its key.

        Args:
            key: decides, with names and shapes of the inputs, which kernels work consists of.

        Returns:
            outputs; the next call of the same key may write into the same tensors.
        """
        key = key, tuple((name, tuple(x.shape)) for name, x in inputs.items())
        self._calls[key] = self._calls.get(key, 0) + 1
        if self._calls[key] <= WARM:
            with self._aside():
                return work(inputs)
        if key not in self._made:
            kept = {name: x.clone() for name, x in inputs.items()}
            self._made[key] = (kept, *self._record(work, kept))
        kept, replay, outputs = self._made[key]
        for name, x in inputs.items():
            kept[name].copy_(x)
        replay()
        return outputs


def cuda_graphs(device: torch.device) -> Recorder:
    """A Recorder of CUDA graphs. All share one pool of memory, so what a replay returns is to be read or copied before the next one."""
    pool, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    def record(work, inputs):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            outputs = work(inputs)
        return graph.replay, outputs

    @contextmanager
    def aside():
        """On the stream of the recordings, as they must find everything that autograd keeps for a stream."""
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream(device).wait_stream(stream)
    return Recorder(record, aside)
