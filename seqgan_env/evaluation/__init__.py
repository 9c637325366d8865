"""Evaluate a run: quality and coverage together, over temperatures, compared with the likelihood start."""

from seqgan_env.evaluation.reference_sequences import Reference, read_reference, reference_of
from seqgan_env.evaluation.run_evaluation import LABELS, BleuPoint, Evaluation, EvaluationSettings, Findings, evaluate

__all__ = [
    "LABELS",
    "BleuPoint",
    "Evaluation",
    "EvaluationSettings",
    "Findings",
    "Reference",
    "evaluate",
    "read_reference",
    "reference_of",
]
