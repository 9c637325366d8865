"""The reward models that have a name, and how each is made for a game."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from seqgan_env.models.sampling import Mask
from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.rewards.discriminator_reward import DiscriminatorReward, DiscriminatorScaling
from seqgan_env.rewards.monte_carlo import UniformPolicy
from seqgan_env.rewards.ranking import RankConfig, RankReward
from seqgan_env.rewards.reward_model import RewardModel
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within

RewardName = Literal["discriminator", "density-ratio", "rank", "bleu", "constant", "random"]


@dataclass(frozen=True, eq=False)
class RewardSettings:
    """What the reward models with a name are made from; each takes what it needs. See `make_game`."""

    vocab_size: int
    sequence_length: int
    real: Callable[[], Tensor]
    """Makes the real sequences `(n, sequence_length)`: some models never need them."""
    end_token: int | None = None
    mask: Mask | None = None
    discriminator: TextCNNConfig | None = None
    scaling: DiscriminatorScaling = "probability"
    density_ratio: DensityRatioConfig | None = None
    ranking: RankConfig | None = None
    seed: int = 0
    device: torch.device | str = "cpu"

    def network(self) -> TextCNN:
        """The discriminator's or the ranker's network; by default with the published windows that fit the sequence."""
        config = self.discriminator or widths_within(self.sequence_length, TextCNNConfig())
        return TextCNN(self.vocab_size, self.sequence_length, config, seed=self.seed, device=self.device)

    def density(self) -> DensityRatioReward:
        """The density ratio."""
        return DensityRatioReward(
            self.vocab_size,
            self.sequence_length,
            UniformPolicy(self.vocab_size, self.device),
            self.density_ratio or DensityRatioConfig(),
            end_token=self.end_token,
            mask=self.mask,
            seed=self.seed,
            device=self.device,
        )


REWARD_MODELS: dict[RewardName, Callable[[RewardSettings], RewardModel]] = {
    "discriminator": lambda rules: DiscriminatorReward(rules.network(), rules.scaling),
    "density-ratio": lambda rules: rules.density(),
    "rank": lambda rules: RankReward(rules.network(), rules.real(), rules.ranking or RankConfig(), seed=rules.seed),
    "bleu": lambda rules: BleuReward(rules.real(), rules.vocab_size),
    "constant": lambda rules: ConstantReward(),
    "random": lambda rules: RandomReward(rules.seed),
}
"""Makes the reward model of a name; its `description` says the name and the settings again."""
