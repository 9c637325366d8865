"""The discriminator's convolution against torch's own: values and gradients, with a negative control."""

import pytest
import torch
from torch import Tensor

from seqgan_env.rewards.convolution import max_over_windows
from tests.references import max_over_windows_reference
from tests.small import seeded

LENGTH, DIM = 7, 3
Filters = list[tuple[Tensor, Tensor]]


def make(widths: tuple[int, ...], n: int = 5) -> tuple[Tensor, Filters]:
    generator = seeded(sum(widths))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return normal(LENGTH, n, DIM), [(normal(2 + width, width * DIM), normal(2 + width)) for width in widths]


def with_gradients(result: Tensor, embedded: Tensor, filters: Filters) -> list[Tensor]:
    """A result, and its gradients by a weighting that differs along every axis, of numbers that bfloat16 holds."""
    weights = torch.randn(result.shape, generator=seeded(9)).bfloat16().to(result.dtype)
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_sequences_have_no_greatest_values(dtype: torch.dtype) -> None:
    embedded, filters = make((1, 2, LENGTH), n=0)
    with torch.no_grad():
        cast = [(weight.to(dtype), bias.to(dtype)) for weight, bias in filters]
        assert max_over_windows(embedded.to(dtype), cast).shape == (0, 3 + 4 + 2 + LENGTH)
    for gradient in with_gradients(max_over_windows(embedded, filters), embedded, filters)[2:]:
        assert (gradient == 0).all()


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


# In bfloat16


def small_integers(widths: tuple[int, ...]) -> tuple[Tensor, Filters]:
    """Numbers whose products and sums of products bfloat16 holds exactly, so that equal windows are equal in any order."""
    embedded, filters = make(widths)
    with torch.no_grad():
        for tensor in (embedded, *(tensor for pair in filters for tensor in pair)):
            tensor.mul_(1.5).round_().clamp_(-3, 3)
    return embedded, filters


def rounded(embedded: Tensor, filters: Filters) -> tuple[Tensor, Filters]:
    def of(tensor: Tensor) -> Tensor:
        return tensor.detach().bfloat16().requires_grad_()

    return of(embedded), [(of(weight), of(bias)) for weight, bias in filters]


def relative_errors(fast: list[Tensor], plain: list[Tensor]) -> list[float]:
    """Of each tensor, by its norm."""
    return [((one.double() - other).norm() / other.norm()).item() for one, other in zip(fast, plain, strict=True)]


@pytest.mark.parametrize("widths", [(1,), (LENGTH,), (1, 2, 5), (3, 3)])
def test_in_bfloat16_values_are_exact_and_gradients_rounded(widths: tuple[int, ...]) -> None:
    exact, rough = small_integers(widths), rounded(*small_integers(widths))
    plain = with_gradients(max_over_windows_reference(*exact), *exact)
    fast = with_gradients(max_over_windows(*rough), *rough)
    assert {tensor.dtype for tensor in fast} == {torch.bfloat16}
    torch.testing.assert_close(fast[0].double(), plain[0], rtol=0, atol=0)
    assert max(relative_errors(fast, plain)) < 2**-7


def test_in_bfloat16_a_window_shifted_by_one_place_is_seen() -> None:
    """The negative control, for every result but the biases' gradients."""
    embedded, filters = small_integers((2, 5))
    rough = rounded(embedded.roll(1, 0), filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    errors = relative_errors(with_gradients(max_over_windows(*rough), *rough), plain)
    assert [error > 0.1 for error in errors] == [True, True, True, False, True, False]


def test_in_bfloat16_a_product_is_rounded_once() -> None:
    """However wide the window; the negative control adds up place by place, and rounds each time."""
    width, n, dim, once = 20, 30, 8, 2**-8
    generator = seeded()
    embedded = torch.randn(width, n, dim, generator=generator).bfloat16()
    weight, bias = torch.randn(6, width * dim, generator=generator).bfloat16(), torch.zeros(6, dtype=torch.bfloat16)
    exact = max_over_windows_reference(embedded.double(), [(weight.double(), bias.double())])
    added = bias.expand(n, 6).clone()
    for place in range(width):
        added.addmm_(embedded[place], weight[:, place * dim : (place + 1) * dim].T)
    errors = [
        ((found.double() - exact) / exact).abs().max().item()
        for found in (max_over_windows(embedded, [(weight, bias)]), added)
    ]
    assert errors[0] <= 1.01 * once < 4 * once < errors[1]
