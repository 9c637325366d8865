"""Rewards that know nothing of real sequences: what an agent gains from them, it gains without any discriminator."""

from typing import Any

import torch
from torch import Tensor

from seqgan_env.rewards.reward_model import RewardModel
from seqgan_env.support.hashed_random import key_of_each, uniform


class ConstantReward(RewardModel):
    """A control: every sequence is worth the same."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`value`, `(n,)` times."""
        return torch.full((len(tokens),), self.value, device=tokens.device)

    def description(self) -> dict[str, Any] | None:
        """See `RewardModel`; only of the default value."""
        return {"reward_model": "constant"} if self.value == ConstantReward().value else None


class RandomReward(RewardModel):
    """A control: a fixed random function of the sequence, uniform in [0, 1)."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Uniform numbers `(n,)`; the same sequence gets the same one."""
        return uniform(key_of_each(tokens, self.seed))

    def description(self) -> dict[str, Any]:
        """See `RewardModel`."""
        return {"reward_model": "random", "model_seed": self.seed}
