"""The discriminator: its reward against the formula, its training step, and the effect of each setting."""

import copy
import dataclasses
import math
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqgan_env.rewards.discriminator import MAX_RATIO, DiscriminatorReward, loss_and_sums
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig
from seqgan_env.support import precision
from seqgan_env.support.precision import has_bfloat16, products_in
from tests.recordings import forms_for_gpus
from tests.small import T, V, real_sequences, seeded, small_discriminator, with_padding

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


@pytest.mark.parametrize(
    ("scaling", "formula"),
    [
        ("probability", lambda d: d),
        ("centred", lambda d: 2 * d - 1),
        ("log", math.log),
        ("ratio", lambda d: d / (1 - d)),
    ],
)
def test_scalings_of_the_discriminators_probability(scaling: Any, formula: Any) -> None:
    reward = DiscriminatorReward(small_discriminator().discriminator, scaling)
    probabilities = reward.probability(TOKENS)
    assert len(set(probabilities.tolist())) == 3
    assert reward.score(TOKENS, LENGTHS).tolist() == pytest.approx([formula(d) for d in probabilities.tolist()], abs=1e-6)


def test_the_log_of_a_very_unlikely_sequence_is_finite() -> None:
    reward = DiscriminatorReward(small_discriminator().discriminator, "log")
    assert reward.scale(torch.tensor([-1000.0])).item() == -1000


def test_a_ratio_has_a_bound() -> None:
    reward = DiscriminatorReward(small_discriminator().discriminator, "ratio")
    ratios = reward.scale(torch.tensor([-1000.0, 0.0, math.log(50), 1000.0])).tolist()
    assert ratios == pytest.approx([0, 1, 50, MAX_RATIO], rel=1e-5)


def test_another_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of \('probability', 'centred', 'log', 'ratio'\), got 'square'"):
        DiscriminatorReward(small_discriminator().discriminator, "square")  # type: ignore[arg-type]


@pytest.mark.rounding
def test_fitting_the_reward_trains_the_discriminator() -> None:
    reward = small_discriminator(epochs=20)
    real, generated = torch.zeros(10, T, dtype=torch.int64), torch.ones(10, T, dtype=torch.int64)
    assert reward.fit(real, generated)["accuracy"] > 0.9
    assert reward.score(real[:1], LENGTHS[:1]) > reward.score(generated[:1], LENGTHS[:1])


# Training


def test_a_training_step_is_adam_on_cross_entropy_and_l2() -> None:
    real, generated = with_padding(6, seed=1), with_padding(5, seed=2)
    model = small_discriminator(dropout=0.0, l2=0.3, batch_size=11)
    expected = copy.deepcopy(model.discriminator)
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01)
    logits = expected(torch.cat([real, generated]))
    loss = F.cross_entropy(logits, torch.tensor([1] * 6 + [0] * 5))
    penalty = sum(parameter.square().sum() / 2 for parameter in (expected.output.weight, expected.output.bias))
    (loss + 0.3 * penalty).backward()
    optimizer.step()

    metrics = model.fit(real, generated)
    torch.testing.assert_close(dict(model.discriminator.named_parameters()), dict(expected.named_parameters()))
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("widths", "sizes"), [((1, 3), (14, 10)), ((T,), (14, 10)), ((2, 2, 4), (9, 8)), ((1, 2, 3, 4, 5), (1, 1))]
)
@pytest.mark.parametrize("settings", [{"dropout": 0.0}, {"dropout": 0.4}, {"weight_decay": 0.3}, {"batch_size": 100}])
def test_a_fit_in_the_forms_for_gpus_is_the_same(
    widths: tuple[int, ...], sizes: tuple[int, int], settings: dict[str, Any]
) -> None:
    """Some nine steps: whole batches, smaller last ones, and a single one."""
    real, generated = (with_padding(n, seed=n) for n in sizes)
    config = {"widths": widths, "n_filters": tuple(range(3, 3 + len(widths))), "epochs": 3} | settings
    model, for_gpus, control = (small_discriminator(**config) for _ in range(3))
    metrics = model.fit(real, generated)
    with forms_for_gpus():
        assert for_gpus.fit(real, generated) == pytest.approx(metrics, rel=1e-4)
        control.fit(real, (generated + 1) % V)
    differences = [
        max((a - b).abs().max().item() for a, b in zip(model.discriminator.parameters(), other.parameters(), strict=True))
        for other in (for_gpus.discriminator, control.discriminator)
    ]
    assert differences[0] < 1e-5 < 1e-3 < differences[1]


