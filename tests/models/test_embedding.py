"""Rows of a table: both forms against an indexed table, with their gradients."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from seqgan_env.models.embedding import Embedding, look_up
from tests.recordings import forms_for_gpus
from tests.small import seeded

forms = pytest.mark.parametrize("form", [nullcontext, forms_for_gpus], ids=["for CPUs", "for GPUs"])


def with_gradient(found: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """The rows, and the table's gradient by weights that differ from row to row."""
    weights = torch.randn(found.shape, generator=seeded(2), dtype=found.dtype)
    return found, torch.autograd.grad((weights * found).sum(), table)[0]


@forms
@pytest.mark.parametrize("shape", [(), (9,), (4, 5), (0, 5), (2, 3, 2)])
def test_rows_and_gradients_equal_those_of_indexing(form: Any, shape: tuple[int, ...]) -> None:
    """Gradients of an id that occurs several times add up."""
    table = torch.randn(4, 3, generator=seeded(), dtype=torch.float64).requires_grad_()
    numbers = torch.randint(4, shape, generator=seeded(1))
    with form():
        fast = with_gradient(look_up(numbers, table), table)
    plain = with_gradient(table[numbers], table)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)
    if numbers.numel():
        other_rows = with_gradient(table[(numbers + 1) % 4], table)  # the negative control
        assert not any(torch.allclose(one, other) for one, other in zip(fast, other_rows, strict=True))


@forms
def test_the_layer_equals_torchs(form: Any) -> None:
    layer, numbers = Embedding(4, 3), torch.tensor([[0, 3], [3, 1]])
    with form():
        assert torch.equal(layer(numbers), torch.nn.functional.embedding(numbers, layer.weight))
