"""Reward models by name, and how to make each for a game."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from seqgan_env.models.sampling import Mask
from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.rewards.discriminator import DiscriminatorReward, DiscriminatorScaling
from seqgan_env.rewards.monte_carlo import UniformPolicy
from seqgan_env.rewards.ranking import RankConfig, RankReward
from seqgan_env.rewards.reward_model import RewardModel
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within
from seqgan_env.support.settings import PositiveInt, Range

RewardName = Literal["discriminator", "density-ratio", "rank", "bleu", "constant", "random"]


@dataclass(frozen=True)
class ScoringRules:
    """How sequences and prefixes are scored: options of a game that are also flags of train.py, with their help."""

    n_rollouts: PositiveInt = 16
    """Monte Carlo completions of each prefix."""
    reward_model: RewardName = "discriminator"
    """The judge of sequences: the discriminator; density-ratio, a discriminator that knows the generator's density and scores
    each token; rank (RankGAN); bleu (PG-BLEU); or a control, constant or random."""
    scaling: DiscriminatorScaling = "probability"
    """How the discriminator's probability D becomes a reward: probability, D itself; centred, 2D - 1; log, log D; or ratio,
    D / (1 - D), for the baseline maligan."""
    density_ratio: DensityRatioConfig = field(default_factory=DensityRatioConfig)
    ranking: RankConfig = field(default_factory=RankConfig)
    objective_weight: Annotated[float, Range(above=0, most=1)] = 0.5
    """The objective's weight; the reward model has 1 minus this, ORGAN's lambda. At 1 only the objective counts."""
    objective_batched: bool = False
    """The objective takes a list of sequences and returns a list of numbers."""


@dataclass(frozen=True, eq=False)
class RewardSettings:
    """The settings from which named reward models are made; each uses what it needs. See `make_game`."""

    vocab_size: int
    sequence_length: int
    real: Callable[[], Tensor]
    """Returns the real sequences `(n, sequence_length)`; a function, because some models never need them."""
    rules: ScoringRules
    discriminator: TextCNNConfig | None = None
    seed: int = 0
    end_token: int | None = None
    mask: Mask | None = None
    device: torch.device | str = "cpu"

    def network(self) -> TextCNN:
        """The network of the discriminator or ranker; by default with the published windows that fit the sequence."""
        config = self.discriminator or widths_within(self.sequence_length, TextCNNConfig())
        return TextCNN(self.vocab_size, self.sequence_length, config, seed=self.seed, device=self.device)

    def density(self) -> DensityRatioReward:
        """The density ratio."""
        return DensityRatioReward(
            self.vocab_size,
            self.sequence_length,
            UniformPolicy(self.vocab_size, self.device),
            self.rules.density_ratio or DensityRatioConfig(),  # older programs pass None for the default
            end_token=self.end_token,
            mask=self.mask,
            seed=self.seed,
            device=self.device,
        )


REWARD_MODELS: dict[RewardName, Callable[[RewardSettings], RewardModel]] = {
    "discriminator": lambda game: DiscriminatorReward(game.network(), game.rules.scaling),
    "density-ratio": lambda game: game.density(),
    "rank": lambda game: RankReward(game.network(), game.real(), game.rules.ranking or RankConfig(), seed=game.seed),
    "bleu": lambda game: BleuReward(game.real(), game.vocab_size),
    "constant": lambda game: ConstantReward(),
    "random": lambda game: RandomReward(game.seed),
}
"""Makes the reward model with a name; its `description` returns the name and the settings."""
