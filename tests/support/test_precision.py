"""What products are made in, and where the machine multiplies bfloat16."""

from pathlib import Path

import pytest
import torch

from seqgan_env.support import precision
from seqgan_env.support.precision import has_bfloat16, present_precision, product_dtype, products_in

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize(
    ("asked", "has", "dtype", "expected"),
    [
        ("medium", True, torch.float32, torch.bfloat16),
        ("medium", False, torch.float32, torch.float32),
        ("high", True, torch.float32, torch.float32),
        ("highest", True, torch.float32, torch.float32),
        ("medium", True, torch.float64, torch.float64),
    ],
)
def test_medium_means_bfloat16_for_float32_if_the_device_has_it(
    asked: precision.Precision, has: bool, dtype: torch.dtype, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: has)
    with products_in(asked):
        assert product_dtype(torch.zeros(1, dtype=dtype)) == expected


def test_torchs_global_setting_does_not_ask_for_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert present_precision() == ("medium", "highest")
        assert product_dtype(torch.zeros(1)) == torch.float32
        with products_in("highest"):
            assert present_precision() == ("highest", "highest")
    finally:
        torch.set_float32_matmul_precision(before)


def test_precision_set_by_other_names_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise RuntimeError("it was set for parts of torch")

    with products_in("high"):
        assert present_precision() == ("high", "high")
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_float32_matmul_precision", refuse)
            assert present_precision() == ("set elsewhere", "high")


@pytest.mark.skipif(not CPU_INFO.exists(), reason="no /proc/cpuinfo here")
def test_the_processors_flags_decide_on_bfloat16() -> None:
    assert has_bfloat16(torch.device("cpu")) == ("avx512_bf16" in CPU_INFO.read_text())


def test_device_without_values_has_none() -> None:
    assert not has_bfloat16(torch.device("meta"))
