"""How products are made: in float32, or faster in TF32 or bfloat16 where the machine has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

Precision = Literal["highest", "high", "medium"]
"""As torch names them. What `medium` means beyond torch's own (TF32 on a GPU, bfloat16 on a processor with AMX) is with those
that make their products in `product_dtype`."""


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Products made in a precision; torch's own setting, which is global, is put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def present_precision() -> str:
    """What `products_in` set; "set elsewhere" where it was set by torch's newer names, for parts of torch."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "set elsewhere"


def product_dtype(parameter: Tensor) -> torch.dtype:
    """What to make a float32 parameter's products in: bfloat16 in `medium` where the device has it; else its own dtype.

    Tensors of bfloat16, unlike torch's own `medium`, are faster on processors without AMX, too, and are converted once.
    """
    in_bfloat16 = parameter.dtype == torch.float32 and present_precision() == "medium" and has_bfloat16(parameter.device)
    return torch.bfloat16 if in_bfloat16 else parameter.dtype


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies bfloat16 itself, instead of by way of float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def check_precision(precision: str) -> None:
    """Raise a ValueError for a name that is none."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
