"""Each reward model against its formula."""

import math
from typing import Any, get_args

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from seqgan_env.games import RewardName, make_game
from seqgan_env.metrics.bleu import BleuScorer
from seqgan_env.rewards.custom import FunctionReward
from seqgan_env.rewards.reward_models import (
    MAX_RATIO,
    BleuReward,
    ConstantReward,
    DiscriminatorReward,
    LearningRewardModel,
    MixtureReward,
    ObjectiveMixture,
    RandomReward,
    RewardModel,
    completion_score,
    find_discriminator,
    learns,
)
from seqgan_env.rewards.text_cnn import TextCNNConfig
from tests.small import Ordinal, Recorder, T, V, real_sequences, small_discriminator, small_game

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])
SMALL_CNN_OF_2 = TextCNNConfig(widths=(1, 2), n_filters=(3, 3), embedding_dim=4)


# The discriminator's


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


def test_the_log_of_a_hopeless_sequence_is_finite() -> None:
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


# Mixtures


def test_a_mixture_is_the_weighted_sum() -> None:
    mixture = MixtureReward([(2.0, ConstantReward(3.0)), (-0.5, Ordinal())])
    expected = 6 - 0.5 * Ordinal().score(TOKENS, LENGTHS)
    torch.testing.assert_close(mixture.score(TOKENS, LENGTHS), expected)


def test_fitting_a_mixture_reaches_those_that_learn() -> None:
    recorder, discriminator = Recorder(), small_discriminator()
    before = discriminator.score(TOKENS, LENGTHS)
    metrics = MixtureReward([(1, ConstantReward()), (0, recorder), (1, discriminator)]).fit(TOKENS, TOKENS[:2])
    assert metrics.keys() == {"fits", "loss", "accuracy", "grad_norm"}
    assert torch.equal(recorder.fits[0][1], TOKENS[:2])
    assert not torch.equal(discriminator.score(TOKENS, LENGTHS), before)


def test_an_objective_takes_its_share_of_the_discriminators_reward() -> None:
    """ORGAN: lambda D + (1 - lambda) O, where the objective's weight is 1 - lambda."""
    discriminator = small_discriminator()
    mixture = ObjectiveMixture(discriminator, Ordinal(), 0.25)
    expected = 0.75 * discriminator.probability(TOKENS) + 0.25 * Ordinal().score(TOKENS, LENGTHS)
    torch.testing.assert_close(mixture.score(TOKENS, LENGTHS), expected)
    assert find_discriminator(mixture) is discriminator
    assert mixture.fit(TOKENS, TOKENS[:2]).keys() >= {"loss", "accuracy"}


@pytest.mark.parametrize("weight", [0.0, 1.0, -1.0, math.nan])
def test_a_weight_that_leaves_nothing_to_mix_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"between 0 and 1, got {weight}"):
        ObjectiveMixture(ConstantReward(), Ordinal(), weight)


def vowels(text: str) -> float:
    return sum(letter in "aeiou" for letter in text) / 4


def vowels_of_all(texts: list[str]) -> list[float]:
    return [vowels(text) for text in texts]


@pytest.mark.parametrize(("function", "batched"), [(vowels, False), (vowels_of_all, True)])
@pytest.mark.parametrize("weight", [0.25, 1.0])
def test_the_environment_mixes_an_objective_of_decoded_text(function: Any, batched: bool, weight: float) -> None:
    rules: Any = {"objective": function, "objective_weight": weight, "objective_batched": batched}
    env = gym.make("SeqGAN/Text-v0", data=["a b", "u e", "b b"], reward_model="constant", **rules)
    env.reset(seed=0)
    vocabulary = env.unwrapped.game.vocabulary  # type: ignore[attr-defined]
    for word in ("a", "b"):
        _, reward, terminated, _, _ = env.step(vocabulary.encode(word)[0])
    if not terminated:
        _, reward, terminated, _, _ = env.step(vocabulary.end_token)
    assert terminated
    assert reward == pytest.approx((1 - weight) * 0.5 + weight * 0.25)


@pytest.mark.parametrize("name", get_args(RewardName))
def test_each_reward_model_goes_by_its_name(name: RewardName) -> None:
    env = gym.make("SeqGAN/Text-v0", data=["a b", "u e", "b b"], reward_model=name, discriminator=SMALL_CNN_OF_2)
    env.reset(seed=0)
    reward, terminated = 0.0, False
    while not terminated:
        _, step_reward, terminated, _, _ = env.step(1)
        reward += float(step_reward)
    assert math.isfinite(reward)
    assert type(env.unwrapped.game.reward_model).__name__ == f"{name.title().replace('-', '')}Reward"  # type: ignore[attr-defined]


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
    ("model", "learning"),
    [
        (small_discriminator(), True),
        (BleuReward(TOKENS, V), False),
        (FunctionReward(lambda sequences: []), False),
        (ConstantReward(), False),
        (RandomReward(), False),
    ],
)
def test_reward_models_and_those_that_learn(model: RewardModel, learning: bool) -> None:
    assert isinstance(model, RewardModel)
    assert isinstance(model, LearningRewardModel) is learning
    assert learns(model) is learning
    assert learns(MixtureReward([(1.0, ConstantReward()), (0.5, ObjectiveMixture(ConstantReward(), model, 0.3))])) is learning
    assert not isinstance(object(), RewardModel)


def test_a_mixture_that_does_not_learn_is_not_retrained() -> None:
    mixture = MixtureReward([(1.0, ConstantReward())])
    with pytest.raises(ValueError, match="retrain_every=5, but MixtureReward does not learn"):
        small_game(reward_model=mixture, retrain_every=5)
    with pytest.raises(TypeError, match="MixtureReward does not learn"):
        small_game(reward_model=mixture).retrain(TOKENS)


# No sequences


@pytest.mark.parametrize("name", get_args(RewardName))
@pytest.mark.parametrize("objective", [None, len])
def test_no_sequences_have_no_scores(name: Any, objective: Any) -> None:
    game = make_game(V, T, real_sequences(), reward_model=name, discriminator=SMALL_CNN_OF_2, objective=objective)
    tokens, lengths = torch.empty(0, T, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert game.reward_model.score(tokens, lengths).shape == (0,)
    assert completion_score(game.reward_model)(tokens, lengths).shape == (0,)
    assert game.action_values(tokens, lengths, lengths, range(T)).shape == (0, T)
    assert all(values.shape == (0,) for values in game.final_info(tokens, lengths).values())


# Attributes


def test_what_was_copied_or_built_from_cannot_be_changed() -> None:
    mixture = ObjectiveMixture(ConstantReward(0.0), ConstantReward(1.0), 0.25)
    for model, name in [
        (mixture, "weight"),
        (mixture, "weighted_models"),
        (small_discriminator().discriminator, "config"),
        (make_game(V, T, real_sequences(), reward_model="rank", discriminator=SMALL_CNN_OF_2).reward_model, "config"),
        (make_game(V, T, real_sequences(), reward_model="density-ratio").reward_model, "config"),
    ]:
        with pytest.raises(AttributeError, match=f"{name} of a {type(model).__name__} cannot be changed"):
            setattr(model, name, getattr(model, name))
