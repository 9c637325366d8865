"""How products are made: in float32, or faster in TF32 or bfloat16 where the machine has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

Precision = Literal["highest", "high", "medium"]
"""As torch names them: float32; TF32 on a GPU; TF32 on a GPU, too, and bfloat16 on a processor with AMX. Where tensors are
turned into `product_dtype`, `medium` is bfloat16 on every device that has it."""

_asked: ContextVar[Precision] = ContextVar("precision", default="highest")


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Products made in a precision; torch's own setting, which is global, is put back afterwards.

    Raises:
        RuntimeError: torch's setting was made by its newer names, for parts of torch.
    """
    before, token = torch.get_float32_matmul_precision(), _asked.set(precision)
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        _asked.reset(token)


def present_precision() -> tuple[str, Precision]:
    """Torch's setting, "set elsewhere" if it was made by its newer names, and what `products_in` asked for."""
    try:
        return torch.get_float32_matmul_precision(), _asked.get()
    except RuntimeError:
        return "set elsewhere", _asked.get()


def product_dtype(parameter: Tensor) -> torch.dtype:
    """What to make a parameter's products in: bfloat16 for float32 in `medium` where the device has it; else its own dtype.

    What `products_in` asked for counts, not what a program set for all of torch.
    """
    in_bfloat16 = _asked.get() == "medium" and parameter.dtype == torch.float32 and has_bfloat16(parameter.device)
    return torch.bfloat16 if in_bfloat16 else parameter.dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies bfloat16 itself, instead of by way of float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def check_precision(precision: str) -> None:
    """Raise a ValueError for a name that is none."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
