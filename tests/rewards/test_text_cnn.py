"""The discriminator's network: its forward pass against the paper's description, dropout, and settings."""

import dataclasses
import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within
from tests.recordings import forms_for_gpus
from tests.small import SMALL_CNN, T, V, seeded, with_padding


def small_cnn(seed: int = 0, **changes: Any) -> TextCNN:
    return TextCNN(V, T, dataclasses.replace(SMALL_CNN, **changes), seed=seed)


def reference_logits(model: TextCNN, tokens: Tensor) -> Tensor:
    """The network of the paper's appendix, with torch's own convolution; the padding's embedding is zero."""
    embedded = F.embedding(tokens, F.pad(model.embedding.weight, (0, 0, 0, 1))).transpose(1, 2)  # (n, dim, length)
    pooled = []
    for width, layer in zip(model.config.widths, model.filters, strict=True):
        kernel = layer.weight.view(-1, width, model.config.embedding_dim).transpose(1, 2)  # (filters, dim, width)
        pooled.append(F.relu(F.conv1d(embedded, kernel, layer.bias)).max(dim=2).values)
    features = torch.cat(pooled, dim=1)
    gate = torch.sigmoid(F.linear(features, model.highway_gate.weight, model.highway_gate.bias))
    transformed = F.relu(F.linear(features, model.highway_transform.weight, model.highway_transform.bias))
    return model.output(gate * transformed + (1 - gate) * features)


# The forward pass


@pytest.mark.parametrize("form", [nullcontext, forms_for_gpus], ids=["for CPUs", "for GPUs"])
@pytest.mark.parametrize("widths", [(1,), (T,), (1, 2, 3, 4, 5), (2, 2, 4)])
@pytest.mark.parametrize("n", [30, 2048, 2049], ids=["a batch", "the most for few rows", "too many for few rows"])
def test_the_forward_pass_is_the_papers(form: Any, widths: tuple[int, ...], n: int) -> None:
    model = small_cnn(widths=widths, n_filters=tuple(range(3, 3 + len(widths))))
    with torch.no_grad():
        for parameter in model.parameters():  # the published start is nearly symmetric; here every parameter counts
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    tokens = with_padding(n)
    with form():
        logits, of_reversed = model(tokens), model(tokens.flip(1))
    torch.testing.assert_close(logits, reference_logits(model, tokens), rtol=1e-5, atol=1e-4)  # logits of about 100
    assert not torch.allclose(of_reversed, reference_logits(model, tokens)) or widths == (1,)


def test_probabilities_are_the_second_class_of_a_softmax() -> None:
    model, tokens = small_cnn(), with_padding(30)
    expected = torch.softmax(reference_logits(model, tokens), dim=1)[:, 1]
    torch.testing.assert_close(model.probability(tokens), expected.detach())
    torch.testing.assert_close(torch.sigmoid(model.log_odds(tokens)), expected.detach())


def test_scores_do_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = small_cnn(), with_padding(30)
    expected = model.log_odds(tokens)
    monkeypatch.setattr("seqgan_env.rewards.text_cnn.TOKENS_SCORED", 7 * T)
    torch.testing.assert_close(model.log_odds(tokens), expected)


def test_the_default_sizes_are_the_papers() -> None:
    config = TextCNNConfig()
    sizes = dict(zip(config.widths, config.n_filters, strict=True))
    assert sizes == {1: 100} | dict.fromkeys((2, 3, 4, 5), 200) | dict.fromkeys(range(6, 11), 100) | {15: 160, 20: 160}
    assert (config.embedding_dim, config.dropout, config.l2, config.learning_rate) == (64, 0.25, 0.2, 1e-4)
    assert (config.batch_size, config.epochs, config.weight_decay) == (64, 3, 0)


def test_gates_start_closed_by_default() -> None:
    model = TextCNN(500, 20)
    assert model.n_features == 1720
    assert model.device == torch.device("cpu")
    assert model.embedding.weight.abs().max() <= 1
    assert model.embedding.weight.std().item() == pytest.approx(3**-0.5, abs=0.01)
    assert model.highway_transform.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert (model.highway_gate.bias == -2).all()
    assert (model.output.bias == 0.1).all()


