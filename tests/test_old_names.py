"""Older programs, and agents saved by them, find modules by the names that they had before they moved."""

import importlib
import pickle

import pytest

import seqgan_env
from agents import PrefixExtractor

NAMES = {
    "faults": "NumericalFault",
    "game": "make_game",
    "reference_sequences": "reference_of",
    "rewards": "MixtureReward",
    "sample_command": "sample_with",
    "sampling": "sample_sequences",
    "storage": "load_game",
    "token_model": "TokenModel",
    "vocabulary": "one_line",
}


@pytest.mark.parametrize("module", NAMES)
def test_modules_are_found_by_import_and_as_attributes(module: str) -> None:
    imported = importlib.import_module(f"seqgan_env.{module}")
    assert hasattr(imported, NAMES[module])
    assert getattr(seqgan_env, module) is imported


def test_saved_agents_find_the_prefix_extractor() -> None:
    assert pickle.loads(b"cagents.sb3\nPrefixExtractor\n.") is PrefixExtractor
