"""The controls: constant and random rewards."""

import pytest
import torch
from torch import Tensor

from seqgan_env.rewards.controls import ConstantReward, RandomReward
from tests.small import T, V

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


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
