"""On a GPU, a function's kernels recorded once, as a CUDA graph, and replayed: one launch in place of hundreds.

At the sizes of this project a kernel is done before the next one is launched, so that launching them is most of the time.
On a CPU `replayed` calls the function and nothing more.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Function = Callable[..., tuple[Tensor, ...]]

_MOST_RECORDINGS = 8
"""Of one owner; the one that was used longest ago makes room. They share their memory but for inputs and outputs."""


@runtime_checkable
class Recordable(Protocol):
    """A module that can tell whether what it computes may be recorded."""

    @property
    def recordable(self) -> bool:
        """Whether its kernels depend on nothing but shapes, and all that they read are arguments, parameters and buffers."""


class Recording:
    """The kernels of a function of tensors on a GPU, for inputs of one shape. To record does not run them."""

    def __init__(self, function: Function, inputs: tuple[Tensor, ...]) -> None:
        device = inputs[0].device
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        record = torch.cuda.graph(
            self._graph, pool=_memory(device), stream=_stream(device), capture_error_mode="thread_local"
        )  # errors of this thread's alone: another one's, such as a communicator's, may go on
        with torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), record:
            self._outputs = function(*self._inputs)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the kernels on other inputs. The outputs are the same tensors every time."""
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._outputs


_recordings: WeakKeyDictionary[nn.Module, OrderedDict[Hashable, "Recording | Literal['seen', 'failed']"]] = WeakKeyDictionary()
_switched_off = False


def replayed(owner: object, key: Hashable, function: Function, *inputs: Tensor, copies: bool = True) -> tuple[Tensor, ...]:
    """`function(*inputs)`; on a GPU by replaying its kernels, if its owner is `Recordable`.

    The first call with a key and shapes is a plain one, which makes what libraries make when they are first used; the second
    one records. Where recording fails, a warning says so, and calls stay plain. The function must not look at values in
    tensors, copy from the host, or draw random numbers: its results depend on its inputs, the key, and the owner's
    parameters and buffers, which may change where they are; if they lie elsewhere, they are recorded anew.

    Args:
        owner: the module whose parameters and buffers the function reads; its recordings go when it goes.
        key: all else that the function depends on.
        function: of tensors, to a tuple of tensors.
        inputs: at least one tensor; all on one device.
        copies: whether a recording's results are the caller's; if not, the next call of the same kind writes over them.
    """
    if _switched_off or not _can_record(inputs[0].device) or not _is_recordable(owner):
        return function(*inputs)
    assert isinstance(owner, nn.Module)
    key = (key, *_surroundings(owner), *((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs))
    of_owner = _recordings.setdefault(owner, OrderedDict())
    known = of_owner.get(key)
    of_owner[key] = known or "seen"
    of_owner.move_to_end(key)
    if len(of_owner) > _MOST_RECORDINGS:
        of_owner.popitem(last=False)
    if known == "seen":
        try:
            known = of_owner[key] = Recording(function, inputs)
        except RuntimeError as error:
            of_owner[key] = "failed"
            said = (str(error).splitlines() or [type(error).__name__])[0]
            name = type(owner).__name__
            warnings.warn(f"{name} goes on without CUDA graphs, slower: recording one failed. ({said})", stacklevel=2)
    if not isinstance(known, Recording):
        return function(*inputs)
    outputs = known.replay(inputs)
    return tuple(tensor.clone() for tensor in outputs) if copies else outputs


@contextmanager
def without_graphs() -> Iterator[None]:
    """Plain calls in this context: for comparisons."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def _can_record(device: torch.device) -> bool:
    return device.type == "cuda" and not torch.cuda.is_current_stream_capturing()


def _is_recordable(owner: object) -> bool:
    """Whether it says so, and no hooks are called with its parts, of which nothing is known."""
    if not isinstance(owner, nn.Module) or not isinstance(owner, Recordable) or not owner.recordable:
        return False
    return not any(part._forward_hooks or part._forward_pre_hooks for part in owner.modules())


def _surroundings(owner: nn.Module) -> tuple[Any, ...]:
    """What decides which kernels run, and on which memory, beside a function's arguments."""
    places = tuple(tensor.data_ptr() for tensor in (*owner.parameters(), *owner.buffers()))
    return owner.training, torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cuda"), places


@cache
def _memory(device: torch.device) -> Any:
    """Of all recordings on a device: only one is replayed at a time, and what it returns it keeps."""
    with torch.cuda.device(device):
        return torch.cuda.graph_pool_handle()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
