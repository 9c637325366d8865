"""Weighted sums of reward models, and what the game uses of their parts."""

import math
from typing import Any

import gymnasium as gym
import pytest
import torch

from seqgan_env.games import make_game
from seqgan_env.rewards.controls import ConstantReward
from seqgan_env.rewards.mixture import MixtureReward, ObjectiveMixture
from seqgan_env.rewards.text_cnn import TextCNNConfig
from tests.small import Ordinal, Recorder, T, V, real_sequences, small_discriminator, small_game

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])
SMALL_CNN_OF_2 = TextCNNConfig(widths=(1, 2), n_filters=(3, 3), embedding_dim=4)


def test_a_mixture_is_the_weighted_sum() -> None:
    mixture = MixtureReward([(2.0, ConstantReward(3.0)), (-0.5, Ordinal())])
    expected = 6 - 0.5 * Ordinal().score(TOKENS, LENGTHS)
    torch.testing.assert_close(mixture.score(TOKENS, LENGTHS), expected)


def test_fitting_a_mixture_fits_its_learning_parts() -> None:
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
    assert mixture.log_odds(TOKENS) is not None
    assert torch.equal(mixture.log_odds(TOKENS), discriminator.log_odds(TOKENS))
    assert mixture.fit(TOKENS, TOKENS[:2]).keys() >= {"loss", "accuracy"}


@pytest.mark.parametrize("weight", [0.0, 1.0, -1.0, math.nan])
def test_a_weight_that_is_not_between_0_and_1_is_refused(weight: float) -> None:
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


def test_an_empty_mixture_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        MixtureReward([])


def test_a_mixture_has_the_odds_of_its_first_discriminator() -> None:
    first, second = small_discriminator(), small_discriminator(seed=1)
    nested = MixtureReward([(1, ConstantReward()), (1, MixtureReward([(1, first)])), (1, second)])
    for asked, expected in ((nested.log_odds, first.log_odds), (nested.probability, first.probability)):
        found = asked(TOKENS)
        assert found is not None
        assert torch.equal(found, expected(TOKENS))
    without = MixtureReward([(1, ConstantReward()), (1, Ordinal())])
    assert without.log_odds(TOKENS) is None
    assert without.probability(TOKENS) is None


def test_the_parts_of_nested_mixtures_are_listed() -> None:
    constant, recorder, ordinal = ConstantReward(), Recorder(), Ordinal()
    nested = MixtureReward([(1, constant), (1, MixtureReward([(1, recorder), (1, ordinal)]))])
    assert [part.unwrapped for part in nested.parts] == [constant, recorder, ordinal]
    assert [part.learns for part in nested.parts] == [False, True, False]


def test_a_mixture_that_does_not_learn_is_not_retrained() -> None:
    mixture = MixtureReward([(1.0, ConstantReward())])
    with pytest.raises(ValueError, match="retrain_every=5, but MixtureReward does not learn"):
        small_game(reward_model=mixture, retrain_every=5)
    with pytest.raises(TypeError, match="MixtureReward does not learn"):
        small_game(reward_model=mixture).retrain(TOKENS)


def test_fixed_settings_cannot_be_changed() -> None:
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
