"""Log-probabilities of a linear layer's logits against `cross_entropy`: values and gradients, large logits, and a control."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.linear_log_prob import (
    linear_log_likelihood,
    linear_log_prob,
    linear_log_prob_reference,
    log_prob_at_once,
)
from seqgan_env.models.token_model import TiedOutput
from tests.recordings import forms_for_gpus
from tests.small import seeded

N, WIDTH, VOCAB = 11, 4, 130


def make(scale: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, nn.Linear, Tensor]:
    generator = seeded(5)
    layer = nn.Linear(WIDTH, VOCAB, dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    hidden = torch.randn(N, WIDTH, generator=generator).to(dtype).requires_grad_()
    tokens = torch.randint(VOCAB, (N,), generator=generator)
    tokens[4] = VOCAB  # padding
    return hidden, layer, tokens


def with_gradients(result: Tensor, hidden: Tensor, layer: nn.Linear) -> list[Tensor]:
    """A result, and its gradients by weights that differ from token to token."""
    weights = torch.randn(result.shape, generator=seeded(9)).to(result.dtype)
    return [result, *torch.autograd.grad((weights * result).sum(), [hidden, layer.weight, layer.bias])]


def sum_of_reference(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    return linear_log_prob_reference(hidden, weight, bias, tokens).sum()


def likelihood_at_once(hidden: Tensor, weight: Tensor, bias: Tensor, tokens: Tensor) -> Tensor:
    with forms_for_gpus():
        return linear_log_likelihood(hidden, weight, bias, tokens)


@pytest.mark.parametrize("chunk", [3, 1000])
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
@pytest.mark.parametrize(
    ("function", "reference"),
    [
        (linear_log_prob, linear_log_prob_reference),
        (linear_log_likelihood, sum_of_reference),
        (likelihood_at_once, sum_of_reference),
    ],
)
def test_values_and_gradients_equal_cross_entropys(
    function: Any, reference: Any, scale: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a scale of 300 the exponentials of many logits would be infinite or zero without a shift."""
    monkeypatch.setattr("seqgan_env.models.linear_log_prob.rows_in_cache", lambda vocab_size: chunk)
    hidden, layer, tokens = make(scale)
    fast = with_gradients(function(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    plain = with_gradients(reference(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)
    assert fast[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_the_form_for_gpus_has_the_gradient_of_each_token(scale: float, dtype: torch.dtype) -> None:
    hidden, layer, tokens = make(scale, dtype)
    weights = torch.randn(N, generator=seeded(9)).to(dtype)
    plain = with_gradients(linear_log_prob_reference(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    arguments = [tensor.detach() for tensor in (hidden, layer.weight, layer.bias)]
    values, gradients = log_prob_at_once(*arguments, tokens, weights)
    control = log_prob_at_once(*arguments, tokens, weights.roll(1))[1]
    for one, other in zip([values, *gradients], plain, strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-5 * float(other.detach().abs().max()))
        assert one.stride() == other.stride()  # torch's optimisers read gradients as they lie in memory
    assert not any(torch.allclose(one, other) for one, other in zip(control, plain[1:], strict=True))
    assert torch.equal(log_prob_at_once(*arguments, tokens)[0], values)


def test_a_very_unlikely_token_keeps_its_precision() -> None:
    """In float32, exp(-200) is 0, whose logarithm is infinite."""
    hidden, layer = torch.ones(2, 1), nn.Linear(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [-60.0], [-200.0]]))
        layer.bias.zero_()
    values = linear_log_prob(hidden, layer.weight, layer.bias, torch.tensor([1, 2]))
    assert values.tolist() == pytest.approx([-60.0, -200.0])
    gradient = torch.autograd.grad(values.sum(), layer.bias)[0]
    assert gradient.tolist() == pytest.approx([-2.0, 1.0, 1.0])
    for likelihood in (linear_log_likelihood, likelihood_at_once):
        value = likelihood(hidden, layer.weight, layer.bias, torch.tensor([1, 2]))
        assert value.item() == pytest.approx(-260.0)
        assert torch.autograd.grad(value, layer.bias)[0].tolist() == pytest.approx([-2.0, 1.0, 1.0])


def test_no_tokens_give_empty_results() -> None:
    """As in a process whose part of a batch is empty."""
    hidden, layer, tokens = make()
    for function in (linear_log_prob, linear_log_likelihood, likelihood_at_once):
        value = function(hidden[:0], layer.weight, layer.bias, tokens[:0]).sum()
        assert value.item() == 0
        assert all((gradient == 0).all() for gradient in torch.autograd.grad(value, [layer.weight, layer.bias]))


def test_tokens_of_a_neighbour_are_detected() -> None:
    """The negative control of the comparison above."""
    hidden, layer, tokens = make()
    fast = with_gradients(linear_log_prob(hidden, layer.weight, layer.bias, tokens.roll(1)), hidden, layer)
    plain = with_gradients(linear_log_prob_reference(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    assert not any(torch.allclose(one, other) for one, other in zip(fast, plain, strict=True))


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_float32_is_as_exact_as_cross_entropy(scale: float) -> None:
    hidden, layer, tokens = make(scale, torch.float32)
    fast = with_gradients(linear_log_prob(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    plain = with_gradients(linear_log_prob_reference(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * float(other.detach().abs().max()))


@pytest.mark.parametrize("function", [linear_log_prob, linear_log_likelihood, likelihood_at_once])
def test_values_are_the_same_without_gradients(function: Any) -> None:
    hidden, layer, tokens = make()
    with torch.no_grad():
        silent = function(hidden, layer.weight, layer.bias, tokens)
    assert silent.grad_fn is None
    assert torch.equal(silent, function(hidden, layer.weight, layer.bias, tokens))


def test_works_in_inference_mode_and_after_it() -> None:
    hidden, layer, tokens = make()
    values = [linear_log_prob_reference(hidden, layer.weight, layer.bias, tokens)]
    with torch.inference_mode():
        values.append(linear_log_prob(hidden, layer.weight, layer.bias, tokens))
    values.append(linear_log_prob(hidden, layer.weight, layer.bias, tokens))
    for value in values[1:]:
        torch.testing.assert_close(value, values[0])


def test_threads_do_not_share_buffers() -> None:
    hidden, layer, tokens = make()
    many = [hidden.detach().roll(k, 0) for k in range(8)] * 20
    expected = [linear_log_prob_reference(h, layer.weight, layer.bias, tokens) for h in many]
    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(lambda h: linear_log_prob(h, layer.weight, layer.bias, tokens), many))
    for value, wanted in zip(values, expected, strict=True):
        torch.testing.assert_close(value, wanted)


def test_a_tied_layer_gets_its_gradient_through_the_embedding() -> None:
    embedding = nn.Embedding(VOCAB + 1, WIDTH, dtype=torch.float64)
    layer = TiedOutput(embedding).double()
    with torch.no_grad():
        layer.bias.zero_()
    hidden, _, tokens = make()
    gradients = [
        torch.autograd.grad(function(hidden, layer.weight, layer.bias, tokens).sum(), embedding.weight)[0]
        for function in (linear_log_prob, likelihood_at_once, linear_log_prob_reference)
    ]
    torch.testing.assert_close(gradients[0], gradients[2])
    torch.testing.assert_close(gradients[1], gradients[2])
    assert gradients[0].abs().sum() > 0
