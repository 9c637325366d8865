"""SeqGAN as a reinforcement-learning environment: writing sequences for a reward that says how real they are."""

import os
import sys
from importlib import import_module

__version__ = "0.1.0"

# Torch reads this when it is loaded, so it must be set first. By default, waiting threads spin: as soon as anything else runs
# on the machine, they take the time of the very threads that they wait for, and everything becomes several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from gymnasium.envs.registration import register

from seqgan_env.data.corpus import Corpus, Vocabulary, read_corpus
from seqgan_env.game import SequenceGame
from seqgan_env.games import make_game, oracle_game, text_game
from seqgan_env.models.generators import GeneratorConfig, make_generator
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.oracle import load_oracle, seeded_oracle
from seqgan_env.models.sampling import TokenPolicy
from seqgan_env.models.token_model import TokenModel
from seqgan_env.models.transformer import TokenTransformer
from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.custom import FunctionReward, RewardError, load_function
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.mixture import MixtureReward, ObjectiveMixture
from seqgan_env.rewards.monte_carlo import MonteCarloSearch, UniformPolicy
from seqgan_env.rewards.ranking import RankConfig, RankReward
from seqgan_env.rewards.reward_model import LearningRewardModel, RewardModel
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within
from seqgan_env.saved_game import load_game, load_generator
from seqgan_env.sequence_env import OracleEnv, SequenceEnv, TextEnv
from seqgan_env.support.device import resolve_device
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

# Older programs, and agents that they saved, use the names that modules had before they moved into folders.
for _old, _new in {
    "faults": "support.errors",
    "generators": "models.generators",
    "reference_sequences": "evaluation.reference_sequences",
    "sample_command": "commands.sample",
    "sampling": "models.sampling",
    "storage": "saved_game",
    "token_model": "models.token_model",
    "vocabulary": "data.vocabulary",
}.items():
    globals()[_old] = sys.modules[f"{__name__}.{_old}"] = import_module(f"{__name__}.{_new}")
for _maker in (make_game, oracle_game, text_game):
    setattr(import_module(f"{__name__}.game"), _maker.__name__, _maker)
