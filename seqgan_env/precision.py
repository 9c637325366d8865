"""How float32 products are made: exactly, or faster in TF32 or bfloat16 where the machine has them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

Precision = Literal["highest", "high", "medium"]
"""As torch names them: in float32; in TF32 on a GPU; in bfloat16 on processors that have it, in TF32 on a GPU."""


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Products made in a precision; torch's own setting, which is global, is put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_precision(precision: str) -> None:
    """Raise a ValueError for a name that is none."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
