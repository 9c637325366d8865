"""Devices: which one a name means, and what suits it."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def resolve_device(device: str | torch.device) -> torch.device:
    """The device for a name; `"auto"` is a GPU if there is one, else the CPU.

    Raises:
        ValueError: torch sees no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} was requested, but torch sees no CUDA device here. Use 'cpu' or 'auto'.")
    return resolved


def prefers_few_kernels(tensor: Tensor) -> bool:
    """Whether the tensor's device is faster with few large operations than with less work in many small ones: a GPU."""
    return tensor.is_cuda


@functools.cache
def fused(function: Callable[..., Result]) -> Callable[..., Result]:
    """A function of tensors, with its kernels fused by torch.compile; without a compiler the function itself, after a warning.

    Compiling takes half a minute for each set of shapes, and a few seconds if torch's cache on disk has it. Results differ by
    rounding.
    """
    import torch._inductor  # heavy, and needed only here

    # Small independent kernels in one launch, which not every version of torch can do.
    options: dict[str, Any] = {name: True for name in ("combo_kernels",) if name in torch._inductor.list_options()}
    compiled = torch.compile(function, dynamic=False, fullgraph=True, options=options)
    works = True

    @functools.wraps(function)
    def call(*arguments: object) -> Result:
        nonlocal works
        if works:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=r"\s*Online softmax is disabled", category=UserWarning)
                    return compiled(*arguments)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # whatever a compiler raises: torch's, Triton's and the C compiler's own errors
                works = False
                said = (str(error).strip().splitlines() or [type(error).__name__])[0]
                warnings.warn(
                    f"Compiling {function.__name__} failed: {said}. It runs without fused kernels, which is slower. "
                    "Compiling for a GPU needs the package triton and a C compiler.",
                    stacklevel=2,
                )
        return function(*arguments)

    return call
