"""Control rewards that know nothing of real sequences: gains from them do not come from a discriminator."""

from typing import Any

import torch
from torch import Tensor

from seqgan_env.rewards.reward_model import RewardModel
from seqgan_env.support.hashed_random import key_of_each, uniform


class ConstantReward(RewardModel):
    """A control: every sequence has the same reward."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`value` for each sequence, `(n,)`."""
        return torch.full((len(tokens),), self.value, device=tokens.device)

    def description(self) -> dict[str, Any] | None:
        """See `RewardModel`; None unless `value` is the default."""
        return {"reward_model": "constant"} if self.value == ConstantReward().value else None


class RandomReward(RewardModel):
    """A control: a fixed random function of the sequence, uniform in [0, 1)."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Uniform numbers `(n,)`, a function of the sequence."""
        return uniform(key_of_each(tokens, self.seed))

    def description(self) -> dict[str, Any]:
        """See `RewardModel`."""
        return {"reward_model": "random", "model_seed": self.seed}
