"""Each reward model against its formula."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqgan_env.metrics import BleuScorer
from seqgan_env.rewards import (
    BleuReward,
    ConstantReward,
    DiscriminatorReward,
    FunctionReward,
    LearningRewardModel,
    MixtureReward,
    RandomReward,
    RewardModel,
    find_discriminator,
)
from tests.small import Ordinal, Recorder, T, V, real_sequences, small_discriminator

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


# The discriminator's


@pytest.mark.parametrize(
    ("scaling", "formula"),
    [("probability", lambda d: d), ("centred", lambda d: 2 * d - 1), ("log", math.log)],
)
def test_scalings_of_the_discriminators_probability(scaling: Any, formula: Any) -> None:
    reward = DiscriminatorReward(small_discriminator().discriminator, scaling)
    probabilities = reward.probability(TOKENS)
    assert len(set(probabilities.tolist())) == 3
    assert reward.score(TOKENS, LENGTHS).tolist() == pytest.approx([formula(d) for d in probabilities.tolist()], abs=1e-6)


def test_the_log_of_a_hopeless_sequence_is_finite() -> None:
    reward = DiscriminatorReward(small_discriminator().discriminator, "log")
    assert reward.scale(torch.tensor([-1000.0])).item() == -1000


def test_another_scaling_is_refused() -> None:
    with pytest.raises(ValueError, match="'probability', 'centred' or 'log', got 'square'"):
        DiscriminatorReward(small_discriminator().discriminator, "square")  # type: ignore[arg-type]


def test_fitting_the_reward_trains_the_discriminator() -> None:
    reward = small_discriminator(epochs=20)
    real, generated = torch.zeros(10, T, dtype=torch.int64), torch.ones(10, T, dtype=torch.int64)
    assert reward.fit(real, generated)["accuracy"] > 0.9
    assert reward.score(real[:1], LENGTHS[:1]) > reward.score(generated[:1], LENGTHS[:1])


def test_find_discriminator_looks_into_mixtures() -> None:
    reward = small_discriminator()
    nested = MixtureReward([(1, ConstantReward()), (1, MixtureReward([(1, reward)]))])
    assert find_discriminator(reward) is find_discriminator(nested) is reward
    assert find_discriminator(MixtureReward([(1, ConstantReward())])) is None
    assert find_discriminator(ConstantReward()) is None


# BLEU


def test_bleu_is_the_scorers_highest_order() -> None:
    references = real_sequences(30)
    scores = BleuReward(references, V, max_order=3).score(TOKENS, LENGTHS)
    expected = BleuScorer(references.numpy(), V, 3).score(TOKENS.numpy())[:, 2]
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-6)


def test_a_copy_of_a_reference_has_bleu_one_and_strange_tokens_none() -> None:
    reward = BleuReward(torch.tensor([[0, 1, 2, 3, 4]]), V)
    assert reward.score(TOKENS, LENGTHS)[:2].tolist() == [1, 0]


# One's own function


def test_a_function_gets_decoded_sequences_without_padding() -> None:
    seen: list[Any] = []

    def function(sequences: list[Any]) -> list[float]:
        seen.extend(sequences)
        return [1.0, 2.0, 3.0]

    assert FunctionReward(function).score(TOKENS, LENGTHS).tolist() == [1, 2, 3]
    assert FunctionReward(function, decode=lambda ids: "-".join(map(str, ids))).score(TOKENS, LENGTHS).dtype == torch.float32
    assert seen == [[0, 1, 2, 3, 4], [5, 5], [3], "0-1-2-3-4", "5-5", "3"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"returned shape \(2,\) for 3 sequences"),
        ([[1.0], [2.0], [3.0]], r"returned shape \(3, 1\)"),
        ([1.0, math.nan, 3.0], r"returned nan for \[5, 5\]; rewards must be finite"),
        ([1.0, 2.0, -math.inf], r"returned -inf for \[3\]"),
    ],
)
def test_a_function_of_other_values_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FunctionReward(lambda sequences: values).score(TOKENS, LENGTHS)


# Mixtures


def test_a_mixture_is_the_weighted_sum() -> None:
    mixture = MixtureReward([(2.0, ConstantReward(3.0)), (-0.5, Ordinal())])
    expected = 6 - 0.5 * Ordinal().score(TOKENS, LENGTHS)
    torch.testing.assert_close(mixture.score(TOKENS, LENGTHS), expected)


def test_fitting_a_mixture_reaches_those_that_learn() -> None:
    recorder, discriminator = Recorder(), small_discriminator()
    before = discriminator.score(TOKENS, LENGTHS)
    metrics = MixtureReward([(1, ConstantReward()), (0, recorder), (1, discriminator)]).fit(TOKENS, TOKENS[:2])
    assert metrics.keys() == {"fits", "loss", "accuracy"}
    assert torch.equal(recorder.fits[0][1], TOKENS[:2])
    assert not torch.equal(discriminator.score(TOKENS, LENGTHS), before)


def test_an_empty_mixture_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        MixtureReward([])


# Controls


@pytest.mark.parametrize("value", [0.5, -2.0])
def test_a_constant_is_constant(value: float) -> None:
    assert ConstantReward(value).score(TOKENS, LENGTHS).tolist() == [value] * 3
    assert ConstantReward().score(TOKENS, LENGTHS).tolist() == [0.5] * 3


def many_sequences() -> Tensor:
    return torch.cartesian_prod(*[torch.arange(V)] * T)


@pytest.mark.usefixtures("global_generators_at_rest")
def test_a_random_reward_is_a_function_of_the_sequence() -> None:
    tokens, lengths = many_sequences(), torch.full((V**T,), T)
    scores = RandomReward(1).score(tokens, lengths)
    assert torch.equal(RandomReward(1).score(tokens.flip(0), lengths), scores.flip(0))
    assert not torch.equal(RandomReward(2).score(tokens, lengths), scores)
    assert len(scores.unique()) > 0.99 * len(scores)


def test_random_rewards_are_uniform_whatever_the_token() -> None:
    tokens = many_sequences()
    scores = RandomReward().score(tokens, torch.full((V**T,), T))
    counts = torch.histc(scores, bins=10, min=0, max=1)
    assert (counts / len(scores) - 0.1).abs().max() < 0.02
    for position in range(T):
        means = [scores[tokens[:, position] == token].mean().item() for token in range(V)]
        assert means == pytest.approx([0.5] * V, abs=0.04)


# Protocols


@pytest.mark.parametrize(
    ("model", "learns"),
    [
        (small_discriminator(), True),
        (MixtureReward([(1, ConstantReward())]), True),
        (BleuReward(TOKENS, V), False),
        (FunctionReward(lambda sequences: []), False),
        (ConstantReward(), False),
        (RandomReward(), False),
    ],
)
def test_reward_models_and_those_that_learn(model: object, learns: bool) -> None:
    assert isinstance(model, RewardModel)
    assert isinstance(model, LearningRewardModel) is learns
    assert not isinstance(object(), RewardModel)
