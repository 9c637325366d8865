"""The precision of matrix products: float32, or faster TF32 or bfloat16 if the device has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

Precision = Literal["highest", "high", "medium"]
"""Torch's names: "highest" is float32; "high" is TF32 on a GPU; "medium" is TF32 on a GPU and bfloat16 on a CPU with AMX.
For tensors converted to `product_dtype`, "medium" is bfloat16 on every device that has it."""

_asked: ContextVar[Precision] = ContextVar("precision", default="highest")


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Compute products in a precision; restores torch's global setting afterwards.

    Raises:
        RuntimeError: torch's precision was set through its newer per-backend settings.
    """
    before, token = torch.get_float32_matmul_precision(), _asked.set(precision)
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        _asked.reset(token)


def present_precision() -> tuple[str, Precision]:
    """Torch's setting ("set elsewhere" if made by its newer per-backend settings), and the precision of `products_in`."""
    try:
        return torch.get_float32_matmul_precision(), _asked.get()
    except RuntimeError:
        return "set elsewhere", _asked.get()


def product_dtype(parameter: Tensor) -> torch.dtype:
    """The dtype for a parameter's products: bfloat16 for float32 in "medium" if the device has it; else its own dtype.

    Only `products_in` counts, not torch's global setting.
    """
    in_bfloat16 = _asked.get() == "medium" and parameter.dtype == torch.float32 and has_bfloat16(parameter.device)
    return torch.bfloat16 if in_bfloat16 else parameter.dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 natively, not through float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def check_precision(precision: str) -> None:
    """Raise a ValueError for an unknown name."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
