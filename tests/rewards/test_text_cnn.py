"""The discriminator: its forward pass against the paper's description, its training step, and what each setting does."""

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.rewards.discriminator_reward import DiscriminatorReward
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within
from seqgan_env.support import precision
from seqgan_env.support.precision import has_bfloat16, products_in
from tests.small import SMALL_CNN, T, V, real_sequences, seeded


def small_cnn(seed: int = 0, **changes: Any) -> TextCNN:
    return TextCNN(V, T, dataclasses.replace(SMALL_CNN, **changes), seed=seed)


def with_padding(n: int, seed: int = 3) -> Tensor:
    """Sequences of which some are padded."""
    tokens = real_sequences(n, seed)
    lengths = torch.randint(1, T + 1, (n, 1), generator=seeded(seed))
    return tokens.masked_fill(torch.arange(T) >= lengths, V)


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


@pytest.mark.parametrize("widths", [(1,), (T,), (1, 2, 3, 4, 5), (2, 2, 4)])
def test_the_forward_pass_is_the_papers(widths: tuple[int, ...]) -> None:
    model = small_cnn(widths=widths, n_filters=tuple(range(3, 3 + len(widths))))
    with torch.no_grad():
        for parameter in model.parameters():  # the published start is nearly symmetric; here every parameter counts
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    tokens = with_padding(30)
    torch.testing.assert_close(model(tokens), reference_logits(model, tokens), rtol=1e-5, atol=1e-4)  # logits of about 100
    assert not torch.allclose(model(tokens.flip(1)), reference_logits(model, tokens)) or widths == (1,)


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


def test_parameters_start_as_published() -> None:
    model = TextCNN(500, 20)
    assert model.n_features == 1720
    assert model.device == torch.device("cpu")
    assert model.embedding.weight.abs().max() <= 1
    assert model.embedding.weight.std().item() == pytest.approx(3**-0.5, abs=0.01)
    assert model.highway_transform.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert (model.highway_gate.bias == -2).all()
    assert (model.output.bias == 0.1).all()


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


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
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


# Training


def test_a_training_step_is_adam_on_cross_entropy_and_l2() -> None:
    real, generated = with_padding(6, seed=1), with_padding(5, seed=2)
    model = small_cnn(dropout=0.0, l2=0.3, batch_size=11)
    expected = copy.deepcopy(model)
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    logits = expected(torch.cat([real, generated]))
    loss = F.cross_entropy(logits, torch.tensor([1] * 6 + [0] * 5))
    penalty = sum(parameter.square().sum() / 2 for parameter in (expected.output.weight, expected.output.bias))
    (loss + 0.3 * penalty).backward()
    optimizer.step()

    metrics = model.fit(real, generated)
    torch.testing.assert_close(dict(model.named_parameters()), dict(expected.named_parameters()))
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("batch_size", [3, 4, 7, 11, 100])
def test_metrics_weigh_a_short_last_batch_by_its_sequences(batch_size: int) -> None:
    real, generated = with_padding(6, seed=1), with_padding(5, seed=2)
    model = small_cnn(dropout=0.0, learning_rate=0.0, batch_size=batch_size, epochs=2)
    logits, labels = model(torch.cat([real, generated])), torch.tensor([1] * 6 + [0] * 5)
    metrics = model.fit(real, generated)
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx((logits.argmax(dim=1) == labels).double().mean().item())


@pytest.mark.rounding
def test_fit_learns_what_is_easily_told_apart_and_says_so() -> None:
    real, generated = torch.randint(0, 3, (40, T), generator=seeded(1)), torch.randint(3, V, (40, T), generator=seeded(2))
    model = small_cnn(epochs=15, l2=0.0)
    metrics = model.fit(real, generated)
    assert metrics["accuracy"] > 0.95
    assert metrics["loss"] < 0.3
    assert model.probability(real).min() > 0.7
    assert model.probability(generated).max() < 0.3


@pytest.mark.rounding
def test_fit_cannot_tell_the_same_from_the_same() -> None:
    """The negative control of the test above."""
    same = with_padding(40)
    assert small_cnn(epochs=15).fit(same, same)["accuracy"] < 0.65


@pytest.mark.usefixtures("global_generators_at_rest")
def test_the_same_seed_fits_bit_for_bit_and_leaves_the_global_generator_alone() -> None:
    real, generated = with_padding(20, seed=1), with_padding(20, seed=2)
    one, same, other = (small_cnn(seed=seed) for seed in (4, 4, 5))
    assert one.fit(real, generated) == same.fit(real, generated)
    other.fit(real, generated)
    assert torch.equal(one.log_odds(real), same.log_odds(real))
    assert not torch.equal(one.log_odds(real), other.log_odds(real))


# Settings

OTHER_VALUES = {
    "widths": (2, 3),
    "n_filters": (5, 5),
    "embedding_dim": 5,
    "dropout": 0.5,
    "l2": 5.0,
    "learning_rate": 0.02,
    "weight_decay": 1.0,
    "batch_size": 5,
    "epochs": 3,
}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_every_setting_has_an_effect(name: str) -> None:
    real, generated = with_padding(20, seed=1), with_padding(20, seed=2)
    model, other = small_cnn(), small_cnn(**{name: OTHER_VALUES[name]})
    model.fit(real, generated)
    other.fit(real, generated)
    assert (model.log_odds(real) - other.log_odds(real)).abs().max() > 1e-4