def test_the_published_start() -> None:
    model = TextCNN(500, 20, TextCNNConfig(initial_parameters="published"))
    assert torch.equal(model.embedding.weight, TextCNN(500, 20).embedding.weight)
    limit = math.sqrt(3 / 1720)
    for layer in (model.highway_gate, model.highway_transform):
        assert 0.99 * limit < layer.weight.abs().max().item() <= limit
        assert layer.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.01)
        assert 0.9 * limit < layer.bias.abs().max().item() <= limit  # drawn, too, and without an offset
        assert abs(layer.bias.mean().item()) < limit / 20
    filters = torch.cat([layer.weight.flatten() for layer in model.filters])  # type: ignore[operator, union-attr]
    assert filters.abs().max().item() == pytest.approx(0.2, rel=1e-4)
    assert (filters.abs() > 0.1999).float().mean() < 1e-3  # not clamped: that puts 4.6% there
    assert filters.std().item() == pytest.approx(0.088, rel=0.005)  # of a normal cut at two standard deviations
    for biases in (model.output.bias, *(layer.bias for layer in model.filters)):
        assert (biases == 0.1).all()
    gate = torch.sigmoid(model.highway_gate(torch.relu(torch.randn(100, 1720, generator=seeded()))))
    assert gate.mean().item() == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(model.output.weight, TextCNN(500, 20, model.config, seed=1).output.weight)


# Dropout and gradients belong to training alone


def test_dropout_is_in_training_and_not_in_scoring() -> None:
    model, tokens = small_cnn(dropout=0.5), with_padding(30)
    assert torch.equal(model.log_odds(tokens), model.log_odds(tokens))
    in_training = model.train()(tokens)
    assert not torch.equal(in_training, model(tokens))
    torch.testing.assert_close(model.eval()(tokens), reference_logits(model, tokens))


def test_scoring_has_no_dropout_even_in_training_mode() -> None:
    model, tokens = small_cnn(dropout=0.5), with_padding(30)
    expected = model.log_odds(tokens)
    assert torch.equal(model.train().log_odds(tokens), expected)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    model = small_cnn(dropout=0.25)
    tokens = with_padding(1).expand(20_000, T)
    features = model.features(tokens[:1])
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.weight[1] = 1  # one logit is the sum of the features that are kept
        sums = model.train()(tokens)[:, 1] - model.output.bias[1]
    assert sums.mean().item() == pytest.approx(features.sum().item(), rel=0.02)
    variance = (features.square().sum() * 0.25 / 0.75).item()
    assert sums.var().item() == pytest.approx(variance, rel=0.05)


def test_scores_carry_no_gradient() -> None:
    model, tokens = small_cnn(), with_padding(3)
    assert not model.log_odds(tokens).requires_grad
    assert not model.probability(tokens).requires_grad
    assert model(tokens).requires_grad


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (1, 6, 7), "n_filters": (1, 1, 1)}, r"widths \[6, 7\] do not fit sequences of 5 tokens.*widths_within\(5"),
        ({"widths": (0, 1)}, "widths must be at least 1, got 0"),
        ({"widths": (1,)}, r"widths=\(1,\) are 1 and n_filters=\(.*\) are 2"),
        ({"widths": (), "n_filters": ()}, r"widths=\(\) are 0"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ({"n_filters": (3, 0)}, "n_filters must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must be below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"l2": -1.0}, "l2 must be at least 0, got -1.0"),
        ({"learning_rate": math.inf}, r"learning_rate must be at most 1e\+30, got inf"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        (
            {"initial_parameters": "zero"},
            r"initial_parameters must be one of \('closed-gates', 'published'\), got 'zero'",
        ),
        ({"precision": "low"}, r"precision must be one of \('highest', 'high', 'medium'\), got 'low'"),
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_cnn(**changes)


def test_widths_within_drops_windows_that_are_too_wide() -> None:
    config = widths_within(8, TextCNNConfig(dropout=0.1))
    assert config.widths == (1, 2, 3, 4, 5, 6, 7, 8)
    assert config.n_filters == (100, 200, 200, 200, 200, 100, 100, 100)
    assert config.dropout == 0.1
    assert TextCNN(V, 8, config).n_features == 1200
