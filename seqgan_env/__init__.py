"""SeqGAN as a reinforcement-learning environment: writing sequences for a reward that says how real they are."""

import os

__version__ = "0.1.0"

# torch reads this when it is loaded, so it comes before. By default a thread that waits for another one spins: as soon as
# anything else runs on the machine, it takes the very time that the other one needs, and all becomes several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from gymnasium.envs.registration import register

from seqgan_env.corpus import Corpus, Vocabulary, read_corpus
from seqgan_env.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.discriminator import TextCNN, TextCNNConfig, widths_within
from seqgan_env.game import SequenceGame, make_game, oracle_game, resolve_device, text_game
from seqgan_env.generators import GeneratorConfig, make_generator
from seqgan_env.monte_carlo import MonteCarloSearch, UniformPolicy
from seqgan_env.oracle import load_oracle, seeded_oracle
from seqgan_env.ranking import RankConfig, RankReward
from seqgan_env.recurrent import TokenLSTM
from seqgan_env.reward_functions import FunctionReward, RewardError, load_function
from seqgan_env.rewards import (
    BleuReward,
    ConstantReward,
    DiscriminatorReward,
    LearningRewardModel,
    MixtureReward,
    ObjectiveMixture,
    RandomReward,
    RewardModel,
)
from seqgan_env.sampling import TokenPolicy
from seqgan_env.sequence_env import OracleEnv, SequenceEnv, TextEnv
from seqgan_env.storage import load_game, load_generator
from seqgan_env.token_model import TokenModel
from seqgan_env.transformer import TokenTransformer
from seqgan_env.vector_env import OracleVectorEnv, PlayedEpisodes, SequenceVectorEnv, TextVectorEnv

__all__ = [
    "BleuReward",
    "ConstantReward",
    "Corpus",
    "DensityRatioConfig",
    "DensityRatioReward",
    "DiscriminatorReward",
    "FunctionReward",
    "GeneratorConfig",
    "LearningRewardModel",
    "MixtureReward",
    "MonteCarloSearch",
    "ObjectiveMixture",
    "OracleEnv",
    "OracleVectorEnv",
    "PlayedEpisodes",
    "RandomReward",
    "RankConfig",
    "RankReward",
    "RewardError",
    "RewardModel",
    "SequenceEnv",
    "SequenceGame",
    "SequenceVectorEnv",
    "TextCNN",
    "TextCNNConfig",
    "TextEnv",
    "TextVectorEnv",
    "TokenLSTM",
    "TokenModel",
    "TokenPolicy",
    "TokenTransformer",
    "UniformPolicy",
    "Vocabulary",
    "load_function",
    "load_game",
    "load_generator",
    "load_oracle",
    "make_game",
    "make_generator",
    "oracle_game",
    "read_corpus",
    "resolve_device",
    "seeded_oracle",
    "text_game",
    "widths_within",
]

register(
    "SeqGAN/Oracle-v0",
    entry_point="seqgan_env.sequence_env:OracleEnv",
    vector_entry_point="seqgan_env.vector_env:OracleVectorEnv",
)
register(
    "SeqGAN/Text-v0",
    entry_point="seqgan_env.sequence_env:TextEnv",
    vector_entry_point="seqgan_env.vector_env:TextVectorEnv",
)