def test_no_setting_is_left_out_above() -> None:
    assert {*OTHER_VALUES, "precision"} == {field.name for field in dataclasses.fields(TextCNNConfig)}


def test_the_precision_holds_while_products_are_made_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = small_cnn(precision="medium"), with_padding(30)
    seen: list[str] = []
    features = model.features

    def note(tokens: Tensor) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return features(tokens)

    monkeypatch.setattr(model, "features", note)
    model.fit(tokens, tokens)
    assert set(seen) == {"medium"}
    seen.clear()
    model.log_odds(tokens)
    model.log_odds(tokens, "high")
    DiscriminatorReward(model).score(tokens, tokens[:, 0])
    DiscriminatorReward(model).score_completions(tokens, tokens[:, 0])
    assert seen == ["highest", "high", "highest", "medium"]
    with pytest.raises(RuntimeError), products_in("medium"):
        raise RuntimeError
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.slow
@pytest.mark.rounding
def test_rewards_in_medium_precision_are_those_of_float32_to_a_hundredth() -> None:
    """Means of 16 at the paper's sizes, after some steps; where the processor has no bfloat16, they are equal to rounding."""
    tokens = torch.randint(5000, (6400, 20), generator=seeded())
    model = TextCNN(5000, 20, TextCNNConfig(epochs=1))
    model.fit(tokens[:800], tokens[800:1600])
    exact, rough = (torch.sigmoid(model.log_odds(tokens, asked)).view(-1, 16) for asked in ("highest", "medium"))
    difference = (exact.mean(dim=1) - rough.mean(dim=1)).abs().max()
    assert difference < 0.01
    assert (difference > 1e-5) == has_bfloat16(torch.device("cpu"))
    assert exact.std() > 0.1  # they are not all alike, which would hide a difference


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has it; others make the same products, slower."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)


def gradients_in(asked: precision.Precision, model: TextCNN, tokens: Tensor) -> list[Tensor]:
    labels = torch.arange(len(tokens)) % 2
    with products_in(asked):
        return list(model.sums_and_gradients(tokens, labels, share=1.0, weight=1.0)[1:])


def test_gradients_in_bfloat16_point_where_those_of_float32_do(with_bfloat16: None) -> None:
    model, tokens, rng = small_cnn(), with_padding(200), seeded()
    with torch.no_grad():
        for parameter in model.parameters():  # at the published start nearly equal windows take each other's gradient
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    exact, rough, control = (
        gradients_in("highest", model, tokens),
        gradients_in("medium", model, tokens),
        gradients_in("highest", model, (tokens + 1) % V),
    )
    assert {tensor.dtype for tensor in rough} == {torch.float32}
    assert not any(torch.equal(a, b) for a, b in zip(exact[:-1], rough, strict=False))  # the last bias sees logits alone
    alike, unlike = (
        [torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() for a, b in zip(exact, others, strict=True)]
        for others in (rough, control)
    )
    assert min(alike) > 0.99
    assert sum(alignment < 0.99 for alignment in unlike) > len(unlike) / 2


@pytest.mark.rounding
def test_fit_in_bfloat16_learns_what_one_in_float32_does(with_bfloat16: None) -> None:
    """Parameters and optimiser stay in float32, or small steps would be lost."""
    real, generated = with_padding(60, seed=1), real_sequences(60, 2) % 3
    before = small_cnn(epochs=1).fit(real, generated)["loss"]
    models = [small_cnn(precision=asked, epochs=30) for asked in ("highest", "medium")]
    exact, rough = (model.fit(real, generated)["loss"] for model in models)
    assert exact != rough
    assert abs(exact - rough) < 0.05 * (before - exact)
    tensors = [*models[1].parameters(), *(v for state in models[1].optimizer.state.values() for v in state.values())]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.rounding
@pytest.mark.parametrize(("name", "layer"), [("l2", "output"), ("weight_decay", "highway_transform")])
def test_penalties_shrink_their_layers(name: str, layer: str) -> None:
    tokens = with_padding(40)
    norms = []
    for strength in (0.0, 5.0):
        model = small_cnn(epochs=10, **{"l2": 0.0, name: strength})
        model.fit(tokens[:20], tokens[20:])
        norms.append(model.get_submodule(layer).weight.norm())  # type: ignore[union-attr, operator]
    assert norms[1] < 0.7 * norms[0]


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
        ({"precision": "low"}, r"precision must be one of \('highest', 'high', 'medium'\), got 'low'"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_cnn(**changes)


@pytest.mark.parametrize(("n_real", "n_generated"), [(0, 3), (3, 0)])
def test_fit_needs_both_kinds(n_real: int, n_generated: int) -> None:
    with pytest.raises(ValueError, match=f"got {n_real} and {n_generated}"):
        small_cnn().fit(with_padding(n_real), with_padding(n_generated))


def test_widths_within_leaves_out_what_is_too_wide() -> None:
    config = widths_within(8, TextCNNConfig(dropout=0.1))
    assert config.widths == (1, 2, 3, 4, 5, 6, 7, 8)
    assert config.n_filters == (100, 200, 200, 200, 200, 100, 100, 100)
    assert config.dropout == 0.1
    assert TextCNN(V, 8, config).n_features == 1200
