"""Rewards of finished sequences, and values of prefixes: the mean reward of their completions."""

from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.custom import FunctionReward, RewardError, load_function
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.rewards.discriminator import DiscriminatorReward, DiscriminatorScaling
from seqgan_env.rewards.mixture import MixtureReward, ObjectiveMixture
from seqgan_env.rewards.monte_carlo import MonteCarloSearch, UniformPolicy
from seqgan_env.rewards.ranking import RankConfig, RankReward
from seqgan_env.rewards.reward_model import LearningRewardModel, RewardModel, learns
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within

__all__ = [
    "BleuReward",
    "ConstantReward",
    "DensityRatioConfig",
    "DensityRatioReward",
    "DiscriminatorReward",
    "DiscriminatorScaling",
    "FunctionReward",
    "LearningRewardModel",
    "MixtureReward",
    "MonteCarloSearch",
    "ObjectiveMixture",
    "RandomReward",
    "RankConfig",
    "RankReward",
    "RewardError",
    "RewardModel",
    "TextCNN",
    "TextCNNConfig",
    "UniformPolicy",
    "learns",
    "load_function",
    "widths_within",
]
