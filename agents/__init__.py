"""SeqGAN's generator on Stable-Baselines3, its pretraining, and what other SB3 algorithms need to play."""

import seqgan_env  # noqa: F401 # isort: skip # must come before torch, because it sets how torch's threads wait

import sys

from agents import prefix_extractor
from agents.callbacks import DiscriminatorCallback, EvaluationCallback
from agents.contract_check import ContractCheck, ContractWarning, check_contract
from agents.policy import GeneratorPolicy
from agents.prefix_extractor import PrefixExtractor, token_policy
from agents.reinforce import Reinforce
from agents.vec_env import SB3VecEnv
from seqgan_env.models.likelihood import PretrainConfig, pretrain

__all__ = [
    "ContractCheck",
    "ContractWarning",
    "DiscriminatorCallback",
    "EvaluationCallback",
    "GeneratorPolicy",
    "PrefixExtractor",
    "PretrainConfig",
    "Reinforce",
    "SB3VecEnv",
    "check_contract",
    "pretrain",
    "token_policy",
]

# Agents that were saved before name the module of `PrefixExtractor` as it was called then.
sb3 = sys.modules[f"{__name__}.sb3"] = prefix_extractor
