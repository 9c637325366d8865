"""How real the discriminator takes a sequence to be, as a reward."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.rewards.reward_model import LearningRewardModel
from seqgan_env.rewards.text_cnn import TextCNN
from seqgan_env.support.process_group import Workers

DiscriminatorScaling = Literal["probability", "centred", "log", "ratio"]

MAX_RATIO = 100.0
"""The greatest reward under the scaling `"ratio"`: beyond it, one sequence would have a whole batch's weight."""


class DiscriminatorReward(LearningRewardModel):
    """How real the discriminator takes a sequence to be (paper, eq. 4).

    Args:
        discriminator: the network.
        scaling: `"probability"` D in [0, 1], as published; `"centred"` 2D - 1; `"log"` log D; `"ratio"` D / (1 - D), at most
            `MAX_RATIO`: of densities, real to generated (MaliGAN: Che et al., 2017, section 3.1), for the baseline
            `"maligan"`. Where sequences can end early, a reward of one sign favours one length, and `"centred"` does not.

    Raises:
        ValueError: an unknown scaling.
    """

    def __init__(self, discriminator: TextCNN, scaling: DiscriminatorScaling = "probability") -> None:
        if scaling not in get_args(DiscriminatorScaling):
            raise ValueError(f"scaling must be one of {get_args(DiscriminatorScaling)}, got {scaling!r}.")
        self.discriminator = discriminator
        self.scaling = scaling

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scaled probabilities `(n,)`."""
        return self.scale(self.discriminator.log_odds(tokens))

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """`score`, with products made in the precision that the discriminator is configured for."""
        return self.scale(self.discriminator.log_odds(tokens, self.discriminator.config.precision))

    def scale(self, log_odds: Tensor) -> Tensor:
        """The reward for given log odds of being real."""
        if self.scaling == "log":
            return F.logsigmoid(log_odds)
        if self.scaling == "ratio":
            return log_odds.clamp(max=math.log(MAX_RATIO)).exp()
        probability = torch.sigmoid(log_odds)
        return probability if self.scaling == "probability" else 2 * probability - 1

    def log_odds(self, tokens: Tensor) -> Tensor:
        """Log of the odds of being real, `(n,)`."""
        return self.discriminator.log_odds(tokens)

    def probability(self, tokens: Tensor) -> Tensor:
        """Probability of being real, `(n,)`."""
        return self.discriminator.probability(tokens)

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train the discriminator; see `TextCNN.fit`."""
        return self.discriminator.fit(real, generated)

    def share_work(self, workers: Workers) -> None:
        """See `RewardModel`."""
        self.discriminator.workers = workers

    def training_state(self) -> dict[str, Any]:
        """See `TextCNN.training_state`."""
        return self.discriminator.training_state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """See `TextCNN.load_training_state`."""
        self.discriminator.load_training_state(state)

    def networks(self) -> dict[str, nn.Module]:
        """The discriminator."""
        return {"discriminator.safetensors": self.discriminator}

    def description(self) -> dict[str, Any]:
        """See `RewardModel`."""
        config = dataclasses.asdict(self.discriminator.config)
        return {"reward_model": "discriminator", "scaling": self.scaling, "discriminator": config}
