"""The discriminator's reward against its formula."""

import math
from typing import Any

import pytest
import torch

from seqgan_env.rewards.discriminator_reward import MAX_RATIO, DiscriminatorReward
from tests.small import T, V, small_discriminator

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
