"""Runs of train.py that take a second."""

from pathlib import Path
from typing import Any

from agents.experiment.config import AdversarialConfig, EvaluationConfig, OracleConfig, TextConfig
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.models.likelihood import PretrainConfig
from seqgan_env.rewards.density_ratio import DensityRatioConfig
from seqgan_env.rewards.text_cnn import TextCNNConfig
from tests.programs import ROOT

SENTENCES = ROOT / "examples" / "sentences.txt"
TINY: dict[str, Any] = {
    "device": "cpu",
    "generator": GeneratorConfig(embedding_dim=4, hidden_dim=4),
    "pretrain": PretrainConfig(epochs=2, batch_size=16),
    "discriminator": TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1),
    "adversarial": AdversarialConfig(updates=3, batch_size=8, n_rollouts=2, d_pretrain_steps=2, d_steps=1, n_generated=16),
    "evaluation": EvaluationConfig(n_samples=32, n_held_out=32, every_epochs=1, every_updates=1, sweep=False),
}
OBJECTIVE = {"objective": "tests.tiny_runs:share_of_different"}
RATIO = {"reward_model": "density-ratio"}
SMALL_RATIO = DensityRatioConfig(model=GeneratorConfig(embedding_dim=3, hidden_dim=3), batch_size=8)


def oracle_config(tmp_path: Path, **changes: Any) -> OracleConfig:
    return OracleConfig(**{**TINY, "sequence_length": 6, "vocab_size": 20, "n_real": 64, "out": tmp_path, **changes})


def text_config(tmp_path: Path, **changes: Any) -> TextConfig:
    return TextConfig(**{**TINY, "data": SENTENCES, "out": tmp_path, **changes})


def only_run(folder: Path) -> Path:
    (run,) = folder.iterdir()
    return run


def share_of_different(sequence: list[int]) -> float:
    """An objective: the share of different tokens, 0 for an empty sequence."""
    return len(set(sequence)) / max(1, len(sequence))


def shares_of_different(sequences: list[list[int]]) -> list[float]:
    return [share_of_different(sequence) for sequence in sequences]
