"""The discriminator's convolution against torch's own: values and gradients, with a negative control."""

import pytest
import torch
from torch import Tensor

from seqgan_env.windows import max_over_windows, max_over_windows_reference
from tests.small import seeded

LENGTH, DIM = 7, 3
Filters = list[tuple[Tensor, Tensor]]


def make(widths: tuple[int, ...], n: int = 5) -> tuple[Tensor, Filters]:
    generator = seeded(sum(widths))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return normal(LENGTH, n, DIM), [(normal(2 + width, width * DIM), normal(2 + width)) for width in widths]


def with_gradients(result: Tensor, embedded: Tensor, filters: Filters) -> list[Tensor]:
    """A result, and its gradients by a weighting that differs along every axis."""
    weights = torch.randn(result.shape, generator=seeded(9), dtype=torch.float64)
    leaves = [embedded, *(tensor for pair in filters for tensor in pair)]
    return [result, *torch.autograd.grad((weights * result).sum(), leaves)]


@pytest.mark.parametrize("widths", [(1,), (LENGTH,), (1, 2, 5), (3, 3)])
def test_values_and_gradients_are_those_of_the_reference(widths: tuple[int, ...]) -> None:
    embedded, filters = make(widths)
    fast = with_gradients(max_over_windows(embedded, filters), embedded, filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    assert len(fast) == 2 + 2 * len(widths)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_a_window_shifted_by_one_place_is_seen() -> None:
    """The negative control of the comparison above, for every result but the biases' gradients, which no place has."""
    embedded, filters = make((2, 5))
    fast = with_gradients(max_over_windows(embedded.roll(1, 0), filters), embedded, filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    differ = [not torch.allclose(one, other) for one, other in zip(fast, plain, strict=True)]
    assert differ == [True, True, True, False, True, False]


def test_equal_windows_share_the_gradient() -> None:
    """As torch's amax has it: of a padded sequence many windows are equal."""
    embedded, filters = make((2,))
    with torch.no_grad():
        embedded[2:] = 0
        filters[0][0].mul_(0.01)  # the bias decides which filters have their greatest product in the padding
    fast = with_gradients(max_over_windows(embedded, filters), embedded, filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)
    products = max_over_windows(embedded[2:4], filters)
    assert (products == fast[0]).any()  # it came to that


def test_without_gradients_nothing_is_kept() -> None:
    embedded, filters = make((1, 2))
    with torch.no_grad():
        assert max_over_windows(embedded, filters).grad_fn is None
