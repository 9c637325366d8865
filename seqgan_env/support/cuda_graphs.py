"""Record a function's GPU kernels once as a CUDA graph and replay them: one launch in place of hundreds.

At the sizes of this project a kernel finishes before the next one is launched, so launching takes most of the time. There are
two uses: `replayed` calls a function of tensors, and a `RepeatedStep` is a step of a loop that changes tensors in place, such
as a step of training. On a CPU both only call the function.

A recording reads and writes fixed memory addresses, so its key includes all that it depends on: shapes, modes, random
generators, and the addresses of parameters and other tensors that it reads or changes. If one differs, the function is
recorded anew. All recordings on a device share a memory pool and a stream, which live as long as any recording.
"""

import gc
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, TypeGuard
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from seqgan_env.support.precision import present_precision
from seqgan_env.support.state_dicts import random_generators

Function = Callable[..., tuple[Tensor, ...]]

MOST_RECORDINGS = 64
"""Limit on the recordings of one owner, and on the calls remembered after one use; further calls run without a recording."""


class Recordable(nn.Module):
    """A module that can say whether its computation may be recorded."""

    @property
    def recordable(self) -> bool:
        """Whether its kernels depend only on shapes, and read only arguments, parameters, buffers and own generators."""
        return False


class Recording:
    """The recorded GPU kernels of a function of tensors, for inputs of one shape. Recording does not run them."""

    def __init__(
        self, function: Function, inputs: tuple[Tensor, ...], device: torch.device, generators: Iterable[torch.Generator]
    ) -> None:
        self._inputs = [tensor.clone() for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:  # replays then draw from them what calls of the function would
            self._graph.register_generator_state(generator)
        others = list(_living.setdefault(device, WeakSet()))  # strong references: the pool goes with the last recording
        if not others:
            with torch.cuda.device(device):
                _places[device] = (torch.cuda.graph_pool_handle(), torch.cuda.Stream(device))
        pool, stream = _places[device]
        record = torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        with _no_collection(), torch.cuda.device(device), torch.cuda.stream(torch.cuda.current_stream(device)), record:
            self._outputs = function(*self._inputs)
        _living[device].add(self)

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the kernels on other inputs. Every call returns the same tensors, which other recordings may overwrite."""
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return self._outputs


@dataclass
class _Known:
    """An owner's calls and recordings; valid while its parameters and buffers stay at the same addresses."""

    places: tuple[Any, ...]
    seen: OrderedDict[Hashable, None] = field(default_factory=OrderedDict)
    recordings: dict[Hashable, tuple[tuple[Any, ...], Recording]] = field(default_factory=dict)
    """With the places of what else each reads or changes."""


_known: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()
_living: dict[torch.device, WeakSet[Recording]] = {}
_places: dict[torch.device, tuple[Any, torch.cuda.Stream]] = {}
_lock = RLock()  # only one thread at a time may use a recording's inputs and outputs
_switched_off = False
failed = False
"""Whether recording has failed in this process, after which every call is plain."""


def replayed(owner: object, key: Hashable, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
    """`function(*inputs)`; on a GPU by replaying its kernels, if its owner is `Recordable`.

    The first call with a key and shapes runs without recording, so that libraries can initialise; the second one records. If
    recording fails, this warns and stops using graphs. The function must not look at values in tensors or copy from the host,
    and draw random numbers only from generators that are attributes of the owner or of its parts: its results depend on its
    inputs, the key, and the owner. Parameters and buffers may change in place; if they move in memory, the function is
    recorded again.

    Args:
        owner: the module whose parameters and buffers the function reads; its recordings are freed with it.
        key: all else that the function depends on.
        function: maps tensors to a tuple of tensors.
        inputs: at least one tensor; all on one device.
    """
    device = inputs[0].device
    if not _may_record(owner, device):
        return function(*inputs)
    kind = (key, *((tensor.shape, tensor.dtype) for tensor in inputs))
    with _lock:
        recording = _recording_of(owner, kind, function, inputs, device)
        if recording is not None:
            return tuple(tensor.clone() for tensor in recording.replay(inputs))
    return function(*inputs)


class RepeatedStep:
    """A step that a loop takes again and again and that changes tensors in place; on a GPU its kernels are replayed.

    What `replayed` asks of a function holds for the step, too. The first steps run without recording. Make a new object for
    each run of the loop: in a run nothing may move, and no setting may change.

    Args:
        owner: the module that the step reads or trains.
        key: all else that the step depends on.
        step: takes no arguments; returns tensors, which the next step may overwrite.
        optimizer: of the owner's parameters, if the step is one of training. On a GPU its step sizes become tensors, so that
            they can change between steps; an optimiser that torch cannot record makes the step plain.
        state: further tensors that the step reads or changes.
    """

    def __init__(
        self,
        owner: nn.Module,
        key: Hashable,
        step: Callable[[], tuple[Tensor, ...]],
        *,
        optimizer: torch.optim.Optimizer | None = None,
        state: Iterable[Tensor] = (),
    ) -> None:
        self._owner, self._key, self._step, self._optimizer, self._state = owner, key, step, optimizer, tuple(state)
        self._device = next(owner.parameters()).device
        self._recording: Recording | None = None
        self._records = _may_record(owner, self._device) and (optimizer is None or _make_capturable(optimizer, self._device))

    def __call__(self) -> tuple[Tensor, ...]:
        """Take the step."""
        if self._records and not failed:
            with _lock:
                if self._recording is None and _has_begun(self._optimizer):
                    kind = (self._key, _constants_of(self._optimizer))
                    state = (*self._state, *_tensors_of(self._optimizer))
                    self._recording = _recording_of(self._owner, kind, self._step, (), self._device, state)
                if self._recording is not None:
                    return self._recording.replay(())
        return self._step()


def _may_record(owner: object, device: torch.device) -> TypeGuard[nn.Module]:
    return not _switched_off and not failed and can_record(device) and _is_recordable(owner)


def _recording_of(
    owner: nn.Module,
    kind: Hashable,
    function: Function,
    inputs: tuple[Tensor, ...],
    device: torch.device,
    state: tuple[Tensor, ...] = (),
) -> Recording | None:
    """The recording for this kind of call, made at its second request; None if the call must run without one.

    If further tensors that it reads or changes have moved, a new recording takes the place of the old one.
    """
    generators = tuple(generator for _, generator in random_generators(owner) if generator.device.type == device.type)
    kind = (kind, generators, device, *_modes(owner))
    places = _places_of((*owner.parameters(), *owner.buffers()))
    known = _known.get(owner)
    if known is None or known.places != places:
        known = _known[owner] = _Known(places)
    of_state = _places_of(state)
    recorded_places, recording = known.recordings.get(kind, ((), None))
    if recording is not None and recorded_places == of_state:
        return recording
    call = kind, of_state
    if call not in known.seen or (recording is None and len(known.recordings) >= MOST_RECORDINGS):
        known.seen[call] = None
        known.seen.move_to_end(call)
        if len(known.seen) > MOST_RECORDINGS:
            known.seen.popitem(last=False)
        return None
    try:
        recording = Recording(function, inputs, device, generators)
    except RuntimeError as error:
        _give_up(owner, error)
        return None
    known.recordings[kind] = of_state, recording
    return recording


def _places_of(tensors: Iterable[Tensor]) -> tuple[Any, ...]:
    return tuple((tensor.data_ptr(), tensor.shape, tensor.dtype, tensor.requires_grad) for tensor in tensors)


def _make_capturable(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Let the optimiser's steps be recorded, if it has that setting."""
    if not all("capturable" in group for group in optimizer.param_groups):
        return False
    for group in optimizer.param_groups:
        group["capturable"] = True
        if not isinstance(group["lr"], Tensor) or group["lr"].device != device:
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=device)
    for slots in optimizer.state.values():
        if "step" in slots:  # on the CPU if steps so far were neither fused nor capturable
            slots["step"] = torch.as_tensor(slots["step"], dtype=torch.float32, device=device)
    return True


def _has_begun(optimizer: torch.optim.Optimizer | None) -> bool:
    """Whether an optimiser has its state: a recording of its first step would set it to zero in every replay."""
    if optimizer is None:
        return True
    trained = (parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.requires_grad)
    return all(optimizer.state.get(parameter) for parameter in trained)


def _tensors_of(optimizer: torch.optim.Optimizer | None) -> Iterator[Tensor]:
    """The tensors that an optimiser's step reads or changes, apart from parameters and gradients."""
    if optimizer is not None:
        states = (*optimizer.param_groups, *optimizer.state.values())
        yield from (value for state in states for value in state.values() if isinstance(value, Tensor))


def _constants_of(optimizer: torch.optim.Optimizer | None) -> tuple[Hashable, ...]:
    """The settings of an optimiser that are no tensors, so that a recording keeps them."""
    if optimizer is None:
        return ()
    return tuple(
        (name, value)
        for group in optimizer.param_groups
        for name, value in group.items()
        if isinstance(value, bool | int | float | tuple)
    )


def _give_up(owner: nn.Module, error: RuntimeError) -> None:
    """Use no recordings from now on: after a failed capture, torch's state makes later captures unreliable."""
    global failed
    failed = True
    _known.clear()
    cause = error.__context__ or error  # the error inside the capture, not the one from ending it
    said = (str(cause).splitlines() or [type(cause).__name__])[0]
    warnings.warn(
        f"{type(owner).__name__} continues without CUDA graphs, and slower, because recording one failed: {said}. If GPU "
        "memory or random numbers cause errors after this, restart without graphs (train.py --no-cuda-graphs).",
        stacklevel=4,
    )


@contextmanager
def without_graphs() -> Iterator[None]:
    """Call functions directly in this context, without recordings."""
    global _switched_off
    before, _switched_off = _switched_off, True
    try:
        yield
    finally:
        _switched_off = before


def can_record(device: torch.device) -> bool:
    """On a GPU, but not under autocast, whose cached copies of weights a recording would keep reading."""
    if device.type != "cuda":
        return False
    return not torch.is_autocast_enabled("cuda") and not torch.cuda.is_current_stream_capturing()


def _is_recordable(owner: object) -> TypeGuard[nn.Module]:
    """Whether the module says so and has no hooks, because hooks may do anything."""
    if not isinstance(owner, Recordable) or not owner.recordable:
        return False
    hooked = (
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in owner.modules()
    )
    return not any(hooked) and not any(parameter._backward_hooks for parameter in owner.parameters())


def _modes(owner: nn.Module) -> tuple[Any, ...]:
    """What else decides which kernels run and what kind of tensors they get."""
    return owner.training, *present_precision(), torch.is_grad_enabled(), torch.is_inference_mode_enabled()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Turn off garbage collection in this context: destroying a graph meanwhile would abort the capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
