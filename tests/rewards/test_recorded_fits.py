"""Fits whose steps are recorded, emulated on a CPU or on a GPU, against plain fits."""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within
from seqgan_env.support.cuda_graphs import without_graphs
from seqgan_env.support.errors import NumericalFault
from seqgan_env.support.process_group import Workers
from seqgan_env.support.state_dicts import detached
from tests.recordings import (
    FIT_SETTINGS,
    FIT_SIZES,
    SHAPES_ON_A_GPU,
    RecordedOn,
    forms_for_gpus,
    steps_that_may_not_wait,
    steps_without_values,
    values_of,
    without_values,
)
from tests.small import seeded

pytestmark = pytest.mark.usefixtures("with_bfloat16")

V, T = 11, 6
SETTINGS = {**FIT_SETTINGS, "one order": {"reshuffle": False}}


def reward(on: RecordedOn, seed: int = 0, vocab_size: int = V, length: int = T, **config: Any) -> DiscriminatorReward:
    settings = widths_within(length, TextCNNConfig(**FIT_SIZES | config))
    return DiscriminatorReward(TextCNN(vocab_size, length, settings, seed=seed, device=on.device))


def data(
    on: RecordedOn, n_real: int, n_generated: int, seed: int = 1, vocab_size: int = V, length: int = T
) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(vocab_size, (n_real + n_generated, length), generator=seeded(seed)).to(on.device)
    return tokens[:n_real], tokens[n_real:] % max(2, vocab_size // 3)


def fit(model: DiscriminatorReward, *fits: tuple[Tensor, Tensor]) -> list[dict[str, float]]:
    return [model.fit(*of_one) for of_one in fits]


@pytest.mark.parametrize(
    ("settings", "n_real", "n_generated", "n_sizes"),
    [*((settings, 12, 9, 2) for settings in SETTINGS), ("dropout", 8, 8, 1), ("dropout", 3, 2, 1)],
)
def test_recorded_fits_equal_plain_fits(
    recorded_on: RecordedOn, settings: str, n_real: int, n_generated: int, n_sizes: int
) -> None:
    """Each size of a batch is recorded once, however many passes and fits there are."""
    fits = [data(recorded_on, n_real, n_generated, seed) for seed in range(3)]
    recorded, plain, other = (reward(recorded_on, **SETTINGS[settings]) for _ in range(3))
    start = values_of(plain.discriminator)
    metrics = fit(recorded, *fits)
    assert recorded_on.made == n_sizes
    with without_graphs():
        expected = fit(plain, *fits)
        fit(other, fits[0], fits[2], fits[1])
    assert recorded_on.made == n_sizes
    for one, plain_one in zip(metrics, expected, strict=True):
        assert one == pytest.approx(plain_one, rel=1e-4 if recorded_on.device == "cpu" else 0.05)
    assert recorded_on.alike(*(values_of(model.discriminator) for model in (recorded, plain)), start)
    assert not recorded_on.alike(*(values_of(model.discriminator) for model in (recorded, other)), start)  # the control


@pytest.mark.gpu
@pytest.mark.parametrize(("vocab_size", "length"), SHAPES_ON_A_GPU)
def test_recorded_fits_equal_plain_fits_at_other_shapes(counted: type[Any], vocab_size: int, length: int) -> None:
    on = RecordedOn("cuda", counted)
    fits = [data(on, 40, 30, seed, vocab_size, length) for seed in range(2)]
    recorded, plain = (reward(on, 0, vocab_size, length, batch_size=16) for _ in range(2))
    start = values_of(plain.discriminator)
    fit(recorded, *fits)
    assert on.made == 2
    with without_graphs():
        fit(plain, *fits)
    assert on.alike(*(values_of(model.discriminator) for model in (recorded, plain)), start)


# What is recorded anew


def move_a_parameter(model: DiscriminatorReward) -> None:
    layer = model.discriminator.output
    layer.weight.data = layer.weight.detach().clone()


def load_its_own_state(model: DiscriminatorReward) -> None:
    model.load_training_state(detached(model.training_state()))


def nothing(model: DiscriminatorReward) -> None:
    """The negative control."""


CHANGES: dict[str, tuple[Callable[[DiscriminatorReward], None], tuple[int, int], int]] = {
    "nothing": (nothing, (8, 4), 0),
    "a parameter moves": (move_a_parameter, (8, 4), 2),
    "a state is loaded": (load_its_own_state, (8, 4), 2),
    "more sequences": (nothing, (8, 5), 2),
    "other shares": (nothing, (7, 5), 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_recorded_anew_if_a_recording_depends_on_them(recorded_on: RecordedOn, change: str) -> None:
    act, sizes, more = CHANGES[change]
    models = recorded, plain = [reward(recorded_on) for _ in range(2)]
    start = values_of(plain.discriminator)
    for model in models:
        with nullcontext() if model is recorded else without_graphs():
            fit(model, data(recorded_on, 8, 4))
            before = recorded_on.made
            act(model)
            fit(model, data(recorded_on, *sizes, seed=2), data(recorded_on, *sizes, seed=3))
        if model is recorded:
            assert (before, recorded_on.made) == (2, 2 + more)
    assert recorded_on.alike(*(values_of(model.discriminator) for model in models), start)


def test_alternating_sizes_keep_their_recordings(recorded_on: RecordedOn) -> None:
    """As when fits on the usual sequences and on others alternate; otherwise each fit would record."""
    models = recorded, plain = [reward(recorded_on) for _ in range(2)]
    start = values_of(plain.discriminator)
    fits = [data(recorded_on, *sizes, seed=seed) for seed, sizes in enumerate([(4, 4), (5, 3)] * 2)]
    fit(recorded, *fits)
    with without_graphs():
        fit(plain, *fits)
    assert recorded_on.alike(*(values_of(model.discriminator) for model in models), start)


class TwoProcesses(Workers):
    """The first of two processes, whose other one has no sequences."""

    count = 2


class Own(TextCNN):
    """A subclass, whose methods may do anything."""


def with_a_hook(model: DiscriminatorReward) -> None:
    model.discriminator.output.register_forward_hook(lambda *_: None)


def with_a_hook_of_gradients(model: DiscriminatorReward) -> None:
    model.discriminator.output.weight.register_hook(lambda gradient: gradient)


def with_two_processes(model: DiscriminatorReward) -> None:
    model.share_work(TwoProcesses())


def of_a_subclass(model: DiscriminatorReward) -> None:
    model.discriminator.__class__ = Own


@pytest.mark.parametrize("make", [with_a_hook, with_a_hook_of_gradients, with_two_processes, of_a_subclass])
def test_fits_that_may_not_be_recorded_are_plain(recorded_on: RecordedOn, make: Callable[[DiscriminatorReward], None]) -> None:
    model = reward(recorded_on)
    make(model)
    assert all(math.isfinite(one["loss"]) for one in fit(model, *[data(recorded_on, 8, 4)] * 2))
    assert recorded_on.made == 0


def test_a_hook_added_later_is_called(recorded_on: RecordedOn) -> None:
    model, calls = reward(recorded_on), []
    fit(model, data(recorded_on, 8, 4))
    made = recorded_on.made
    assert made > 0
    model.discriminator.highway_gate.register_forward_hook(lambda *_: None)
    model.discriminator.output.weight.register_hook(lambda gradient: calls.append(1))
    fit(model, data(recorded_on, 8, 4))
    assert recorded_on.made == made
    assert len(calls) == 6  # two steps in each of three passes


# Resuming, and faults


def test_a_fit_continues_from_a_saved_state(recorded_on: RecordedOn) -> None:
    fits = [data(recorded_on, 8, 4, seed) for seed in range(3)]
    whole, first, second, plain = (reward(recorded_on, seed) for seed in (0, 0, 1, 2))
    start = values_of(whole.discriminator)
    fit(whole, *fits)
    fit(first, fits[0])
    state = detached(first.training_state())
    for model in (second, plain):
        model.load_training_state(detached(state))
    fit(second, *fits[1:])
    with without_graphs():
        fit(plain, *fits[1:])
    for model in (second, plain):
        assert recorded_on.alike(values_of(model.discriminator), values_of(whole.discriminator), start)


def test_a_saved_state_has_no_device_settings(recorded_on: RecordedOn) -> None:
    model = reward(recorded_on)
    fit(model, data(recorded_on, 8, 4))
    assert isinstance(model.optimizer.param_groups[0]["lr"], Tensor)  # a recorded step reads it
    (group,) = model.training_state()["optimizer"]["param_groups"]
    assert "tensor" not in str(group)
    assert group["lr"] == pytest.approx(1e-2)
    assert not {"capturable", "fused", "foreach"} & set(group)


@pytest.mark.parametrize("n_fits", [1, 3])
def test_a_step_that_is_not_finite_is_reported_with_its_number(recorded_on: RecordedOn, n_fits: int) -> None:
    """The step, plain or recorded, that reads a token whose embedding is not finite."""
    for context in (nullcontext(), without_graphs()):
        model = reward(recorded_on, batch_size=2, dropout=0.0)
        real, generated = data(recorded_on, 8, 8)
        real, generated = real % (V - 1), generated % (V - 1)
        with context:
            fit(model, *[(real, generated)] * (n_fits - 1))
            order = torch.randperm(16, generator=copy_of(model.discriminator.rng), device=recorded_on.device)
            with torch.no_grad():
                model.discriminator.embedding.weight[V - 1] = math.nan
            generated[1, 2] = V - 1
            step = (order == 8 + 1).nonzero().item() // 2 + 1
            with pytest.raises(NumericalFault, match=f"In a fit of the discriminator, step {step}, the loss is not finite"):
                fit(model, (real, generated))


def copy_of(generator: torch.Generator) -> torch.Generator:
    copied = torch.Generator(generator.device)
    copied.set_state(generator.get_state())
    return copied


def test_a_fit_leaves_no_gradients_of_a_recording(recorded_on: RecordedOn) -> None:
    model = reward(recorded_on)
    fit(model, data(recorded_on, 8, 4))
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())


# Scores


@pytest.mark.parametrize(("n", "made"), [(0, 0), (5, 1), (2048, 1), (2049, 0)])
def test_scores_of_few_sequences_are_recorded(recorded_on: RecordedOn, n: int, made: int) -> None:
    network, (tokens, _) = reward(recorded_on).discriminator, data(recorded_on, n, 0)
    found = [network.log_odds(tokens.roll(k, 1)) for k in range(4)]
    assert recorded_on.made == made
    with without_graphs():
        expected = [network.log_odds(tokens.roll(k, 1)) for k in range(4)]
    for one, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(one, plain)
    assert n == 0 or not torch.allclose(found[1], expected[2])


def test_scores_between_fits_are_of_what_was_learned(recorded_on: RecordedOn) -> None:
    models = [reward(recorded_on) for _ in range(2)]
    tokens, _ = data(recorded_on, 5, 0, seed=9)
    scores: list[list[Tensor]] = [[], []]
    for model, kept in zip(models, scores, strict=True):
        with nullcontext() if kept is scores[0] else without_graphs():
            for seed in range(4):
                kept.append(model.score(tokens, tokens[:, 0]))
                kept.append(model.score_completions(tokens, tokens[:, 0]))
                fit(model, data(recorded_on, 8, 4, seed))
    assert recorded_on.made == 3  # scores, and steps of two sizes
    for one, other in zip(*scores, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert (scores[0][0] - scores[0][-1]).abs().max() > 0.01


# The density ratio


def density_ratio(on: RecordedOn, dropout: float) -> DensityRatioReward:
    policy = TokenLSTM(V, 4, 5, initial_std=0.5, generator=seeded(), device=on.device)
    model = GeneratorConfig(embedding_dim=4, hidden_dim=5, dropout=dropout)
    config = DensityRatioConfig(n_models=2, model=model, epochs=1, batch_size=8, learning_rate_decay=0.9)
    return DensityRatioReward(V, T, policy, config, seed=3, device=on.device)


def learned_density(model: DensityRatioReward, fits: list[tuple[Tensor, Tensor]]) -> Tensor:
    for real, generated in fits:
        model.fit(real, generated)
    return torch.cat([values_of(one) for one in nn.ModuleList(model.density.models[1:])])


@pytest.mark.parametrize("dropout", [0.3])
def test_recorded_fits_of_the_density_ratio_equal_plain_ones(recorded_on: RecordedOn, dropout: float) -> None:
    fits = [data(recorded_on, 24, 1, seed) for seed in range(3)]
    start = learned_density(copy_joined(density_ratio(recorded_on, dropout)), [])
    recorded = learned_density(density_ratio(recorded_on, dropout), fits)
    assert recorded_on.made == 1  # though each fit comes with sequences of its own
    with without_graphs():
        plain = learned_density(density_ratio(recorded_on, dropout), fits)
        other = learned_density(density_ratio(recorded_on, dropout), fits[::-1])
    assert recorded_on.alike(recorded, plain, start)
    assert not recorded_on.alike(recorded, other, start)


def copy_joined(model: DensityRatioReward) -> DensityRatioReward:
    """The model, with the generator that its first fit would add."""
    assert isinstance(model.policy, TokenLSTM)
    model.join(copy.deepcopy(model.policy))
    return model


# A step never waits for the host


@pytest.mark.gpu
@pytest.mark.parametrize("settings", SETTINGS)
def test_steps_of_a_fit_never_wait_for_a_gpu(settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch raises an error if a step would wait."""
    steps = steps_that_may_not_wait(monkeypatch, "seqgan_env.rewards.discriminator")
    on = RecordedOn("cuda", Any)
    fit(reward(on, **SETTINGS[settings]), data(on, 12, 9))
    assert len(steps) == 9


def test_steps_of_a_fit_never_wait_for_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, on tensors without values: rows, dropout, gradients, the optimiser's step and the sums."""
    steps = steps_without_values(monkeypatch, "seqgan_env.rewards.discriminator")
    network = without_values(TextCNN(V, T, TextCNNConfig(**FIT_SIZES)))
    model = DiscriminatorReward(network)
    real, generated = (torch.empty(n, T, dtype=torch.int64, device="meta") for n in (12, 9))
    with forms_for_gpus(), pytest.raises(RuntimeError, match="nonzero"):  # of the check after the pass
        model.fit(real, generated)
    assert steps == [("fit", 8, 12), ("fit", 8, 12), ("fit", 5, 12)]
