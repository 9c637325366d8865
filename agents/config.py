"""The old name of `train.py`'s settings and presets, which are in `agents.experiment`."""

from agents.experiment.config import AdversarialConfig, EvaluationConfig, OracleConfig, TextConfig, TrainConfig
from agents.experiment.presets import PRESETS

__all__ = ["PRESETS", "AdversarialConfig", "EvaluationConfig", "OracleConfig", "TextConfig", "TrainConfig"]
