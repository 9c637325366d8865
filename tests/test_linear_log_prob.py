"""Log-probabilities of a linear layer's logits against `cross_entropy`: values and gradients, large logits, and a control."""

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.linear_log_prob import linear_log_prob, linear_log_prob_reference
from seqgan_env.token_model import TiedOutput
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


@pytest.mark.parametrize("chunk", [3, 1000])
@pytest.mark.parametrize("scale", [0.01, 1.0, 300.0])
def test_values_and_gradients_are_those_of_cross_entropy(scale: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scale of 300 the exponentials of many logits would be infinite or zero without a shift."""
    monkeypatch.setattr("seqgan_env.linear_log_prob.rows_per_chunk", lambda vocab_size: chunk)
    hidden, layer, tokens = make(scale)
    fast = with_gradients(linear_log_prob(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    plain = with_gradients(linear_log_prob_reference(hidden, layer.weight, layer.bias, tokens), hidden, layer)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other)
    assert fast[0].isfinite().all()


def test_a_neighbours_tokens_are_seen() -> None:
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


def test_without_gradients_it_is_the_same() -> None:
    hidden, layer, tokens = make()
    with torch.no_grad():
        silent = linear_log_prob(hidden, layer.weight, layer.bias, tokens)
    assert silent.grad_fn is None
    assert torch.equal(silent, linear_log_prob(hidden, layer.weight, layer.bias, tokens))


def test_a_tied_layer_gets_its_gradient_through_the_embedding() -> None:
    embedding = nn.Embedding(VOCAB + 1, WIDTH, dtype=torch.float64)
    layer = TiedOutput(embedding).double()
    with torch.no_grad():
        layer.bias.zero_()
    hidden, _, tokens = make()
    gradients = [
        torch.autograd.grad(function(hidden, layer.weight, layer.bias, tokens).sum(), embedding.weight)[0]
        for function in (linear_log_prob, linear_log_prob_reference)
    ]
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().sum() > 0
