"""Predictions of generators, in both forms: a CPU skips padding; a GPU does not, because finding it would wait."""

from typing import Any

import pytest
import torch

from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.mixture import TokenMixture
from seqgan_env.models.token_model import TokenModel
from tests.recordings import forms_for_gpus
from tests.small import END, V, seeded, small_policy, small_transformer, with_padding


class OfItsOwnOutput(TokenLSTM):
    """Its logits come from no linear layer that faster forms could use."""

    def linear_output(self) -> None:
        return None


def made(kind: str) -> TokenModel:
    if kind == "transformer":
        return small_transformer(end_token=END)
    if kind == "mixture":
        return TokenMixture([small_policy(seed, end_token=END) for seed in range(2)])
    if kind == "another output":
        return OfItsOwnOutput(V, 4, 4, end_token=END, generator=seeded(), initial_std=1.0).double()
    return small_policy(end_token=END)


@pytest.mark.parametrize("kind", ["lstm", "transformer", "mixture", "another output"])
@pytest.mark.parametrize("function", ["log_prob", "log_likelihood", "nll"])
def test_likelihoods_are_the_same_in_the_forms_for_gpus(kind: str, function: str) -> None:
    model, tokens = made(kind).requires_grad_(), with_padding(9)
    call: Any = getattr(model, function)
    found = call(tokens)
    with forms_for_gpus():
        for_gpus, control = call(tokens), call(tokens.roll(1, 0))
    torch.testing.assert_close(for_gpus, found)
    if function != "log_likelihood":
        assert not torch.allclose(control, found)
    if function == "log_prob":
        assert (for_gpus == 0).equal(tokens == V)
    if found.requires_grad:
        parameters = list(model.parameters())
        weights = torch.randn(found.shape, generator=seeded(), dtype=found.dtype)
        for one, other in zip(
            torch.autograd.grad((weights * for_gpus).sum(), parameters),
            torch.autograd.grad((weights * found).sum(), parameters),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
