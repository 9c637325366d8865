"""Recordings of `seqgan_env.support.cuda_graphs`, emulated on a CPU or made on a GPU, and what tests compare them by.

A recording is emulated by the operators that `make_fx` writes down, which are replayed without any Python of the function.
"""

import gc
import sys
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from seqgan_env.support.cuda_graphs import Function, RepeatedStep

FIT_SIZES: dict[str, Any] = {
    **{"widths": (1, 3), "n_filters": (4, 3), "embedding_dim": 5},
    **{"batch_size": 8, "learning_rate": 1e-2},
}
"""Of a discriminator whose fits are recorded or compiled."""
FIT_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"dropout": 0.0},
    "dropout": {"dropout": 0.4},
    "regularised": {"weight_decay": 0.1},
    "bfloat16": {"precision": "medium"},
}
"""By name, what changes the operators of a fit."""
SHAPES_ON_A_GPU = [(50, 20), (127, 7), (128, 7), (5000, 20), (50_000, 6), (20, 1), (30, 600)]
"""Sizes of the vocabulary and lengths of sequences at which a GPU may take another path."""

_WITH_A_CHOICE = (
    "models.embedding",
    "models.linear_log_prob",
    "models.token_model",
    "rewards.discriminator",
    "rewards.text_cnn",
)


@contextmanager
def forms_for_gpus() -> Iterator[None]:
    """A CPU takes the forms for GPUs in this context."""
    with pytest.MonkeyPatch.context() as patch:
        for module in _WITH_A_CHOICE:
            patch.setattr(f"seqgan_env.{module}.prefers_few_kernels", lambda tensor: True)
        yield


@contextmanager
def nothing_changed(generators: tuple[torch.Generator, ...]) -> Iterator[None]:
    """Restores all tensors that may change, and some generators, afterwards."""
    states = [generator.get_state() for generator in generators]
    with torch.inference_mode(False):  # in it, other tensors could not be written to
        memory = list(_memory_of_tensors())
        values = [tensor.clone() for tensor in memory]
    try:
        yield
    finally:
        with torch.inference_mode(False):
            for tensor, value in zip(memory, values, strict=True):
                tensor.copy_(value)
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _memory_of_tensors() -> Iterator[Tensor]:
    """Every tensor on the CPU, without its gradient; those made in inference mode are left out."""
    for found in gc.get_objects():
        if type(found) in (Tensor, nn.Parameter) and found.device.type == "cpu" and not found.is_inference():
            with suppress(RuntimeError):  # a view of a tensor made in inference mode has no memory of its own
                yield found.data


class Emulated:
    """What a CUDA graph keeps of a function: its operators and the memory they work on, and none of its Python."""

    made = 0
    living: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

    def __init__(
        self, function: Function, inputs: tuple[Tensor, ...], device: torch.device, generators: tuple[torch.Generator, ...]
    ) -> None:
        Emulated.made += 1
        Emulated.living.add(self)
        self._inputs = [tensor.clone() for tensor in inputs]
        trace = make_fx(lambda *tensors: function(*tensors), tracing_mode="fake", _allow_non_fake_inputs=True)
        with nothing_changed(generators):  # tracing runs an operator that reads nothing but constants, such as a counter's
            try:
                self._graph = trace(*self._inputs)
            except NotImplementedError as error:
                if "Generator" not in str(error):
                    raise
                pytest.skip("this version of torch cannot write down a draw from a generator (2.13 can)")
        self._outputs: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        made = self._graph(*self._inputs)
        self._outputs = self._outputs or made
        for kept, new in zip(self._outputs, made, strict=True):
            kept.copy_(new)
        return self._outputs


@dataclass
class RecordedOn:
    """Where a test's recordings are made."""

    device: str
    kind: type[Any]

    @property
    def made(self) -> int:
        """The number of recordings so far."""
        number: int = self.kind.made
        return number

    def generator(self, seed: int = 0) -> torch.Generator:
        """A random generator on the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def alike(self, recorded: Tensor, plain: Tensor, start: Tensor) -> bool:
        """Whether two modules have learned the same since the start.

        On a CPU up to the rounding of Adam's step size to float32. A GPU adds up some sums in any order, and Adam may turn a
        gradient of nearly zero into a whole step.
        """
        moved = (plain - start).abs().mean()
        assert moved > 0
        return bool((recorded - plain).abs().mean() < (1e-6 if self.device == "cpu" else 0.03) * moved)


def values_of(module: nn.Module) -> Tensor:
    """A copy of all parameters in one, on the CPU."""
    return torch.cat([parameter.detach().cpu().flatten() for parameter in module.parameters()])


class NothingFromTheHost(TorchDispatchMode):
    """Refuses copies from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = {tensor.device.type for tensor in args if isinstance(tensor, Tensor)} | {
            torch.device(device).type for device in [kwargs.get("device")] if device is not None
        }
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and len(devices) > 1:
            raise RuntimeError(f"{func} from one device to another, which a GPU would wait for")
        if "_fused_adam" in str(func):  # torch has no form of it for tensors without values
            return None
        return func(*args, **kwargs)


def without_values(module: Any) -> Any:
    """The module with parameters of the device `meta`, which have no values."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(torch.empty_like(parameter, device="meta")))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty_like(buffer, device="meta"))
    return module


class OfACPU(torch.Generator):
    """Stands in for generators of other devices: with tensors without values none draws anything."""

    def __new__(cls, device: object = None) -> "OfACPU":
        return super().__new__(cls)


def steps_that_may_not_wait(monkeypatch: pytest.MonkeyPatch, module: str) -> list[Hashable]:
    """Let the repeated steps of a module run plainly on a GPU, where waiting for it is an error; the list has their keys."""
    taken: list[Hashable] = []

    class Step(RepeatedStep):
        def __call__(self) -> tuple[Tensor, ...]:
            torch.cuda.set_sync_debug_mode("error")
            try:
                result = self._step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
            taken.append(self._key)
            return result

    monkeypatch.setattr(f"{module}.RepeatedStep", Step)
    return taken


def steps_without_values(monkeypatch: pytest.MonkeyPatch, module: str) -> list[Hashable]:
    """Let the repeated steps of a module run on tensors without values, and never wait; the list has the keys of the steps."""
    taken: list[Hashable] = []

    class Step(RepeatedStep):
        def __call__(self) -> tuple[Tensor, ...]:
            with NothingFromTheHost():
                result = self._step()
            taken.append(self._key)
            return result

    monkeypatch.setattr(f"{module}.RepeatedStep", Step)
    optimizers = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(torch, "Generator", OfACPU)
    monkeypatch.setattr(optimizers, "_get_fused_kernels_supported_devices", lambda: ["cpu", "meta"])
    return taken
