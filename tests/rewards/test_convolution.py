"""Both forms of the discriminator's convolution against torch's own: values and gradients, with a negative control."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seqgan_env.rewards.convolution import max_over_windows, max_over_windows_at_once, windows_outside
from tests.references import max_over_windows_reference
from tests.small import seeded

LENGTH, DIM = 7, 3
Filters = list[tuple[Tensor, Tensor]]
Form = Callable[[Tensor, Filters], Tensor]


def at_once(embedded: Tensor, filters: Filters, dtype: torch.dtype | None = None) -> Tensor:
    """The form for GPUs, of the other form's arguments."""
    length, _, dim = embedded.shape
    widths, n_filters = zip(*((weight.shape[1] // dim, len(weight)) for weight, _ in filters), strict=True)
    outside = windows_outside(length, widths, n_filters)
    return max_over_windows_at_once(*tokens_of(embedded), filters, outside, dtype or embedded.dtype)


def tokens_of(embedded: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens `(n, length)`, no two of them equal, and the embeddings that make `embedded` `(length, n, dim)` of them."""
    length, n, dim = embedded.shape
    embeddings = torch.cat([embedded.transpose(0, 1).reshape(-1, dim), embedded.new_zeros(1, dim)])
    return torch.arange(n * length).view(n, length), embeddings


def at_once_in_bfloat16(embedded: Tensor, filters: Filters) -> Tensor:
    return at_once(embedded, filters, torch.bfloat16)


forms = pytest.mark.parametrize("form", [max_over_windows, at_once])


def make(widths: tuple[int, ...], n: int = 5) -> tuple[Tensor, Filters]:
    generator = seeded(sum(widths))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    return normal(LENGTH, n, DIM), [(normal(2 + width, width * DIM), normal(2 + width)) for width in widths]


def as_leaves(embedded: Tensor, filters: Filters, dtype: torch.dtype) -> tuple[Tensor, Filters]:
    """The same numbers, rounded to a dtype."""

    def of(tensor: Tensor) -> Tensor:
        return tensor.detach().to(dtype).requires_grad_()

    return of(embedded), [(of(weight), of(bias)) for weight, bias in filters]


def with_gradients(result: Tensor, embedded: Tensor, filters: Filters) -> list[Tensor]:
    """A result, and its gradients by a weighting that differs along every axis, of numbers that bfloat16 holds."""
    weights = torch.randn(result.shape, generator=seeded(9)).bfloat16().to(result.dtype)
    leaves = [embedded, *(tensor for pair in filters for tensor in pair)]
    return [result, *torch.autograd.grad((weights * result).sum(), leaves)]


@forms
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("widths", [(1,), (LENGTH,), (1, 2, 5), (5, 1, LENGTH), (3, 3)])
def test_values_and_gradients_equal_the_reference(form: Form, widths: tuple[int, ...], dtype: torch.dtype) -> None:
    embedded, filters = as_leaves(*make(widths), dtype)
    fast = with_gradients(form(embedded, filters), embedded, filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    assert len(fast) == 2 + 2 * len(widths)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)


@forms
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_sequences_give_empty_results(form: Form, dtype: torch.dtype) -> None:
    embedded, filters = make((1, 2, LENGTH), n=0)
    with torch.no_grad():
        cast = [(weight.to(dtype), bias.to(dtype)) for weight, bias in filters]
        assert form(embedded.to(dtype), cast).shape == (0, 3 + 4 + 2 + LENGTH)
    for gradient in with_gradients(form(embedded, filters), embedded, filters)[2:]:
        assert (gradient == 0).all()


@forms
def test_a_window_shifted_by_one_place_is_detected(form: Form) -> None:
    """The negative control of the comparison above, for all results but the biases' gradients, which have no place."""
    embedded, filters = make((2, 5))
    fast = with_gradients(form(embedded.roll(1, 0), filters), embedded, filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    differ = [not torch.allclose(one, other) for one, other in zip(fast, plain, strict=True)]
    assert differ == [True, True, True, False, True, False]


def test_windows_beyond_the_sequence_are_detected() -> None:
    """The negative control of the mask."""
    embedded, filters = make((1, 5))
    outside = windows_outside(LENGTH, (1, 5), (3, 7))
    assert outside.sum(dim=0).tolist() == [0] * 3 + [4] * 7
    without_mask = max_over_windows_at_once(*tokens_of(embedded), filters, torch.zeros_like(outside), torch.float64)
    differ = without_mask != at_once(embedded, filters)
    assert not differ[:, :3].any()
    assert differ[:, 3:].any()


@forms
def test_equal_windows_share_the_gradient(form: Form) -> None:
    """As torch's amax has it: of a padded sequence many windows are equal."""
    embedded, filters = make((2,))
    with torch.no_grad():
        embedded[2:] = 0
        filters[0][0].mul_(0.01)  # the bias decides which filters have their greatest product in the padding
    fast = with_gradients(form(embedded, filters), embedded, filters)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)
    products = form(embedded[2:4], filters)
    assert (products == fast[0]).any()  # it came to that


@forms
def test_without_gradients_nothing_is_kept(form: Form) -> None:
    embedded, filters = make((1, 2))
    with torch.no_grad():
        silent = form(embedded, filters)
    assert silent.grad_fn is None
    assert torch.equal(silent, form(embedded, filters))


# In bfloat16


def small_integers(widths: tuple[int, ...]) -> tuple[Tensor, Filters]:
    """Numbers whose products and sums of products bfloat16 holds exactly, so that equal windows are equal in any order."""
    embedded, filters = make(widths)
    with torch.no_grad():
        for tensor in (embedded, *(tensor for pair in filters for tensor in pair)):
            tensor.mul_(1.5).round_().clamp_(-3, 3)
    return embedded, filters


def relative_errors(fast: list[Tensor], plain: list[Tensor]) -> list[float]:
    """Of each tensor, by its norm."""
    return [((one.double() - other).norm() / other.norm()).item() for one, other in zip(fast, plain, strict=True)]


forms_in_bfloat16 = pytest.mark.parametrize(
    ("form", "dtype"), [(max_over_windows, torch.bfloat16), (at_once_in_bfloat16, torch.float32)]
)
"""The dtype of arguments and gradients: the form for GPUs rounds for itself."""


@forms_in_bfloat16
@pytest.mark.parametrize("widths", [(1,), (LENGTH,), (1, 2, 5), (3, 3)])
def test_in_bfloat16_values_are_exact_and_gradients_rounded(form: Form, dtype: torch.dtype, widths: tuple[int, ...]) -> None:
    exact, rough = small_integers(widths), as_leaves(*small_integers(widths), dtype)
    plain = with_gradients(max_over_windows_reference(*exact), *exact)
    fast = with_gradients(form(*rough), *rough)
    assert [tensor.dtype for tensor in fast] == [torch.bfloat16, *[dtype] * (len(fast) - 1)]
    torch.testing.assert_close(fast[0].double(), plain[0], rtol=0, atol=0)
    assert max(relative_errors(fast, plain)) < 2**-7


@forms_in_bfloat16
def test_in_bfloat16_a_window_shifted_by_one_place_is_detected(form: Form, dtype: torch.dtype) -> None:
    """The negative control, for every result but the biases' gradients."""
    embedded, filters = small_integers((2, 5))
    rough = as_leaves(embedded.roll(1, 0), filters, dtype)
    plain = with_gradients(max_over_windows_reference(embedded, filters), embedded, filters)
    errors = relative_errors(with_gradients(form(*rough), *rough), plain)
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
        for found in (max_over_windows(embedded, [(weight, bias)]), at_once(embedded, [(weight, bias)]), added)
    ]
    assert max(errors[:2]) <= 1.01 * once < 4 * once < errors[2]
