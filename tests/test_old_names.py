"""Older programs, and agents saved by them, find modules by the names that they had before they moved."""

import importlib
import pickle

import pytest

import seqgan_env
from agents import PrefixExtractor
from seqgan_env import GeneratorConfig

NAMES = {
    "faults": "NumericalFault",
    "game": "make_game",
    "generators": "GeneratorConfig",
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


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("seqgan_env.inspection", ["ObservationPolicy"]),
        ("seqgan_env.metrics", ["valid_share"]),
        ("seqgan_env.evaluation", ["LABELS", "BleuPoint", "EvaluationSettings", "Findings", "evaluate"]),
        ("agents.config", ["PRESETS", "AdversarialConfig", "EvaluationConfig", "OracleConfig", "TextConfig", "TrainConfig"]),
    ],
)
def test_modules_and_packages_keep_names_that_programs_used(module: str, names: list[str]) -> None:
    for name in names:
        assert hasattr(importlib.import_module(module), name), name


def test_saved_agents_find_the_prefix_extractor() -> None:
    assert pickle.loads(b"cagents.sb3\nPrefixExtractor\n.") is PrefixExtractor


def test_saved_actor_critics_find_their_generators_config() -> None:
    assert pickle.loads(b"cseqgan_env.generators\nGeneratorConfig\n.") is GeneratorConfig
