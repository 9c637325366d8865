"""Resolve device names."""

import torch
from torch import Tensor


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
