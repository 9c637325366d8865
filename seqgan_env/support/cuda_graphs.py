"""On a GPU, a function's kernels recorded once, as a CUDA graph, and replayed: one launch in place of hundreds.

At the sizes of this project a kernel is done before the next one is launched, so that launching them is most of the time.
On a CPU `replayed` calls the function and nothing more.

A recording reads and writes memory by address, so that what it depends on is spelled out: shapes, modes, and where parameters
lie. All recordings of a device share a pool of memory and a stream, which live as long as one of them does.
"""

import gc
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, Protocol, TypeGuard, runtime_checkable
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from seqgan_env.support.precision import present_precision

Function = Callable[..., tuple[Tensor, ...]]

_MOST = 64
"""Recordings of one owner, and kinds of calls that are remembered for having been seen once; further ones stay plain."""


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
        others = list(_living.setdefault(device, WeakSet()))  # held, for the pool goes with the last of them
        if not others:
            with torch.cuda.device(device):
                _places[device] = (torch.cuda.graph_pool_handle(), torch.cuda.Stream(device))
        pool, stream = _places[device]
        record = torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        with _no_collection(), torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), record:
            self._outputs = function(*self._inputs)
        _living[device].add(self)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the kernels on other inputs. The outputs are the same tensors every time, in memory that others may use."""
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._outputs


@dataclass
class _Known:
    """What is known of an owner's calls, while its parameters and buffers lie where they do."""

    places: tuple[Any, ...]
    seen: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)
    recordings: dict[Hashable, Recording] = field(default_factory=dict)


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()
_living: dict[torch.device, WeakSet[Recording]] = {}
_places: dict[torch.device, tuple[Any, torch.cuda.Stream]] = {}
_lock = RLock()  # a recording's inputs and outputs are one thread's at a time
_switched_off = False
_failed = False


def replayed(owner: object, key: Hashable, function: Function, *inputs: Tensor, copies: bool = True) -> tuple[Tensor, ...]:
    """`function(*inputs)`; on a GPU by replaying its kernels, if its owner is `Recordable`.

    The first call with a key and shapes is a plain one, which makes what libraries make when they are first used; the second
    one records. If that fails, a warning says so, and from then on all calls are plain. The function must not look at values
    in tensors, copy from the host, or draw random numbers: its results depend on its inputs, the key, and the owner's
    parameters and buffers, which may change where they are; if they lie elsewhere, it is recorded anew.

    Args:
        owner: the module whose parameters and buffers the function reads; its recordings go when it goes.
        key: all else that the function depends on.
        function: of tensors, to a tuple of tensors.
        inputs: at least one tensor; all on one device.
        copies: whether a recording's results are the caller's; if not, the next call of any kind may write over them.
    """
    if _switched_off or _failed or not _can_record(inputs[0].device) or not _is_recordable(owner):
        return function(*inputs)
    kind = (key, *_modes(owner), *((tensor.shape, tensor.dtype, tensor.device) for tensor in inputs))
    with _lock:
        recording = _recording_of(owner, kind, function, inputs)
        if recording is not None:
            outputs = recording.replay(inputs)
            return tuple(tensor.clone() for tensor in outputs) if copies else outputs
    return function(*inputs)


def _recording_of(owner: nn.Module, kind: Hashable, function: Function, inputs: tuple[Tensor, ...]) -> Recording | None:
    """The recording of a kind of call, made the second time that it is asked for; None where the call is to be plain."""
    places = tuple((t.data_ptr(), t.shape, t.dtype) for t in (*owner.parameters(), *owner.buffers()))
    known = _known.get(owner)
    if known is None or known.places != places:
        known = _known[owner] = _Known(places)
    if kind in known.recordings:
        return known.recordings[kind]
    if kind not in known.seen or len(known.recordings) >= _MOST:
        known.seen[kind] = None
        known.seen.move_to_end(kind)
        if len(known.seen) > _MOST:
            known.seen.popitem(last=False)
        return None
    try:
        known.recordings[kind] = Recording(function, inputs)
    except RuntimeError as error:
        _give_up(owner, error)
        return None
    return known.recordings[kind]


def _give_up(owner: nn.Module, error: RuntimeError) -> None:
    """No recordings any more: a capture that failed leaves torch in a state in which others need not work."""
    global _failed
    _failed = True
    _known.clear()
    cause = error.__context__ or error  # what ended the capture, not what its end complained of
    said = (str(cause).splitlines() or [type(cause).__name__])[0]
    warnings.warn(
        f"{type(owner).__name__} goes on without CUDA graphs, and slower, for recording one failed: {said}. If the GPU's "
        "memory or random numbers make trouble after this, start again without graphs (train.py --no-cuda-graphs).",
        stacklevel=4,
    )


@contextmanager
def without_graphs() -> Iterator[None]:
    """Plain calls in this context."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def _can_record(device: torch.device) -> bool:
    """On a GPU; not under autocast, which keeps copies of weights that a recording would go on reading."""
    if device.type != "cuda":
        return False
    return not torch.is_autocast_enabled("cuda") and not torch.cuda.is_current_stream_capturing()


def _is_recordable(owner: object) -> TypeGuard[nn.Module]:
    """Whether it says so, and no hooks are called with its parts, of which nothing is known."""
    if not isinstance(owner, nn.Module) or not isinstance(owner, Recordable) or not owner.recordable:
        return False
    hooked = (
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in owner.modules()
    )
    return not any(hooked) and not any(parameter._backward_hooks for parameter in owner.parameters())


def _modes(owner: nn.Module) -> tuple[Any, ...]:
    """What decides, beside a function's arguments, which kernels run and what kind of tensors they are given."""
    return owner.training, *present_precision(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage is collected in this context: graphs that are destroyed meanwhile would end a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