@pytest.mark.parametrize("form", [nullcontext, forms_for_gpus], ids=["for CPUs", "for GPUs"])
def test_gradients_lie_in_memory_as_the_parameters_do(form: Any) -> None:
    """Torch's fused optimisers need it, and steps keep the gradients as they come."""
    network = small_discriminator().discriminator
    with form():
        loss, _ = loss_and_sums(network, with_padding(7), torch.arange(7) < 3, None, torch.float32)
        gradients = torch.autograd.grad(loss, list(network.parameters()))
    for gradient, parameter in zip(gradients, network.parameters(), strict=True):
        assert gradient.stride() == parameter.stride()


@pytest.mark.parametrize("reshuffle", [True, False])
def test_passes_take_the_sequences_in_one_order_or_in_several(reshuffle: bool) -> None:
    tokens, labels = torch.cat([with_padding(6, seed=1), with_padding(5, seed=2)]), torch.tensor([1] * 6 + [0] * 5)

    def after(orders: list[Tensor]) -> TextCNN:
        network = copy.deepcopy(model.discriminator)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for order in orders:
            for batch in order.split(4):
                optimizer.zero_grad()
                F.cross_entropy(network(tokens[batch]), labels[batch]).backward()
                optimizer.step()
        return network

    model = small_discriminator(dropout=0.0, l2=0.0, batch_size=4, epochs=3, reshuffle=reshuffle, seed=7)
    drawn = seeded(7)
    several = [torch.randperm(11, generator=drawn) for _ in range(3)]
    kept, anew = after(several[:1] * 3), after(several)
    model.fit(tokens[:6], tokens[6:])
    expected, control = (anew, kept) if reshuffle else (kept, anew)
    torch.testing.assert_close(dict(model.discriminator.named_parameters()), dict(expected.named_parameters()))
    assert (model.discriminator.output.weight - control.output.weight).abs().max() > 1e-3


@pytest.mark.parametrize("batch_size", [3, 4, 7, 11, 100])
def test_metrics_weigh_a_short_last_batch_by_its_sequences(batch_size: int) -> None:
    real, generated = with_padding(6, seed=1), with_padding(5, seed=2)
    model = small_discriminator(dropout=0.0, learning_rate=0.0, batch_size=batch_size, epochs=2)
    logits, labels = model.discriminator(torch.cat([real, generated])), torch.tensor([1] * 6 + [0] * 5)
    metrics = model.fit(real, generated)
    assert metrics["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx((logits.argmax(dim=1) == labels).double().mean().item())


@pytest.mark.rounding
def test_fit_learns_an_easy_task_and_reports_it() -> None:
    real, generated = torch.randint(0, 3, (40, T), generator=seeded(1)), torch.randint(3, V, (40, T), generator=seeded(2))
    model = small_discriminator(epochs=15, l2=0.0)
    metrics = model.fit(real, generated)
    assert metrics["accuracy"] > 0.95
    assert metrics["loss"] < 0.3
    assert model.probability(real).min() > 0.7
    assert model.probability(generated).max() < 0.3


@pytest.mark.rounding
def test_fit_stays_near_chance_on_equal_sequences() -> None:
    """The negative control of the test above."""
    same = with_padding(40)
    assert small_discriminator(epochs=15).fit(same, same)["accuracy"] < 0.65


@pytest.mark.usefixtures("global_generators_at_rest")
def test_the_same_seed_fits_bit_for_bit_and_leaves_the_global_generator_alone() -> None:
    real, generated = with_padding(20, seed=1), with_padding(20, seed=2)
    one, same, other = (small_discriminator(seed=seed) for seed in (4, 4, 5))
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
    "reshuffle": False,
    "initial_parameters": "published",
}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_every_setting_has_an_effect(name: str) -> None:
    real, generated = with_padding(20, seed=1), with_padding(20, seed=2)
    model, other = small_discriminator(epochs=2), small_discriminator(**{"epochs": 2, name: OTHER_VALUES[name]})
    model.fit(real, generated)
    other.fit(real, generated)
    assert (model.log_odds(real) - other.log_odds(real)).abs().max() > 1e-4


def test_every_setting_is_tested_above() -> None:
    assert {*OTHER_VALUES, "precision", "compile"} == {field.name for field in dataclasses.fields(TextCNNConfig)}


def test_the_precision_applies_only_while_products_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokens = small_discriminator(precision="medium"), with_padding(30)
    network, seen = model.discriminator, []
    features = network.features

    def note(*arguments: Any) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return features(*arguments)

    monkeypatch.setattr(network, "features", note)
    model.fit(tokens, tokens)
    assert set(seen) == {"medium"}
    seen.clear()
    network.log_odds(tokens)
    network.log_odds(tokens, "high")
    model.score(tokens, tokens[:, 0])
    model.score_completions(tokens, tokens[:, 0])
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
    DiscriminatorReward(model).fit(tokens[:800], tokens[800:1600])
    exact, rough = (torch.sigmoid(model.log_odds(tokens, asked)).view(-1, 16) for asked in ("highest", "medium"))
    difference = (exact.mean(dim=1) - rough.mean(dim=1)).abs().max()
    assert difference < 0.01
    assert (difference > 1e-5) == has_bfloat16(torch.device("cpu"))
    assert exact.std() > 0.1  # they are not all alike, which would hide a difference


def gradients_in(asked: precision.Precision, model: TextCNN, tokens: Tensor) -> list[Tensor]:
    is_real = torch.arange(len(tokens)) % 2 == 1
    with products_in(asked):
        loss, _ = loss_and_sums(model, tokens, is_real, None, precision.product_dtype(model.output.weight))
        return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("form", [nullcontext, forms_for_gpus], ids=["for CPUs", "for GPUs"])
def test_gradients_in_bfloat16_point_where_those_of_float32_do(with_bfloat16: None, form: Any) -> None:
    model, tokens, rng = small_discriminator().discriminator, with_padding(200), seeded()
    with torch.no_grad():
        for parameter in model.parameters():  # at the published start nearly equal windows take each other's gradient
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    with form():
        rough = gradients_in("medium", model, tokens)
    exact, control = gradients_in("highest", model, tokens), gradients_in("highest", model, (tokens + 1) % V)
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
    before = small_discriminator(epochs=1).fit(real, generated)["loss"]
    models = [small_discriminator(precision=asked, epochs=30) for asked in ("highest", "medium")]
    exact, rough = (model.fit(real, generated)["loss"] for model in models)
    assert exact != rough
    assert abs(exact - rough) < 0.05 * (before - exact)
    tensors = [
        *models[1].discriminator.parameters(),
        *(v for state in models[1].optimizer.state.values() for v in state.values()),
    ]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.rounding
@pytest.mark.parametrize(("name", "layer"), [("l2", "output"), ("weight_decay", "highway_transform")])
def test_penalties_shrink_their_layers(name: str, layer: str) -> None:
    tokens = with_padding(40)
    norms = []
    for strength in (0.0, 5.0):
        model = small_discriminator(epochs=10, **{"l2": 0.0, name: strength})
        model.fit(tokens[:20], tokens[20:])
        norms.append(model.discriminator.get_submodule(layer).weight.norm())  # type: ignore[union-attr, operator]
    assert norms[1] < 0.7 * norms[0]


@pytest.mark.parametrize(("n_real", "n_generated"), [(0, 3), (3, 0)])
def test_fit_needs_both_kinds(n_real: int, n_generated: int) -> None:
    with pytest.raises(ValueError, match=f"got {n_real} and {n_generated}"):
        small_discriminator().fit(with_padding(n_real), with_padding(n_generated))
